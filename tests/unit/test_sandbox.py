"""SQL of others: what it may ask, what walls hold it, and what the log says of it."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
import pytest_asyncio
from tests.unit.sandbox_scene import ESCAPES, Escape, Scene, small_log

from madlog.analytics.errors import BadSql, LakeDamaged, SqlLimit, SqlRefused
from madlog.analytics.output import rows
from madlog.analytics.sandbox import WALLS, Limits, Sandbox, kernel_walls
from madlog.analytics.sandbox._tree import views_read
from madlog.analytics.sql import query
from madlog.analytics.views import VIEWS
from madlog.schemas import Event
from madlog.topics import EventLog, NewEvent, NotWritten, Receipt, Vector

LIMITS = Limits(timeout_s=30.0, memory_bytes=192 << 20, output_bytes=4 << 20, rows_max=50_000)
# What is held by its time alone is held by less of it.
SOON = Limits(timeout_s=0.3, memory_bytes=128 << 20)


# One loop for all tests, and so one warm process: it takes longer to start than most of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def warm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    # Without the wall of settings DuckDB puts what memory does not hold into the current folder.
    with contextlib.chdir(tmp_path_factory.mktemp("current")):
        async with Sandbox(await small_log()) as sandbox:
            yield sandbox


@pytest_asyncio.fixture(loop_scope="module")
async def log() -> EventLog:
    return await small_log()


@pytest.fixture
def box(log: EventLog, warm: Sandbox) -> Sandbox:
    return of(warm, Sandbox(log, limits=LIMITS))


def of(warm: Sandbox, sandbox: Sandbox) -> Sandbox:
    """Return a sandbox that uses the process of another."""
    sandbox._children = warm._children
    return sandbox


async def escaped(sandbox: Sandbox, scene: Scene, escapes: Sequence[Escape]) -> dict[str, str]:
    """Return what came of each escape, of those that something came of."""
    found = {escape.name: await scene.escapes(sandbox, escape) for escape in escapes}
    return {name: got for name, got in found.items() if got}


async def test_every_escape_is_held_by_the_walls_together(
    warm: Sandbox, log: EventLog, tmp_path: Path
) -> None:
    scene = Scene(log, tmp_path)
    assert len({escape.name for escape in ESCAPES}) == len(ESCAPES) >= 60
    assert await escaped(of(warm, scene.sandbox(WALLS, SOON)), scene, ESCAPES) == {}


async def test_the_parser_holds_what_it_is_meant_to_alone() -> None:
    names = dict.fromkeys(("canary", "canary_json", "canary_parquet", "folder", "lake"), "/x")
    names["lake_file"] = "/x/control.parquet"
    with duckdb.connect(":memory:") as con:
        for escape in ESCAPES:
            sql = escape.sql
            for name, value in names.items():
                sql = sql.replace(f"{{{name}}}", value)
            ((tree,),) = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
            try:
                views_read(sql, tree, [*VIEWS, "prices"])
            except BadSql:
                assert "parser" in escape.held, escape.name
            else:
                assert "parser" not in escape.held, escape.name


@pytest.mark.parametrize("wall", sorted(WALLS - {"parser"}))
async def test_a_wall_holds_what_it_is_meant_to_with_the_others_off(
    wall: str, warm: Sandbox, log: EventLog, tmp_path: Path
) -> None:
    if kernel_walls().get(wall) == "":
        pytest.skip(f"this kernel has no {wall}: `madlog doctor` says what would")
    scene = Scene(log, tmp_path)
    alone = of(warm, scene.sandbox({wall}, SOON if wall in ("clock", "limits") else LIMITS))
    meant = [escape for escape in ESCAPES if wall in escape.held]
    assert meant
    assert await escaped(alone, scene, meant) == {}


async def test_the_docs_count_the_escapes_as_they_are(box: Sandbox) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text("utf-8")
    told = " ".join(text.split())
    tries = Counter(escape.tries for escape in ESCAPES)
    held = Counter(wall for escape in ESCAPES for wall in escape.held)
    assert f"{len(ESCAPES)} ways out: {tries['reads']} read" in told
    assert f"{tries['writes']} write, {tries['tells']} ask about this program" in told
    assert f"{tries['changes']} change something, {tries['takes']} take too much" in told
    for name, wall in (("Landlock", "landlock"), ("time", "clock"), ("the parser", "parser")):
        assert f"| {name} | {held[wall]}: " in text
    for wall in ("settings", "seccomp", "limits", "output"):
        assert f"| {wall} | {held[wall]}: " in text
    code = text.split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/sandbox.md", "exec"), scope)
    found = await scope["answer"](box._log, "SELECT count(*) AS n FROM turns")
    assert list(rows(found)) == [{"n": 3}]


async def test_a_lake_s_file_is_read_within_all_walls(
    warm: Sandbox, log: EventLog, tmp_path: Path
) -> None:
    sandbox = of(warm, Scene(log, tmp_path).sandbox(WALLS, LIMITS))
    result = await sandbox.query("SELECT count(*) AS n FROM control", principal="ada")
    assert list(rows(result)) == [{"n": 0}]


async def test_a_lake_s_file_that_is_damaged_is_named_and_no_answer_given(
    warm: Sandbox, log: EventLog, tmp_path: Path
) -> None:
    scene = Scene(log, tmp_path)
    data = scene.lake_file.read_bytes()
    scene.lake_file.write_bytes(data[: len(data) // 2])
    sandbox = of(warm, scene.sandbox(WALLS, LIMITS))
    with pytest.raises(LakeDamaged, match=r"file control\.parquet cannot be read") as caught:
        await sandbox.query("SELECT count(*) FROM control", principal="ada")
    assert caught.value.exit_code == 3
    assert [entry["verdict"] for entry in await audits(log)] == ["failed"]


ANSWERED = [
    "SELECT * FROM turns ORDER BY turn_number",
    "SELECT kind, payload->>'parts' AS p FROM events WHERE kind = 'Turn' ORDER BY event_id",
    "FROM conversations",
    "SELECT share_low(1, 4) AS low, share_high(1, 4) AS high",
    "SELECT * FROM prices",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) FROM n",
    "SELECT x, [y * 2 for y in range(3)] AS l FROM unnest([1, 2]) AS u(x), generate_series(1, 2)",
    "SELECT NULL AS a, 'x'::ENUM('x', 'y') AS b, {'a': [1]} AS c, MAP {'k': 1} AS d, 1.5 AS e",
    "SELECT text, text FROM turns ORDER BY occurred_at LIMIT 1",
    "SELECT sender, string_agg(text, ' ' ORDER BY text) FILTER (text <> '') FROM turns GROUP BY 1",
    "SELECT turns FROM (WITH turns AS (SELECT 1 AS turns) SELECT turns FROM turns)",
    "SELECT date_trunc('day', occurred_at), count(*) FROM turns GROUP BY 1 HAVING count(*) > 0",
]


async def test_an_answer_is_the_one_that_is_given_without_walls(
    box: Sandbox, log: EventLog
) -> None:
    for sql in ANSWERED:
        got, wanted = await box.query(sql, principal="ada"), await query(log, sql)
        assert (got.columns, got.types) == (wanted.columns, wanted.types), sql
        assert list(rows(got)) == list(rows(wanted)), sql


async def test_a_question_is_answered_up_to_a_vector(box: Sandbox, log: EventLog) -> None:
    result = await box.query("SELECT count(*) AS n FROM turns", principal="ada", as_of=Vector())
    assert list(rows(result)) == [{"n": 0}]
    assert result.unread == ("mad.conversations",)


async def audits(log: EventLog) -> list[dict[str, Any]]:
    return [event.fields async for batch in log.read_topics(["mad.audit"]) for event in batch]


async def test_each_question_is_on_the_log_with_who_asked_and_what_came_of_it(
    box: Sandbox, log: EventLog
) -> None:
    await box.query("SELECT text FROM turns", principal="ada")
    for sql in ("SELECT nosuch FROM turns", "SELECT * FROM read_text('x')", "FROM range(60000)"):
        with pytest.raises((BadSql, SqlLimit)):
            await box.query(sql, principal="mallory")
    found = await audits(log)
    assert [(entry["principal"], entry["verdict"]) for entry in found] == [
        ("ada", "answered"),
        ("mallory", "failed"),
        ("mallory", "refused"),
        ("mallory", "limited"),
    ]
    assert [entry["reads"] for entry in found] == [["turns"], ["turns"], [], []]
    assert (found[0]["text"], found[0]["rows"], found[0]["reason"]) == (
        "SELECT text FROM turns", 3, None
    )  # fmt: skip
    assert found[0]["size"] > 0
    assert "read_text()" in found[2]["reason"]
    assert found[0]["sender"]["name"] == "sandbox"


async def test_a_text_that_no_event_can_hold_is_recorded_all_the_same(
    box: Sandbox, log: EventLog
) -> None:
    for sql in ("SELECT 1\x00", "SELECT '\ud800'", "SELECT 1 -- " + "x" * 10_000_000):
        with pytest.raises(SqlRefused) as caught:
            await box.query(sql, principal="mallory")
        assert "\n" not in str(caught.value)
    found = await audits(log)
    assert [len(entry["text"]) <= 4_000 for entry in found] == [True] * 3
    assert found[0]["text"] == "SELECT 1\\x00"
    assert found[1]["text"] == "SELECT '\\ud800'"
    assert len({entry["text_sha256"] for entry in found}) == 3


class _Full(EventLog):
    async def append(self, events: Sequence[Event | NewEvent]) -> list[Receipt]:
        raise NotWritten("the disk is full: free some space")


async def test_without_a_record_there_is_no_answer(warm: Sandbox, log: EventLog) -> None:
    sandbox = of(warm, Sandbox(_Full(log.log, log.schemas), limits=LIMITS))
    with pytest.raises(NotWritten):
        await sandbox.query("SELECT 1", principal="ada")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", 'near "SELEC" (line 1, column 1)'),
        ("SELECT 'é',\n  1 +", "line 2"),
        ("SELECT 1 FROM trns", "near: turns"),
        ("SELECT txt FROM turns", 'Candidate bindings: "text"'),
        ("SELECT uper('x')", "near: upper"),
        ("", "no statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("DELETE FROM turns", "only a SELECT"),
        ("SELECT $x", "x"),
        ("SELECT 'a'::INTEGER", "Conversion Error"),
        ("(" * 20_000, "cannot be read"),
        ("SELECT " + "(" * 5_000 + "1" + ")" * 5_000, ""),
        ("SELECT " + "NOT " * 12_000 + "true", ""),
        ("SELECT " + "+".join("1" * 15_000), ""),
        ("SELECT 1 FROM " + "(SELECT * FROM " * 2_000 + "turns" + ")" * 2_000, ""),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_bad_sql_is_refused_in_one_sentence_that_says_where(
    box: Sandbox, sql: str, says: str
) -> None:
    with pytest.raises((BadSql, SqlLimit)) as caught:
        await box.query(sql, principal="ada")
    message = str(caught.value)
    assert says.lower() in message.lower()
    assert "\n" not in message
    assert len(message) < 600


async def test_limits_are_exit_code_3_and_what_is_not_allowed_is_2(
    warm: Sandbox, box: Sandbox, log: EventLog
) -> None:
    soon = of(warm, Sandbox(log, limits=SOON))
    with pytest.raises(SqlLimit, match=r"took longer than 0\.3 s") as slow:
        await soon.query("SELECT count(*) FROM range(1e18::BIGINT)", principal="ada")
    with pytest.raises(SqlRefused) as refused:
        await box.query("FROM duckdb_settings()", principal="ada")
    assert (slow.value.exit_code, refused.value.exit_code) == (3, 2)
    # What was killed takes nothing with it.
    assert list(rows(await box.query("SELECT 1 AS x", principal="ada"))) == [{"x": 1}]


def at_work(pid: int) -> list[str]:
    """Return a process's children that have threads: those that wait for a job have none."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for one in found if len(list(Path(f"/proc/{one}/task").glob("*"))) > 1]


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, as Linux has it")
async def test_a_question_that_is_given_up_leaves_a_record_and_no_process(
    warm: Sandbox, log: EventLog
) -> None:
    sandbox = of(warm, Sandbox(log, limits=Limits(timeout_s=60)))
    asked = asyncio.create_task(
        sandbox.query("SELECT count(*) FROM range(1e18::BIGINT)", principal="ada")
    )
    server = warm._children._process
    assert server is not None
    await until(lambda: bool(at_work(server.pid)))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until(lambda: not at_work(server.pid))
    assert [entry["verdict"] for entry in await audits(log)] == ["interrupted"]


async def test_queries_run_beside_each_other(box: Sandbox) -> None:
    sqls = [f"SELECT {n} AS n FROM turns LIMIT 1" for n in range(8)]
    found = await asyncio.gather(*(box.query(sql, principal="ada") for sql in sqls))
    assert [next(iter(rows(one)))["n"] for one in found] == list(range(8))


async def test_a_price_list_and_json_come_through(box: Sandbox) -> None:
    (row,) = rows(await box.query("SELECT '{\"a\": 1}'::JSON AS j", principal="ada"))
    assert json.loads(row["j"]) == {"a": 1}


async def test_a_warm_process_that_is_gone_is_started_again(box: Sandbox) -> None:
    # The last of the tests: it takes the process of all others.
    server = box._children._process
    assert server is not None
    os.kill(server.pid, 9)
    await server.wait()
    assert (await box.query("SELECT 1", principal="ada")).table.num_rows == 1
