"""What one could do by hand: lines of JSON with Parquet and DuckDB, and a table in Postgres.

All three keep the same events, are asked the same questions by turns, and must give equal answers.
Postgres is left out, with rows that say so, where MADLOG_POSTGRES names no server.
"""

import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from tests.bench import null_promises
from tests.bench.null_json import JsonLines, Parquet
from tests.bench.null_postgres import CURE, Postgres
from tests.bench.null_turns import Said, content_bytes, event, stream

from madlog.analytics.lake import Archiver, ArchiverOptions, LakeSource, LakeStore
from madlog.analytics.search import SearchIndex
from madlog.analytics.sql import connect, query
from madlog.topics import EventLog, Vector
from madlog.wiring import open_event_log, open_search

__all__ = ("TURNS", "measure")

TURNS = 100_000
_LOADED = 2_000
_SINGLE, _BATCHES, _BATCH = 200, 20, 100
_TAIL = 2_000
_FRESH = 20
_JSON, _POSTGRES = "JSON lines", "Postgres"


class _Question(NamedTuple):
    what: str
    ours: str
    duckdb: str
    postgres: str


_QUESTIONS = (
    _Question(
        "turns by sender",
        "SELECT sender, count(*) FROM turns GROUP BY 1 ORDER BY 1",
        "SELECT sender, count(*) FROM turns GROUP BY 1 ORDER BY 1",
        "SELECT sender, count(*) FROM events WHERE kind = 'turn' GROUP BY 1 ORDER BY 1",
    ),
    _Question(
        "turns by day",
        "SELECT occurred_at::DATE, count(*) FROM turns GROUP BY 1 ORDER BY 1",
        "SELECT occurred_at::DATE, count(*) FROM turns GROUP BY 1 ORDER BY 1",
        "SELECT occurred_at::date, count(*) FROM events WHERE kind = 'turn' GROUP BY 1 ORDER BY 1",
    ),
    _Question(
        "the ten longest conversations",
        "SELECT conversation_id, count(*) FROM turns GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
        "SELECT conversation_id, count(*) FROM turns GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
        "SELECT conversation_id, count(*) FROM events WHERE kind = 'turn' "
        "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
    ),
    _Question(
        "one conversation in its order",
        "SELECT sender, text FROM turns WHERE conversation_id = '$ONE' "
        'ORDER BY partition, "offset"',
        "SELECT sender, text FROM turns WHERE conversation_id = '$ONE' ORDER BY seq",
        "SELECT sender, text FROM events WHERE conversation_id = '$ONE' AND kind = 'turn' "
        "ORDER BY seq",
    ),
    _Question(
        "turns that hold a piece of text",
        "SELECT count(*) FROM turns WHERE text LIKE '%$PIECE%'",
        "SELECT count(*) FROM turns WHERE text LIKE '%$PIECE%'",
        "SELECT count(*) FROM events WHERE text LIKE '%$PIECE%'",
    ),
    _Question(
        "turns that hold two words, by the index where there is one",
        "SELECT count(*) FROM search('$A $B')",
        "SELECT count(*) FROM turns WHERE list_has_all(string_split(text, ' '), ['$A', '$B'])",
        "SELECT count(*) FROM events WHERE to_tsvector('simple', text) @@ "
        "plainto_tsquery('simple', '$A $B')",
    ),
    _Question(
        "calls of each tool, and how many failed",
        "SELECT action, count(*), count(*) FILTER (NOT ok) FROM tool_calls c "
        "JOIN tool_results r ON r.call_id = c.event_id GROUP BY 1 ORDER BY 1",
        "SELECT c.action, count(*), count(*) FILTER (NOT r.ok) FROM calls c "
        "JOIN results r ON r.call_id = c.id GROUP BY 1 ORDER BY 1",
        "SELECT c.payload ->> 'action', count(*), "
        "count(*) FILTER (WHERE NOT (r.payload ->> 'ok')::boolean) FROM events c "
        "JOIN events r ON (r.payload ->> 'call_id')::uuid = c.id "
        "WHERE c.kind = 'call' AND r.kind = 'result' GROUP BY 1 ORDER BY 1",
    ),
)
_COUNT = "SELECT count(*) FROM turns WHERE conversation_id = '$ONE'"
_COUNT_POSTGRES = "SELECT count(*) FROM events WHERE conversation_id = '$ONE' AND kind = 'turn';"


