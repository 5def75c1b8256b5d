"""turn_number is made for the queries that ask for it, in whatever way; others filter first."""

import json

import duckdb
import pyarrow as pa
import pytest
from tests.unit.lake_scene import query_rows, turn

from madlog.analytics.columns import KINDS, schema_of
from madlog.analytics.views import VIEWS, numbers_turns
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

ASKED = [
    "SELECT turn_number AS n FROM turns",
    "SELECT n FROM (SELECT TURN_NUMBER AS n FROM turns)",
    'SELECT t."turn_number" AS n FROM turns t',
    "FROM turns SELECT COLUMNS('turn_n.*') AS n",
    "SELECT t.turn_number AS n FROM (FROM turns) t",
    "SELECT t['turn_number'] AS n FROM turns AS T",
    "SELECT turns['turn_number'] AS n FROM turns",
    "SELECT #13 AS n FROM turns",
    "SELECT m AS n FROM turns t(a, b, c, d, e, f, g, h, i, j, k, l, m)",
    "SELECT 1 AS n FROM turns a JOIN turns b USING (turn_number)",
    "SELECT 1 AS n FROM turns a NATURAL JOIN (SELECT 1::BIGINT AS turn_number) b",
    "WITH r AS (FROM turns) SELECT r.turn_number AS n FROM r",
    "SELECT 1 AS n FROM turns QUALIFY max(turn_number) OVER () > 0",
]
UNASKED = [
    "SELECT count(*) AS n FROM turns",
    "SELECT sender, count(*) AS n FROM turns t WHERE t.event_id = 'x' GROUP BY ALL ORDER BY n",
    "WITH r AS (SELECT text FROM turns) SELECT length(text) AS n FROM r",
]


def asked(sql: str) -> bool:
    ((tree,),) = duckdb.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    return numbers_turns(json.loads(tree))


@pytest.fixture
async def log() -> EventLog:
    log = await EventLog.open(MemoryLog())
    await log.append([turn(7)])
    return log


@pytest.mark.parametrize("sql", ASKED)
async def test_turns_are_numbered_however_the_number_is_asked_for(sql: str, log: EventLog) -> None:
    assert asked(sql)
    assert [row["n"] for row in await query_rows(log, sql)] == [1]


@pytest.mark.parametrize("sql", UNASKED)
async def test_turns_are_not_numbered_for_who_does_not_ask(sql: str, log: EventLog) -> None:
    assert not asked(sql)
    await query_rows(log, sql)


def test_without_numbers_a_filter_reaches_the_scan_and_a_number_is_an_error() -> None:
    con = duckdb.connect(":memory:")
    con.register("made", pa.Table.from_pylist([{}], schema_of(KINDS["Turn"])))
    con.execute('CREATE TABLE "_log_Turn" AS FROM made')
    con.execute(f"CREATE VIEW turns AS {VIEWS['turns'].unnumbered}")
    (plan,) = con.execute("EXPLAIN SELECT text FROM turns WHERE event_id = 'e'").fetchall()
    assert "FILTER" not in plan[1].upper().replace("FILTERS", "")
    with pytest.raises(duckdb.Error, match="name it"):
        con.execute("SELECT turn_number FROM turns").fetchall()
