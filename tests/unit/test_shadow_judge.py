"""What a candidate decided beside is judged by what was really done next, and by nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.counting import event_id, read
from tests.unit.imperator_scene import Told, escalations, fields_of, log_with, turn_of
from tests.unit.test_questions import answer

from madlog.processors.imperator import Answer
from madlog.processors.imperator.shadow import ShadowJudge
from madlog.processors.learning import Learning
from madlog.processors.outcomes import Judge
from madlog.schemas import Decision, Event, Sender, ToolCall, Turn, derived_event_id
from madlog.topics import EventLog

SHADOW = Sender(name="shadow", kind="system")
ORDERS = Sender(name="orders", kind="mad")


async def beside(log: EventLog, route: str, arguments: str | None = None, **more: Any) -> list[str]:
    """A candidate decides, beside each live decision, by this route; returns the ids."""
    made: list[Event] = []
    for event in await read(log, "mad.decisions"):
        live = event.event
        if isinstance(live, Decision) and live.mode == "live":
            tier = "imperator" if route == "imperator" else "lppm"
            update = {
                "event_id": derived_event_id(live.event_id, "shadow", 0),
                "sender": SHADOW,
                "mode": "shadow",
                "tier": tier,
                "route": route,
                "arguments": arguments,
                **more,
            }
            made.append(live.model_copy(update=update))
    await log.append(made)
    return [one.event_id for one in made]


async def verdicts(log: EventLog) -> dict[str, str]:
    found = await fields_of(log, "mad.outcomes")
    assert {one["judged_by"] for one in found} <= {"record"}
    return {one["about_id"]: one["result"] for one in found}


ANSWER = Answer.acts("get_order", {"id": 17})


@pytest.mark.parametrize(
    ("route", "arguments", "result"),
    [
        ("action:get_order", '{"id":17}', "success"),
        ("action:get_order", '{"id":18}', "failure"),
        ("action:refund", '{"id":17}', "failure"),
        ("ack", None, "failure"),
    ],
)
async def test_right_is_what_was_done_with_its_arguments(
    route: str, arguments: str | None, result: str
) -> None:
    log = await log_with(turn_of(1, "Where is my parcel?"))
    (shadow,) = await beside(log, route, arguments)
    judge = ShadowJudge(log)
    # Nothing was done yet, so nothing can be said.
    assert (await judge.run(), await verdicts(log)) == (0, {})
    await escalations(log, Told(lambda _: ANSWER)).run()
    assert await judge.run() == 1
    assert await verdicts(log) == {shadow: result}


async def test_what_hands_up_is_judged_by_nobody() -> None:
    log = await log_with(turn_of(1, "Where is my parcel?"))
    await beside(log, "imperator")
    await escalations(log, Told(lambda _: ANSWER)).run()
    assert await ShadowJudge(log).run() == 0


async def test_an_acknowledgement_that_acted_needs_nothing_to_follow() -> None:
    log = await log_with(turn_of(1, "#ack"), turn_of(2, "HRU?", "d"))
    right, waits = await beside(log, "ack")
    assert await ShadowJudge(log).run() == 1
    assert list(await verdicts(log)) in ([right], [waits])


def said(number: int, text: str, cause: str | None) -> Turn:
    turn = turn_of(number, text, causation_id=cause)
    return turn.model_copy(update={"sender": ORDERS, "recipients": ("maria",)})


async def test_what_was_done_about_another_turn_is_no_verdict() -> None:
    log = await log_with(turn_of(1, "Where is my parcel?"), turn_of(2, "And my letter?"))
    first, second = await beside(log, "action:get_order", "{}")
    call = ToolCall(
        event_id=event_id(50),
        conversation_id="c",
        sender=ORDERS,
        occurred_at=50,
        causation_id=event_id(2),
        action="get_order",
        arguments="{}",
    )
    await log.append([call])
    judge = ShadowJudge(log)
    assert await judge.run() == 1
    assert await verdicts(log) == {second: "success"}
    await log.append([said(51, "It is here.", event_id(1))])
    assert await judge.run() == 1
    assert await verdicts(log) == {second: "success", first: "failure"}


async def test_judging_again_or_beside_another_adds_nothing() -> None:
    log = await log_with(*(turn_of(n, "Where is it?", f"c{n}") for n in range(1, 8)))
    await beside(log, "action:get_order", '{"id":17}')
    await escalations(log, Told(lambda _: ANSWER)).run()
    judges = [ShadowJudge(log), ShadowJudge(log)]
    assert await judges[0].run() == 7
    before = await fields_of(log, "mad.outcomes")
    assert [await one.run() for one in (*judges, ShadowJudge(log))] == [0, 0, 0]
    assert await fields_of(log, "mad.outcomes") == before


async def test_conversations_beyond_the_limit_are_forgotten_but_for_those_that_wait() -> None:
    turns: Sequence[Event] = [turn_of(n, "Where is it?", f"c{n}") for n in range(1, 41)]
    log = await log_with(*turns)
    await beside(log, "action:get_order", '{"id":17}')
    judge = ShadowJudge(log, conversations_max=3)
    assert await judge.run() == 0
    await escalations(log, Told(lambda _: ANSWER), limits={"conversations_max": 3}).run()
    assert await judge.run() == 40
    assert len(judge._live._events) <= 40
    await log.append([turn_of(99, "Hello", "z")])
    await beside(log, "ack")
    await judge.run()
    assert len(judge._live._events) <= 4


async def test_the_questions_keep_shadow_apart_from_what_acted() -> None:
    log = await log_with(turn_of(1, "Where is my parcel?"))
    await beside(log, "action:get_order", '{"id":18}', audited=False)
    await escalations(log, Told(lambda _: ANSWER)).run()
    await ShadowJudge(log).run()
    columns = ("mode", "tier", "judged", "wrong")
    assert await answer(log, "promises", *columns) == [("shadow", "lppm", 1, 1)]
    assert await answer(log, "tiers", *columns) == [
        ("live", "imperator", 0, 0),
        ("shadow", "lppm", 1, 1),
    ]
    wrong = ("mode", "route", "did", "did_arguments", "judged_by")
    assert await answer(log, "regret", *wrong) == [
        ("shadow", "action:get_order", "action:get_order", '{"id":17}', "record")
    ]


async def test_the_worker_judges_candidates_as_it_learns() -> None:
    log = await log_with(turn_of(1, "Where is my parcel?"))
    (shadow,) = await beside(log, "action:get_order", '{"id":17}')
    await escalations(log, Told(lambda _: ANSWER)).run()
    learning = Learning(log, Judge(rules=["thumbs"]), None)
    said: list[int] = []
    await learning.run(said.append)
    assert await verdicts(log) == {shadow: "success"}
    assert (learning.learned.outcomes, said) == (1, [1])
    await learning.run(said.append)
    assert said == [1]
    switched_off = Learning(log, None, None)
    await beside(log, "ack")
    await switched_off.run(said.append)
    assert said == [1]
