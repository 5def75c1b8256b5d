"""What is handed up to a language model is answered once: asked, appended, never asked again."""

import asyncio
from typing import Any

import pytest
from tests.unit.counting import event_id, read, run
from tests.unit.imperator_scene import (
    AGENTS,
    SetClock,
    Told,
    escalations,
    fields_of,
    log_with,
    turn_of,
)

from madlog.processors import Router
from madlog.processors.imperator import (
    Answer,
    Asked,
    call_id_of,
)
from madlog.processors.imperator.job import Answered
from madlog.schemas import Control, Event, ProcessStep, Sender, ToolCall, ToolResult
from madlog.schemas.text import unescape
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

OPERATOR = Sender(name="olga", kind="human")
WORDS = Answer.says(
    "It comes on Monday.",
    provider="acme",
    model="m-1",
    tokens_in=120,
    tokens_out=8,
    cost_usd=0.002,
    latency_ms=900.0,
)


def words(_: Asked) -> Answer:
    return WORDS


def control(number: int, command: str, **fields: Any) -> Control:
    return Control(
        event_id=event_id(number),
        conversation_id="mad.control",
        sender=OPERATOR,
        occurred_at=number,
        **{"target": "orders", "command": command, **fields},
    )


async def test_words_become_a_turn_to_who_asked_and_the_call_says_what_it_took() -> None:
    log = await log_with(turn_of(1, "Where is my parcel?", correlation_id="k-7"))
    report = await escalations(log, Told(words)).run()
    assert (report.escalations, report.audits, report.failed) == (1, 0, 0)
    (decision,) = await fields_of(log, "mad.decisions")
    (call,) = await fields_of(log, "mad.llm")
    _, answer = await fields_of(log, "mad.conversations")
    assert call["event_id"] == call_id_of(decision["event_id"])
    assert call["causation_id"] == decision["event_id"]
    assert (call["provider"], call["tokens_in"], call["cost_usd"]) == ("acme", 120, 0.002)
    assert call["parameters"]["purpose"] == "escalation"
    assert (call["answer_id"], call["messages"]) == (answer["event_id"], [event_id(1)])
    assert answer["sender"]["name"] == "orders"
    assert answer["recipients"] == ["maria"]
    assert (answer["causation_id"], answer["seen"]) == (event_id(1), event_id(1))
    assert answer["correlation_id"] == "k-7"
    assert answer["parts"][0]["text"] == "It comes on Monday."


async def test_what_is_not_known_of_a_call_stays_unknown() -> None:
    log = await log_with(turn_of(1, "Where is my parcel?"))
    await escalations(log, Told(lambda _: Answer.says("On Monday."))).run()
    (call,) = await fields_of(log, "mad.llm")
    unknown = ("provider", "model", "tokens_in", "tokens_out", "cost_usd", "latency_ms")
    assert [call[name] for name in unknown] == [None] * 6


async def test_an_action_becomes_a_call_with_canonical_arguments() -> None:
    log = await log_with(turn_of(1, "Where is order 17, please?"))
    answer = Answer("action:get_order", '{ "with": 1.0, "id": 17 }')
    await escalations(log, Told(lambda _: answer)).run()
    (call,) = await fields_of(log, "mad.conversations", ["ToolCall"])
    assert (call["action"], call["arguments"]) == ("get_order", '{"id":17,"with":1}')
    assert (call["causation_id"], call["sender"]["name"]) == (event_id(1), "orders")
    (made,) = await fields_of(log, "mad.llm")
    assert made["extra"] == {"route": "action:get_order", "arguments": '{"id":17,"with":1}'}


async def test_an_action_goes_through_the_port_that_guards_it_together_with_its_call() -> None:
    log = await log_with(turn_of(1, "Give me my money back"))
    seen: list[tuple[str, str]] = []

    async def acts(asked: Asked, call: ToolCall, along_with: Any) -> None:
        seen.append((asked.decision_id, call.action))
        await log.transact(along_with)

    job = escalations(log, Told(lambda _: Answer.acts("refund")), acts=acts)
    assert (await job.run()).escalations == 1
    (decision,) = await fields_of(log, "mad.decisions")
    assert seen == [(decision["event_id"], "refund")]
    assert await fields_of(log, "mad.conversations", ["ToolCall"]) == []
    assert (await job.run(), len(seen)) == (Answered(), 1)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer.acts("drop_database"), "'drop_database' is no registered action"),
        (Answer("action:refund", "{"), "not JSON"),
        (Answer("action:refund", "[]"), "no JSON object"),
        (Answer("process"), "a route is say or action:NAME"),
        (Answer.says("  "), "no words and no action"),
        (Answer.says("a\x00b"), "a NUL character"),
        (Answer.says("é" * 200_001), "longer than 200,000 characters"),
    ],
)
async def test_an_answer_that_nothing_can_follow_runs_nothing_and_who_asked_is_told(
    answer: Answer, why: str
) -> None:
    log = await log_with(turn_of(1, "Do something"))
    imperator = Told(lambda _: answer)
    job = escalations(log, imperator)
    await job.run()
    await job.run()
    assert len(imperator.asked) == 1
    _, told = await fields_of(log, "mad.conversations")
    assert (told["intent"], told["recipients"]) == ("ERROR", ["maria"])
    assert why in unescape(told["parts"][0]["text"])
    (call,) = await fields_of(log, "mad.llm")
    assert why in call["extra"]["refused"]


