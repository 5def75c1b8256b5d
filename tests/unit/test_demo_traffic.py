"""The demo's traffic: the same each time, with three duplicate refunds and their cause."""

import json
from collections import Counter, defaultdict

import pytest

from madlog.mads.demo.traffic import DUPLICATE_REFUNDS, traffic
from madlog.mads.demo.writer import write
from madlog.schemas import (
    EVENT_KINDS,
    ConversationChanged,
    Event,
    LlmCall,
    ToolCall,
    ToolResult,
    Turn,
    encode,
    fields_of,
)
from madlog.schemas.text import parse
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

TURNS = 4_000


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return [event for batch in traffic(1, TURNS) for event in batch]


def test_it_is_the_same_each_time_and_another_with_another_seed(events: list[Event]) -> None:
    again = [event for batch in traffic(1, TURNS) for event in batch]
    assert [encode(event) for event in again] == [encode(event) for event in events]
    other = {event.event_id for batch in traffic(2, TURNS) for event in batch}
    assert other.isdisjoint(event.event_id for event in events)


def test_it_has_the_turns_asked_for_and_every_event_is_valid(events: list[Event]) -> None:
    # Conversations are never cut off, so the last one may go a few turns past the number.
    assert TURNS <= sum(event.kind == "Turn" for event in events) < TURNS + 40
    assert len({event.event_id for event in events}) == len(events)
    for event in events:
        EVENT_KINDS[event.kind].model_validate(fields_of(event))


def test_a_turn_is_what_parsing_its_text_gives(events: list[Event]) -> None:
    for turn in (event for event in events if isinstance(event, Turn)):
        parsed = parse(turn.text)
        said = tuple(part for part in turn.parts if part.media_type is None)  # files come after
        assert (said, turn.mentions) == (parsed.parts, parsed.mentions), turn.text
        assert set(turn.tags) == set(parsed.tags), turn.text


def test_only_participants_speak_and_references_point_back(events: list[Event]) -> None:
    members: dict[str, set[str]] = defaultdict(set)
    known: set[str] = set()
    for event in events:
        refers_to = {event.causation_id, event.seen, event.correlation_id} - {None}
        assert refers_to <= known, "a reference to an event that is not there yet"
        known.add(event.event_id)
        here = members[event.conversation_id]
        if isinstance(event, ConversationChanged) and event.participant:
            (here.add if event.change == "joined" else here.discard)(event.participant)
        elif isinstance(event, Turn):
            assert {event.sender.name, *event.recipients} <= here


@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("turns", [1, 300])
def test_the_story_is_the_same_for_every_seed_and_size(seed: int, turns: int) -> None:
    events = [event for batch in traffic(seed, turns) for event in batch]
    twice = {order for order, calls in refunds(events).items() if len(calls) > 1}
    assert twice == set(DUPLICATE_REFUNDS)
    assert events[-1].conversation_id == "order-4711"


def refunds(events: list[Event]) -> dict[str, list[ToolCall]]:
    by_order: dict[str, list[ToolCall]] = defaultdict(list)
    for event in events:
        if isinstance(event, ToolCall) and event.action == "refund":
            by_order[json.loads(event.arguments)["order_id"]].append(event)
    return by_order


def test_three_orders_are_refunded_twice(events: list[Event]) -> None:
    twice = {order: calls for order, calls in refunds(events).items() if len(calls) > 1}
    amounts = {
        order: json.loads(calls[0].arguments)["amount_eur"] for order, calls in twice.items()
    }
    assert amounts["4711"] == 480
    assert (len(amounts), sum(amounts.values())) == (3, 1310)
    assert Counter(len(calls) for calls in twice.values()) == {2: 3}


def test_what_caused_them_had_fallen_out_of_the_context(events: list[Event]) -> None:
    answers = {event.call_id: event for event in events if isinstance(event, ToolResult)}
    shown = {event.answer_id: event for event in events if isinstance(event, LlmCall)}
    twice = [calls for calls in refunds(events).values() if len(calls) > 1]
    for first, second in twice:
        result = answers[first.event_id]
        assert result.ok
        asked = shown[second.event_id]
        assert result.event_id not in asked.messages, "the model had been told of the first refund"
        assert "budget" in " ".join(asked.parameters)


async def test_a_writer_that_starts_again_adds_nothing() -> None:
    log = await EventLog.open(MemoryLog())
    await write(log, 1, 600)
    end = await log.log.end(["mad.conversations"])
    await write(log, 1, 600)
    assert await log.log.end(["mad.conversations"]) == end
