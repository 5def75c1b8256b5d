"""Evidence measured: the chain, the trees, and what keeping them takes from appends and workers.

The trees are work of one core, so they are told in its time: what others do beside counts less. The
chain is checked by two processes, so it is told by the clock, with the cores that each side had.
"""

import asyncio
import hashlib
import os
import shutil
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import apsw
from tests.bench.fixtures import joined, turn

from madlog.schemas import encode
from madlog.topics import EventLog
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.evidence import Keeper, SigningKey, Tiles
from madlog.topics.evidence.leaves import record_hash
from madlog.topics.log import Record
from madlog.topics.positions import TopicPartition
from madlog.wiring import open_event_log, open_worker

__all__ = ("LEAVES", "measure")

LEAVES = 1_000_000
_CHECKED = 400_000
# A round of some seconds: over less, one slow sync of the disk is more than what is measured.
_APPENDED = 60_000
_ROUTED = 4_000
_TREE = TopicPartition("mad.conversations", 0)
_KEY = SigningKey.new(bytes(range(32)), "example.com/log")
_BATCH = 10_000
# How often the trees are taken up to the log's end here: a worker does it once a minute.
_EVERY_S = 1.0


async def measure(folder: Path, rounds: int, leaves: int) -> list[dict[str, Any]]:
    """Run the four pairs by turns; a row each."""
    return [
        await _chain(folder / "chain", rounds),
        _trees(folder, rounds, leaves),
        await _pair(
            "durable append, batches of 100: with evidence kept and signed / without",
            rounds,
            lambda name, kept: _append(folder / name, kept),
        ),
        await _pair(
            "worker end to end: with evidence kept and signed / without",
            rounds,
            lambda name, kept: _work(folder / name, kept),
        ),
    ]


async def _chain(folder: Path, rounds: int) -> dict[str, Any]:
    log = await open_event_log(str(folder))
    for first in range(0, _CHECKED, 2_000):
        await log.append([turn(first + i, 20_000, key=False) for i in range(2_000)])
    await log.close()
    backend = await EmbeddedLog.open(folder, create=False)
    ours, base = [], []
    cores: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        begun, used = perf_counter(), _cpu_s()
        assert [damage async for damage in backend.check()] == []
        between, used_between = perf_counter(), _cpu_s()
        count = _bare_scan(folder / "log.sqlite")
        end, used_end = perf_counter(), _cpu_s()
        ours.append(count / (between - begun))
        base.append(count / (end - between))
        cores[0].append((used_between - used) / (between - begun))
        cores[1].append((used_end - used_between) / (end - between))
    await backend.close()
    had = " / ".join(f"{statistics.median(one):.1f}" for one in cores)
    return _row(
        f"madlog check: pages, checksums, chain / SQLite scan of the rows (cores: {had})",
        *(ours, base, 0.4),
    )


def _cpu_s() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _bare_scan(file: Path) -> int:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    count = 0
    for (table,) in connection.execute(
        "SELECT name FROM sqlite_schema WHERE name GLOB 'r[0-9]*'"
    ).fetchall():
        for _ in connection.execute(f"SELECT * FROM {table} ORDER BY offset"):
            count += 1
    connection.close()
    return count


def _records(count: int) -> list[Record]:
    made = []
    for number in range(count):
        one = turn(number, 20_000, key=False)
        key = one.conversation_id.encode()
        headers = (("kind", b"Turn"), ("sender", b"ada"), ("conversation", key))
        made.append(Record("mad.conversations", 0, number, key, encode(one), headers, 0))
    return made


def _trees(folder: Path, rounds: int, leaves: int) -> dict[str, Any]:
    """Records to the root in the tiles; beside it a bare loop that hashes the same bytes."""
    # Hashing knows no caches of content: the same records again cost what others would.
    records = _records(_BATCH)
    batches = leaves // _BATCH
    ours, base = [], []
    for number in range(rounds):
        begun = process_time()
        with Tiles(folder / f"hashes-{number}") as tiles:
            tree = tiles.tree(_TREE)
            for batch in range(batches):
                hashes = [record_hash(record) for record in records]
                start = batch * _BATCH
                end = start + _BATCH
                tree = tiles.extend(_TREE, tree, hashes, range(start, end), end)
            tiles.root(_TREE, tree.size)
        ours.append(batches * _BATCH / (process_time() - begun))
        begun = process_time()
        _plain_root(records, batches)
        base.append(batches * _BATCH / (process_time() - begun))
    row = _row(
        f"trees: {leaves:,} records hashed into tiles, a core / bare loop in memory", ours, base, 0
    )
    seconds = 10_000_000 / statistics.median(ours)
    return {**row, "reach": f"10 M ≤ 60 s: {seconds:.1f} s", "met": seconds <= 60}


def _plain_root(records: list[Record], batches: int) -> bytes:
    """A root of the same leaves by the shortest loop: hash each, then pairs of pairs at the end."""
    sha256 = hashlib.sha256
    level = [
        sha256(b"\x00" + record.key + record.value).digest()
        for _ in range(batches)
        for record in records
    ]
    while len(level) > 1:
        level = [
            sha256(b"\x01" + level[at] + level[at + 1]).digest()
            for at in range(0, len(level) - 1, 2)
        ] + level[len(level) & ~1 :]
    return level[0]


async def _keeping(log: EventLog, tiles: Tiles, done: asyncio.Event) -> None:
    """Keep the trees while the others work, and sign them at the end."""
    keeper = Keeper(log, tiles, _KEY)
    while not done.is_set():
        await keeper.run()
        try:
            await asyncio.wait_for(done.wait(), _EVERY_S)
        except TimeoutError:
            continue
    await keeper.run()


async def _beside(
    folder: Path, log: EventLog, work: Awaitable[Any], kept: bool, count: int
) -> float:
    """Return events a second of some work; with evidence, until all of it is signed."""
    begun = perf_counter()
    if not kept:
        await work
    else:
        with Tiles(folder / "evidence.sqlite") as tiles:
            done = asyncio.Event()
            keeping = asyncio.ensure_future(_keeping(log, tiles, done))
            await work
            done.set()
            await keeping
    rate = count / (perf_counter() - begun)
    await log.close()
    shutil.rmtree(folder)
    return rate


async def _append(folder: Path, kept: bool) -> float:
    log = await open_event_log(str(folder))
    await log.append([turn(0)])

    async def append() -> None:
        for first in range(1, _APPENDED, 100):
            await log.append([turn(first + i) for i in range(100)])

    return await _beside(folder, log, append(), kept, _APPENDED)


async def _work(folder: Path, kept: bool) -> float:
    log = await open_event_log(str(folder))
    await log.append(joined(200))
    for first in range(0, _ROUTED, 500):
        await log.append([turn(first + i, key=False) for i in range(500)])
    return await _beside(folder, log, open_worker(log).run(until_idle=True), kept, _ROUTED)


async def _pair(
    what: str, rounds: int, run: Callable[[str, bool], Awaitable[float]]
) -> dict[str, Any]:
    """Run both by turns; which of them begins changes too, so that neither has the better half."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        for kept in (True, False) if number % 2 == 0 else (False, True):
            rates[kept].append(await run(f"{number}-{kept}", kept))
    return _row(what, rates[True], rates[False], 0.85)


def _row(what: str, ours: list[float], base: list[float], reach: float) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "what": what,
        "ours": round(statistics.median(ours)),
        "baseline": round(statistics.median(base)),
        "unit": "/s",
        "ratio": round(ratio, 3),
        "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "reach": f"≥ {reach}",
        "met": ratio >= reach,
    }
