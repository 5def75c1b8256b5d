"""Named questions: each on a small log whose answer is known, and how they are found and asked."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from madlog.analytics.conversation_view import NoConversation, latest_conversation
from madlog.analytics.errors import BadParameter, UnknownQuestion
from madlog.analytics.output import rows
from madlog.analytics.questions import ask, nearest, question, questions
from madlog.schemas import (
    EVENT_KINDS,
    ConversationChanged,
    DeadLetter,
    Decision,
    Event,
    LlmCall,
    Part,
    Sender,
    SenderKind,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.topics import EventLog, NewEvent, NewRecord, Vector
from madlog.topics.memory import MemoryLog

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TAU = DATA / "tau_bench_airline_gpt4o.jsonl.gz"
DAY = 86_400_000_000
KINDS: dict[str, SenderKind] = {"anna": "human", "ben": "human", "system": "system"}


class SetClock:
    """A clock that goes on by one second at each look."""

    def __init__(self) -> None:
        self.us = 0

    def now_us(self) -> int:
        self.us += 1_000_000
        return self.us

    def monotonic_ns(self) -> int:
        return self.us * 1000

    def boot_id(self) -> str:
        return "test"


def eid(n: int) -> str:
    return new_event_id(n * 1000, n.to_bytes(10, "big"))


def about(n: int, who: str, conversation: str = "c1", cause: int | None = None) -> dict[str, Any]:
    return {
        "event_id": eid(n),
        "conversation_id": conversation,
        "sender": Sender(name=who, kind=KINDS.get(who, "mad")),
        "occurred_at": n * 1000,
        "causation_id": None if cause is None else eid(cause),
    }


def turn(
    n: int,
    who: str,
    to: str = "",
    text: str = "",
    conversation: str = "c1",
    cause: int | None = None,
    tags: tuple[str, ...] = (),
) -> Turn:
    return Turn(
        **about(n, who, conversation, cause),
        recipients=(to,) if to else (),
        tags=tags,
        parts=(Part(content_class="prose", text=text),),
    )


def call(
    n: int, action: str, arguments: Any, conversation: str = "c1", ok: bool = True, ms: float = 1.0
) -> list[Event]:
    """An action and its result, the event after it."""
    given = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return [
        ToolCall(**about(n, "bot", conversation), action=action, arguments=given),
        ToolResult(
            **about(n + 1, "bot", conversation, n),
            call_id=eid(n),
            ok=ok,
            result="done" if ok else None,
            error=None if ok else "out of stock",
            duration_ms=ms,
        ),
    ]


def decision(n: int, tier: Any, mode: Any = "live", us: int = 10) -> NewEvent:
    made = Decision(
        **about(n, "router"),
        turn_id=eid(1),
        recipient="bot",
        mode=mode,
        tier=tier,
        route="imperator" if tier == "imperator" else "action:ok",
        confidence=0.5,
        max_error=0.05,
        model_id=eid(90),
        model_version="1",
        reason="r",
        propensity=0.02,
        audited=n % 2 == 0,
    )
    return NewEvent(made, headers=(("duration-us", str(us).encode()),))


async def log_of(*events: Event | NewEvent | list[Event]) -> EventLog:
    log = await EventLog.open(MemoryLog(SetClock()))
    for event in events:
        await log.append(event if isinstance(event, list) else [event])
    return log


async def answer(log: EventLog, name: str, *columns: str, **params: str) -> list[tuple[Any, ...]]:
    result = await ask(log, name, params)
    assert set(columns) <= set(result.columns)
    return [tuple(row[column] for column in columns) for row in rows(result)]


async def test_transcript_is_what_was_said_and_done_in_order() -> None:
    log = await log_of(
        ConversationChanged(**about(1, "anna"), change="joined", participant="anna"),
        turn(2, "anna", "bot", "refund 4711"),
        turn(3, "ben", "bot", "another", "c2"),
        call(4, "refund", {"order": 4711}),
        call(6, "refund", {"order": 1}, ok=False),
        turn(8, "bot", "anna", "done"),
    )
    said = await answer(log, "transcript", "turn_number", "sender", "what", "text", "recipients")
    assert said == [
        (None, "anna", "joined", "anna", []),
        (1, "anna", "turn", "refund 4711", ["bot"]),
        (None, "bot", "call", 'refund({"order": 4711})', []),
        (None, "bot", "result", "done", []),
        (None, "bot", "call", 'refund({"order": 1})', []),
        (None, "bot", "failure", "out of stock", []),
        (2, "bot", "turn", "done", ["anna"]),
    ]
    assert await answer(log, "transcript", "text", conversation="c2") == [("another",)]


async def test_causal_tree_stands_each_event_under_its_cause() -> None:
    log = await log_of(
        turn(1, "anna", "bot", "first"),
        turn(2, "anna", "bot", "second"),
        turn(3, "bot", "anna", "to second", cause=2),
        turn(4, "bot", "anna", "to first", cause=1),
        turn(5, "anna", "bot", "thanks", cause=4),
        turn(6, "ben", "bot", "cause elsewhere", cause=77),
        turn(7, "ben", "bot", "other", "c2", cause=1),
        decision(8, "dtr"),
    )
    columns = ("number", "depth", "caused_by", "tree")
    assert await answer(log, "causal-tree", *columns, conversation="c1") == [
        (1, 0, None, "Turn first"),
        (4, 1, 1, "  Turn to first"),
        (5, 2, 4, "    Turn thanks"),
        (2, 0, None, "Turn second"),
        (3, 1, 2, "  Turn to second"),
        (6, 0, None, "Turn cause elsewhere"),
        (7, 0, None, "Decision action:ok"),
    ]


async def test_causal_tree_ends_where_events_cause_each_other_or_stand_twice() -> None:
    log = await log_of(
        turn(1, "anna", "bot", "a", cause=2),
        turn(2, "anna", "bot", "b", cause=1),
        turn(3, "anna", "bot", "c"),
        turn(3, "anna", "bot", "c"),
        turn(4, "anna", "bot", "d", cause=3),
    )
    assert await answer(log, "causal-tree", "tree") == [("Turn c",), ("  Turn d",)]


async def test_causal_tree_keeps_the_log_s_order_where_a_clock_was_behind() -> None:
    log = await log_of(turn(5, "anna", "bot", "first"), turn(1, "anna", "bot", "second"))
    assert await answer(log, "causal-tree", "tree") == [("Turn first",), ("Turn second",)]


async def test_causal_tree_follows_a_long_chain() -> None:
    chain: list[Event] = [turn(n, "anna", cause=n - 1 if n > 1 else None) for n in range(1, 601)]
    numbers = await answer(await log_of(chain), "causal-tree", "number", "depth")
    assert numbers == [(n, n - 1) for n in range(1, 601)]


async def test_participants_say_who_did_how_much_and_who_left() -> None:
    log = await log_of(
        ConversationChanged(
            **about(1, "anna"), change="joined", participant="bot", participant_kind="mad"
        ),
        ConversationChanged(
            **about(2, "anna"), change="joined", participant="ben", participant_kind="human"
        ),
        turn(3, "anna", "bot"),
        turn(4, "bot", "anna"),
        call(5, "refund", {}),
        turn(7, "bot", "anna"),
        ConversationChanged(**about(8, "ben"), change="left", participant="ben"),
        turn(9, "zoe", conversation="c2"),
    )
    columns = ("participant", "kind", "turns", "tool_calls", "has_left")
    assert await answer(log, "participants", *columns, conversation="c1") == [
        ("bot", "mad", 2, 1, False),
        ("anna", "human", 1, 0, False),
        ("ben", "human", 0, 0, True),
    ]


async def test_activity_counts_by_period() -> None:
    later = turn(5, "ben", "bot", conversation="c2").model_copy(update={"occurred_at": DAY + 1})
    log = await log_of(turn(1, "anna", "bot"), turn(2, "bot", "anna"), call(3, "refund", {}), later)
    columns = ("period", "turns", "tool_calls", "conversations", "senders")
    assert await answer(log, "activity", *columns) == [
        (datetime(1970, 1, 1), 2, 1, 1, 2),  # noqa: DTZ001
        (datetime(1970, 1, 2), 1, 0, 1, 1),  # noqa: DTZ001
    ]
    assert len(await answer(log, "activity", "turns", by="month")) == 1


async def test_tiers_keep_the_modes_apart() -> None:
    log = await log_of(
        decision(2, "dtr"),
        decision(3, "dtr", us=30),
        decision(4, "dtr"),
        decision(5, "imperator", us=90),
        decision(6, "imperator", "retrospective"),
    )
    columns = ("mode", "tier", "settled_by", "decisions", "share", "audited", "p50_us")
    assert await answer(log, "tiers", *columns) == [
        ("live", "dtr", "tree", 3, 0.75, 2, 10.0),
        ("live", "imperator", "llm", 1, 0.25, 0, 90.0),
        ("retrospective", "imperator", "llm", 1, 1.0, 1, 10.0),
    ]


async def test_unanswered_turns_are_those_whose_recipient_said_nothing_after() -> None:
    log = await log_of(
        turn(1, "anna", "bot", "answered"),
        turn(2, "bot", "anna", "hello"),
        turn(3, "anna", "bot", "open"),
        turn(4, "bot", "anna", "ok", tags=("ack",)),
        turn(5, "ben", "bot", "never seen", "c2"),
        turn(6, "system", "bot", "be kind", "c3"),
        turn(7, "bot", "anna", "bye", "c4"),
    )
    columns = ("conversation_id", "turn_number", "recipient", "text")
    assert await answer(log, "unanswered", *columns) == [
        ("c1", 3, "bot", "open"),
        ("c2", 1, "bot", "never seen"),
    ]
    assert ("c4", 1, "anna", "bye") in await answer(log, "unanswered", *columns, people="true")


async def test_cost_is_summed_and_unknown_cost_is_never_nothing() -> None:
    log = await log_of(
        LlmCall(
            **about(1, "bot"), model="m1", tokens_in=5, tokens_out=2, cost_usd=0.5, latency_ms=10.0
        ),
        LlmCall(**about(2, "bot"), model="m1", cost_usd=0.25, latency_ms=30.0),
        LlmCall(**about(3, "bot", "c2"), model="m2", tokens_in=1),
    )
    columns = ("spent_on", "calls", "tokens_in", "cost_usd", "calls_of_unknown_cost")
    assert await answer(log, "cost", *columns) == [
        ("m1", 2, 5, 0.75, 0),
        ("m2", 1, 1, None, 1),
    ]
    assert await answer(log, "cost", "spent_on", by="conversation") == [("c1",), ("c2",)]
    assert await answer(log, "cost", "spent_on", by="day") == [("1970-01-01",)]


async def test_slowest_puts_what_took_longest_first() -> None:
    log = await log_of(
        call(1, "refund", {}, ms=5.0),
        LlmCall(**about(3, "bot"), model="m1", latency_ms=900.0),
        LlmCall(**about(4, "bot"), model="m2"),
        decision(5, "dtr", us=7000),
    )
    assert await answer(log, "slowest", "what", "name", "ms") == [
        ("model call", "m1", 900.0),
        ("decision", "dtr action:ok", 7.0),
        ("tool call", "refund", 5.0),
    ]
    assert await answer(log, "slowest", "ms", limit="1") == [(900.0,)]


async def test_dead_letters_are_listed_and_settled_ones_marked() -> None:
    def letter(n: int, error_type: str = "ValueError", cause: int | None = None) -> DeadLetter:
        return DeadLetter(
            **about(n, "router", cause=cause),
            processor="router",
            topic="mad.conversations",
            partition=2,
            offset=n,
            record_key=b"c1",
            record_value=b"",
            error_type=error_type,
            error="no",
            attempts=3,
        )

    log = await log_of(letter(1), letter(2), letter(3, "settled", cause=1))
    columns = ("record", "error_type", "attempts", "settled")
    assert await answer(log, "dead-letters", *columns) == [
        ("mad.conversations/2@2", "ValueError", 3, False),
        ("mad.conversations/2@1", "ValueError", 3, True),
    ]


async def test_who_talks_to_whom_counts_turns_and_conversations() -> None:
    log = await log_of(
        turn(1, "anna", "bot"),
        turn(2, "anna", "bot"),
        turn(3, "anna", "bot", conversation="c2"),
        turn(4, "bot", "anna"),
        turn(5, "bot"),
    )
    columns = ("sender", "recipient", "turns", "conversations")
    assert await answer(log, "who-talks-to-whom", *columns) == [
        ("anna", "bot", 3, 2),
        ("bot", "anna", 1, 1),
    ]


DUPLICATES = ("action", "same", "times", "conversations", "amount_repeated")


async def test_a_refund_that_was_paid_twice_is_found() -> None:
    log = await log_of(
        call(1, "refund", {"order": 4711, "amount": 480.0}),
        call(3, "refund", {"amount": 480.0, "order": 4711}),
        call(5, "refund", {"order": 4712, "amount": 20}),
    )
    found = await answer(log, "duplicate-effects", *DUPLICATES)
    assert found == [("refund", "order=4711", 2, 1, 480.0)]


async def test_other_amounts_for_one_order_are_the_same_refund() -> None:
    log = await log_of(
        call(1, "pay-refund", {"order_id": "A1", "amount_eur": 100}),
        call(3, "pay-refund", {"order_id": "A1", "amount_eur": 99.5}, "c2"),
    )
    found = await answer(log, "duplicate-effects", *DUPLICATES)
    assert found == [("pay-refund", "order_id=A1", 2, 2, 99.5)]
    assert await answer(log, "duplicate-effects", "action", across="false") == []


async def test_an_effect_counts_once_if_it_failed_or_was_other_or_only_looked() -> None:
    log = await log_of(
        call(1, "refund", {"order": 1}),
        call(3, "refund", {"order": 1}, ok=False),
        call(5, "change_seat", {"order": 1, "seat": "1A"}),
        call(7, "change_seat", {"order": 1, "seat": "1B"}),
        call(9, "get_order", {"order": 1}),
        call(11, "get_order", {"order": 1}),
        [ToolCall(**about(13, "bot"), action="refund", arguments='{"order": 1}')],
    )
    assert await answer(log, "duplicate-effects", "action") == []
    looked = await answer(log, "duplicate-effects", "action", "times", reads="true")
    assert looked == [("get_order", 2)]


async def test_arguments_that_are_no_json_are_compared_as_text() -> None:
    log = await log_of(
        call(1, "send", "{broken"), call(3, "send", "{broken "), call(5, "send", "1")
    )
    assert await answer(log, "duplicate-effects", "same", "times") == [("{broken", 2)]


async def test_duplicate_effects_are_found_in_recorded_runs() -> None:
    if not TAU.exists():
        pytest.skip(f"{TAU.name} is not here: put the shared data folder beside the project")
    events: list[Event] = []
    n = 0
    with gzip.open(TAU, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file):
            for message in json.loads(line)["traj"]:
                for asked in message.get("tool_calls") or ():
                    n += 2
                    function = asked["function"]
                    # Each call is answered by the next message; an error begins so.
                    events += call(n, function["name"], function["arguments"], f"run-{number}")
                if message["role"] == "tool" and message["content"].startswith("Error"):
                    result = events[-1]
                    events[-1] = result.model_copy(update={"ok": False})
    log = await log_of(events)
    within = await answer(log, "duplicate-effects", *DUPLICATES, "in_conversations", across="false")
    # Few runs repeat an effect, and what is found was really done twice in one run.
    assert 0 < len(within) < 20
    assert all(times > 1 and conversations == 1 for _, _, times, conversations, *_ in within)
    assert not any(action.startswith(("get_", "search_")) for action, *_ in within)
    assert len(await answer(log, "duplicate-effects", "action")) > len(within)


async def test_growth_adds_up_by_topic() -> None:
    log = await log_of(turn(1, "anna", text="hi"), turn(2, "anna", text="hi"))
    columns = ("topic", "events", "events_so_far", "payload_bytes", "payload_bytes_so_far")
    found = {row[0]: row[1:] for row in await answer(log, "growth", *columns)}
    assert found["mad.conversations"][:2] == (2, 2)
    assert found["mad.conversations"][2] == found["mad.conversations"][3] > 100
    assert found["mad.schemas"][0] == len(EVENT_KINDS)


def test_every_question_says_in_one_sentence_what_it_answers() -> None:
    for asked in questions().values():
        assert asked.sentence.endswith(".")
        assert 20 < len(asked.sentence) < 110
        given = {parameter.name for parameter in asked.parameters}
        assert all(f"${name}" in asked.sql for name in given)


async def test_latest_is_the_conversation_that_was_appended_to_last() -> None:
    log = await log_of(turn(9, "anna"), turn(1, "anna", conversation="c2"))
    assert await latest_conversation(log) == "c2"
    at = await log.log.end(["mad.conversations"])
    await log.append([turn(10, "anna")])
    assert await latest_conversation(log) == "c1"
    assert await latest_conversation(log, at) == "c2"


async def test_latest_looks_past_what_cannot_be_decoded() -> None:
    log = await log_of(turn(1, "anna"))
    await log.log.append([NewRecord("mad.conversations", b"c1", b"junk")] * 20)
    assert await latest_conversation(log, on_damage=lambda damage: None) == "c1"


async def test_a_conversation_that_is_not_there_is_an_error_and_not_an_empty_answer() -> None:
    log = await log_of()
    with pytest.raises(NoConversation):
        await ask(log, "transcript")
    await log.append([turn(1, "anna")])
    with pytest.raises(NoConversation, match="nowhere"):
        await ask(log, "transcript", {"conversation": "nowhere"})
    with pytest.raises(NoConversation):
        await ask(log, "transcript", as_of=Vector())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("what did it cost", "cost"),
        ("who talks to whom?", "who-talks-to-whom"),
        ("duplicate refunds", "duplicate-effects"),
        ("transcrpt", "transcript"),
        ("slow tool calls", "slowest"),
        ("unanswerd turns", "unanswered"),
        ("who approved the refund", "approvals"),
        ("what was refused", "refusals"),
        ("personal data of maria", "about-person"),
        ("is anything missing", "completeness"),
    ],
)
def test_free_text_finds_the_nearest_question(text: str, name: str) -> None:
    assert name in [near.name for near in nearest(text)][:2]
    with pytest.raises(UnknownQuestion, match=name):
        question(text)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("slowest", {"limit": "many"}, "limit='many' is not a whole number from 0 to 1,000,000"),
        ("slowest", {"limit": "-1"}, "whole number"),
        ("contact-changes", {"days": "99999999999"}, "whole number"),
        ("budgets", {"near": "nan"}, "near='nan' is not a number"),
        ("unanswered", {"people": "maybe"}, "true or false"),
        ("versions", {"at": "yesterday"}, "at='yesterday' is not a time: write it as 2026-"),
        ("activity", {"by": "moon"}, "by='moon' is not one of hour, day, week, month, year"),
        ("cost", {"by": "moon"}, "model, conversation, sender, day"),
        ("escalations", {"moon": "full"}, "it takes no parameters"),
        ("cost", {"moon": "full"}, "it takes by"),
    ],
)
async def test_a_wrong_parameter_is_named(name: str, params: dict[str, str], words: str) -> None:
    with pytest.raises(BadParameter, match=words):
        await ask(await log_of(turn(1, "anna")), name, params)


async def test_a_parameter_is_a_value_and_never_sql() -> None:
    log = await log_of(turn(1, "anna"))
    with pytest.raises(NoConversation):
        await ask(log, "transcript", {"conversation": "' OR true --"})
