"""What moving cold records into packs saves, and what reading them from there takes.

A log of turns is archived and copied; of the copy all that can be moved is. Both are scanned and
looked up at random by turns, from the page cache where they fit.
"""

import os
import random
import shutil
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw
from tests.bench.fixtures import turn
from tests.bench.lake_run import _row

from madlog.analytics.lake import Archiver, LakeStore
from madlog.schemas import Turn
from madlog.topics import TopicPartition, Vector
from madlog.topics.cold import ColdStorage
from madlog.topics.log import Log
from madlog.wiring import give_back, open_event_log

__all__ = ("TURNS", "measure")

TURNS = 100_000
_TOPIC = "mad.conversations"
_LOOKS = 200


async def measure(folder: Path, rounds: int, turns: int) -> list[dict[str, Any]]:
    """Measure what so many turns take, warm and cold, and reading them."""
    url, store = str(folder / "log"), LakeStore(str(folder / "lake"))
    log = await open_event_log(url)
    for first in range(0, turns, 2000):
        await log.append([_varied(first + i) for i in range(2000)])
    await Archiver(log, store).run(until_idle=True)
    content = await _content(log.log)
    await log.close()
    shutil.copytree(folder / "log", folder / "warm")
    before = _taken(folder)
    packs, seconds = await _moved(url, store)
    after = _taken(folder)
    warm: list[tuple[float, float]] = []
    cold: list[tuple[float, float]] = []
    for seed in range(rounds):
        for name, found in (("warm", warm), ("log", cold)):
            log = await open_event_log(str(folder / name))
            found.append(await _reading(log.log, seed))
            await log.close()
    scans = [one[0] for one in cold], [one[0] for one in warm]
    looks = [one[1] for one in cold], [one[1] for one in warm]
    return [
        _row("log and lake / bytes of the events", ([before["all"] / content], None), unit=""),
        _row(
            "log, packs and lake after moving / bytes of the events",
            ([after["all"] / content], None),
            most=1.2,
            unit="",
        ),
        _row("of it packs", ([after["packs"] / content], None), unit=""),
        _row("of it the lake's files", ([after["lake"] / content], None), unit=""),
        _row("of it the log's file", ([after["log"] / content], None), unit=""),
        _row("of that keys, to know repeats by", ([after["keys"] / content], None), unit=""),
        _row("moving, bytes of the events", ([content / seconds / 1e6], None), unit="MB/s"),
        _row("records scanned in packs / in the log's file", scans, unit="/s"),
        _row("one record at random in packs, p50 / in the log's file", looks, unit="ms"),
        _row("packs", ([float(packs)], None), unit=""),
    ]


def _varied(number: int) -> Turn:
    """Return a turn of 60 words with a key, as clients append it."""
    return turn(number, 5_000, text=" ".join(f"w{hash((number, k)) % 2000}" for k in range(60)))


async def _moved(url: str, store: LakeStore) -> tuple[int, float]:
    """Move all that can be moved; return how many packs, and in how many seconds."""
    log = await open_event_log(url)
    end = await log.log.end([_TOPIC])
    assert isinstance(log.log, ColdStorage)
    begun = perf_counter()
    packs = [one async for one in log.log.move_cold(end, store.place("cold"))]
    seconds = perf_counter() - begun
    await log.close()
    assert await give_back(url)
    return len(packs), seconds


async def _content(log: Log) -> int:
    found = log.read(Vector(), await log.end([_TOPIC]))
    return sum([len(one.value) + len(one.key) async for some in found for one in some])


async def _reading(log: Log, seed: int) -> tuple[float, float]:
    """Return records scanned a second, and the median of looking one up, in ms."""
    end = await log.end([_TOPIC])
    begun, count = perf_counter(), 0
    async for some in log.read(Vector(), end):
        count += len(some)
    rate = count / (perf_counter() - begun)
    rng = random.Random(seed)
    places = sorted(end)
    took = []
    for _ in range(_LOOKS):
        tp = TopicPartition(*rng.choice(places))
        at = rng.randrange(end[tp] - 1)
        begun = perf_counter()
        [[record]] = [
            some async for some in log.read(Vector({tp: at}), Vector({tp: at + 1}), records_max=1)
        ]
        took.append((perf_counter() - begun) * 1000)
        assert record.offset == at
    return rate, statistics.median(took)


def _taken(folder: Path) -> dict[str, int]:
    """Return the bytes of a log's file, of its index of keys in it, of packs, of the lake."""
    file = folder / "log" / "log.sqlite"
    connection = apsw.Connection(str(file))
    query = "SELECT sum(pgsize) FROM dbstat WHERE aggregate=1 AND name='idempotency'"
    keys = int(connection.execute(query).get or 0)
    connection.close()
    files = {path: os.stat(path).st_size for path in (folder / "lake").rglob("*.*")}
    lake = sum(size for path, size in files.items() if path.suffix == ".parquet")
    packs = sum(size for path, size in files.items() if path.suffix == ".pack")
    log = file.stat().st_size
    return {"log": log, "keys": keys, "packs": packs, "lake": lake, "all": log + packs + lake}
