"""The sandbox: what it adds to a query, by turns with DuckDB alone; how late it kills."""

import statistics
from collections.abc import Collection
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tests.bench.fixtures import turn

from madlog.analytics.columns import KINDS, schema_of
from madlog.analytics.errors import SqlLimit
from madlog.analytics.sandbox import Limits, Sandbox
from madlog.analytics.sql import layout
from madlog.analytics.tables import LogSource, Scan, Table, Tables
from madlog.analytics.views import VIEWS
from madlog.topics import EventLog, Vector
from madlog.topics.memory import MemoryLog

__all__ = ("measure",)

_TURNS = 100_000
_BATCH = 2_000
_KILLS = 100
_THREADS = 2
_OVERHEAD_MS, _LATE_MS = 30.0, 500.0

# Small answers over one file: what a query costs beside them is the sandbox's.
_QUERIES = (
    "SELECT count(*) FROM turns",
    "SELECT sender, count(*) AS n FROM turns GROUP BY sender ORDER BY n DESC, sender LIMIT 10",
    "SELECT max(occurred_at), min(occurred_at) FROM turns",
    "SELECT count(*) FROM turns WHERE text LIKE '%order%'",
    "SELECT conversation_id, count(*) AS n FROM turns GROUP BY 1 ORDER BY n DESC, 1 LIMIT 10",
    "SELECT event_id, text FROM turns ORDER BY event_id LIMIT 20",
)
_ENDLESS = (
    "SELECT count(*) FROM range(9000000000000000000) WHERE random() < 0",
    "SELECT levenshtein(repeat('ab', 200000), repeat('ba', 200001))",
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT max(n) FROM x",
    "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b",
)


class _File:
    """Turns that stand in one Parquet file, as a lake would give them."""

    def __init__(self, path: Path) -> None:
        self._scan = Scan((str(path),), "*")

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the file as the turns, nothing of other kinds."""
        empty = {name: schema_of(KINDS[name]).empty_table() for name in names}
        scans = {"Turn": (self._scan,)}
        return Tables({name: Table(rows, scans.get(name, ())) for name, rows in empty.items()})


async def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return a row each for the sandbox's cost a query and for its lateness in killing."""
    log = await EventLog.open(MemoryLog())
    table = await _turns(log)
    path = folder / "turns.parquet"
    pq.write_table(table, path, compression="zstd")
    source = _File(path)
    limits = Limits(timeout_s=60, threads=_THREADS)
    with duckdb.connect(":memory:", config={"threads": _THREADS}) as bare:
        tables = await source.tables(["Turn"], Vector())
        name, view = layout("Turn", tables.kinds["Turn"])
        bare.register(name, tables.kinds["Turn"].rows)
        bare.execute(view)
        bare.execute(f"CREATE VIEW turns AS {VIEWS['turns'].sql}")
        async with Sandbox(log, limits=limits, source=source) as sandbox:
            await sandbox.query("SELECT 1", principal="bench")
            ours, base = await _by_turns(sandbox, bare, rounds)
    return [_overhead(ours, base), await _lateness(log)]


async def _turns(log: EventLog) -> pa.Table:
    for first in range(0, _TURNS, _BATCH):
        await log.append([turn(first + i, 20_000, key=False) for i in range(_BATCH)])
    end = await log.log.end(["mad.conversations"])
    return (await LogSource(log).tables(["Turn"], end)).kinds["Turn"].rows


async def _by_turns(
    sandbox: Sandbox, bare: duckdb.DuckDBPyConnection, rounds: int
) -> tuple[list[float], list[float]]:
    ours, base = [], []
    for _ in range(rounds):
        for sql in _QUERIES:
            begun = perf_counter()
            await sandbox.query(sql, principal="bench")
            between = perf_counter()
            bare.sql(sql).to_arrow_table()
            base.append((perf_counter() - between) * 1e3)
            ours.append((between - begun) * 1e3)
    return ours, base


def _overhead(ours: list[float], base: list[float]) -> dict[str, Any]:
    more = [a - b for a, b in zip(ours, base, strict=True)]
    median = statistics.median(more)
    return {
        "what": f"sandbox, warm child, {len(_QUERIES)} queries of one file / DuckDB alone",
        "ours": round(statistics.median(ours), 1),
        "baseline": round(statistics.median(base), 1),
        "unit": "ms",
        "ratio": None,
        "spread": f"+{median:.1f} (+{min(more):.1f}–{max(more):.1f})",
        "reach": f"≤ +{_OVERHEAD_MS:.0f}",
        "met": median <= _OVERHEAD_MS,
    }


async def _lateness(log: EventLog) -> dict[str, Any]:
    limits = Limits(timeout_s=0.2, threads=_THREADS)
    late = []
    async with Sandbox(log, limits=limits) as sandbox:
        for number in range(_KILLS):
            begun = perf_counter()
            try:
                await sandbox.query(_ENDLESS[number % len(_ENDLESS)], principal="bench")
            except SqlLimit:
                late.append((perf_counter() - begun - limits.timeout_s) * 1e3)
    late.sort()
    p99 = late[int(len(late) * 0.99) - 1]
    return {
        "what": f"sandbox: kill of {len(late)} endless queries, p99 over their time",
        "ours": round(p99, 1),
        "baseline": None,
        "unit": "ms",
        "ratio": None,
        "spread": f"median {statistics.median(late):.1f}, most {late[-1]:.1f}",
        "reach": f"≤ {_LATE_MS:.0f}",
        "met": len(late) == _KILLS and p99 <= _LATE_MS,
    }
