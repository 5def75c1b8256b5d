"""kill -9 of a writing process at random instants: nothing lost, repeated or out of order."""

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from tests.faults.history import Ack, History, anomalies
from tests.faults.writer import TOPIC, open_log, start, write

from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.log import Record
from madlog.topics.positions import Position, Vector

RUN_S_MAX = 0.3


class Killer:
    """Starts writers on a log, kills them, and keeps the history that they leave."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.history = History()
        self.following: dict[str, int] = defaultdict(int)
        self.kills = 0
        self.repeats = 0

    async def cycle(self) -> None:
        """Let writers run for a random time, kill them, and take in their last reports."""
        reports, report = Pipe(duplex=False)
        self.kills += 1
        process = start(write, self.folder, report, dict(self.following), self.rng.getrandbits(32))
        report.close()
        # One in five is killed while it starts; the others some time after they acknowledged.
        if self.rng.random() < 0.8:
            await self._first_report(reports, process)
        until = asyncio.get_running_loop().time() + self.rng.random() * RUN_S_MAX
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self._take(reports)
            await asyncio.sleep(min(left, 0.005))
        assert process.exitcode is None, "the writer ended by itself"
        process.kill()
        with suppress(EOFError, ConnectionError):
            while True:
                self._take_one(reports.recv_bytes())
        reports.close()
        process.join()
        process.close()

    async def _first_report(self, reports: Connection, process: ForkServerProcess) -> None:
        while not reports.poll():
            assert process.exitcode is None, "the writer ended by itself"
            await asyncio.sleep(0.002)

    def _take(self, reports: Connection) -> None:
        for _ in range(200):
            if not reports.poll():
                return
            self._take_one(reports.recv_bytes())

    def _take_one(self, line: bytes) -> None:
        what, partition, offset, key, rest = line.split(b" ", 4)
        name, place = key.decode(), Position(TOPIC, int(partition), int(offset))
        if what != b"seen":
            self.repeats += what == b"again"
            self.history.acks.append(Ack(place, name, int(rest)))
            self.following[name] = int(rest) + 1
        else:
            seen = self.history.readers.setdefault(f"in writer {self.kills}", [])
            seen.append(Record(*place, key, rest, (), 0))


@asynccontextmanager
async def reader(folder: Path, history: History, name: str) -> AsyncIterator[None]:
    """Subscribe from where the reader of that name has come, while the block runs."""
    log = await open_log(folder)
    await log.create_topic(CATALOG[TOPIC])
    seen = history.readers.setdefault(name, [])
    place = dict(await log.start([TOPIC]))
    place.update({r.position.topic_partition: r.offset + 1 for r in seen})
    task = asyncio.create_task(_collect(log, Vector(place), seen))
    try:
        yield
        assert not task.done() or task.result() is None
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await log.close()


async def _collect(log: EmbeddedLog, place: Vector, seen: list[Record]) -> None:
    async for records in log.subscribe(place):
        seen.extend(records)


async def whole_log(folder: Path) -> list[Record]:
    log = await open_log(folder)
    assert [damage async for damage in log.check()] == []
    found: list[Record] = []
    async for records in log.read(Vector(), await log.end([TOPIC])):
        found += records
    await log.close()
    return found


async def kill_often(folder: Path, kills: int, seed: int) -> None:
    killer = Killer(folder, seed)
    checked = 0
    while killer.kills < kills:
        # Between the readers nobody has the log open: the next one recovers the file alone.
        async with reader(folder, killer.history, "beside"):
            for _ in range(killer.rng.randint(1, 2)):
                await killer.cycle()
        if killer.kills >= checked + kills // 5:
            checked = killer.kills
            killer.history.log = await whole_log(folder)
            assert anomalies(killer.history) == [], f"seed {seed}, after {killer.kills} kills"
    history = killer.history
    history.log = await whole_log(folder)
    assert anomalies(history) == [], f"seed {seed}"
    seen = {name: len(records) for name, records in history.readers.items()}
    print(
        f"{killer.kills} kills: {len(history.acks)} acknowledged, {len(history.log)} in the log, "
        f"{killer.repeats} sent again after a kill and found there, "
        f"{seen['beside']} seen by the reader beside, {sum(seen.values()) - seen['beside']} by "
        f"{len(seen) - 1} readers in the writers: 0 lost, 0 repeated, 0 out of order"
    )
    assert len(history.acks) > kills
    assert len(seen) > kills // 2


async def test_no_kill_of_a_writer_loses_repeats_or_reorders_a_record(tmp_path: Path) -> None:
    await kill_often(tmp_path, kills=30, seed=secrets.randbits(32))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_no_kill_of_200_loses_repeats_or_reorders_a_record(tmp_path: Path) -> None:
    await kill_often(tmp_path, kills=200, seed=secrets.randbits(32))
