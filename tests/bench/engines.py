"""Turns a second that each engine routes on one broker, in turn: python -m tests.bench.engines.

Needs MADLOG_KAFKA=HOST:PORT. Counted from an engine's first batch to its last, so that what Faust
takes to start (told beside it) is not in the rate.
"""

import asyncio
import os
import statistics
import sys
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.unit.counting import ORDERS, turns

from madlog.processors import Engine, Report, Router
from madlog.processors.faust import FaustCluster, FaustEngine, Tables
from madlog.processors.live import Limits
from madlog.topics import EventLog
from madlog.topics.kafka import KafkaLog

ENGINES = ("transactional", "faust", "faust with tables")
CONVERSATIONS = 200
ADDED_AT_ONCE = 2_000


def made(name: str, log: EventLog, bootstrap: str, prefix: str, folder: Path) -> Engine:
    """Return an engine by its name."""
    if name == "transactional":
        return Engine(log, [Router(ORDERS)])
    tables = Tables(3_600, Limits()) if name.endswith("tables") else None
    cluster = FaustCluster((bootstrap,), prefix, folder)
    return FaustEngine(log, [Router(ORDERS)], cluster, tables=tables)


async def measured(name: str, bootstrap: str, count: int) -> tuple[float, float]:
    """Return turns a second, and the seconds until the first batch was done."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    log = await EventLog.open(await KafkaLog.open(f"kafka://{bootstrap}?prefix={prefix}"))
    every = turns(count, CONVERSATIONS)
    for at in range(0, count, ADDED_AT_ONCE):
        await log.append(every[at : at + ADDED_AT_ONCE])
    stop, done = asyncio.Event(), []

    def progress(report: Report) -> None:
        done.append((time.perf_counter(), report.events))
        if report.events >= count:
            stop.set()

    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        await made(name, log, bootstrap, prefix, Path(folder)).run(stop=stop, progress=progress)
    await log.close()
    (first, before), (last, after) = done[0], done[-1]
    return (after - before) / (last - first), first - begun


async def main(bootstrap: str, rounds: int, count: int) -> None:
    """Measure all engines, one after another, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in ENGINES}
    starts: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name in ENGINES:
            rate, start = await measured(name, bootstrap, count)
            rates[name].append(rate)
            starts[name].append(start)
    for name in ENGINES:
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        print(
            f"{name:18} {middle:8,.0f} turns/s ({low:,.0f} to {high:,.0f}), "
            f"first batch after {statistics.median(starts[name]):.1f} s"
        )


if __name__ == "__main__":
    arguments = [int(one) for one in sys.argv[1:]]
    asyncio.run(main(os.environ["MADLOG_KAFKA"], *(arguments or (3, 20_000))))
