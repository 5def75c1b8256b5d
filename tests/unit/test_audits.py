"""Audits: what cheap tiers settle is judged by the tier above, and errors in silence are shown."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.unit.counting import event_id, run
from tests.unit.imperator_scene import AGENTS, Told, escalations, fields_of, log_with, turn_of
from tests.unit.test_questions import answer

from madlog.processors import Router
from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.imperator import Answer, Asked
from madlog.processors.imperator.answering import AUDIT
from madlog.processors.outcomes import Judge, judge_log
from madlog.processors.promise import interval
from madlog.schemas import ModelPublished, content_id_and_time
from madlog.topics import EventLog
from madlog.topics.embedded import EmbeddedLog

TURNS = 3_000
RATE = 0.1
# What the planted tree gets wrong: one in five of the turns that it settles.
WRONG_EVERY = 5


def order(_: Asked) -> Answer:
    return Answer.acts("get_order", {"args": ["17"]}, tokens_in=100)


async def test_an_audit_is_asked_and_judged_and_acts_on_nothing() -> None:
    log = await log_with(turn_of(1, "EXECUTE: get_order 17"), audit_rate=1.0)
    imperator = Told(order)
    job = escalations(log, imperator)
    report = await job.run()
    assert (report.escalations, report.audits) == (0, 1)
    assert await fields_of(log, "mad.conversations", ["ToolCall"]) == []
    (decision,) = await fields_of(log, "mad.decisions")
    (call,) = await fields_of(log, "mad.llm")
    (judged,) = await fields_of(log, "mad.outcomes")
    assert (call["parameters"]["purpose"], call["answer_id"]) == ("audit", None)
    assert judged["judged_by"] == AUDIT
    assert (judged["about_id"], judged["causation_id"]) == (decision["event_id"], call["event_id"])
    assert (judged["result"], judged["mad"]) == ("success", "orders")
    assert judged["extra"] == {"route": "action:get_order", "arguments": '{"args":["17"]}'}
    # The model is not told what it judges: nothing of the decision is in the question.
    assert imperator.asked[0].escalation is None
    assert (await job.run()).audits == (await escalations(log, imperator).run()).audits == 0
    assert len(imperator.asked) == 1


@pytest.mark.parametrize(
    ("text", "said", "result"),
    [
        ("EXECUTE: get_order 17", Answer.acts("refund"), "failure"),
        ("EXECUTE: get_order 17", Answer.says("No."), "failure"),
        ("HRU?", Answer.says("All is well."), "success"),
        ("HRU?", Answer.acts("refund"), "failure"),
        ("#ack", Answer.says("ACK"), "success"),
        ("#ack", Answer.says("What do you mean by that?"), "failure"),
    ],
)
async def test_an_audit_compares_what_was_chosen(text: str, said: Answer, result: str) -> None:
    log = await log_with(turn_of(1, text), audit_rate=1.0)
    await escalations(log, Told(lambda _: said)).run()
    (judged,) = await fields_of(log, "mad.outcomes")
    assert judged["result"] == result
    assert len(await fields_of(log, "mad.conversations")) == 1


async def test_an_answer_that_nothing_can_follow_judges_nothing() -> None:
    log = await log_with(turn_of(1, "HRU?"), audit_rate=1.0)
    await escalations(log, Told(lambda _: Answer.acts("drop_database"))).run()
    assert await fields_of(log, "mad.outcomes") == []
    (call,) = await fields_of(log, "mad.llm")
    assert "drop_database" in call["extra"]["refused"]


async def test_what_was_not_drawn_is_not_asked() -> None:
    log = await log_with(turn_of(1, "HRU?"), audit_rate=0.0)
    imperator = Told(order)
    await escalations(log, imperator).run()
    assert imperator.asked == []


def planted() -> ModelPublished:
    """A tree that sends each turn of one command to its verb, and `refund` to get_order too."""
    leaf = '{"route":"%s","confidence":0.99}'
    wrong, right = leaf % "action:get_order", leaf % "action:{verb}"
    text = (
        '{"format":"tree-1","root":{"feature":"verb","op":"==","value":"refund",'
        f'"yes":{wrong},"no":{right}}}}}'
    )
    event_id_, at = content_id_and_time("planted", text)
    fields = seed_model().model_dump()
    return ModelPublished(
        **{
            **fields,
            "event_id": event_id_,
            "occurred_at": at,
            "version": "planted-1",
            "idempotency_key": "planted",
            "parameters": text,
            "parameters_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    )


async def silent(folder: Path, turns: int = TURNS) -> EventLog:
    """Live traffic through a wrong tree; nobody complains."""
    on = await EmbeddedLog.open(folder)
    log = await log_with(turn_of(1, "Hello there, good morning!", "c0"), on=on)
    await log.append([planted()])
    for at in range(2, turns, 500):
        await log.append(
            [
                turn_of(
                    n, f"EXECUTE: {'refund' if n % WRONG_EVERY == 0 else 'get_order'} {n}", f"c{n}"
                )
                for n in range(at, min(at + 500, turns))
            ]
        )
    await run(log, Router(AGENTS, audit_rate=RATE))
    return log


async def test_a_tree_that_errs_in_silence_is_found_by_its_audits_alone(tmp_path: Path) -> None:
    log = await silent(tmp_path)

    def truth(asked: Asked) -> Answer:
        action = "refund" if "refund" in asked.text else "get_order"
        return Answer.acts(action, {"args": [asked.text.split()[-1]]})

    settled = [one for one in await fields_of(log, "mad.decisions") if one["tier"] == "dtr"]
    assert {one["model_version"] for one in settled} == {"planted-1"}
    await judge_log(log, Judge())
    assert await answer(log, "promises", "verdict") == [("unknown",)]
    imperator = Told(truth)
    await escalations(log, imperator).run()
    columns = ("promised_error", "error_low", "error_high", "verdict", "judged", "wrong")
    ((promised, low, high, verdict, judged, wrong),) = await answer(log, "promises", *columns)
    assert (promised, verdict) == (0.05, "broken")
    # Drawn evenly, by the turn alone: about one in ten, and of the wrong ones as of the right.
    audited = [one for one in settled if one["audited"]]
    assert judged == len(audited)
    assert 0.07 * len(settled) < judged < 0.13 * len(settled)
    assert {one["propensity"] for one in settled} == {RATE}
    exact_low, exact_high = interval(wrong, judged)
    assert 0.05 < exact_low < 1 / WRONG_EVERY < exact_high
    assert 0.05 < low < 1 / WRONG_EVERY < high
    assert exact_low == pytest.approx(low, abs=0.01)
    ((tier, tier_low, tier_high),) = [
        row
        for row in await answer(log, "tiers", "tier", "error_low", "error_high")
        if row[0] == "dtr"
    ]
    assert (tier, tier_low, tier_high) == ("dtr", low, high)
    regret = await answer(log, "regret", "mode", "route", "did", "judged_by", limit="1000")
    assert regret == [("live", "action:get_order", "action:refund", "audit")] * wrong
    await log.close()


async def test_what_is_heard_beside_the_audits_changes_no_promise() -> None:
    log = await log_with(turn_of(1, "HRU?"), turn_of(2, "HRU?", "d"), audit_rate=1.0)
    script: dict[str, Any] = {"c": Answer.says("Fine."), "d": Answer.acts("refund")}
    await escalations(log, Told(lambda asked: script[asked.conversation_id])).run()
    before = await answer(log, "promises", "judged", "wrong", "verdict")
    assert [row[:2] for row in before] == [(2, 1)]
    from tests.unit.test_questions_learning import outcome

    for n, one in enumerate(await fields_of(log, "mad.decisions")):
        for m, judge in enumerate(("correction", "record", "thumbs", "csv:tickets")):
            made = outcome(100 + 10 * n + m, one["event_id"], "success", judge)
            await log.append([made.model_copy(update={"event_id": event_id(900 + 10 * n + m)})])
    assert await answer(log, "promises", "judged", "wrong", "verdict") == before
