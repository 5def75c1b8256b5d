"""Outcomes from a CSV: how rows find what they are about, what repeats and corrects, bad files."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.outcomes_scene import MARIA, Scene

from madlog.analytics.outcomes_csv import BadCsv, CsvReport, Join, import_csv
from madlog.processors.outcomes import Judge, judge_log
from madlog.topics import EventLog, LogEvent
from madlog.topics.memory import MemoryLog

TICKET = Join("ticket_id", as_result="failure")


def _scene() -> Scene:
    scene = Scene()
    for name, ticket in (("c", '"T-1"'), ("d", "2"), ("e", "T-3"), ("f", "T-3")):
        scene.created(conversation_id=name, metadata={"ticket_id": ticket})
        scene.ask(conversation_id=name, correlation_id=f"case-{name}")
        scene.answer(conversation_id=name, correlation_id=f"case-{name}")
    return scene


async def _log(scene: Scene | None = None) -> EventLog:
    log = await EventLog.open(MemoryLog())
    await log.append([event.event for event in (scene or _scene()).events])
    return log


async def _outcomes(log: EventLog) -> list[LogEvent]:
    return [event async for events in log.read_topics(["mad.outcomes"]) for event in events]


async def _import(
    log: EventLog, path: Path, text: str | bytes, join: Join = TICKET, **more: Any
) -> CsvReport:
    file = path / "tickets.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return await import_csv(log, file, join, **more)


@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
async def test_rows_join_by_a_key_of_the_conversation_s_metadata(
    tmp_path: Path, head: bytes
) -> None:
    log = await _log()
    text = b'note,ticket_id\r\n"reopened, twice",T-1\r\n\r\n"a\nb",2\r\n'
    report = await _import(log, tmp_path, head + text)
    assert (report.rows, report.joined, report.appended) == (2, 2, 2)
    assert report.judged_by == "csv:tickets"
    first, second = sorted(await _outcomes(log), key=lambda one: one.fields["about_id"])
    assert first.fields["about"] == "conversation"
    assert (first.fields["about_id"], second.fields["about_id"]) == ("c", "d")
    assert (first.fields["mad"], first.fields["result"]) == ("orders", "failure")
    assert (first.fields["source"]["line"], second.fields["source"]["line"]) == (2, 4)
    # It stands on the conversation's last event, so that credit goes along the chain to there.
    assert first.fields["causation_id"] is not None


@pytest.mark.parametrize(
    ("join", "text"),
    [
        (Join("conversation"), "conversation_id,result\nc,failure\n"),
        (Join("correlation", column="case"), "result,case\nfailure,case-c\n"),
        (Join("ticket_id", column="t", result_column="was"), "t,was\nT-1, Failure \n"),
    ],
)
async def test_rows_join_by_conversation_and_correlation(
    tmp_path: Path, join: Join, text: str
) -> None:
    log = await _log()
    assert (await _import(log, tmp_path, text, join)).joined == 1
    (outcome,) = await _outcomes(log)
    assert (outcome.fields["about_id"], outcome.fields["result"]) == ("c", "failure")


async def test_a_decision_is_judged_by_its_id_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    scene = _scene()
    decision = next(event for event in scene.events if event.kind == "Decision").event_id
    log = await _log(scene)
    text = f"decision_id,result,score\n{decision},partial,0.5\nnone-such,success,\n"
    report = await _import(log, tmp_path, text, Join("decision", quality_column="score"))
    assert (report.joined, report.unknown) == (1, 1)
    assert report.unjoined == [(3, "none-such", "the log holds no decision")]
    (outcome,) = await _outcomes(log)
    assert (outcome.fields["about"], outcome.fields["about_id"]) == ("decision", decision)
    assert outcome.fields["quality"] == 0.5


async def test_a_file_twice_adds_nothing_and_a_changed_row_corrects(tmp_path: Path) -> None:
    log, join = await _log(), Join("ticket_id")
    text = "ticket_id,result\nT-1,success\n2,failure\n"
    await _import(log, tmp_path, text, join)
    again = await _import(log, tmp_path, text, join)
    assert (again.appended, again.corrected, again.unchanged) == (0, 0, 2)
    changed = text.replace("T-1,success", "T-1,failure")
    report = await _import(log, tmp_path, changed, join)
    assert (report.appended, report.corrected, report.unchanged) == (0, 1, 1)
    back = await _import(log, tmp_path, text, join)
    assert (back.appended, back.corrected, back.unchanged) == (0, 1, 1)
    results = [
        one.fields["result"] for one in await _outcomes(log) if one.fields["about_id"] == "c"
    ]
    assert results == ["success", "failure", "success"]


async def test_of_rows_about_one_thing_the_last_one_counts(tmp_path: Path) -> None:
    log, join = await _log(), Join("ticket_id")
    text = "ticket_id,result\nT-1,success\nT-1,failure\n"
    report = await _import(log, tmp_path, text, join)
    assert (report.joined, report.superseded, report.appended) == (2, 1, 1)
    assert (await _import(log, tmp_path, text, join)).unchanged == 1
    assert [one.fields["result"] for one in await _outcomes(log)] == ["failure"]


async def test_rows_that_find_nothing_or_too_much_are_named_and_the_rest_is_imported(
    tmp_path: Path,
) -> None:
    log = await _log()
    report = await _import(log, tmp_path, 'ticket_id\nT-9\nT-1\nT-3\n""\n')
    assert (report.joined, report.unknown, report.ambiguous) == (1, 2, 1)
    assert [(line, value) for line, value, _ in report.unjoined] == [
        (2, "T-9"),
        (4, "T-3"),
        (5, ""),
    ]
    assert "2 conversations have this ticket_id: e, f" in report.unjoined[1][2]


async def test_a_conversation_without_an_agent_wants_one_named(tmp_path: Path) -> None:
    scene = Scene()
    scene.created(metadata={"ticket_id": "T-1"})
    scene.say(MARIA, "Hello?")
    log = await _log(scene)
    report = await _import(log, tmp_path, "ticket_id\nT-1\n")
    assert report.unknown == 1
    assert "--mad" in report.unjoined[0][2]
    named = Join("ticket_id", as_result="failure", mad="orders")
    assert (await _import(log, tmp_path, "ticket_id\nT-1\n", named)).appended == 1


async def test_a_key_whose_name_will_not_do_is_found_among_the_other_fields(tmp_path: Path) -> None:
    scene = Scene()
    scene.created(metadata={"other_fields": '{"ticket no": 7}'})
    scene.ask()
    scene.answer()
    log = await _log(scene)
    join = Join("ticket no", as_result="failure")
    assert (await _import(log, tmp_path, "ticket no\n7\n", join)).appended == 1


async def test_a_dry_run_joins_all_and_appends_nothing(tmp_path: Path) -> None:
    log = await _log()
    report = await _import(log, tmp_path, "ticket_id\nT-1\nT-9\n", dry_run=True)
    assert (report.joined, report.appended, report.unknown, report.dry_run) == (1, 1, 1, True)
    assert await _outcomes(log) == []


async def test_what_was_said_from_outside_is_shared_with_the_decisions_and_corrected(
    tmp_path: Path,
) -> None:
    log, judge, join = await _log(), Judge(), Join("ticket_id")
    await _import(log, tmp_path, "ticket_id,result\nT-1,success\n", join)
    since = await judge_log(log, judge)
    await _import(log, tmp_path, "ticket_id,result\nT-1,failure\n", join)
    await judge_log(log, judge, since)
    credit = [one.fields for one in await _outcomes(log) if one.fields["judged_by"] == "credit"]
    assert [one["result"] for one in credit] == ["success", "failure"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a,b\n1,2\n", "no column 'ticket_id'; it has: a, b"),
        (b"ticket_id,ticket_id\n", "2 columns 'ticket_id'"),
        (
            b"ticket_id,result\nT-1,success\nT-1,goood\n",
            ":3: the result 'goood' is none of success",
        ),
        (b"ticket_id,result\nT-1\n", ":2 has 1 fields where the first line has 2"),
        (b"ticket_id\n", "no column 'result'"),
        (b"ticket_id,result\nT-1,\x00\n", ":2 holds a NUL byte"),
        (b"ticket_id,result\nT-1,success\n\xff,success\n", ":3 is not UTF-8"),
        (b'ticket_id,result\n"T-1,success\n', "is no CSV"),
        (b'ticket_id,result\n"T"1,success\n', ":2 is no CSV"),
    ],
)
async def test_a_bad_file_is_refused_before_anything_is_appended(
    tmp_path: Path, text: bytes, said: str
) -> None:
    log = await _log()
    with pytest.raises(BadCsv) as caught:
        await _import(log, tmp_path, text, Join("ticket_id"))
    assert said in str(caught.value)
    assert await _outcomes(log) == []


@pytest.mark.parametrize("cell", ["x", "1.5", "-0.1", "nan", "inf"])
async def test_a_quality_is_a_number_from_0_to_1(tmp_path: Path, cell: str) -> None:
    join = Join("ticket_id", as_result="partial", quality_column="q")
    with pytest.raises(BadCsv, match=r"tickets.csv:2: the quality .* 0 to 1"):
        await _import(await _log(), tmp_path, f"ticket_id,q\nT-1,{cell}\n", join)


async def test_nobody_from_outside_judges_under_the_name_of_a_rule(tmp_path: Path) -> None:
    join = Join("ticket_id", as_result="failure", judged_by="tool")
    with pytest.raises(BadCsv, match="tool is a rule"):
        await _import(await _log(), tmp_path, "ticket_id\nT-1\n", join)
