"""A guard on the record: it sees what was known then and no more, and what it blocks is judged."""

import asyncio
import gc
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_retrospect import log_of
from tests.unit.what_if_scene import eid, ended, no_blob, refund, refunds

from madlog.analytics.questions import ask
from madlog.analytics.what_if import (
    Act,
    Asked,
    Past,
    WhatIfReport,
    guards,
    load_guard,
    sql_guard,
    what_if,
)
from madlog.analytics.what_if.acts import read_acts
from madlog.analytics.what_if.effects import repeats
from madlog.analytics.what_if.errors import BadGuard, GuardFailed, GuardTooSlow
from madlog.mads.demo.traffic import traffic
from madlog.topics import EventLog, Vector
from madlog.topics.log import log_damage

SQL = """
call.action = 'refund' and exists (
    from past where past.action = 'refund' and past.ok
    and past.arguments->>'order_id' = call.arguments->>'order_id')
"""
PYTHON = """
def no_second_refund(act, past):
    if act.action != "refund":
        return False
    earlier = [one for one in past.same(act, "order_id") if one.ok]
    return f"refunded by {earlier[0].event_id}" if earlier else None
"""


@pytest.fixture
def function(tmp_path: Path) -> str:
    file = tmp_path / "guards.py"
    file.write_text(PYTHON)
    return f"{file}:no_second_refund"


async def guarded(log: EventLog, guard: str, **more: Any) -> WhatIfReport:
    return await what_if(log, Asked(guard=load_guard(guard), **more), no_blob)


def blocked(report: WhatIfReport) -> dict[str, str]:
    assert report.guard is not None
    return {one.act.event_id: one.verdict for one in report.guard.blocked}


def scene() -> list[Any]:
    return [
        refund(1, "4711", eur=480),
        refund(2, "4712", "c2", ok=False),
        refund(3, "4712", "c2", eur=20),
        refund(4, "4711", "c3", eur=480),
        refund(5, "4711", "c3", ok=False),
        refund(6, "4711", "c3", ok=None),
        refund(7, "4712", action="get_order"),
        refund(8, None),
    ]


async def test_sql_and_python_block_the_same_and_say_what_each_had_been(function: str) -> None:
    log = await refunds(*scene())
    report = await guarded(log, SQL)
    assert blocked(report) == {eid(8): "duplicate", eid(10): "failed", eid(12): "unsure"}
    assert report.guard is not None
    assert (report.guard.acts, report.guard.amounts()) == (8, {"amount_eur": 500.0})
    by_function = await guarded(log, function)
    assert blocked(by_function) == blocked(report)
    reasons = [row["reason"] for row in by_function.rows]
    assert reasons == [f"refunded by {eid(2)}"] * 3
    assert report.tally is None


async def test_a_blocked_call_that_had_success_once_is_legitimate_unless_its_case_failed() -> None:
    log = await refunds(*scene())
    everything = blocked(await guarded(log, "true"))
    assert everything[eid(2)] == "legitimate"
    assert everything[eid(14)] == "legitimate"
    await log.append([ended("c1", "failure")])
    assert blocked(await guarded(log, "true"))[eid(2)] == "unsure"


async def test_the_call_and_the_answer_are_marked_in_the_excerpt() -> None:
    report = await guarded(await refunds(*scene()), SQL, shown=1)
    (excerpt,) = report.excerpts
    assert (excerpt.conversation_id, excerpt.differs) == ("c3", 3)
    told = [(line.mark, line.record, line.what_if) for line in excerpt.lines]
    assert told[:2] == [("≠", "ran, ok", "blocked"), ("≠", "answered", "never called")]


async def test_an_answer_that_came_later_is_not_known_to_a_guard(tmp_path: Path) -> None:
    first, answer = refund(1, "1")
    second = refund(2, "1", "c2")
    late = answer.model_copy(update={"occurred_at": 9_000_000})
    log = await log_of([first, late], second)
    assert blocked(await guarded(log, SQL)) == {}
    begun = SQL.replace("past.ok", "true").replace("past", "begun")
    assert list(blocked(await guarded(log, begun))) == [eid(4)]
    file = tmp_path / "seen.py"
    file.write_text(
        "seen = []\ndef guard(act, past):\n    seen.append((act.ok, [one.ok for one in past]))\n"
    )
    guard: Any = load_guard(f"{file}:guard")
    await what_if(log, Asked(guard=guard), no_blob)
    assert guard.function.__globals__["seen"] == [(None, []), (None, [None])]


async def test_calls_stand_in_the_order_of_their_times_which_falls_in_no_conversation() -> None:
    early = refund(1, "1", "b")
    jumped_back = [event.model_copy(update={"occurred_at": 1}) for event in refund(5, "2", "b")]
    log = await log_of(refund(3, "9", "a"), early, jumped_back)
    end = await log.log.end(["mad.conversations"])
    acts = await read_acts(log, Vector(), end, log_damage)
    assert [act.event_id for act in acts.all] == [eid(2), eid(10), eid(6)]


