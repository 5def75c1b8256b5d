"""A topic's digest: equal for equal events however they were framed, different for any other."""

import hashlib
from typing import Any

import pytest

from madlog.analytics.digest import digest
from madlog.schemas import (
    DeadLetter,
    Event,
    ModelPublished,
    Outcome,
    Part,
    Sender,
    Turn,
    canonical,
    fields_of,
    new_event_id,
)
from madlog.topics import EventLog, NewEvent, NewRecord, UnknownTopic
from madlog.topics.memory import MemoryLog

CONVERSATIONS = "mad.conversations"


def eid(n: int) -> str:
    return new_event_id(n * 1000, n.to_bytes(10, "big"))


def about(n: int, conversation: str) -> dict[str, Any]:
    sender = Sender(name="anna", kind="human")
    return {
        "event_id": eid(n),
        "conversation_id": conversation,
        "sender": sender,
        "occurred_at": n,
    }


def turn(n: int, conversation: str = "c1", text: str = "hi") -> Turn:
    return Turn(**about(n, conversation), parts=(Part(content_class="prose", text=text),))


def outcome(n: int) -> Outcome:
    return Outcome(
        **about(n, "c1"), mad="bot", result="success", judged_by="x", about="decision", about_id="d"
    )


async def log_of(*events: Event | NewEvent) -> EventLog:
    log = await EventLog.open(MemoryLog())
    for event in events:
        await log.append([event])
    return log


async def one(log: EventLog, topic: str = CONVERSATIONS) -> str:
    return (await digest(log, [topic]))[topic].digest


async def test_the_digest_is_the_written_formula() -> None:
    events = [turn(1, "b"), turn(2, "a"), turn(3, "b")]
    total = hashlib.sha256()
    for key, rank, event in ((b"a", 0, events[1]), (b"b", 0, events[0]), (b"b", 1, events[2])):
        content = hashlib.sha256(canonical({"kind": "Turn", **fields_of(event)})).digest()
        total.update(len(key).to_bytes(4, "big") + key + rank.to_bytes(8, "big") + content)
    found = await digest(await log_of(*events), [CONVERSATIONS])
    assert found[CONVERSATIONS] == (total.hexdigest(), 3)


async def test_order_between_conversations_does_not_count() -> None:
    log = await log_of(turn(1, "a"), turn(2, "b"), turn(3, "a"))
    other = await log_of(turn(2, "b"), turn(1, "a"), turn(3, "a"))
    assert await one(log) == await one(other)


async def test_order_within_a_conversation_counts() -> None:
    assert await one(await log_of(turn(1), turn(2))) != await one(await log_of(turn(2), turn(1)))


async def test_order_within_another_key_does_not_count() -> None:
    log, other = await log_of(outcome(1), outcome(2)), await log_of(outcome(2), outcome(1))
    assert await one(log, "mad.outcomes") == await one(other, "mad.outcomes")


async def test_headers_and_places_do_not_count() -> None:
    log = await log_of(turn(1))
    other = await log_of(NewEvent(turn(1), (("duration-us", b"5"),), partition=0))
    third = await log_of(NewEvent(turn(1), partition=1))
    assert await one(log) == await one(other) == await one(third)


@pytest.mark.parametrize(
    "events",
    [
        (turn(1, text="hello"),),
        (turn(2),),
        (turn(1, "c2"),),
        (turn(1), turn(1)),
        (),
    ],
)
async def test_any_other_content_gives_another_digest(events: tuple[Event, ...]) -> None:
    log = await log_of(*events)
    await log.ensure_topics([CONVERSATIONS])
    assert await one(log) != await one(await log_of(turn(1)))


async def test_where_a_dead_record_stood_does_not_count() -> None:
    def letter(offset: int, error: str = "no") -> DeadLetter:
        return DeadLetter(
            **about(1, "c1"),
            idempotency_key=f"mad.conversations/0@{offset}",
            processor="router",
            topic=CONVERSATIONS,
            partition=0,
            offset=offset,
            record_key=b"c1",
            record_value=b"\xff",
            error_type="ValueError",
            error=error,
            attempts=1,
        )

    topic = "mad.dead-letters"
    here = await one(await log_of(letter(7)), topic)
    assert here == await one(await log_of(letter(9)), topic)
    assert here != await one(await log_of(letter(7, "yes")), topic)


async def test_every_topic_but_the_changelogs_has_one() -> None:
    log = await log_of(
        turn(1),
        ModelPublished(**about(2, "m"), component="dtr", version="1", parameters_sha256="00"),
    )
    await log.ensure_topics(["mad.state.router"])
    await log.log.append([NewRecord("mad.state.router", b"k", b"v")])
    assert set(await digest(log)) == {CONVERSATIONS, "mad.models", "mad.schemas"}


async def test_a_digest_at_a_vector_ignores_what_came_later() -> None:
    log = await log_of(turn(1), turn(2))
    at = await log.log.end([CONVERSATIONS])
    before = await digest(log, [CONVERSATIONS], at)
    await log.append([turn(3)])
    assert await digest(log, [CONVERSATIONS], at) == before
    assert (await digest(log, [CONVERSATIONS]))[CONVERSATIONS].events == 3


async def test_a_topic_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownTopic, match=r"mad\.nosuch"):
        await digest(await log_of(turn(1)), ["mad.nosuch"])
