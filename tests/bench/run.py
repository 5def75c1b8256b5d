"""madlog bench: our paths and the plain loops, alternately in one run; medians and spreads.

Ratios travel between machines, absolute rates do not. Timing is never asserted in a test.
"""

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import plain
from tests.bench.fixtures import joined, turn, turn_schemas
from tests.bench.routing_rows import wrong_folder

from madlog.schemas import Event, Turn, encode
from madlog.topics import EventLog
from madlog.wiring import open_event_log, open_worker

__all__ = (
    "DATA",
    "LAKE",
    "MONTH",
    "NAMES",
    "NULL",
    "ROUTING",
    "SEARCH",
    "WHAT_IF",
    "measure",
    "wrong_folder",
)

_EMBEDDED = ("append", "group-commit", "replay", "router", "memory")
_KAFKA = (
    "kafka-produce",
    "kafka-consume",
    "kafka-router",
    "kafka-processor",
    "kafka-once",
    "kafka-latency",
    "kafka-clients",
)
_ROUTING = ("routing-dtr", "routing-lppm", "routing-process")
ROUTING = ("routing", *_ROUTING)
MONTH = "month"
SEARCH = "search"
WHAT_IF = "what-if"
LAKE = "lake"
_SANDBOX = "sandbox"
_EVIDENCE = "evidence"
NULL = "null"
RETENTION = "retention"
_NAMED = (SEARCH, WHAT_IF, LAKE, RETENTION, _SANDBOX, _EVIDENCE, NULL)
NAMES = (*_EMBEDDED, "kafka", *_KAFKA, *ROUTING, MONTH, *_NAMED)

# The public data sets stand beside the checkout, not in it: they are by others.
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

_PER_ROUND = 4_000


