"""An answer as it comes, and what is said of a query that is wrong."""

import asyncio
import gc
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.test_questions import log_of, turn

from madlog.analytics.errors import BadSql
from madlog.analytics.output import write_arrow, write_parquet
from madlog.analytics.sql import Result, query, stream
from madlog.cli._answers import print_answer
from madlog.topics import EventLog


@pytest.fixture
async def log() -> EventLog:
    return await log_of(turn(1, "anna", "bot", "hi"))


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (
            "selec 1",
            "this is not SQL at 'selec': did you mean select\\?\n  line 1: selec 1\n {10}\\^{5}",
        ),
        ("SELECT 1\nFRM turns", "at 'turns': did you mean from instead of frm"),
        ("SELECT 1 FROM turns GRUOP BY 1", "at 'BY': did you mean group instead of gruop"),
        ("SELECT 1 FROM turns WERE text = ''", "at 'text': did you mean where instead of were"),
        (
            "SELECT text, sendr FROM turns",
            "no column 'sendr': did you mean sender\\?\n.*\n {23}\\^{5}",
        ),
        ("SELECT d.turnid FROM decisions d", "no column 'turnid': did you mean turn_id"),
        ("SELECT zzz FROM turns", "no column 'zzz'; DESCRIBE turns lists those of turns"),
        ("SELECT *\nFROM turn", "no view 'turn': did you mean turns\\?\n  line 2: FROM turn\n"),
        ("SELECT cuont(*) FROM turns", "no function 'cuont': did you mean count"),
        (
            "SELECT text::integr FROM turns",
            "Type with name integr does not exist: did you mean int",
        ),
        (
            "SELECT text + 1 FROM turns",
            "casts\\.\n  line 1: SELECT text \\+ 1 FROM turns\n {22}\\^",
        ),
        ("SELECT '\x1b[31m', sendr FROM turns", "line 1: SELECT ' \\[31m', sendr"),
    ],
)
async def test_an_error_shows_its_place_and_the_names_that_are_near(
    log: EventLog, sql: str, told: str
) -> None:
    with pytest.raises(BadSql, match=told):
        await query(log, sql)


async def test_a_streamed_answer_comes_in_parts_and_says_late_errors_alike(log: EventLog) -> None:
    async with stream(log, "SELECT range AS n, 1 AS n FROM range(5000)") as told:
        assert list(told.columns) == told.empty.schema.names == ["n", "n_1"]
        counts = [part.table.num_rows async for part in told.parts]
    assert len(counts) > 1
    assert sum(counts) == 5000
    late = "SELECT CASE WHEN range < 100000 THEN range ELSE error('too far') END FROM range(200000)"
    async with stream(log, late) as told:
        with pytest.raises(BadSql, match="the query cannot be run: too far"):
            [part async for part in told.parts]


async def test_a_table_for_people_ends_after_its_first_rows_and_says_so(
    log: EventLog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("madlog.cli._answers._TABLE_ROWS", 100)
    for rows_there, says in ((100, ""), (101, "these are the first 100 rows")):
        async with stream(log, f"SELECT range FROM range({rows_there})") as told:
            await print_answer(told, "table", None)
        printed = capsys.readouterr()
        assert printed.out.count("\n") == 101
        assert printed.err.startswith(says)
        assert bool(printed.err) == bool(says)


async def test_a_query_that_is_given_up_ends_without_a_word(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    endless = "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT i FROM r"

    async def another(parts: AsyncIterator[Result]) -> None:
        await anext(parts)

    async with stream(log, endless) as told:
        await another(told.parts)
        going = asyncio.create_task(another(told.parts))
        await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
    gc.collect()
    assert not caplog.records


async def test_an_answer_of_several_parts_is_written_as_one_file(
    log: EventLog, tmp_path: Path
) -> None:
    path, out = tmp_path / "out.parquet", io.BytesIO()
    sql = "SELECT range AS n FROM range(200000)"
    async with stream(log, sql) as told:
        await write_parquet(told, path)
    async with stream(log, sql) as told:
        await write_arrow(told, out)
    assert pq.read_table(path).equals(pa.ipc.open_stream(out.getvalue()).read_all())
    assert pq.ParquetFile(path).num_row_groups == 2