async def test_it_is_asked_with_the_past_the_actions_the_reason_and_the_process_so_far() -> None:
    def step(number: int, state: str, instance: int, **fields: Any) -> ProcessStep:
        return ProcessStep(
            event_id=event_id(number),
            conversation_id="c",
            sender=OPERATOR,
            occurred_at=number,
            instance_id=event_id(instance),
            mad="orders",
            process="refund-1",
            state=state,
            **fields,
        )

    log = await log_with(
        step(20, "started", 50),
        step(21, "completed", 50),
        step(22, "started", 51),
        step(23, "done", 51, action="get_order"),
        step(99, "done", 51, action="refund"),
        turn_of(24, "EXECUTE: get_order 17"),
        turn_of(25, "And now give it back"),
    )
    imperator = Told(words)
    await escalations(log, imperator).run()
    (asked,) = imperator.asked
    assert asked.agent == AGENTS["orders"]
    assert asked.actions == {"get_order", "refund"}
    assert asked.escalation == "left"
    assert asked.text == "And now give it back"
    assert [act.said for act in asked.past] == ["EXECUTE: get_order 17", "And now give it back"]
    # Only what had happened when it was decided, and only of the process that is open.
    assert [one["state"] for one in asked.steps] == ["started", "done"]


async def test_what_was_answered_is_not_asked_again_by_this_job_nor_by_another() -> None:
    log = await log_with(turn_of(1, "Where is it?"), turn_of(2, "Hello?", "d"))
    first, second = Told(words), Told(words)
    job = escalations(log, first)
    assert (await job.run()).escalations == 2
    assert (await job.run()).escalations == 0
    assert (await escalations(log, second).run()).escalations == 0
    assert (len(first.asked), len(second.asked)) == (2, 0)
    await log.append([turn_of(3, "And that one?")])
    await run(log, Router(AGENTS))
    assert (await job.run()).escalations == 1
    assert len(await fields_of(log, "mad.llm")) == 3


async def test_what_the_agent_did_by_itself_is_answered() -> None:
    agent = Sender(name="orders", kind="mad")
    log = await log_with(turn_of(1, "Where is it?"))
    asked = turn_of(2, "It is here.", causation_id=event_id(1))
    await log.append([asked.model_copy(update={"sender": agent, "recipients": ("maria",)})])
    imperator = Told(words)
    await escalations(log, imperator).run()
    assert imperator.asked == []


async def test_two_at_work_answer_once_though_their_answers_differ() -> None:
    log = await log_with(*(turn_of(n, f"Question {n}?", f"c{n}") for n in range(1, 21)))
    jobs = [
        escalations(log, Told(lambda _: Answer.says("One."))),
        escalations(log, Told(lambda _: Answer.acts("refund"))),
    ]
    reports = await asyncio.gather(*(job.run() for job in jobs))
    assert sum(report.escalations for report in reports) == 20
    calls = await fields_of(log, "mad.llm")
    answers = await fields_of(log, "mad.conversations", ["ToolCall"])
    answers += [
        one
        for one in await fields_of(log, "mad.conversations", ["Turn"])
        if one["sender"]["name"] == "orders"
    ]
    assert len(calls) == len(answers) == 20
    # Each call stands beside the answer that it led to.
    kinds = {one["event_id"]: "action" in one for one in answers}
    for call in calls:
        assert kinds[call["answer_id"]] == call["extra"]["route"].startswith("action:")


async def test_no_more_are_asked_at_once_than_allowed() -> None:
    log = await log_with(*(turn_of(n, "Where is it?", f"c{n}") for n in range(1, 31)))
    imperator = Told(words)
    await escalations(log, imperator, limits={"at_once": 3}).run()
    assert len(imperator.asked) == 30
    assert imperator.most == 3


async def test_a_failure_is_said_once_and_tried_again_later_and_later() -> None:
    clock, said = SetClock(), list[str]()
    log = await log_with(turn_of(1, "Where is it?"), turn_of(2, "Hello?", "d"), clock=clock)
    imperator = Told(words)
    imperator.fails = RuntimeError("503 from the provider")
    job = escalations(log, imperator, say=said.append)
    waits = []
    for _ in range(4):
        assert (await job.run()).failed == 2
        before = clock.us
        while len(imperator.asked) % 2 == 0 and not await _due(job, imperator):
            clock.us += 500_000
        waits.append((clock.us - before) / 1e6)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert len(said) == 1
    assert said[0].startswith("the language model of orders gave no answer to decision ")
    assert "503 from the provider" in said[0]
    imperator.fails = None
    clock.us += 60_000_000
    assert (await job.run()).escalations == 2
    assert len(await fields_of(log, "mad.llm")) == 2
    # It works again, so the next failure is news.
    imperator.fails = RuntimeError("again")
    await log.append([turn_of(3, "And?")])
    await run(log, Router(AGENTS))
    await job.run()
    assert len(said) == 2


