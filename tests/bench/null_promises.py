"""What each of the three does when something goes wrong: the smallest experiment a promise.

A row says what happened here, with ours, with lines of JSON (and DuckDB), with a table in Postgres.
"""

import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Any

import duckdb
from tests.bench import null_writer
from tests.bench.null_json import JsonLines, Parquet
from tests.bench.null_postgres import Postgres, Refused, Session, insert
from tests.bench.null_turns import Said, event, json_line, stream
from tests.faults.forger import Stored, forge

from madlog.analytics.sql import query
from madlog.schemas import MadlogError
from madlog.topics import EventLog
from madlog.topics.evidence import Keeper, SigningKey, Tiles, check_evidence
from madlog.topics.log import Checkable
from madlog.topics.positions import TopicPartition
from madlog.wiring import open_event_log

__all__ = ("found",)

_KILLS = 10
_READS = 20
_MANY = 30_000  # more lines than DuckDB looks at to find their types
_KEY = SigningKey.new(bytes(range(32)), "example.com/null")
_ALL = "SELECT count(*) FROM events"
_CONTENT = "SELECT md5(string_agg(text, '|' ORDER BY seq)) FROM turns"
_NO_SERVER = "not tried: no server"
_NOT_TRIED = "not tried"
_BATCH = null_writer.BATCH


async def found(folder: Path, server: str | None, kills: int = _KILLS) -> list[dict[str, Any]]:
    """Run the experiments; `kills` is how many writers of each kind are killed."""
    place = folder / "promises"
    place.mkdir()
    table = None if server is None else Postgres(server)
    if table is not None:
        table.index()
    try:
        return [
            await _killed(_new(place), table, kills),
            await _full(_new(place)),
            _half_a_line(_new(place)),
            await _repeated(_new(place), table),
            await _byte(_new(place), table),
            await _owner(_new(place), table, "a text altered", _other_text),
            await _owner(_new(place), table, "a record deleted", _without),
            await _as_of(_new(place), table),
            await _other_fields(_new(place), table),
            await _read_beside(_new(place)),
            await _two_writers(_new(place), table),
        ]
    finally:
        if table is not None:
            table.close()


def _new(place: Path) -> Path:
    made = place / str(len(list(place.iterdir())))
    made.mkdir()
    return made


def _row(what: str, ours: str, lines: str, postgres: str) -> dict[str, Any]:
    return {"what": what, "ours": ours, "baseline": lines, "postgres": postgres}


def _some(count: int = _BATCH, seed: int = 1) -> list[Said]:
    return list(islice(stream(10_000, seed), count))


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[EventLog]:
    log = await open_event_log(str(folder))
    try:
        yield log
    finally:
        await log.close()


async def _count(log: EventLog) -> int:
    kinds = ("turns", "tool_calls", "tool_results")
    sql = " + ".join(f"(SELECT count(*) FROM {kind})" for kind in kinds)
    return int((await query(log, f"SELECT {sql}")).table[0][0].as_py())


def _read_json(path: Path, sql: str = "SELECT count(*)", more: str = "") -> str:
    """Return the first value of a query over lines, or what DuckDB says."""
    with duckdb.connect(":memory:") as con:
        try:
            rows = con.execute(
                f"{sql} FROM read_json('{path}', format = 'newline_delimited'{more})"
            ).fetchall()
        except duckdb.Error as error:
            return str(error).partition(" in file")[0].strip()
    return str(rows[0][0])


def _whole(path: Path) -> tuple[int, int]:
    """Return how many lines of a file are JSON, and how many are not."""
    good = bad = 0
    for line in path.read_bytes().split(b"\n"):
        if line:
            try:
                json.loads(line)
                good += 1
            except ValueError:
                bad += 1
    return good, bad


