"""Streams of turns from outside: repeats, refusals in the middle, sources that fail."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from madlog.mads import Conversations, Ecosystem, InvalidTurn, TurnRequest, append_many
from madlog.mads import append_turn as append_one
from madlog.mads.appending import READ_AHEAD_MAX
from madlog.schemas import Event, MadlogError, Sender
from madlog.topics import EventLog, IdempotencyConflict, NewEvent, Receipt
from madlog.topics.memory import MemoryLog
from madlog.topics.testing import ManualClock


@pytest.fixture
async def log() -> EventLog:
    return await EventLog.open(MemoryLog(ManualClock()))


async def stream(*requests: TurnRequest) -> AsyncIterator[TurnRequest | MadlogError]:
    for request in requests:
        yield request


def numbered(*numbers: int) -> list[TurnRequest]:
    return [TurnRequest("c", "ada", f"turn {n}", ("shop",), f"line-{n}") for n in numbers]


async def test_a_file_sent_again_after_a_kill_adds_only_the_rest(log: EventLog) -> None:
    first = [answer async for answer in append_many(log, stream(*numbered(1, 2)))]
    again = [answer async for answer in append_many(log, stream(*numbered(1, 2, 3)))]
    assert [answer.repeated for answer in again] == [True, True, False]
    assert [answer.event_id for answer in again[:2]] == [answer.event_id for answer in first]
    events = [event async for event in Ecosystem(log).read() if event.kind != "SchemaRegistered"]
    assert [event.kind for event in events].count("ConversationChanged") == 3
    # What comes after repeats answers the turns that are there, not their dropped copies.
    ids = {event.event_id for event in events}
    for event in events[1:]:
        assert {event.fields["causation_id"], event.fields["seen"]} <= ids


async def test_a_conflict_in_a_batch_refuses_that_turn_only(log: EventLog) -> None:
    requests = [
        TurnRequest("c", "ada", "one", idempotency_key="k"),
        TurnRequest("c", "ada", "another", idempotency_key="k"),
        TurnRequest("d", "ada", "three", ("shop",)),
    ]
    answers = await asyncio.wait_for(_all(log, requests), 10)
    assert answers[1] is not None
    assert isinstance(answers[1], IdempotencyConflict)
    assert (answers[0], answers[2]) == (None, None)
    talk = await Conversations(
        log, sender=Sender(name="ada", kind="human"), clock=log.log.clock, random=bytes
    ).open("d")
    assert set(await talk.participants()) == {"ada", "shop"}


async def _all(log: EventLog, requests: Sequence[TurnRequest]) -> list[MadlogError | None]:
    return [answer.error async for answer in append_many(log, stream(*requests))]


async def test_turns_read_ahead_share_a_transaction(log: EventLog) -> None:
    batches = []
    transact = log.transact

    async def counted(events: Sequence[Event | NewEvent]) -> list[Receipt]:
        batches.append(len(events))
        await asyncio.sleep(0)  # a sync takes time, in which the source is read on
        return await transact(events)

    log.transact = counted  # type: ignore[method-assign,assignment]
    answers = [answer async for answer in append_many(log, stream(*numbered(*range(500))))]
    assert len(answers) == 500
    assert len(batches) < 50


async def test_what_was_read_before_a_source_failed_is_answered(log: EventLog) -> None:
    async def failing() -> AsyncIterator[TurnRequest | MadlogError]:
        for request in numbered(1, 2):
            yield request
        raise OSError("the pipe broke")

    answers = append_many(log, failing())
    assert [(await anext(answers)).error for _ in range(2)] == [None, None]
    with pytest.raises(OSError, match="the pipe broke"):
        await anext(answers)


async def test_a_stream_can_be_left_while_its_source_waits(log: EventLog) -> None:
    answers = append_many(log, stream(*numbered(*range(2 * READ_AHEAD_MAX))))
    assert (await anext(answers)).error is None
    await asyncio.wait_for(answers.aclose(), 10)  # type: ignore[attr-defined]


async def test_a_turn_sent_twice_by_key_joins_nobody_again(log: EventLog) -> None:
    first = await append_one(log, "c", "ada", "@shop hi", idempotency_key="k")
    again = await append_one(log, "c", "ada", "@shop hi", idempotency_key="k")
    assert (again.event_id, again.repeated) == (first.event_id, True)
    kinds = [event.kind async for event in Ecosystem(log).read()]
    assert kinds.count("ConversationChanged") == 3


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "JSON"),
        ("[]", "list"),
        (b'{"text": "\xff"}', "UTF-8"),
        ('{"sender": "ada", "text": "x"}', "conversation_id"),
        ('{"conversation_id": "c", "sender": "Ada", "text": "x"}', "Ada"),
        ('{"conversation_id": "c", "sender": "ada", "text": "x", "to": 1}', "'to'"),
        ('{"conversation_id": "c", "sender": "ada", "text": "a\\u0000"}', "NUL"),
        ('{"conversation_id": "c", "sender": "ada", "text": "x", "recipients": "b"}', "list"),
        ('{"conversation_id": "c", "sender": "ada", "text": "x", "recipients": 5}', "list"),
        ('{"conversation_id": "c", "sender": "ada", "text": "x", "occurred_at": "2026"}', "ISO"),
    ],
)
def test_a_line_that_is_no_turn_is_refused_by_name(line: str | bytes, named: str) -> None:
    with pytest.raises(InvalidTurn, match=named):
        TurnRequest.parse(line)


def test_a_time_with_its_offset_is_read() -> None:
    line = '{"text": "x", "occurred_at": "1970-01-01T01:00:01+01:00"}'
    request = TurnRequest.parse(line, conversation_id="c", sender="ada")
    assert request.occurred_at == 1_000_000
