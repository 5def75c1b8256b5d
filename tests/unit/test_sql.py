"""SQL over the log: what the views hold, that one SELECT is all there is, and how answers print."""

import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from madlog.analytics.errors import BadParameter, BadSql, CannotWrite, SqlLimit
from madlog.analytics.output import (
    as_answer,
    csv_lines,
    json_lines,
    rows,
    write_arrow,
    write_parquet,
)
from madlog.analytics.sql import Result, query, views_of
from madlog.analytics.tables import LogSource
from madlog.analytics.views import VIEWS
from madlog.schemas import (
    AuditEntry,
    Candidate,
    ConversationChanged,
    DeadLetter,
    Decision,
    Event,
    LlmCall,
    ModelPublished,
    Outcome,
    Part,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.topics import EventLog, NewEvent, Vector
from madlog.topics.memory import MemoryLog

COMMON = (
    "topic partition offset event_id conversation_id correlation_id causation_id "
    "sender sender_kind occurred_at appended_at schema_version "
)
OWN = {
    "events": "kind payload subject idempotency_key",
    "turns": "turn_number recipients mentions tags intent content_class text parts traffic",
    "conversation_changes": "change participant participant_kind title metadata",
    "tool_calls": "action arguments source_call_id",
    "tool_results": "call_id ok result error duration_ms",
    "decisions": "turn_id recipient mode tier settled_by route confidence max_error audited "
    "propensity model_id model_version features candidates reason duration_us arguments escalation "
    "control_id",
    "llm_calls": "provider model tokens_in tokens_out cost_usd latency_ms parameters answer_id "
    "extra",
    "outcomes": "result quality judged_by about about_id extra",
    "models": "component mad version parameters_sha256 parameters parameters_uri trained_on "
    "metrics hyper_parameters code_version",
    "audit": "principal action text text_sha256 reads verdict reason rows size",
    "dead_letters": "processor record_topic record_partition record_offset record_key "
    "record_value record_headers error_type error attempts",
    "schemas": "subject_name version fingerprint schema_text",
}


def eid(n: int) -> str:
    return new_event_id(n * 1000, n.to_bytes(10, "big"))


def about(n: int, who: str = "anna", conversation: str = "c1") -> dict[str, Any]:
    kind = "human" if who == "anna" else "mad"
    sender = Sender(name=who, kind="human" if kind == "human" else "mad")
    return {
        "event_id": eid(n),
        "conversation_id": conversation,
        "sender": sender,
        "occurred_at": n * 1000,
    }


def prose(text: str) -> Part:
    return Part(content_class="prose", text=text)


def command(text: str) -> Part:
    return Part(content_class="deterministic", text=text)


EVENTS: list[Event | NewEvent] = [
    ConversationChanged(
        **about(1), change="created", title="Refund", metadata={"tools": '["refund"]'}
    ),
    ConversationChanged(**about(2), change="joined", participant="bot", participant_kind="mad"),
    Turn(
        **about(3),
        recipients=("bot",),
        mentions=("bot",),
        tags=("urgent",),
        intent="REQUEST",
        parts=(prose("please "), command("refund 4711")),
    ),
    ToolCall(**about(4, "bot"), causation_id=eid(3), action="refund", arguments='{"order":4711}'),
    ToolResult(**about(5, "bot"), call_id=eid(4), ok=True, result="done", duration_ms=12.5),
    Turn(**about(6, "bot"), recipients=("anna",), parts=(command("ok"), prose(" \n"))),
    Turn(**about(7, "anna", "c2"), parts=(prose("hello"),)),
    Turn(**about(8, "anna", "c2")),
    NewEvent(
        Decision(
            **about(9, "bot"),
            turn_id=eid(3),
            recipient="bot",
            mode="live",
            tier="dtr",
            route="action:refund",
            confidence=0.9,
            max_error=0.05,
            features={"words": 2, "verb": "refund"},
            candidates=(Candidate(route="imperator", score=0.1),),
            model_id=eid(11),
            model_version="1",
            reason="a command",
            propensity=1.0,
            audited=False,
        ),
        headers=(("duration-us", b"41"),),
    ),
    LlmCall(**about(10, "bot"), provider="acme", model="m1", tokens_in=7, cost_usd=float("nan")),
    ModelPublished(
        **about(11, "bot"),
        component="dtr",
        version="1",
        parameters_sha256="00",
        metrics={"loss": float("nan")},
    ),
    Outcome(
        **about(12), mad="bot", result="failure", judged_by="x", about="conversation", about_id="c1"
    ),
    Outcome(
        **about(13), mad="bot", result="success", judged_by="x", about="conversation", about_id="c1"
    ),
    AuditEntry(**about(15), principal="ada", action="sql", verdict="refused", reads=("turns",)),
    DeadLetter(
        **about(14, "bot"),
        processor="router",
        topic="mad.conversations",
        partition=1,
        offset=7,
        record_key=b"c1",
        record_value=b"\xff\x00",
        record_headers={"kind": b"\xfe"},
        error_type="ValueError",
        error="no",
        attempts=3,
    ),
]


@pytest.fixture
async def log() -> EventLog:
    log = await EventLog.open(MemoryLog())
    await log.append(EVENTS)
    return log


async def ask(log: EventLog, sql: str, **more: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows(await query(log, sql, **more))]


@pytest.mark.parametrize("view", sorted(OWN))
async def test_a_view_has_the_columns_that_are_promised(log: EventLog, view: str) -> None:
    result = await query(log, f"SELECT * FROM {view}")
    assert list(result.columns) == (COMMON + OWN[view]).split()
    assert result.table.num_rows > 0


async def test_every_view_can_be_asked_of_an_empty_log() -> None:
    log = await EventLog.open(MemoryLog())
    for view in VIEWS:
        result = await query(log, f"SELECT * FROM {view}")
        assert (result.table.num_rows, result.as_of) == (0, Vector())


async def test_turns_are_numbered_by_conversation_and_classed_by_content(log: EventLog) -> None:
    sql = (
        "SELECT conversation_id, turn_number, text, content_class, recipients FROM turns "
        "ORDER BY conversation_id, turn_number"
    )
    assert await ask(log, sql) == [
        ("c1", 1, "please refund 4711", "mixed", ["bot"]),
        ("c1", 2, "ok \n", "deterministic", ["anna"]),
        ("c2", 1, "hello", "prose", []),
        ("c2", 2, "", None, []),
    ]


async def test_the_common_columns_hold_place_times_and_sender(log: EventLog) -> None:
    (row,) = rows(await query(log, f"SELECT * FROM tool_calls WHERE event_id = '{eid(4)}'"))
    assert (row["topic"], row["sender"], row["sender_kind"]) == ("mad.conversations", "bot", "mad")
    assert row["occurred_at"].isoformat() == "1970-01-01T00:00:00.004000"
    assert row["causation_id"] == eid(3)
    assert row["schema_version"] == 1
    assert row["appended_at"].year > 2000
    place = f"{row['topic']}/{row['partition']}@{row['offset']}"
    found = [
        str(event.position)
        async for batch in log.read_topics(["mad.conversations"])
        for event in batch
        if event.event_id == eid(4)
    ]
    assert found == [place]


async def test_decisions_say_who_settled_and_how_long_it_took(log: EventLog) -> None:
    sql = (
        "SELECT tier, settled_by, duration_us, features->>'verb', candidates->0->>'route' "
        "FROM decisions"
    )
    assert await ask(log, sql) == [("dtr", "tree", 41, "refund", "imperator")]


async def test_conversations_have_participants_turns_and_the_last_outcome(log: EventLog) -> None:
    sql = (
        "SELECT conversation_id, turns, participants, outcome, last_at FROM conversations "
        "ORDER BY conversation_id"
    )
    found = await ask(log, sql)
    assert [row[:4] for row in found] == [
        ("c1", 2, ["anna", "bot"], "success"),
        ("c2", 2, ["anna"], None),
    ]
    assert found[0][4].microsecond == 6000


async def test_events_hold_each_kind_with_its_payload(log: EventLog) -> None:
    sql = "SELECT kind, payload->>'arguments' FROM events WHERE kind IN ('ToolCall', 'Outcome')"
    assert sorted(await ask(log, sql), key=str) == [
        ("Outcome", None),
        ("Outcome", None),
        ("ToolCall", '{"order":4711}'),
    ]


async def test_numbers_that_json_lacks_are_null_and_break_no_query(log: EventLog) -> None:
    assert await ask(log, "SELECT metrics->>'loss' FROM models") == [(None,)]
    (line,) = json_lines(await query(log, "SELECT cost_usd FROM llm_calls"))
    assert json.loads(line) == {"cost_usd": None}


async def test_only_the_topics_that_a_query_names_are_read(log: EventLog) -> None:
    result = await query(log, "WITH x AS (SELECT * FROM Decisions) SELECT count(*) FROM x")
    assert {tp.topic for tp in result.as_of} == {"mad.decisions"}
    assert (await query(log, "SELECT 1")).as_of == Vector()


@pytest.mark.parametrize(
    ("sql", "views"),
    [
        ("SELECT (SELECT max(text) FROM turns) FROM decisions", {"turns", "decisions"}),
        ("FROM turns", {"turns"}),
        ("DESCRIBE turns", {"turns"}),
        ("SELECT turns FROM (SELECT 1 AS turns)", set()),
        ("FROM query_table('turns')", set(VIEWS)),
        ("FROM query('FROM turns')", set(VIEWS)),
    ],
)
def test_the_views_of_a_query_are_found_by_the_parser(sql: str, views: set[str]) -> None:
    with duckdb.connect(":memory:") as con:
        assert views_of(con, sql) == views


async def test_a_table_named_in_a_string_is_filled_too(log: EventLog) -> None:
    assert await ask(log, "SELECT count(*) FROM query_table('turns')") == [(4,)]


async def test_a_query_sees_the_log_up_to_its_vector_only(log: EventLog) -> None:
    end = await log.log.end(["mad.conversations"])
    await log.append([Turn(**about(20, "anna", "c1"))])
    assert await ask(log, "SELECT count(*) FROM turns", as_of=end) == [(4,)]
    assert await ask(log, "SELECT count(*) FROM turns") == [(5,)]


async def test_topics_that_the_vector_leaves_out_are_empty_and_named(log: EventLog) -> None:
    end = await log.log.end(["mad.conversations"])
    result = await query(log, "SELECT * FROM turns, decisions", as_of=end)
    assert result.table.num_rows == 0
    assert result.unread == ("mad.decisions",)


REFUSED = [
    "",
    "SELECT 1; SELECT 2",
    "DELETE FROM turns",
    "DROP VIEW turns",
    "CREATE TABLE x AS SELECT 1",
    "EXPLAIN SELECT 1",
    "SET memory_limit = '9GB'",
    "PRAGMA version",
    "CALL pragma_version()",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "ATTACH '/tmp/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PIVOT turns ON sender USING count(*)",
    "SELECT * FROM _log_Turn",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/x''')",
    "SELECT getenv('HOME')",
    "SELECT nosuch FROM turns",
    "SELECT * FROM nosuch",
    "SELECT * FROM EVENTS_OF_THIS_TEST",
    "SELEC 1",
    "SELECT 'a'::INTEGER",
    "SELECT \ud800",
    "SELECT 1\x00; DELETE FROM turns",
]
EVENTS_OF_THIS_TEST = "a variable that a replacement scan would find"


@pytest.mark.parametrize("sql", REFUSED)
async def test_what_is_not_a_select_over_the_views_is_refused_in_one_sentence(
    log: EventLog, sql: str
) -> None:
    with pytest.raises(BadSql) as caught:
        await query(log, sql)
    sentence, *shown = str(caught.value).split("\n")
    assert sentence
    assert not shown or (shown[0].startswith("  line 1: ") and shown[1].strip("^ ") == "")
    assert "LINE 1" not in sentence
    assert "Error:" not in sentence
    assert caught.value.exit_code == 2


async def test_an_unknown_view_is_answered_with_those_there_are(log: EventLog) -> None:
    with pytest.raises(BadSql, match=r"no view 'nosuch'; the views are events, turns"):
        await query(log, "SELECT * FROM nosuch")


async def test_settings_are_locked_before_the_query_runs(log: EventLog) -> None:
    sql = (
        "SELECT name, value FROM duckdb_settings() "
        "WHERE name IN ('enable_external_access', 'lock_configuration') ORDER BY name"
    )
    found = await ask(log, sql)
    assert found == [("enable_external_access", "false"), ("lock_configuration", "true")]


async def test_a_query_over_its_memory_limit_says_so(log: EventLog) -> None:
    with pytest.raises(SqlLimit, match="out of memory") as caught:
        await query(log, "SELECT list(range) FROM range(30000000)", memory_limit="20MB")
    assert caught.value.exit_code == 3


async def test_parameters_are_values_and_never_sql(log: EventLog) -> None:
    sql = "SELECT count(*) FROM turns WHERE conversation_id = $name"
    assert await ask(log, sql, parameters={"name": "c2", "unused": 1}) == [(2,)]
    assert await ask(log, sql, parameters={"name": "' OR true --"}) == [(0,)]
    with pytest.raises(BadParameter, match=r"\$name"):
        await query(log, sql)


async def test_a_source_of_one_conversation_decodes_no_other(log: EventLog) -> None:
    source = LogSource(log, conversation="c2")
    assert await ask(log, "SELECT DISTINCT conversation_id FROM turns", source=source) == [("c2",)]
    assert await ask(log, "SELECT count(*) FROM outcomes", source=source) == [(2,)]


async def test_a_record_that_cannot_be_decoded_is_named_and_skipped(log: EventLog) -> None:
    record = log.to_record(Turn(**about(30, "anna", "c2")))
    await log.log.append([type(record)("mad.conversations", b"c2", record.value[:20])])
    for conversation in (None, "c2"):
        damages: list[Any] = []
        source = LogSource(log, conversation=conversation, on_damage=damages.append)
        sql = "SELECT count(*) FROM turns WHERE conversation_id = 'c2'"
        assert await ask(log, sql, source=source) == [(2,)]
        assert [damage.topic for damage in damages] == ["mad.conversations"]


async def test_times_outside_the_calendar_are_null(log: EventLog) -> None:
    far = {**about(31), "occurred_at": 2**63 - 1}
    await log.append([Turn(**far)])
    sql = f"SELECT occurred_at FROM turns WHERE event_id = '{eid(31)}'"
    assert await ask(log, sql) == [(None,)]


async def answer(log: EventLog) -> Result:
    return await query(
        log,
        "SELECT turn_number AS n, text, tags, parts, occurred_at, sum(1) OVER () AS n, "
        "1.25::DECIMAL(9, 2) AS d FROM turns WHERE conversation_id = 'c1' ORDER BY turn_number",
    )


async def test_json_lines_nest_json_and_write_utc(log: EventLog) -> None:
    first = json.loads(next(json_lines(await answer(log))))
    assert first["parts"][1]["text"] == "refund 4711"
    assert first["occurred_at"] == "1970-01-01T00:00:00.003000Z"
    assert (first["n"], first["n_1"], first["d"], first["tags"]) == (1, 2, 1.25, ["urgent"])


async def test_csv_quotes_line_breaks_and_writes_lists_as_json(log: EventLog) -> None:
    head, first, second = csv_lines(await answer(log))
    assert head == "n,text,tags,parts,occurred_at,n_1,d\n"
    assert first.startswith('1,please refund 4711,"[""urgent""]",')
    assert second.startswith('2,"ok \n",[],')


async def test_arrow_is_a_stream_of_the_rows(log: EventLog) -> None:
    out = io.BytesIO()
    await write_arrow(as_answer(await answer(log)), out)
    assert pa.ipc.open_stream(out.getvalue()).read_all().equals((await answer(log)).table)


async def test_parquet_is_written_whole_or_not_at_all(log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    await write_parquet(as_answer(await answer(log)), path)
    assert pq.read_table(path).num_rows == 2
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]
    with pytest.raises(CannotWrite, match="cannot be written"):
        await write_parquet(as_answer(await answer(log)), tmp_path / "nowhere" / "out.parquet")