def _writer(
    mode: str, path: Path, seed: int = 1, batches: int = 20, bytes_max: int = 0
) -> subprocess.Popen[str]:
    given = [mode, str(path), str(seed), str(batches), str(bytes_max)]
    return subprocess.Popen(
        [sys.executable, null_writer.__file__, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kill_after(writer: subprocess.Popen[str], batches: int, pause_s: float) -> int:
    """Kill a writer some time after so many batches; returns what it had acknowledged."""
    assert writer.stdout is not None
    acknowledged = 0
    while acknowledged < batches * _BATCH:
        acknowledged = int(writer.stdout.readline())
    sleep(pause_s)
    writer.kill()
    said, _ = writer.communicate()
    return max([acknowledged, *map(int, said.split())])


async def _killed(folder: Path, table: Postgres | None, kills: int) -> dict[str, Any]:
    """Kill writers in mid append, at moments that a seed chooses."""
    rng = random.Random(1)
    told = []
    for mode in ("ours", "lines", "buffered"):
        lost = part = torn = 0
        for number in range(kills):
            path = folder / f"{mode}-{number}"
            after, pause_s = rng.randrange(1, 10), rng.random() * 0.01
            acknowledged = _kill_after(_writer(mode, path), after, pause_s)
            if mode == "ours":
                async with _opened(path) as log:
                    there, bad = await _count(log), len(await _damages(log))
            else:
                there, bad = _whole(path)
            lost += there < acknowledged
            part += there % _BATCH != 0
            torn += bad
        told.append(f"{lost} lost an acknowledged event, {part} hold part of a batch, {torn} torn")
    by_lines = f"one write a batch: {told[1]}; through a buffer: {told[2]}"
    postgres = _NO_SERVER
    if table is not None:
        table.append(_some())
        session = Session(table.server)
        session.send(insert(_some(seed=2))[:-100])
        session.kill()
        ((whole,),) = table.ask(f"{_ALL};")
        postgres = f"client killed in mid INSERT: {whole} of {_BATCH} acknowledged, no half batch"
    return _row(f"kill -9 of the writer in mid append, {kills} times", told[0], by_lines, postgres)


async def _damages(log: EventLog) -> list[str]:
    assert isinstance(log.log, Checkable)
    return [str(damage) async for damage in log.log.check()]


async def _full(folder: Path) -> dict[str, Any]:
    """Let no file grow past a size that a batch does not fit into."""
    told = []
    for mode in ("ours", "lines"):
        path = folder / mode
        writer = _writer(mode, path, bytes_max=900_000)
        said, error = writer.communicate()
        acknowledged = max(map(int, said.split()), default=0)
        if mode == "ours":
            async with _opened(path) as log:
                there, bad = await _count(log), len(await _damages(log))
        else:
            there, bad = _whole(path)
        why = error.strip().splitlines()[-1]
        told.append(f"{why}; {acknowledged} acknowledged, {there} there, {bad} torn")
    return _row("no room for a batch (a limit on file size)", told[0], told[1], _NOT_TRIED)


def _half_a_line(folder: Path) -> dict[str, Any]:
    """See what a line that was cut off does to readers, and to the next append."""
    path = folder / "events.jsonl"
    said = _some(_BATCH + 1)
    with JsonLines(path) as lines:
        lines.append(said[:-1])
    path.write_bytes(path.read_bytes()[:-40])
    fails = _read_json(path)
    passed = _read_json(path, "SELECT count(*) - count(id)", ", ignore_errors = true")
    with JsonLines(path) as lines:
        lines.append(said[-1:])
    good, _ = _whole(path)
    told = (
        f"every query: {fails}; with ignore_errors it is {passed} row of NULLs; the next append is "
        f"glued to it: {good} of {_BATCH} whole events are left"
    )
    none = "not seen: see the rows above"
    return _row("a half line at the end (power cut, full disk)", none, told, none)


async def _repeated(folder: Path, table: Postgres | None) -> dict[str, Any]:
    """Append a batch twice, as who got no answer does; then other content under an id."""
    said = _some()
    other = said[0]._replace(fields={**said[0].fields, "text": "no"})
    async with _opened(folder / "log") as log:
        for _ in range(2):
            await log.append([event(one) for one in said])
        refusal = "taken"
        try:
            await log.append([event(other)])
        except MadlogError as error:
            refusal = f"refused ({type(error).__name__})"
        ours = f"{await _count(log)} of {_BATCH}; other content under an id: {refusal}"
    with JsonLines(folder / "events.jsonl") as lines:
        for _ in range(2):
            lines.append(said)
    twice, _ = _whole(folder / "events.jsonl")
    postgres = _NO_SERVER
    if table is not None:
        table.ask("TRUNCATE events;")
        for _ in range(2):
            table.append(said)
        table.append([other])
        ((count, kept),) = table.ask("SELECT count(*), sum((text = 'no')::int) FROM events;")
        postgres = (
            f"{count} of {_BATCH}; other content under an id: passed over in silence, "
            f"{'the first kept' if kept == '0' else 'taken'}"
        )
    return _row("the same batch appended twice", ours, f"{twice} of {_BATCH}", postgres)


async def _byte(folder: Path, table: Postgres | None) -> dict[str, Any]:
    """Change one letter in the file."""
    said = _some()
    word = said[0].fields["text"].encode()[:40]
    other = bytes([word[0] ^ 1]) + word[1:]
    async with _opened(folder / "log") as log:
        await log.append([event(one) for one in said])
    _put(folder / "log" / "log.sqlite", word, other)
    async with _opened(folder / "log") as log:
        (damage,) = await _damages(log)
    path = folder / "events.jsonl"
    with JsonLines(path) as lines:
        lines.append(said)
    parquet = Parquet(folder / "parquet")
    parquet.convert(path)
    parquet.open()
    before = parquet.ask(_CONTENT)
    file = folder / "parquet" / "turns.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    try:
        same = parquet.ask(_CONTENT) == before
        noticed = "nothing changed" if same else "another text is read, not noticed"
    except duckdb.Error as error:
        noticed = f"the query fails ({type(error).__name__})"
    parquet.close()
    _put(path, word, other)
    lines_say = f"a line: {_read_json(path)} rows, not noticed; a file of Parquet: {noticed}"
    postgres = _NO_SERVER
    if table is not None:
        ((set_to,),) = table.ask("SHOW data_checksums;")
        postgres = f"not tried; data_checksums is {set_to} here, and by it a page is refused or not"
    return _row("one byte altered on the disk", f"check: {damage}", lines_say, postgres)


def _put(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data  # more than once where SQLite has moved it
    path.write_bytes(data.replace(old, new))


def _other_text(records: list[Stored]) -> list[Stored]:
    at = len(records) // 2
    value = records[at].value.replace(b" ", b"-")
    return [*records[:at], records[at]._replace(value=value), *records[at + 1 :]]


def _without(records: list[Stored]) -> list[Stored]:
    at = len(records) // 2
    return [*records[:at], *records[at + 1 :]]


async def _owner(
    folder: Path,
    table: Postgres | None,
    what: str,
    change: Callable[[list[Stored]], list[Stored]],
) -> dict[str, Any]:
    """Change the record as its owner can: with ours checksums and chain are made right again."""
    said = _some()
    log_folder = folder / "log"
    tree = TopicPartition("mad.conversations", 0)
    with Tiles(folder / "evidence.sqlite") as tiles:
        async with _opened(log_folder) as log:
            await log.append([event(one) for one in said])
            await Keeper(log, tiles, _KEY).run()
        forge(log_folder, tree, change)
        async with _opened(log_folder) as log:
            plain = len(await _damages(log))
            verdict = await check_evidence(log, tiles, [_KEY.verifier])
    named = "; ".join(map(str, verdict.findings[:1])) or "nothing"
    ours = f"checksums and chain name {plain}, evidence: {named}"
    path = folder / "events.jsonl"
    kept = [json_line(one) for one in said]
    if change is _without:
        del kept[50]
    else:
        kept[50] = kept[50].replace(b" ", b"-")
    path.write_bytes(b"".join(kept))
    lines = f"{_read_json(path)} rows, nothing shows it"
    postgres = _NO_SERVER
    if table is not None:
        table.ask("TRUNCATE events;")
        table.append(said)
        where = f"WHERE id = '{said[50].event_id}'"
        deleted = f"DELETE FROM events {where};"
        table.ask(deleted if change is _without else f"UPDATE events SET text = 'no' {where};")
        ((count,),) = table.ask(f"{_ALL};")
        postgres = f"{count} rows, nothing in the table shows it"
    return _row(f"{what} by who owns the files", ours, lines, postgres)


async def _as_of(folder: Path, table: Postgres | None) -> dict[str, Any]:
    """Ask as of now, append, ask again as of then; in Postgres beside an open transaction."""
    said = _some()
    async with _opened(folder / "log") as log:
        await log.append([event(one) for one in said[:50]])
        end = await log.log.end(["mad.conversations"])
        text = "SELECT count(*) FROM turns"
        before = (await query(log, text, as_of=end)).table[0][0].as_py()
        await log.append([event(one) for one in said[50:]])
        after = (await query(log, text, as_of=end)).table[0][0].as_py()
    ours = f"{before} turns, later {after}"
    path = folder / "events.jsonl"
    with JsonLines(path) as lines:
        lines.append(said[:50])
        until = path.stat().st_size
        lines.append(said[50:])
    lines_then = path.read_bytes()[:until].count(b"\n")
    by_lines = f"50 events, later {lines_then}, by the size of the file then"
    postgres = _NO_SERVER
    if table is not None:
        table.ask("TRUNCATE events;")
        slow = Session(table.server)
        slow.ask(f"BEGIN; {insert(said[:1])}")
        table.append(said[1:2])
        ((until_seq,),) = table.ask("SELECT max(seq) FROM events;")
        then = f"{_ALL} WHERE seq <= {until_seq};"
        ((first,),) = table.ask(then)
        slow.ask("COMMIT;")
        ((later,),) = table.ask(then)
        slow.close()
        postgres = (
            f"by seq, one writer slow to commit: {first} event, later {later}; "
            "with one writer, or a lock, it holds"
        )
    return _row("an answer as of then, asked again later", ours, by_lines, postgres)


async def _other_fields(folder: Path, table: Postgres | None) -> dict[str, Any]:
    """Add a field that nobody knew, and give a known one another type, late in the file."""
    said = _some(1)[0]
    async with _opened(folder / "log") as log:
        await log.append([event(said, mood="cross", extra={"mood": "cross"})])
        (back,) = [one async for batch in log.read_topics(["mad.conversations"]) for one in batch]
    kept = "kept" if hasattr(back.event, "mood") else "dropped"
    extra = "kept" if back.event.extra else "dropped"
    refused = "taken"
    try:
        event(said, occurred_at="no")
    except ValueError:
        refused = "refused before it is written"
    ours = f"new field: {kept}, in the field extra: {extra}; another type: {refused}"
    path = folder / "events.jsonl"
    line = {"id": 1, "n": 1}
    many = b"".join(json.dumps(line).encode() + b"\n" for _ in range(_MANY))
    path.write_bytes(many + json.dumps({**line, "mood": "cross"}).encode() + b"\n")
    new = _read_json(path, "SELECT count(mood)").partition(" not found")[0]
    path.write_bytes(many + json.dumps({**line, "n": "two"}).encode() + b"\n")
    other = _read_json(path, "SELECT max(n)")
    by_lines = f"first seen in line {_MANY + 1:,}: new field: {new}; another type: {other}"
    postgres = _NO_SERVER
    if table is not None:
        table.ask("TRUNCATE events;")
        table.append([said._replace(fields={"text": "no", "tags": 7, "mood": "cross"})])
        ((stored,),) = table.ask("SELECT payload FROM events;")
        refused = "takes another type"
        try:
            table.ask(insert([said]).replace(said.at.isoformat(), "no"))
        except Refused:
            refused = "refuses another type"
        postgres = f"jsonb keeps what comes ({stored}); a typed column {refused}"
    return _row("a new field; a field of another type", ours, by_lines, postgres)


async def _read_beside(folder: Path) -> dict[str, Any]:
    """Count again and again while a writer appends."""
    told = []
    for mode in ("ours", "lines", "buffered"):
        path = folder / mode
        writer = _writer(mode, path, batches=400)
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < _BATCH:
            pass
        answers = []
        for _ in range(_READS):
            if mode == "ours":
                async with _opened(path) as log:
                    answers.append(str(await _count(log)))
            else:
                answers.append(_read_json(path))
        writer.kill()
        writer.communicate()
        failed = sum(not answer.isdigit() for answer in answers)
        part = sum(answer.isdigit() and int(answer) % _BATCH != 0 for answer in answers)
        told.append(f"{failed} of {_READS} reads failed, {part} saw part of a batch")
    lines = f"one write a batch: {told[1]}; through a buffer: {told[2]}"
    by_design = "not tried: a transaction is seen whole or not at all, by design"
    return _row("reading while another writes", told[0], lines, by_design)


async def _two_writers(folder: Path, table: Postgres | None) -> dict[str, Any]:
    """Let two processes append to the same at once."""
    told = []
    wanted = 2 * 20 * _BATCH
    for mode in ("ours", "lines"):
        path = folder / mode
        writers = [_writer(mode, path, seed) for seed in (1, 2)]
        for writer in writers:
            writer.communicate()
        if mode == "ours":
            async with _opened(path) as log:
                good = await _count(log)
        else:
            good, _ = _whole(path)
        told.append(f"{good:,} of {wanted:,} events whole")
    postgres = _NO_SERVER
    if table is not None:
        table.ask("TRUNCATE events;")
        other = Session(table.server)
        batches: Sequence[list[Said]] = [_some(_BATCH, seed) for seed in range(20)]
        for batch in batches:
            other.send(insert(batch[50:]) + "\n")
            table.append(batch[:50])
        other.close()
        ((count,),) = table.ask(f"{_ALL};")
        postgres = f"{int(count):,} of {20 * _BATCH:,} events whole"
    return _row("two writers at once", told[0], told[1], postgres)
