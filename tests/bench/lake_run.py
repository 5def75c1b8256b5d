"""The lake: audit queries against DuckDB on the same files, the archiver against a plain writer.

The turns of the queries are made by DuckDB and written as the archiver writes; the log names them
as archived, so a query does all that it does over a lake that grew. Both sides read the same files,
by turns, from the page cache where they fit.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from tests.bench.fixtures import turn

from madlog.analytics.errors import SqlLimit
from madlog.analytics.lake import Archiver, ArchiverOptions, LakeSource, LakeStore, layout, writing
from madlog.analytics.sql import MEMORY_LIMIT, connect, query
from madlog.schemas import LakeFile, RangeArchived, Sender, Turn, new_event_id
from madlog.topics import EventLog, TopicPartition, Vector
from madlog.wiring import open_event_log

__all__ = ("TURNS", "measure")

TURNS = 1_000_000
_PARTITIONS = 4
_RANGE = 250_000
_TURNS_A_CONVERSATION = 50
_ARCHIVED = 100_000
_RATE = 2_000
_SECONDS = 15
_TOPIC = "mad.conversations"
_QUERIES = (
    "SELECT count(*) FROM turns",
    "SELECT sender, count(*) AS n FROM turns GROUP BY 1 ORDER BY ALL",
    "SELECT date_trunc('day', occurred_at) AS d, count(*) AS n FROM turns GROUP BY 1 ORDER BY ALL",
    "SELECT conversation_id, count(*) AS n FROM turns GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
    "SELECT max(gap) FROM (SELECT occurred_at - lag(occurred_at) OVER "
    '(PARTITION BY conversation_id ORDER BY partition, "offset") AS gap FROM turns)',
    "SELECT sender, text FROM turns WHERE conversation_id = '$ONE' ORDER BY partition, \"offset\"",
    "SELECT count(*) FROM turns WHERE text LIKE '%w7 w77%'",
    "SELECT unnest(tags) AS tag, count(*) AS n FROM turns GROUP BY 1 ORDER BY ALL",
    "SELECT sender, count(DISTINCT conversation_id) AS n FROM turns GROUP BY 1 ORDER BY ALL",
    "SELECT event_id, length(text) AS n FROM turns ORDER BY 2 DESC, 1 LIMIT 20",
    "SELECT traffic, content_class, count(*) AS n FROM turns GROUP BY 1, 2 ORDER BY ALL",
    "SELECT sender, unnest(recipients) AS r, count(*) AS n FROM turns GROUP BY 1, 2 ORDER BY ALL",
)
_ONE = _QUERIES[5]
_BY_ID = "SELECT conversation_id, text FROM turns WHERE event_id = '$ONE'"
# How many conversations, and how many events, are looked up a round.
_LOOKED_UP = 8
_LIMITS = ("400MB", "640MB", "900MB")
_MADE = """
SELECT 'mad.conversations' AS topic, $p AS partition, i AS "offset",
    lpad(to_hex(hash(i * 4 + $p)), 16, '0') || lpad(to_hex(hash(-i * 4 - $p)), 16, '0') AS event_id,
    'order-' || lpad((hash(i // 7, $p) % $c * 4 + $p)::VARCHAR, 9, '0') AS conversation_id,
    ['ada', 'bob', 'shop', 'pay'][(hash(i) % 4 + 1)::INT] AS sender, 'human' AS sender_kind,
    make_timestamp(1767225600000000 + i * 40000) AS occurred_at,
    make_timestamp(1767225600000000 + i * 40000) AS appended_at,
    1 AS schema_version, ['shop'] AS recipients, ['shop'] AS mentions,
    [['parcel', 'refund', 'late'][(hash(i, 1) % 3 + 1)::INT]] AS tags, 'prose' AS content_class,
    array_to_string(list_transform(range(40), lambda k: 'w' || hash(i * 64 + k, $p) % 2000), ' ')
        AS text, 'live' AS traffic
FROM range($first, $last) t(i)
"""


def _rows(con: duckdb.DuckDBPyConnection, place: dict[str, int]) -> Any:
    """Return a range's rows, of the columns that a file of turns has."""
    made = con.sql(_MADE, params=place).to_arrow_table()
    parts = "[{'content_class': 'prose', 'chars': length(text)}] AS parts"
    con.register("made", made)
    table = con.sql(f"SELECT *, {parts} FROM made").to_arrow_table()
    con.unregister("made")
    columns = []
    for field in layout.file_schema("Turn"):
        if field.name == "parts":
            # Fields of a part that these have not.
            inner = table["parts"].combine_chunks()
            had = inner.flatten()
            arrays = [
                had.field(one.name).cast(one.type)
                if one.name in ("content_class", "chars")
                else pa.nulls(len(had), one.type)
                for one in field.type.value_type
            ]
            struct = pa.StructArray.from_arrays(arrays, fields=list(field.type.value_type))
            columns.append(pa.ListArray.from_arrays(inner.offsets, struct).cast(field.type))
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.Table.from_arrays(columns, schema=layout.file_schema("Turn"))


async def _lake(folder: Path, turns: int) -> tuple[EventLog, LakeStore, Vector]:
    """Make a lake of turns, and beside it the same rows in the order of the log."""
    log = await open_event_log(str(folder / "log"))
    await log.ensure_topics([_TOPIC, "mad.system"])
    store = LakeStore(str(folder / "lake"))
    store.mark("bench")
    (folder / "unsorted").mkdir()
    each = turns // _PARTITIONS
    conversations = max(1, each // _TURNS_A_CONVERSATION)
    with duckdb.connect(":memory:", config=layout.QUIET) as con:
        for p in range(_PARTITIONS):
            for first in range(0, each, _RANGE):
                span = (first, min(each, first + _RANGE))
                place = {"p": p, "c": conversations, "first": span[0], "last": span[1]}
                rows = _rows(con, place)
                plain = folder / "unsorted" / f"{p}-{first}.parquet"
                pq.write_table(rows, plain, compression="zstd")
                rows = layout.packed(con, "Turn", rows)
                file = writing.put(store, TopicPartition(_TOPIC, p), span, "Turn", rows)
                await log.append([_named(file, p, span)])
    return log, store, Vector({TopicPartition(_TOPIC, p): each for p in range(_PARTITIONS)})


def _named(file: Any, partition: int, span: tuple[int, int]) -> RangeArchived:
    return RangeArchived(
        event_id=new_event_id(1, f"{partition:05}{span[0]:010}".encode()[-10:]),
        conversation_id="mad.system",
        sender=Sender(name="archiver", kind="system"),
        occurred_at=1,
        idempotency_key=f"{partition}@{span[0]}",
        lake="bench",
        form=layout.FORM,
        topic=_TOPIC,
        partition=partition,
        offset=span[0],
        offset_end=span[1],
        files=(LakeFile(**{name: getattr(file, name) for name in type(file).__slots__}),),
    )


def _raw(paths: list[str]) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config={**layout.QUIET, "memory_limit": "2GB"})
    con.execute(f"CREATE VIEW turns AS SELECT * FROM read_parquet({paths})")
    return con


async def _queries(folder: Path, rounds: int, turns: int) -> list[dict[str, Any]]:
    log, store, end = await _lake(folder, turns)
    paths = sorted(str(path) for path in (folder / "lake").rglob("Turn*.parquet"))
    raw = _raw(paths)
    source = LakeSource(log, store)
    named = raw.execute(f"SELECT DISTINCT conversation_id FROM turns LIMIT {_LOOKED_UP}").fetchall()
    texts = [text.replace("$ONE", named[0][0]) for text in _QUERIES]

    async def ours(text: str) -> tuple[float, Any]:
        begun = perf_counter()
        found = await query(log, text, as_of=end, source=source)
        return perf_counter() - begun, found.table

    sums: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        pairs = []
        for text in texts:
            mine, theirs = await ours(text), _timed(raw, text)
            assert mine[1].to_pylist() == theirs[1].to_pylist(), text
            pairs.append((mine[0], theirs[0]))
        sums[0].append(sum(mine for mine, _ in pairs) * 1000)
        sums[1].append(sum(theirs for _, theirs in pairs) * 1000)
    events = raw.execute(f"SELECT event_id FROM turns LIMIT {_LOOKED_UP}").fetchall()
    raw.close()
    over = f"{turns:,} turns"
    ones = [_ONE.replace("$ONE", name) for (name,) in named]
    by_id = [_BY_ID.replace("$ONE", name) for (name,) in events]
    looks = await _looks(folder, (log, source, end), (ones, by_id), rounds)
    await log.close()
    peaks = [await asyncio.to_thread(_peak, folder, end, limits) for limits in (_LIMITS, ())]
    unsorted = "DuckDB on unsorted files"
    open_, new = "both on an open connection", "both on a new connection"
    return [
        _row(f"12 audit queries over {over} / DuckDB on the same files", sums, most=1.1),
        _row(f"one conversation of {over} / {unsorted}, {open_}", looks["open"], most=0.1),
        _row(
            f"one conversation of {over}, on an open connection", (looks["open"][0], None), most=50
        ),
        _row(f"one conversation of {over} / {unsorted}, {new}", looks["new"], most=0.1),
        _row(f"one conversation of {over}, on a new connection", (looks["new"][0], None), most=50),
        _row(f"one event by its id of {over} / {unsorted}, {new}", looks["event"]),
        _row(f"one conversation, a whole `madlog sql` / a whole Python, {unsorted}", looks["line"]),
        *(
            _row(f"{what} of the 12 queries over {over}", ([peak], None), most=1024, unit="MiB")
            for what, peak in zip(("least memory", "memory by default"), peaks, strict=True)
        ),
    ]


def _timed(con: duckdb.DuckDBPyConnection, text: str) -> tuple[float, Any]:
    begun = perf_counter()
    found = con.sql(text).to_arrow_table()
    return perf_counter() - begun, found


async def _looks(
    folder: Path,
    lake: tuple[EventLog, LakeSource, Vector],
    texts: tuple[list[str], list[str]],
    rounds: int,
) -> dict[str, tuple[list[float], list[float]]]:
    """Look conversations and events up, by turns with DuckDB on files in the order of the log.

    Returns each round's median in ms of both sides: with connections that are open, and new ones.
    """
    log, source, end = lake
    files = sorted(str(path) for path in (folder / "unsorted").glob("*.parquet"))
    mine, theirs = await connect(log, as_of=end, source=source), _raw(files)
    told: dict[str, tuple[list[float], list[float]]] = {}

    def tell(name: str, pairs: list[tuple[float, float]]) -> None:
        for side, times in zip(
            told.setdefault(name, ([], [])), zip(*pairs, strict=True), strict=True
        ):
            side.append(statistics.median(times) * 1000)

    def both(text: str) -> tuple[float, float]:
        one, other = _timed(mine, text), _timed(theirs, text)
        assert one[1].to_pylist() == other[1].to_pylist(), text
        return one[0], other[0]

    async def anew(text: str) -> tuple[float, float]:
        begun = perf_counter()
        await query(log, text, as_of=end, source=LakeSource(log, source.store))
        between = perf_counter()
        with _raw(files) as con:
            con.sql(text).to_arrow_table()
        return between - begun, perf_counter() - between

    for _ in range(rounds):
        tell("open", [both(text) for text in texts[0]])
        tell("new", [await anew(text) for text in texts[0]])
        tell("event", [await anew(text) for text in texts[1]])
        tell("line", [await asyncio.to_thread(_lines, folder, files, texts[0][0])])
    mine.close()
    theirs.close()
    return told


def _lines(folder: Path, files: list[str], text: str) -> tuple[float, float]:
    """Ask by the command line, and by a Python that imports DuckDB alone."""
    by_hand = (
        f"import duckdb; duckdb.execute({text!r}.replace('turns', {f'read_parquet({files})'!r}))"
    )
    log = str(folder / "log")
    ours = [sys.executable, "-m", "madlog", "sql", text, "--log", log, "--format", "json"]
    times = [perf_counter()]
    for command in (ours, [sys.executable, "-c", by_hand]):
        env = {**os.environ, "MADLOG_LAKE": str(folder / "lake")}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
        times.append(perf_counter())
    return times[1] - times[0], times[2] - times[1]


def _peak(folder: Path, end: Vector, limits: Sequence[str]) -> float:
    """Return the peak memory of a process that asks all queries."""
    command = [sys.executable, __file__, str(folder), str(end), *limits]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


async def _ask_all(folder: Path, end: Vector, limits: Sequence[str]) -> float:
    """Ask each query within the first limit that it can do with: DuckDB takes what it is given."""
    from tests.bench.run import _peak_bytes

    log = await open_event_log(str(folder / "log"), create=False)
    source = LakeSource(log, LakeStore(str(folder / "lake")))
    for text in _QUERIES:
        for limit in (*limits, MEMORY_LIMIT):
            with suppress(SqlLimit):
                await query(log, text, as_of=end, source=source, memory_limit=limit)
                break
    await log.close()
    return _peak_bytes() / 2**20


async def _archiver(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Archive turns; read, decode and write the same ones as an expert would by hand."""
    source = str(folder / "turns")
    log = await open_event_log(source)
    for first in range(0, _ARCHIVED, 2000):
        await log.append([_varied(first + i) for i in range(2000)])
    wire = sum([len(e.record.value) async for batch in log.read_topics([_TOPIC]) for e in batch])
    await log.close()
    ours: list[float] = []
    base: list[float] = []
    written: list[float] = []
    size = 0
    for number in range(rounds):
        # A log of its own each time: what is archived once is not archived again.
        shutil.copytree(source, folder / f"again-{number}")
        again = await open_event_log(str(folder / f"again-{number}"))
        store = LakeStore(str(folder / f"lake-{number}"))
        begun = perf_counter()
        archived = await Archiver(again, store, ArchiverOptions()).run(until_idle=True)
        ours.append(_ARCHIVED / (perf_counter() - begun))
        size = archived.bytes
        await again.close()
        log = await open_event_log(source)
        begun = perf_counter()
        rows = [e.fields async for batch in log.read_topics([_TOPIC]) for e in batch]
        for row in rows:
            del row["extra"]  # a struct without a field is none for Parquet
        decoded = perf_counter()
        pq.write_table(pa.Table.from_pylist(rows), folder / "plain.parquet", compression="zstd")
        ended = perf_counter()
        base.append(_ARCHIVED / (ended - begun))
        written.append(_ARCHIVED / (ended - decoded))
        await log.close()
    by_hand = "archiver / read, decode and pyarrow write of the same turns"
    alone = "archiver, which reads and decodes too / pyarrow write alone"
    stored = "bytes of the lake / bytes of the events"
    return [
        _row(by_hand, (ours, base), least=0.7, unit="/s"),
        _row(alone, (ours, written), unit="/s"),
        _row(stored, ([size / wire], None), most=1.2, unit=""),
    ]


def _varied(number: int) -> Turn:
    words = " ".join(f"w{hash((number, k)) % 2000}" for k in range(60))
    return turn(number, 5_000, key=False, text=words)


async def _freshness(folder: Path) -> list[dict[str, Any]]:
    """Write at a steady rate, archive beside it, and ask: how long until a turn is in answers?"""
    log = await open_event_log(str(folder / "fresh"))
    store = LakeStore(str(folder / "fresh-lake"))
    stop = asyncio.Event()
    archiver = asyncio.create_task(Archiver(log, store).run(stop=stop))
    committed: list[tuple[int, float]] = []
    batch = _RATE // 20

    async def write() -> None:
        begun = perf_counter()
        for number in range(_SECONDS * 20):
            await log.append([_varied(number * batch + i) for i in range(batch)])
            committed.append(((number + 1) * batch, perf_counter()))
            await asyncio.sleep(max(0.0, begun + (number + 1) / 20 - perf_counter()))

    source = LakeSource(log, store)
    waits: list[float] = []
    writer = asyncio.create_task(write())
    seen = 0
    while not writer.done() or seen < len(committed):
        found = await query(log, "SELECT count(*) FROM turns", source=source)
        count = found.table[0][0].as_py()
        now = perf_counter()
        while seen < len(committed) and committed[seen][0] <= count:
            waits.append(now - committed[seen][1])
            seen += 1
        await asyncio.sleep(0)
    stop.set()
    await archiver
    rate = committed[-1][0] / (committed[-1][1] - committed[0][1])
    await log.close()
    p99 = statistics.quantiles(waits, n=100)[98]
    what = f"a turn is in SQL's answers, p99 at {rate:,.0f}/s beside the archiver"
    return [_row(what, ([p99], None), most=2, unit="s")]


def _row(
    what: str,
    sides: tuple[list[float], list[float] | None],
    *,
    most: float | None = None,
    least: float | None = None,
    unit: str = "ms",
) -> dict[str, Any]:
    """Return medians, and of the rounds' ratios (else of ours) the median and the spread."""
    ours, base = sides
    ratios = ours if base is None else [a / b for a, b in zip(ours, base, strict=True)]
    value = statistics.median(ratios)
    digits = 0 if statistics.median(ours) >= 100 else 2
    reach = f"≤ {most:g}" if most is not None else f"≥ {least:g}" if least is not None else None
    met = value <= most if most is not None else value >= least if least is not None else None
    return {
        "what": what,
        "ours": round(statistics.median(ours), digits),
        "baseline": None if base is None else round(statistics.median(base), digits),
        "unit": unit,
        "ratio": None if base is None else round(value, 3),
        "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "reach": reach,
        "met": met,
    }


async def measure(folder: Path, rounds: int, turns: int) -> list[dict[str, Any]]:
    """Measure queries over so many turns, the archiver, and how fresh answers are."""
    for name in ("queries", "archiver", "fresh"):
        (folder / name).mkdir()
    return [
        *await _queries(folder / "queries", rounds, turns),
        *await _archiver(folder / "archiver", rounds),
        *await _freshness(folder / "fresh"),
    ]


if __name__ == "__main__":
    place, to, *within = sys.argv[1:]
    print(json.dumps(asyncio.run(_ask_all(Path(place), Vector.parse(to), within))))
