"""Live turns on a log: models that Control serves, processes that outlive workers, all verified."""

from collections import Counter
from typing import Any

import pytest
from tests.unit.orders import AGENT, CUSTOMER, REGISTRY, TOOLS, model

from madlog.analytics.output import rows
from madlog.analytics.sql import query
from madlog.analytics.verify import verify
from madlog.processors import Engine, Router
from madlog.processors.tiers import TierModels
from madlog.schemas import (
    Control,
    Event,
    ModelPublished,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    build,
    derived_event_id,
    new_event_id,
)
from madlog.schemas.text import parse
from madlog.topics import CATALOG, EventLog, LogEvent
from madlog.topics.memory import MemoryLog

ADMIN = Sender(name="admin", kind="human")


def made(number: int, kind: type[Event], **fields: Any) -> Event:
    at = 1_800_000_000_000_000 + number * 1_000_000
    return kind(
        **{
            "event_id": new_event_id(at, number.to_bytes(10, "big")),
            "conversation_id": "c",
            "sender": ADMIN,
            "occurred_at": at,
            **fields,
        }
    )


def published(number: int, models: TierModels) -> Event:
    import hashlib

    text = models.text()
    return made(
        number,
        ModelPublished,
        component="routing",
        version=str(number),
        parameters=text,
        parameters_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def rolled(number: int, model_id: str, stage: str) -> Event:
    more = {"target": "routing", "command": "rollout", "value": stage, "about_id": model_id}
    return made(number, Control, **more)


def asked(number: int, conversation: str) -> Event:
    parts = parse(f"Please cancel my order A{12000 + number}.").parts
    more: dict[str, Any] = {"sender": CUSTOMER, "recipients": ("orders",), "parts": parts}
    return made(number, Turn, conversation_id=conversation, **more)


async def work(log: EventLog) -> None:
    """Let a new worker, which knows only what is on the log, do all there is to do."""
    await Engine(log, [Router(REGISTRY, max_error=0.1, audit_rate=0.5)]).run(until_idle=True)


async def on(log: EventLog, kind: str) -> list[LogEvent]:
    found = []
    async for events in log.read_topics(list(CATALOG)):
        found += [event for event in events if event.kind == kind]
    return found


def acted(decision: LogEvent) -> list[Event]:
    """Return what the agent does on a decision: a call and its answer, or nothing."""
    fields = decision.fields
    if fields["mode"] != "live" or not fields["route"].startswith("action:"):
        return []
    action = fields["route"].removeprefix("action:")
    shared = {"conversation_id": fields["conversation_id"], "occurred_at": fields["occurred_at"]}
    call_id = derived_event_id(decision.event_id, "actor", 0)
    answer = {"get_order": '"status": "open"', "cancel_order": '"cancelled": true'}[action]
    call = ToolCall(
        event_id=call_id,
        causation_id=decision.event_id,
        sender=AGENT,
        action=action,
        arguments=fields["arguments"],
        idempotency_key=call_id,
        **shared,
    )
    result = ToolResult(
        event_id=derived_event_id(call_id, "tools", 0),
        causation_id=call_id,
        call_id=call_id,
        sender=TOOLS,
        ok=True,
        result=f"{fields['arguments'][:-1]}, {answer}}}",
        idempotency_key=f"{call_id}/result",
        **shared,
    )
    return [call, result]


async def lived(conversations: int = 6) -> EventLog:
    """Return a log on which a served model conducted conversations, a candidate beside it."""
    log = await EventLog.open(MemoryLog())
    served, candidate = published(1, model()), published(2, TierModels.seed())
    await log.append([served, candidate, rolled(3, served.event_id, "100")])
    for number in range(conversations):
        await log.append([asked(10 + number, f"c{number}")])
        if number == conversations // 2:
            await work(log)
            await log.append([rolled(4, candidate.event_id, "shadow")])
    for _ in range(4):
        await work(log)
        for decision in await on(log, "Decision"):
            if outputs := acted(decision):
                await log.append(outputs)
    return log


async def test_a_process_goes_on_where_another_worker_left_it_and_takes_no_step_twice() -> None:
    log = await lived()
    steps = Counter(
        (step.fields["conversation_id"], step.fields["state"], step.fields["action"])
        for step in await on(log, "ProcessStep")
    )
    assert set(steps.values()) == {1}
    for number in range(6):
        assert steps[f"c{number}", "done", "get_order"] == 1
        assert steps[f"c{number}", "done", "cancel_order"] == 1
        assert steps[f"c{number}", "completed", None] == 1
    calls = Counter(call.fields["conversation_id"] for call in await on(log, "ToolCall"))
    assert set(calls.values()) == {2}


async def test_conducted_and_shadow_decisions_come_out_again_from_the_log() -> None:
    log = await lived()
    modes = Counter(one.fields["mode"] for one in await on(log, "Decision"))
    assert modes["live"] == 18
    assert modes["shadow"] > 0
    report = await verify(log, lambda sha256: b"", registry=REGISTRY)
    assert (report.decisions, report.differences) == (modes.total(), [])


@pytest.mark.parametrize(
    "changes",
    [{"route": "action:restore_order"}, {"arguments": '{"order":"A1"}'}, {"control_id": None}],
)
async def test_a_planted_live_decision_is_named(changes: dict[str, Any]) -> None:
    log = await lived()
    conducted = [one for one in await on(log, "Decision") if one.fields["tier"] == "lppm"]
    await log.append(
        [build("Decision", {**conducted[-1].fields, "idempotency_key": None, **changes})]
    )
    report = await verify(log, lambda sha256: b"", registry=REGISTRY)
    assert [one.event_id for one in report.differences] == [conducted[-1].event_id]


async def test_decisions_beside_those_of_the_first_tree_come_out_again() -> None:
    log = await EventLog.open(MemoryLog())
    candidate = published(1, model())
    parts = parse("EXECUTE: get_order A1").parts
    turns = [
        made(number, Turn, sender=CUSTOMER, recipients=("orders",), parts=parts)
        for number in range(10, 20)
    ]
    await log.append([candidate, rolled(2, candidate.event_id, "shadow"), *turns])
    await work(log)
    modes = Counter(one.fields["mode"] for one in await on(log, "Decision"))
    assert modes == {"live": 10, "shadow": 10}
    report = await verify(log, lambda sha256: b"", registry=REGISTRY)
    assert (report.decisions, report.differences) == (20, [])


async def test_a_stop_holds_before_the_next_batch() -> None:
    log = await lived()
    stop = made(90, Control, target="all", command="stop", tier="lppm")
    await log.append([stop, asked(91, "later")])
    await work(log)
    (decision,) = [
        one
        for one in await on(log, "Decision")
        if one.fields["conversation_id"] == "later" and one.fields["mode"] == "live"
    ]
    assert decision.fields["escalation"] == "switched-off"
    assert decision.fields["control_id"] == stop.event_id


async def test_what_control_says_wrongly_is_a_dead_letter_and_changes_nothing() -> None:
    log = await lived()
    await log.append([made(90, Control, target="all", command="explode"), asked(91, "later")])
    await work(log)
    (letter,) = await on(log, "DeadLetter")
    assert "explode" in letter.fields["error"]
    assert [one for one in await on(log, "Decision") if one.fields["conversation_id"] == "later"]


async def told(log: EventLog, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows(await query(log, sql))]


async def test_steps_and_controls_are_tables() -> None:
    log = await lived()
    steps = "select mad, state, count(*) from process_steps where state = 'done' group by 1, 2"
    assert await told(log, steps) == [("orders", "done", 12)]
    controls = "select target, command, value from control order by occurred_at"
    assert await told(log, controls) == [
        ("routing", "rollout", "100"),
        ("routing", "rollout", "shadow"),
    ]
