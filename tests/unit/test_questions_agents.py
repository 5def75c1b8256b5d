"""Named questions about conversations, agents, time and money, each on a log of a few events."""

from datetime import datetime
from typing import Any, NamedTuple

import pytest
from tests.unit.test_questions import DAY, about, answer, call, decision, eid, log_of, turn

from madlog.analytics.errors import BadSql
from madlog.schemas import (
    Control,
    ConversationChanged,
    Decision,
    Event,
    LlmCall,
    Outcome,
    Part,
    ProcessStep,
)
from madlog.topics import NewEvent

HOUR = DAY // 24


class Case(NamedTuple):
    """A question on a log of these events, and what it must answer in these columns."""

    name: str
    events: list[Any]
    params: dict[str, str]
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def later(made: Event, at_us: int) -> Event:
    return made.model_copy(update={"occurred_at": at_us})


def changed(n: int, change: Any, who: str, conversation: str = "c1", **more: Any) -> Event:
    return ConversationChanged(
        **about(n, more.pop("by", who), conversation), change=change, participant=who, **more
    )


def step(n: int, state: str, number: int | None = None, **more: Any) -> ProcessStep:
    conversation = more.pop("conversation", "c1")
    return ProcessStep(
        **about(n, "router", conversation),
        instance_id=more.pop("instance", eid(500)),
        mad="bot",
        process="refund/v1",
        state=state,
        step=number,
        **more,
    )


def ordered(n: int, command: str, target: str = "bot", **more: Any) -> Control:
    return Control(**about(n, "ann"), target=target, command=command, **more)


def command(n: int, text: str) -> Event:
    part = Part(content_class="deterministic", text=text)
    return turn(n, "anna", "bot").model_copy(update={"parts": (part,)})


def said(n: int, who: str, to: str, text: str, intent: str, conversation: str = "c1") -> Event:
    return turn(n, who, to, text, conversation).model_copy(update={"intent": intent})


def traced(events: list[Event]) -> list[Event]:
    return [event.model_copy(update={"correlation_id": "r1"}) for event in events]


