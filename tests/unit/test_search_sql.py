"""search('words') in SQL: a table like any other, of the turns that a search finds."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pytest
from tests.acceptance.inside import inside
from tests.unit.test_search import TURNS, turn

from madlog.analytics.errors import BadSearch, BadSql
from madlog.analytics.output import json_rows
from madlog.analytics.search import SearchIndex
from madlog.analytics.sql import Result, connect, query
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql.md"


@pytest.fixture
async def log() -> AsyncIterator[EventLog]:
    made = await EventLog.open(MemoryLog())
    await made.append(TURNS)
    yield made
    await made.close()


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    return SearchIndex(tmp_path / "search.sqlite")


def values(result: Result) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in json_rows(result)]


async def test_a_connection_searches_the_turns_that_its_views_have(
    log: EventLog, index: SearchIndex
) -> None:
    sql = "select count(*), count(text) from search('late') left join turns using (event_id)"
    with await connect(log, search=index) as con:
        await log.append([turn(900, "late again")])
        await index.take_up(log)
        assert con.execute(sql).fetchall() == [(3, 3)]
        with pytest.raises(duckdb.Error, match="letter or a digit"):
            con.sql("from search('!')").fetchall()
    with await connect(log, search=index) as con:
        assert con.execute(sql).fetchall() == [(4, 4)]
    with await connect(log) as con, pytest.raises(duckdb.CatalogException):
        con.execute(sql)


def test_the_notebook_of_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ("append", "-c", "order-17", "--log", "my-log")
    assert inside(*said, "-s", "ann", "-t", "shop", "My parcel is late", cwd=tmp_path).code == 0
    assert inside(*said, "-s", "shop", "-t", "ann", "It comes today", cwd=tmp_path).code == 0
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "2 pairs",
        "[('ann', 1), ('shop', 1)]",
        "[('My parcel is late',)]",
        "2 turns",
    ]
    shown = inside("sql", "select sendr from turns", "--log", "my-log", cwd=tmp_path)
    assert f'$ madlog sql "select sendr from turns"\n{shown.err}' in PAGE.read_text(
        encoding="utf-8"
    )
    assert shown.code == 2


async def test_it_is_selected_from_joined_and_counted(log: EventLog, index: SearchIndex) -> None:
    async def asked(sql: str, **parameters: str) -> list[tuple[object, ...]]:
        return values(await query(log, sql, search=index, parameters=parameters))

    best = await index.rows(log, "late")
    sql = "select event_id, score from search('late') order by score desc, occurred_at desc"
    assert await asked(sql) == [(row[0], row[4]) for row in best]
    joined = "select text from search('refund late') join turns using (event_id)"
    assert await asked(joined) == [("We will refund it late today",)]
    counted = "select sender, count(*) from SEARCH('late OR refund*') group by 1 order by 1"
    assert await asked(counted) == [("ada", 3), ("bob", 1), ("shop", 1)]
    assert await asked("select count(*) from search($words)", words="late") == [(3,)]
    assert await asked("select count(*) from search(null)") == [(0,)]
    each = (
        "select w, count(*) from (values ('late'), ('refund')) as given(w), search(w) "
        "group by w order by w"
    )
    assert await asked(each) == [("late", 3), ("refund", 2)]
    described = "select * from search('late') limit 1"
    names = (await query(log, described, search=index)).columns
    assert names == ("event_id", "conversation_id", "sender", "occurred_at", "score")


async def test_it_sees_the_log_as_the_views_do(log: EventLog, index: SearchIndex) -> None:
    then = await log.log.end(["mad.conversations"])
    await log.append([turn(9, "late again")])
    sql = "select count(*) from search('late')"
    assert values(await query(log, sql, search=index)) == [(4,)]
    result = await query(log, sql, search=index, as_of=then)
    assert (values(result), result.as_of) == ([(3,)], then)


async def test_what_is_wrong_is_said_as_a_search_says_it(log: EventLog, index: SearchIndex) -> None:
    with pytest.raises(BadSearch, match="not closed"):
        await query(log, "from search('\"late')", search=index)
    for sql in ("from search()", "from search('a', 'b')"):
        with pytest.raises(BadSql, match="search"):
            await query(log, sql, search=index)
    with pytest.raises(BadSql, match="search"):
        await query(log, "from search('late')")


async def test_the_index_is_not_made_for_a_query_that_does_not_search(
    log: EventLog, index: SearchIndex, tmp_path: Path
) -> None:
    sql = "select count(*) from turns where text like '%search(%'"
    assert values(await query(log, sql, search=index)) == [(0,)]
    assert list(tmp_path.iterdir()) == []