async def _due(job: Any, imperator: Told) -> bool:
    return bool(job._due())


async def test_one_that_hangs_holds_up_no_other_conversation() -> None:
    clock, said = SetClock(), list[str]()
    log = await log_with(*(turn_of(n, "Where is it?", f"c{n}") for n in range(1, 6)), clock=clock)
    imperator = Told(words)
    imperator.hangs = lambda asked: asked.conversation_id == "c2"
    job = escalations(log, imperator, say=said.append, limits={"timeout_s": 0.05})
    report = await job.run()
    assert (report.escalations, report.failed) == (4, 1)
    assert "did not answer in 0.05 s" in said[0]
    imperator.hangs = lambda asked: False
    clock.us += 2_000_000
    assert (await job.run()).escalations == 1


async def test_a_stopped_language_model_is_not_asked_until_it_is_started() -> None:
    log = await log_with(turn_of(1, "Where is it?"))
    imperator = Told(words)
    job = escalations(log, imperator)
    await log.append([control(2, "stop", tier="imperator")])
    assert await job.run() == Answered()
    assert imperator.asked == []
    await log.append([control(3, "start", tier="imperator")])
    assert (await job.run()).escalations == 1


async def test_a_stop_that_comes_while_it_thinks_holds_its_act_back() -> None:
    log = await log_with(turn_of(1, "Give me my money back"))

    class Slow(Told):
        async def decide(self, asked: Asked) -> Answer:
            await log.append([control(2, "stop")])
            return await super().decide(asked)

    imperator = Slow(lambda _: Answer.acts("refund"))
    job = escalations(log, imperator)
    assert await job.run() == Answered()
    assert await fields_of(log, "mad.conversations", ["ToolCall"]) == []
    await log.append([control(3, "start")])
    assert (await job.run()).escalations == 1
    assert len(imperator.asked) == 1


def handed_up(number: int, control_id: str | None) -> Event:
    from tests.unit.test_questions import decision

    made = decision(number, "imperator").event
    update = {
        "conversation_id": "c",
        "turn_id": event_id(1),
        "recipient": "orders",
        "escalation": "stopped",
        "control_id": control_id,
    }
    return made.model_copy(update=update)


@pytest.mark.parametrize(("tier", "asked"), [("dtr", 1), ("imperator", 0), (None, 0)])
async def test_what_went_up_because_a_cheap_tier_was_stopped_is_answered(
    tier: str | None, asked: int
) -> None:
    log = await EventLog.open(MemoryLog(SetClock()))
    await log.append([turn_of(1, "HRU?"), control(2, "stop", tier=tier)])
    await log.append([handed_up(3, event_id(2))])
    await log.append([control(4, "start", tier=tier)])
    imperator = Told(words)
    await escalations(log, imperator).run()
    assert len(imperator.asked) == asked


async def test_without_an_imperator_or_for_an_agent_that_is_not_registered_nothing_is_done() -> (
    None
):
    log = await log_with(turn_of(1, "Where is it?"))
    from madlog.processors import Registry
    from madlog.processors.imperator import Escalations

    imperator = Told(words)
    assert await Escalations(log, AGENTS, {}).run() == Answered()
    assert await Escalations(log, Registry(), {"orders": imperator}).run() == Answered()
    assert imperator.asked == []


async def test_it_follows_the_log_until_it_is_told_to_stop() -> None:
    log = await log_with(turn_of(1, "Where is it?"))
    imperator = Told(words)
    stopping, answered = asyncio.Event(), asyncio.Queue[int]()
    job = escalations(log, imperator)
    working = asyncio.create_task(
        job.follow(stopping, lambda now: answered.put_nowait(now.escalations))
    )
    async with asyncio.timeout(20):
        assert await answered.get() == 1
        await log.append([turn_of(2, "And that one?", "d")])
        await run(log, Router(AGENTS))
        assert await answered.get() == 1
        stopping.set()
        await working
    assert len(imperator.asked) == 2


async def test_what_a_guard_refused_to_a_cheap_tier_is_answered_though_a_call_was_announced() -> (
    None
):
    log = await log_with(turn_of(1, "EXECUTE: refund 17"))
    (decided,) = [one.event for one in await read(log, "mad.decisions")]
    update = {
        "event_id": event_id(51),
        "tier": "imperator",
        "route": "imperator",
        "escalation": "guard",
    }
    call = ToolCall(
        event_id=event_id(52),
        conversation_id="c",
        sender=Sender(name="orders", kind="mad"),
        occurred_at=52,
        causation_id=decided.event_id,
        seen=event_id(1),
        action="refund",
        arguments="{}",
    )
    void = ToolResult(
        event_id=event_id(53),
        conversation_id="c",
        sender=Sender(name="tools", kind="system"),
        occurred_at=53,
        call_id=call.event_id,
        ok=False,
        extra={"void": "1"},
    )
    await log.append([call, void, decided.model_copy(update=update)])
    imperator = Told(words)
    assert (await escalations(log, imperator).run()).escalations == 1
    assert imperator.asked[0].escalation == "guard"