CASES = (
    Case(
        "trace",
        [
            *traced([turn(1, "anna", "bot", "hi")]),
            turn(2, "anna", "bot", "another request"),
            *traced([turn(3, "bot", "desk", "please", "c2")]),
            *traced(call(4, "refund", {"order": 1}, "c2")),
        ],
        {"correlation": "r1"},
        ("conversation_id", "sender", "what", "text"),
        [
            ("c1", "anna", "turn", "hi"),
            ("c2", "bot", "turn", "please"),
            ("c2", "bot", "call", 'refund({"order": 1})'),
            ("c2", "bot", "result", "done"),
        ],
    ),
    Case(
        "root-cause",
        [
            turn(1, "anna", "bot", "first"),
            turn(2, "bot", "desk", "second", cause=1),
            turn(2, "bot", "desk", "second", cause=1),
            turn(3, "desk", "bot", "third", "c2", cause=2),
            turn(4, "ben", "bot", "no part of it", cause=1),
        ],
        {"event": eid(3)},
        ("steps_back", "sender", "what", "cause_not_in_log"),
        [
            (0, "desk", "third", False),
            (1, "bot", "second", False),
            (2, "anna", "first", False),
        ],
    ),
    Case(
        "root-cause",
        [turn(1, "anna", "bot", "a", cause=2), turn(2, "bot", "anna", "b", cause=1)],
        {"event": eid(1)},
        ("steps_back", "what"),
        [(0, "a"), (1, "b")],
    ),
    Case(
        "root-cause",
        [turn(1, "anna", "bot", "a", cause=77)],
        {"event": eid(1)},
        ("what", "cause_not_in_log"),
        [("a", True)],
    ),
    Case(
        "state",
        [
            changed(1, "created", "anna", title="Refund 17"),
            changed(2, "joined", "anna"),
            changed(3, "joined", "ben"),
            changed(4, "left", "ben"),
            turn(5, "anna", "bot", "please"),
            turn(6, "zoe", "bot", "elsewhere", "c2"),
            step(7, "started"),
            step(8, "step", 0, action="lookup"),
            Outcome(
                **about(9, "judge"),
                mad="bot",
                result="success",
                judged_by="thumbs",
                about="conversation",
                about_id="c1",
            ),
        ],
        {"conversation": "c1"},
        ("what", "value"),
        [
            ("title", "Refund 17"),
            ("participant", "anna"),
            ("turns", "1"),
            ("last turn", "anna: please"),
            ("process", "refund/v1 step at step 0"),
            ("outcome", "success by thumbs"),
        ],
    ),
    Case(
        "answer-times",
        [
            said(1, "anna", "bot", "quick?", "REQUEST"),
            said(2001, "bot", "anna", "yes", "RESPONSE"),
            said(3000, "anna", "bot", "slow?", "REQUEST"),
            turn(3500, "bot", "anna", "ACK", tags=("ack",)),
            said(7000, "bot", "anna", "yes", "RESPONSE"),
            said(8000, "anna", "bot", "never?", "REQUEST", "c2"),
        ],
        {},
        ("recipient", "traffic", "requests", "answered", "unanswered", "median_s", "longest_s"),
        [("bot", "live", 3, 2, 1, 3.0, 4.0)],
    ),
    Case(
        "unacknowledged",
        [
            turn(1, "anna", "bot", "soon"),
            turn(501, "bot", "", "ACK", cause=1, tags=("ack",)),
            turn(600, "anna", "bot", "late"),
            turn(5600, "bot", "", "ACK", tags=("ack",)),
            turn(6000, "anna", "bot", "never"),
            turn(9000, "ben"),
        ],
        {"after_s": "1"},
        ("text", "recipient", "acknowledged", "waited_s"),
        [("never", "bot", False, 3.0), ("late", "bot", True, 5.0)],
    ),
    Case(
        "conversations-of",
        [
            changed(1, "joined", "bot"),
            turn(2, "bot", "anna"),
            changed(3, "left", "bot"),
            turn(4, "bot", "anna", conversation="c2"),
            *call(5, "refund", {}, "c2"),
            turn(7, "anna", "bot", conversation="c3"),
            later(turn(8, "bot", conversation="c4"), DAY),
        ],
        {"agent": "bot", "until": "1970-01-02"},
        ("conversation_id", "turns", "tool_calls", "left_at"),
        [("c2", 1, 1, None), ("c1", 1, 0, datetime(1970, 1, 1, 0, 0, 0, 3000))],  # noqa: DTZ001
    ),
    Case(
        "agent-history",
        [
            changed(1, "joined", "bot", by="hopper"),
            turn(2, "hopper", "bot", "do it"),
            *call(3, "refund", {}, ok=False),
            turn(5, "bot", "hopper", "done"),
            turn(6, "anna", "ben", "not for it"),
            changed(7, "left", "bot"),
        ],
        {"agent": "bot"},
        ("what", "other", "text"),
        [
            ("joined", "hopper", None),
            ("heard", "hopper", "do it"),
            ("called", "refund", "{}"),
            ("failure", "refund", "out of stock"),
            ("said", "hopper", "done"),
            ("left", "bot", None),
        ],
    ),
    Case(
        "role-conversations",
        [
            turn(1, "dev-1", "anna"),
            turn(2, "dev-22", "anna", conversation="c2"),
            turn(3, "dev-ops", "anna", conversation="c3"),
            turn(4, "dev", "anna", conversation="c4"),
            turn(5, "dev-3", "anna", conversation="c4"),
            turn(6, "ben", "dev", conversation="c5"),
        ],
        {"role": "dev"},
        ("conversation_id", "instances", "turns", "outcome"),
        [
            ("c4", ["dev", "dev-3"], 2, None),
            ("c2", ["dev-22"], 1, None),
            ("c1", ["dev-1"], 1, None),
        ],
    ),
    Case(
        "content-classes",
        [turn(1, "anna"), turn(2, "anna"), turn(3, "ben"), command(4, "EXECUTE: pay")],
        {"by": "agent"},
        ("part", "content_class", "turns", "share"),
        [
            ("anna", "prose", 2, 0.6667),
            ("anna", "deterministic", 1, 0.3333),
            ("ben", "prose", 1, 1.0),
        ],
    ),
    Case(
        "contact-changes",
        [
            turn(1, "anna", "bot"),
            turn(2, "anna", "ben"),
            turn(3, "anna", "zoe"),
            later(turn(4, "anna", "bot"), DAY + 10_000),
            later(turn(5, "anna", "bot"), DAY + 10_000),
            later(turn(6, "bot", "anna"), DAY + 10_000),
            later(turn(7, "anna", "zoe"), DAY + 10_000),
        ],
        {"days": "1"},
        ("sender", "recipient", "turns_before", "turns_now", "change"),
        [
            ("anna", "ben", 1, 0, "gone"),
            ("anna", "bot", 1, 2, "more"),
            ("bot", "anna", 0, 1, "new"),
        ],
    ),
    Case(
        "agent-state",
        [
            ordered(1, "stop", tier="dtr"),
            ordered(2, "flag", "all", name="acting", value="off"),
            ordered(3, "stop", tier="lppm"),
            ordered(4, "start", tier="lppm"),
            ordered(5, "stop", "other"),
            ordered(6, "override", value="imperator", expires_at=7_000),
            ordered(8, "flag", "other", name="x", value="off"),
            ordered(9, "stop", "all", expires_at=99_000_000),
            # Nobody gives an order after this one, but the log goes on past its time.
            ordered(10, "flag", name="acting", value="off", expires_at=10_500_000),
            turn(13, "anna", "bot"),
            decision(14, "dtr"),
            step(11, "started"),
            step(12, "completed", instance=eid(501)),
        ],
        {"agent": "bot"},
        ("what", "name", "value"),
        [
            ("decided by", "live dtr", "1"),
            ("order", "flag acting", "off"),
            ("order", "stop", "until it is taken back"),
            ("order", "stop dtr", "until it is taken back"),
            ("process", "refund/v1 in c1", "started"),
        ],
    ),
    Case(
        "instances",
        [
            step(1, "started"),
            step(2, "step", 0, action="lookup", deadline=5_000),
            step(3, "started", instance=eid(501), conversation="c2"),
            step(4, "step", 0, action="pay", instance=eid(501), conversation="c2"),
            step(5, "blocked", instance=eid(501), conversation="c2", reason="pay waits"),
            step(6, "started", instance=eid(502), conversation="c3"),
            step(7, "completed", instance=eid(502), conversation="c3"),
            step(8, "step", 0, action="pay", instance=eid(503), deadline=9_000_000),
            step(9, "escalated", instance=eid(504), conversation="c4", reason="unsure"),
        ],
        {},
        ("instance_id", "status", "step", "action", "reason"),
        [
            (eid(501), "blocked", 0, "pay", "pay waits"),
            (eid(504), "handed over", None, None, "unsure"),
            (eid(500), "overdue", 0, "lookup", None),
            (eid(503), "running", 0, "pay", None),
        ],
    ),
    Case(
        "budgets",
        [
            ordered(1, "budget", name="hourly", value='{"acts": 2, "window_s": 3600}'),
            ordered(2, "budget", "all", name="money", value='{"cost_usd": 1.0}'),
            ordered(3, "budget", name="old", value='{"acts": 1}'),
            ordered(4, "budget", name="old"),
            # bo's own budget of this name stands in its place; what is no JSON changes nothing.
            ordered(20, "budget", "bo", name="money", value='{"acts": 9}'),
            ordered(21, "budget", "bo", name="money", value="much"),
            *call(5, "refund", {}),
            *call(7, "refund", {}),
            LlmCall(**about(9, "bot"), model="m", cost_usd=0.5),
            LlmCall(**about(10, "bot"), model="m", cost_usd=0.75),
            LlmCall(**about(11, "bot"), model="m"),
            LlmCall(**about(12, "ben"), model="m", cost_usd=0.25),
        ],
        {},
        ("agent", "budget", "allowed", "unit", "used_now", "most_in_a_window", "state"),
        [
            ("bot", "money", 1.0, "usd", 1.25, 1.25, "over"),
            ("bot", "hourly", 2.0, "acts", 2.0, 2.0, "near"),
            ("ben", "money", 1.0, "usd", 0.25, 0.25, "within"),
            ("bo", "money", 9.0, "acts", 0.0, 0.0, "within"),
        ],
    ),
    Case(
        # What was used in a window that is over is not used now, though nobody acted since.
        "budgets",
        [
            ordered(1, "budget", name="short", value='{"acts": 1, "window_s": 2}'),
            *call(2, "refund", {}),
            *(turn(n, "anna", "bot") for n in (4, 5, 6)),
        ],
        {},
        ("budget", "used_now", "most_in_a_window", "state"),
        [("short", 0.0, 1.0, "within")],
    ),
    Case(
        "latency",
        [
            turn(1, "anna", "bot"),
            decision(2, "dtr", us=10),
            decision(3, "dtr", us=30),
            decision(4, "imperator", "shadow", us=90),
        ],
        {},
        ("mode", "part", "decisions", "p50_us", "delivered", "over_500_ms"),
        # Each look at the clock of this log is a second later.
        [("live", "dtr", 2, 20.0, 2, 2), ("shadow", "imperator", 1, 90.0, 0, 0)],
    ),
    Case(
        "invocations",
        [
            *call(1, "refund", {}, ms=5.0),
            *call(3, "refund", {"order": 1}, ok=False),
            *call(5, "look", {})[:1],
        ],
        {},
        ("agent", "action", "result", "answer", "duration_ms"),
        [
            ("bot", "look", "no answer", None, None),
            ("bot", "refund", "failure", "out of stock", 1.0),
            ("bot", "refund", "success", "done", 5.0),
        ],
    ),
    Case(
        "errors",
        [
            turn(1, "bot", "anna", "all well"),
            *call(2, "refund", {}, ok=False),
            said(4, "bot", "anna", "I could not", "ERROR"),
            turn(5, "desk", "anna", "hello"),
            said(6, "anna", "bot", "people do not count", "ERROR"),
        ],
        {},
        ("agent", "acts", "errors", "error_rate", "last_error"),
        [("bot", 3, 2, 0.6667, "I could not"), ("desk", 1, 0, 0.0, None)],
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_answer_on_a_small_log_is_the_one_counted_by_hand(case: Case) -> None:
    log = await log_of(*case.events)
    assert await answer(log, case.name, *case.columns, **case.params) == case.rows


async def test_traffic_is_counted_by_sender_topic_and_hour() -> None:
    log = await log_of(
        turn(1, "anna"),
        turn(2, "anna"),
        later(turn(3, "anna"), HOUR),
        LlmCall(**about(4, "anna"), model="m"),
    )
    found = await answer(log, "traffic", "period", "sender", "topic", "events")
    assert [row for row in found if row[1] == "anna"] == [
        (datetime(1970, 1, 1, 0), "anna", "mad.conversations", 2),  # noqa: DTZ001
        (datetime(1970, 1, 1, 0), "anna", "mad.llm", 1),  # noqa: DTZ001
        (datetime(1970, 1, 1, 1), "anna", "mad.conversations", 1),  # noqa: DTZ001
    ]


async def test_a_forecast_goes_on_as_fast_as_it_went() -> None:
    log = await log_of(turn(1, "anna", text="hi"), turn(2, "anna", text="hi"))
    columns = ("topic", "events", "over_days", "events_a_day", "payload_bytes", "bytes_in_30_days")
    found = {row[0]: row[1:] for row in await answer(log, "forecast", *columns)}
    events, days, a_day, size, later_size = found["mad.conversations"]
    assert (events, days, a_day) == (2, 1, 2.0)
    assert later_size == 31 * size
    with pytest.raises(BadSql, match="days is at least 1"):
        await answer(log, "forecast", days="0")


async def test_instances_that_ended_are_shown_when_asked_for() -> None:
    log = await log_of(step(1, "started"), step(2, "compensated"))
    assert await answer(log, "instances", "status") == []
    assert await answer(log, "instances", "status", all="true") == [("ended",)]


async def test_latency_is_told_by_agent_and_by_hour() -> None:
    made = decision(2, "dtr")
    assert isinstance(made, NewEvent)
    assert isinstance(made.event, Decision)
    other = made.event.model_copy(update={"recipient": "desk", "occurred_at": HOUR})
    log = await log_of(made, NewEvent(other.model_copy(update={"event_id": eid(9)})))
    assert await answer(log, "latency", "part", by="agent") == [("bot",), ("desk",)]
    hours = await answer(log, "latency", "part", by="hour")
    assert hours == [("1970-01-01 00:00",), ("1970-01-01 01:00",)]