async def _append(folder: Path, rounds: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Durable append of full turns, one writer, batches of 100; and 64 awaiting writers."""
    log = await open_event_log(str(folder / "log"))
    bare = plain.connect(folder / "plain.sqlite")
    ours, base, many, single = [], [], [], []
    number = 0
    for _ in range(rounds):
        begun = perf_counter()
        for _ in range(_PER_ROUND // 100):
            await log.append([turn(number + i) for i in range(100)])
            number += 100
        ours.append(_PER_ROUND / (perf_counter() - begun))
        pairs = [(e.conversation_id.encode(), encode(e)) for e in map(turn, range(_PER_ROUND))]
        begun = perf_counter()
        plain.append_batches(bare, (pairs[i : i + 100] for i in range(0, len(pairs), 100)))
        base.append(_PER_ROUND / (perf_counter() - begun))
        single.append(await _batches_of_64(log, number))
        number += _PER_ROUND
        many.append(await _writers(log, number))
        number += _PER_ROUND
    bare.close()
    await log.close()
    return iter((("append", ours, base), ("group-commit", many, single)))


async def _batches_of_64(log: EventLog, number: int) -> float:
    begun = perf_counter()
    done = 0
    while done < _PER_ROUND:
        size = min(64, _PER_ROUND - done)
        await log.append([turn(number + done + i) for i in range(size)])
        done += size
    return _PER_ROUND / (perf_counter() - begun)


async def _writers(log: EventLog, number: int) -> float:
    each = _PER_ROUND // 64

    async def writer(first: int) -> None:
        for i in range(each):
            await log.append([turn(first + i)])

    begun = perf_counter()
    await asyncio.gather(*(writer(number + w * each) for w in range(64)))
    return 64 * each / (perf_counter() - begun)


async def _replay(folder: Path, rounds: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Replay decoded against a scan of the same file that decodes with fastavro."""
    log = await open_event_log(str(folder / "log"))
    for first in range(0, 40_000, 500):
        await log.append([turn(first + i, key=False) for i in range(500)])
    bare = plain.connect(folder / "plain.sqlite")
    records = [
        (record.record.key, record.record.value)
        async for batch in log.read_topics(["mad.conversations"])
        for record in batch
    ]
    plain.append_batches(bare, [records])
    schemas = turn_schemas()
    ours, base = [], []
    for _ in range(rounds):
        begun = perf_counter()
        count = 0
        async for batch in log.read_topics(["mad.conversations"]):
            count += len(batch)
        ours.append(count / (perf_counter() - begun))
        begun = perf_counter()
        count = plain.scan_decoded(bare, "r", schemas)
        base.append(count / (perf_counter() - begun))
    bare.close()
    await log.close()
    return iter((("replay", ours, base),))


async def _router(folder: Path, rounds: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """The router end to end against a loop that writes the same records it wrote."""
    schemas = turn_schemas()
    ours, base = [], []
    for number in range(rounds):
        log = await open_event_log(str(folder / f"log-{number}"))
        await log.append(joined(200))
        turns = [turn(i, key=False) for i in range(_PER_ROUND)]
        for first in range(0, len(turns), 500):
            await log.append(turns[first : first + 500])
        begun = perf_counter()
        await open_worker(log, None, None).run(until_idle=True)
        ours.append(_PER_ROUND / (perf_counter() - begun))
        made: dict[str, list[tuple[bytes, Event]]] = {}
        async for batch in log.read_topics(["mad.decisions", "mad.inbox.shop"]):
            for event in batch:
                turn_id = event.fields["turn_id"]
                made.setdefault(turn_id, []).append((event.record.key, event.event))
        assert len(made) == _PER_ROUND
        await log.close()
        base.append(_plain_router(folder / f"plain-{number}.sqlite", turns, schemas, made))
    return iter((("router", ours, base),))


def _plain_router(
    path: Path,
    turns: list[Turn],
    schemas: dict[bytes, Any],
    made: dict[str, list[tuple[bytes, Event]]],
) -> float:
    bare = plain.connect(path)
    values = [encode(one) for one in turns]

    def outputs(fields: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        return [(key, encode(event)) for key, event in made[fields["event_id"]]]

    begun = perf_counter()
    count = plain.route_loop(iter(values), schemas, outputs, bare, 500)
    rate = count / (perf_counter() - begun)
    bare.close()
    return rate


def _memory(folder: Path, turns: int) -> list[dict[str, Any]]:
    """Peak memory of a process that replays, and of one that only holds a log open."""
    rows = []
    for what, mode, reach in (
        (f"memory: replay of {turns:,} turns", "replay", 256),
        ("memory: an open, idle log", "idle", 60),
    ):
        out = subprocess.run(
            [sys.executable, __file__, mode, str(folder / "memory"), str(turns)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = json.loads(out)
        rows.append(
            {
                "what": what,
                "ours": round(found["rss_mib"], 1),
                "baseline": None,
                "unit": "MiB",
                "ratio": None,
                "spread": f"{found['seconds']:.1f} s",
                "reach": f"≤ {reach}",
                "met": found["rss_mib"] <= reach,
            }
        )
    return rows


async def _fill(folder: str, turns: int) -> None:
    log = await open_event_log(folder)
    for first in range(0, turns, 2000):
        size = min(2000, turns - first)
        await log.append([turn(first + i, 20_000, key=False) for i in range(size)])
    await log.close()


async def _hold(mode: str, folder: str) -> dict[str, Any]:
    begun = perf_counter()
    log = await open_event_log(folder, create=False)
    count = 0
    if mode == "replay":
        async for batch in log.read_topics(["mad.conversations"]):
            count += len(batch)
    else:
        await asyncio.sleep(0.05)
    await log.close()
    # Linux counts KiB, macOS bytes.
    seconds = perf_counter() - begun
    return {"rss_mib": _peak_bytes() / 2**20, "events": count, "seconds": seconds}


def _peak_bytes() -> int:
    """Return the peak memory; getrusage on Linux would count the parent before exec too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_REACH = {"append": 0.40, "group-commit": 0.5, "replay": 0.85, "router": 0.6}
_WHAT = {
    "append": "durable append, 1 writer, batches of 100 / executemany of the same bytes",
    "group-commit": "64 awaiting writers / our single writer, batches of 64",
    "replay": "replay decoded / SQLite scan + fastavro decode",
    "router": "router end to end / plain loop, same records and encoder",
}


async def measure(
    rounds: int,
    only: Collection[str] | None = None,
    data: Path = DATA,
    seeds: int = 5,
    plot: Path | None = None,
    turns: int | None = None,
) -> list[dict[str, Any]]:
    """Run the benchmarks; a row each: ours, baseline, median and spread of the rounds' ratios.

    `kafka` is all that need a broker, `routing` all that route, whose rows are means over seeds;
    `month` is a simulated one, whose drawing goes to `plot`; `turns` is how many `search`,
    `what-if`, `lake` and `null` are over; without names those that need neither a broker nor
    data, in seconds. Raises NoBroker.
    """
    rows: list[dict[str, Any]] = []
    wanted = only or _EMBEDDED
    on_kafka = [name for name in _KAFKA if name in wanted or "kafka" in wanted]
    if on_kafka:
        # Not above: the processes whose memory is measured begin with this module too.
        from tests.bench import kafka_run

        rows += await kafka_run.measure(rounds, on_kafka)
    routing = [name for name in _ROUTING if name in wanted or "routing" in wanted]
    if routing:
        from tests.bench import routing_run

        rows += routing_run.measure(routing, data, seeds)
    if MONTH in wanted:
        from tests.bench import month

        rows += await month.measure(plot)
    with tempfile.TemporaryDirectory(dir=os.environ.get("MADLOG_BENCH_DIR")) as made:
        folder = Path(made)
        rows += await _asked_for(folder, wanted, rounds, turns)
        for names, function in (
            (("append", "group-commit"), _append),
            (("replay",), _replay),
            (("router",), _router),
        ):
            if not set(names) & set(wanted):
                continue
            place = folder / names[0]
            place.mkdir()
            for name, ours, base in await function(place, rounds):
                rows.append(_row(name, ours, base))
        if "memory" in wanted:
            await _fill(str(folder / "memory"), 1_000_000)
            rows += await asyncio.to_thread(_memory, folder, 1_000_000)
    return rows


async def _asked_for(
    folder: Path, wanted: Collection[str], rounds: int, turns: int | None
) -> list[dict[str, Any]]:
    """Run those that take minutes, and so only when they are named."""
    rows: list[dict[str, Any]] = []
    if SEARCH in wanted:
        from tests.bench import search_run

        rows += await search_run.measure(folder, rounds, turns or search_run.TURNS)
    if _SANDBOX in wanted:
        from tests.bench import sandbox_run

        rows += await sandbox_run.measure(folder, rounds)
    if _EVIDENCE in wanted:
        from tests.bench import evidence_run

        rows += await evidence_run.measure(folder, rounds, evidence_run.LEAVES)
    if WHAT_IF in wanted:
        from tests.bench import what_if_run

        place = folder / WHAT_IF
        place.mkdir()
        rows += await what_if_run.measure(place, rounds, turns or what_if_run.TURNS)
    if LAKE in wanted:
        from tests.bench import lake_run

        place = folder / LAKE
        place.mkdir()
        rows += await lake_run.measure(place, rounds, turns or lake_run.TURNS)
    if RETENTION in wanted:
        from tests.bench import retention_run

        place = folder / RETENTION
        place.mkdir()
        rows += await retention_run.measure(place, rounds, turns or retention_run.TURNS)
    if NULL in wanted:
        from tests.bench import null_run

        place = folder / NULL
        place.mkdir()
        server = os.environ.get("MADLOG_POSTGRES")
        rows += await null_run.measure(place, rounds, turns or null_run.TURNS, server)
    return rows


def _row(name: str, ours: list[float], base: list[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "what": _WHAT[name],
        "ours": round(statistics.median(ours)),
        "baseline": round(statistics.median(base)),
        "unit": "/s",
        "ratio": round(ratio, 3),
        "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "reach": f"≥ {_REACH[name]}",
        "met": ratio >= _REACH[name],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold(sys.argv[1], sys.argv[2]))))