class _Kept:
    """The same events in all three; what was appended is counted as content."""

    def __init__(self, folder: Path, log: EventLog, postgres: Postgres | None) -> None:
        self.folder = folder
        self.log = log
        self.store = LakeStore(str(folder / "lake"))
        self.source = LakeSource(log, self.store)
        self.search: SearchIndex = open_search(str(folder / "log"))
        self.lines = JsonLines(folder / "events.jsonl")
        self.parquet = Parquet(folder / "parquet")
        self.postgres = postgres
        self.content = 0

    async def ours(self, said: Sequence[Said]) -> None:
        await self.log.append([event(one) for one in said])

    async def json(self, said: Sequence[Said]) -> None:
        self.lines.append(said)

    async def table(self, said: Sequence[Said]) -> None:
        assert self.postgres is not None
        self.postgres.append(said)

    async def all(self, said: Sequence[Said]) -> None:
        """Append to all three, by the way that each takes much by."""
        await self.ours(said)
        await self.json(said)
        if self.postgres is not None:
            self.postgres.copy(said)
        self.content += content_bytes(said)

    async def ask(self, sql: str, as_of: Vector | None = None) -> list[tuple[str, ...]]:
        search = self.search if "search(" in sql else None
        found = await query(self.log, sql, as_of=as_of, source=self.source, search=search)
        return [tuple(map(str, row.values())) for row in found.table.to_pylist()]

    async def close(self) -> None:
        self.search.close()
        self.lines.close()
        self.parquet.close()
        if self.postgres is not None:
            self.postgres.close()
        await self.log.close()


async def measure(
    folder: Path, rounds: int, turns: int, server: str | None
) -> list[dict[str, Any]]:
    """Fill all three with so many turns; append, convert, ask, by turns; then try the promises.

    Raises Refused where the server that was named cannot be used.
    """
    postgres = Postgres(server) if server else None
    kept = _Kept(folder, await open_event_log(str(folder / "log")), postgres)
    try:
        rows = await _measured(kept, stream(turns), rounds, turns)
    finally:
        await kept.close()
    if not server:
        rows.append(_skipped(f"all rows of {_POSTGRES}: {CURE}"))
    return [*rows, *await null_promises.found(folder, server or None)]