async def test_repeats_are_those_that_the_named_question_finds() -> None:
    log = await log_of(*traffic(3, 900), *scene())
    end = await log.log.end(["mad.conversations"])
    found = repeats(await read_acts(log, Vector(), end, log_damage))
    rows = (await ask(log, "duplicate-effects")).table.to_pylist()
    assert found == {event_id for row in rows for event_id in row["events"][1:]}
    # Order 4711 went out twice in the traffic and twice in the scene, two others twice.
    assert len(found) == 5


@pytest.mark.parametrize(
    "predicate",
    [
        "1 =",
        "true; drop table call",
        "nothing_like_it > 1",
        "exists (from _calls)",
        "exists (from call other where other.number > call.number)",
        "exists (with past as (select 1) from past)",
        "exists (from past call)",
        "exists (from past as p(a, b))",
        "exists (from begun b left join past on true)",
        "exists (from (pivot past on action using count(*)))",
        "exists (from read_text('/etc/hostname'))",
        "exists (from duckdb_settings())",
        "exists (from information_schema.tables)",
        "exists (from query_table('_calls'))",
        "true) union select event_id from call where (true",
    ],
)
async def test_a_predicate_that_is_none_or_looks_elsewhere_is_refused(predicate: str) -> None:
    with pytest.raises(BadGuard):
        await guarded(await log_of(refund(1, "1")), predicate)


async def test_a_subquery_in_a_subquery_sees_the_past_alone() -> None:
    log = await log_of(*(refund(number, "1") for number in range(1, 6)))
    nested = "exists (with p as (select * from past) select 1 from p, begun b where b.number < 3)"
    told = await guarded(log, f"{nested} and 2 > (select count(*) from (from past) q)")
    assert list(blocked(told)) == [eid(4)]


async def test_a_guard_that_raises_names_the_act_and_the_error(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def guard(act, past):\n    return act.arguments['iban'] == 'x'\n")
    log = await refunds(*scene())
    with pytest.raises(GuardFailed, match=rf"KeyError: 'iban' at refund\(.*{eid(2)} in c1"):
        await guarded(log, f"{file}:guard")
    with pytest.raises(GuardFailed, match="Conversion Error"):
        await guarded(log, "(call.arguments->>'order_id')::INT > 'x'::INT")
    for said, why in (
        ("def guard(act, past):\n    return 17\n", "answered '17'"),
        ("def guard(act, past):\n    raise SystemExit(4)\n", "raised SystemExit: 4"),
        ("async def guard(act, past):\n    return True\n", "plain def"),
    ):
        file.write_text(said)
        with pytest.raises(GuardFailed, match=why):
            await guarded(log, f"{file}:guard")


async def test_a_function_that_never_answers_is_stopped_at_the_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "endless.py"
    file.write_text(
        "def guard(act, past):\n    while True:\n        try:\n            pass\n"
        "        except Exception:\n            pass\n"
    )
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(guards, "_SECONDS_MAX", 0.05)
    with pytest.raises(GuardTooSlow, match=rf"was at refund\(.*{eid(2)}, for 0.05 s"):
        await guarded(await refunds(*scene()), f"{file}:guard")
    assert (signal.getsignal(signal.SIGALRM), GuardTooSlow.exit_code) == (before, 3)


@pytest.mark.parametrize(
    ("predicate", "where"),
    [
        ("call.action =", "after its end"),
        ("1 =\n2 + * 3", "line 2, column 7"),
        ("call.acton = 'refund'", "call has event_id, conversation_id, agent, action"),
        (" \n", "is empty"),
    ],
)
async def test_where_a_guard_in_sql_is_wrong_is_said(predicate: str, where: str) -> None:
    with pytest.raises(BadGuard, match=where):
        await guarded(await log_of(refund(1, "1")), predicate)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{}/none.py:guard", "no file"),
        ("{}/none.sql", "cannot be read"),
        ("{}/there.py:nothing", "those that it has are guard"),
        ("{}/there.py:LIMIT", "no function"),
        ("{}/broken.py:guard", "SyntaxError.*line 1"),
        ("{}/ends.py:guard", "SystemExit"),
        ("no_such_module_here:guard", "ModuleNotFoundError"),
    ],
)
def test_a_guard_that_is_not_there_is_refused(tmp_path: Path, given: str, why: str) -> None:
    (tmp_path / "there.py").write_text("LIMIT = 3\ndef guard(act, past):\n    return False\n")
    (tmp_path / "broken.py").write_text("def guard(\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(BadGuard, match=why):
        load_guard(given.format(tmp_path))


def test_the_past_is_read_only() -> None:
    act = Act(1, eid(1), "c", "a", "refund", None, "{}", 0)
    with pytest.raises(AttributeError):
        act.action = "other"  # type: ignore[misc]
    assert len(Past()) == 0
    assert Past().same(act, "order_id") == ()


async def test_a_guard_that_takes_too_long_is_stopped_without_a_word_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = await log_of(*(refund(number, str(number)) for number in range(1, 200)))
    slow = "(select count(*) from begun a, begun b, begun c, begun d where a.action <> 'x') < 0"
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    task = asyncio.ensure_future(guarded(log, slow))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.2)
    assert task.cancelled()
    monkeypatch.setattr(sql_guard, "_SECONDS_MAX", 0.1)
    with pytest.raises(GuardTooSlow, match=r"more than 0\.1 s"):
        await guarded(log, slow)
    gc.collect()
    assert told == []