async def _measured(
    kept: _Kept, said: Iterator[Said], rounds: int, turns: int
) -> list[dict[str, Any]]:
    first = list(islice(said, _LOADED))
    words = first[0].fields["text"].split(" ")
    named = {"$ONE": first[0].conversation_id, "$A": words[20], "$B": words[40]}
    named["$PIECE"] = " ".join(words[10:12])
    await kept.all(first)
    # A quarter more events than turns: every eighth has a call and a result.
    for _ in range(turns * 5 // 4 // _LOADED - 1):
        await kept.all(list(islice(said, _LOADED)))
    if kept.postgres is not None:
        kept.postgres.index()
        kept.postgres.settle()
    rows = await _appends(kept, said, rounds)
    rows += await _converted(kept)
    rows += _sizes(kept)
    rows += await _questions(kept, rounds, turns, named)
    return [*rows, *await _fresh(kept, said, rounds, named)]


async def _appends(kept: _Kept, said: Iterator[Said], rounds: int) -> list[dict[str, Any]]:
    """Append durably by turns, with making the form of each side in the time."""
    sides: list[tuple[str, Callable[[Sequence[Said]], Awaitable[None]]]]
    sides = [("madlog", kept.ours), (_JSON, kept.json)]
    by_copy = f"{_POSTGRES} by COPY, repeats fail"
    if kept.postgres is not None:
        sides.append((_POSTGRES, kept.table))
    rows = []
    for size, count in ((1, _SINGLE), (_BATCH, _BATCHES)):
        rates: dict[str, list[float]] = {name: [] for name, _ in sides}
        copied: list[float] = []
        for _ in range(rounds):
            batches = [list(islice(said, size)) for _ in range(count)]
            for name, append in sides:
                begun = perf_counter()
                for batch in batches:
                    await append(batch)
                rates[name].append(size * count / (perf_counter() - begun))
            kept.content += sum(map(content_bytes, batches))
            if kept.postgres is not None and size > 1:
                copied.append(await _copied(kept, [list(islice(said, size)) for _ in range(count)]))
        what = f"durable append, batches of {size}"
        rows += [_row(f"{what} / {name}", rates["madlog"], rates[name]) for name, _ in sides[1:]]
        if copied:
            rows.append(_row(f"{what} / {by_copy}", rates["madlog"], copied))
    return rows


async def _copied(kept: _Kept, batches: Sequence[Sequence[Said]]) -> float:
    assert kept.postgres is not None
    begun = perf_counter()
    for batch in batches:
        kept.postgres.copy(batch)
    rate = len(batches) * len(batches[0]) / (perf_counter() - begun)
    for batch in batches:  # so that all three hold the same
        await kept.ours(batch)
        await kept.json(batch)
        kept.content += content_bytes(batch)
    return rate


async def _converted(kept: _Kept) -> list[dict[str, Any]]:
    """Make Parquet of all, once, and the index of words and the statistics that queries want."""
    begun = perf_counter()
    archived = await Archiver(kept.log, kept.store, ArchiverOptions()).run(until_idle=True)
    ours_s = perf_counter() - begun
    begun = perf_counter()
    kept.parquet.convert(kept.lines.path)
    by_hand_s = perf_counter() - begun
    kept.parquet.open()
    await kept.search.take_up(kept.log)
    if kept.postgres is not None:
        kept.postgres.settle()
    events = archived.events
    what = f"to Parquet, {events:,} events / DuckDB from {_JSON}"
    row = _row(what, [events / ours_s], [events / by_hand_s])
    return [{**row, "spread": "once"}]


def _sizes(kept: _Kept) -> list[dict[str, Any]]:
    """What is stored for each byte of content; write-ahead logs, used again, count on no side."""
    content = kept.content
    log = (kept.folder / "log" / "log.sqlite").stat().st_size
    lake = sum(path.stat().st_size for path in (kept.folder / "lake").rglob("*.parquet"))
    index = (kept.folder / "log" / "projections" / "search.sqlite").stat().st_size
    lines = kept.lines.path.stat().st_size
    rows = [
        _size("bytes stored a byte of content: the log / the lines", log, lines, content),
        _size("the same: the lake / Parquet by hand", lake, kept.parquet.bytes, content),
    ]
    if kept.postgres is not None:
        table, indexes = kept.postgres.bytes
        rows += [
            _size(f"the same: the log / {_POSTGRES}, table alone", log, table, content),
            _size(
                f"the same: log, lake, index of words / {_POSTGRES} with its indexes",
                log + lake + index,
                table + indexes,
                content,
            ),
        ]
    return rows


def _size(what: str, ours: int, base: int, content: int) -> dict[str, Any]:
    row = _row(what, [ours / content], [base / content], unit="")
    return {**row, "spread": "once"}


async def _questions(
    kept: _Kept, rounds: int, turns: int, named: dict[str, str]
) -> list[dict[str, Any]]:
    rows, sums = [], ([0.0] * rounds, [0.0] * rounds)
    held = await connect(kept.log, source=kept.source)
    for question in _QUESTIONS:
        ours_sql, duckdb_sql, postgres_sql = (_put_in(sql, named) for sql in question[1:])
        times: tuple[list[float], list[float], list[float], list[float]] = ([], [], [], [])
        # One round more: the first of each reads what the others find in memory.
        for _ in range(rounds + 1):
            begun = perf_counter()
            answer = await kept.ask(ours_sql)
            times[0].append((perf_counter() - begun) * 1000)
            begun = perf_counter()
            assert kept.parquet.ask(duckdb_sql) == answer, question.what
            times[1].append((perf_counter() - begun) * 1000)
            if kept.postgres is not None:
                begun = perf_counter()
                assert kept.postgres.ask(f"{postgres_sql};") == answer, question.what
                times[2].append((perf_counter() - begun) * 1000)
            if "search(" not in ours_sql:
                begun = perf_counter()
                held.execute(ours_sql).fetchall()
                times[3].append((perf_counter() - begun) * 1000)
        if times[3]:
            sums = _added(sums[0], times[3][1:]), _added(sums[1], times[1][1:])
        what = f"{question.what}, {turns:,} turns"
        rows.append(_row(f"{what} / Parquet by hand", times[0][1:], times[1][1:], "ms"))
        if kept.postgres is not None:
            rows.append(_row(f"{what} / {_POSTGRES}", times[0][1:], times[2][1:], "ms"))
    held.close()
    what = "all but the two words, summed, by a connection that stays open (analytics.connect)"
    return [*rows, _row(f"{what} / Parquet by hand", *sums, "ms")]


def _added(sums: Sequence[float], times: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(sums, times, strict=True)]


def _put_in(sql: str, named: dict[str, str]) -> str:
    for name, value in named.items():
        sql = sql.replace(name, value)
    return sql


async def _fresh(
    kept: _Kept, said: Iterator[Said], rounds: int, named: dict[str, str]
) -> list[dict[str, Any]]:
    """Append one turn and ask until the answer has it; 2,000 events are not in Parquet yet."""
    since = JsonLines(kept.folder / "since.jsonl")
    tail = list(islice(said, _TAIL))
    await kept.ours(tail)
    since.append(tail)
    if kept.postgres is not None:
        kept.postgres.copy(tail)
    kept.parquet.open(since.path)
    ours_sql, postgres_sql = _put_in(_COUNT, named), _put_in(_COUNT_POSTGRES, named)
    ((count,),) = await kept.ask(ours_sql)
    turns = (one._replace(conversation_id=named["$ONE"]) for one in said if one.kind == "turn")
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    for number, one in enumerate(islice(turns, rounds * _FRESH), int(count) + 1):
        wanted = [(str(number),)]
        begun = perf_counter()
        await kept.ours([one])
        assert await kept.ask(ours_sql) == wanted
        times[0].append((perf_counter() - begun) * 1000)
        begun = perf_counter()
        since.append([one])
        assert kept.parquet.ask(ours_sql) == wanted
        times[1].append((perf_counter() - begun) * 1000)
        if kept.postgres is not None:
            begun = perf_counter()
            kept.postgres.append([one])
            assert kept.postgres.ask(postgres_sql) == wanted
            times[2].append((perf_counter() - begun) * 1000)
    since.close()
    sides = [_median_of(rounds, each) for each in times if each]
    what = f"one turn appended and in an answer, {_TAIL:,} events not in Parquet yet"
    rows = [_row(f"{what} / Parquet and {_JSON} by hand", sides[0], sides[1], "ms")]
    if kept.postgres is not None:
        rows.append(_row(f"{what} / {_POSTGRES}", sides[0], sides[2], "ms"))
    return rows


def _median_of(rounds: int, times: Sequence[float]) -> list[float]:
    """Return the median of each round's times."""
    each = len(times) // rounds
    return [statistics.median(times[n * each : (n + 1) * each]) for n in range(rounds)]


def _row(
    what: str, ours: Sequence[float], base: Sequence[float], unit: str = "/s"
) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    digits = None if unit == "/s" else 2
    return {
        "what": what,
        "ours": round(statistics.median(ours), digits),
        "baseline": round(statistics.median(base), digits),
        "unit": unit,
        "ratio": round(statistics.median(ratios), 3),
        "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "reach": None,
        "met": None,
    }


def _skipped(what: str) -> dict[str, Any]:
    return {"what": what, "met": "skipped"}
