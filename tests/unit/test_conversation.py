"""Conversations on the log: who may speak, what is carried along, what a page shows."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from madlog.mads import (
    Conversations,
    Ecosystem,
    InvalidTurn,
    NotAParticipant,
    TurnRequest,
    TurnTooLarge,
    UnknownConversation,
    append_many,
    append_turn,
)
from madlog.schemas import MadlogError, Sender
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog
from madlog.topics.testing import ManualClock


@pytest.fixture
async def log() -> EventLog:
    return await EventLog.open(MemoryLog(ManualClock()))


class Counter:
    """Random bytes of a test: 1, 2, 3 …"""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")


@pytest.fixture
def ada(log: EventLog) -> Conversations:
    sender = Sender(name="ada", kind="human")
    return Conversations(log, sender=sender, clock=log.log.clock, random=Counter())


async def test_the_creator_takes_part_and_others_once_they_join(ada: Conversations) -> None:
    talk = await ada.create("Order 4711")
    assert await talk.participants() == {"ada": "human"}
    await talk.join("shop")
    assert await talk.participants() == {"ada": "human", "shop": "mad"}
    await talk.leave("shop")
    assert await talk.participants() == {"ada": "human"}


async def test_participants_as_they_were(ada: Conversations, log: EventLog) -> None:
    talk = await ada.create()
    before = await log.log.end(["mad.conversations"])
    await talk.join("shop")
    assert set(await talk.participants(as_of=before)) == {"ada"}
    assert set(await talk.participants()) == {"ada", "shop"}


async def test_only_participants_speak(ada: Conversations) -> None:
    talk = await ada.create(conversation_id="order-1")
    stranger = ada.as_sender(Sender(name="bob", kind="human"))
    theirs = await stranger.open(talk.conversation_id)
    with pytest.raises(NotAParticipant, match="bob"):
        await theirs.say("hello")
    await theirs.join()
    assert (await theirs.say("hello")).sender == "bob"
    await theirs.leave()
    with pytest.raises(NotAParticipant):
        await theirs.say("hello again")


async def test_a_conversation_that_is_not_there_is_named(ada: Conversations) -> None:
    with pytest.raises(UnknownConversation, match="order-9"):
        await ada.open("order-9")


async def test_mentions_become_recipients_and_tags_are_kept(ada: Conversations) -> None:
    talk = await ada.create()
    await talk.join("shop")
    await talk.join("bank")
    said = await talk.say("@shop please look #parcel", to="bank")
    assert set(said.turn.recipients) == {"shop", "bank"}
    assert said.turn.mentions == ("shop",)
    assert said.turn.tags == ("parcel",)


async def test_an_answer_carries_cause_correlation_and_what_was_seen(ada: Conversations) -> None:
    talk = await ada.create()
    await talk.join("shop")
    asked = await talk.say("where is it?", to="shop")
    shop = await ada.as_sender(Sender(name="shop", kind="mad")).open(talk.conversation_id)
    answered = await shop.say("on its way", to="ada")
    assert answered.turn.causation_id == asked.event_id
    assert answered.turn.seen == asked.event_id
    assert answered.turn.correlation_id == asked.turn.correlation_id is not None


async def test_acks_are_turns_that_only_the_view_hides(ada: Conversations) -> None:
    talk = await ada.create()
    await talk.join("shop")
    asked = await talk.say("where is it?", to="shop")
    shop = await ada.as_sender(Sender(name="shop", kind="mad")).open(talk.conversation_id)
    ack = await shop.ack(asked)
    assert "ack" in ack.turn.tags
    assert [said.text for said in (await talk.history()).turns] == ["where is it?"]
    assert len((await talk.history(show_acks=True)).turns) == 2


async def test_history_page_by_page_gives_every_turn_once(ada: Conversations) -> None:
    talk = await ada.create()
    for number in range(7):
        await talk.say(f"turn {number}")
    texts, page = [], await talk.history(limit=3)
    texts += [said.text for said in page.turns]
    while page.after is not None:
        page = await talk.history(after=page.after, limit=3)
        texts += [said.text for said in page.turns]
    assert texts == [f"turn {number}" for number in range(7)]


async def test_the_same_key_says_it_once(ada: Conversations, log: EventLog) -> None:
    talk = await ada.create()
    first = await talk.say("pay", idempotency_key="k")
    again = await talk.say("pay", idempotency_key="k")
    assert again.event_id == first.event_id
    with pytest.raises(MadlogError, match="k"):
        await talk.say("pay twice", idempotency_key="k")
    assert len((await talk.history()).turns) == 1


async def test_a_turn_over_the_limit_is_refused_with_its_size(ada: Conversations) -> None:
    talk = await ada.create()
    with pytest.raises(TurnTooLarge, match="2,000,000"):
        await talk.say("x" * 2_000_000)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_text_that_cannot_be_kept_is_refused(ada: Conversations, text: str) -> None:
    talk = await ada.create()
    with pytest.raises(MadlogError):
        await talk.say(text)
    assert (await talk.history()).turns == ()


async def test_a_subscriber_gets_the_past_then_what_comes(log: EventLog) -> None:
    ecosystem = Ecosystem(log)
    talk = await ecosystem.conversation("order-1", sender="ada")
    await talk.say("one")
    other = await ecosystem.conversation("order-2", sender="ada")
    await other.say("elsewhere")
    got = []
    async for said in talk.subscribe():
        got.append(said.text)
        if len(got) == 1:
            await talk.say("two")
        else:
            break
    assert got == ["one", "two"]


async def test_a_subscription_from_a_time_skips_what_was_before(log: EventLog) -> None:
    clock = log.log.clock
    assert isinstance(clock, ManualClock)
    await append_turn(log, "order-1", "ada", "before")
    clock.advance(60)
    since = datetime.fromtimestamp(clock.now_us() / 1_000_000, UTC)
    await append_turn(log, "order-1", "ada", "after")
    async for event in Ecosystem(log).subscribe(since):
        assert event.fields["parts"][0]["text"] == "after"
        break


async def test_one_call_creates_joins_and_says(log: EventLog) -> None:
    answer = await append_turn(log, "order-1", "ada", "hi", ["shop"])
    assert answer.position is not None
    kinds = [
        event.kind async for event in Ecosystem(log).read() if event.kind != "SchemaRegistered"
    ]
    assert kinds == ["ConversationChanged"] * 3 + ["Turn"]
    await append_turn(log, "order-1", "shop", "hello", ["ada"])
    turns = [event async for event in Ecosystem(log).read() if event.kind == "Turn"]
    assert turns[1].fields["seen"] == turns[0].event_id


async def test_strict_refuses_instead(log: EventLog) -> None:
    with pytest.raises(UnknownConversation):
        await append_turn(log, "order-1", "ada", "hi", strict=True)
    await append_turn(log, "order-1", "ada", "hi")
    with pytest.raises(NotAParticipant):
        await append_turn(log, "order-1", "bob", "hi", strict=True)


async def test_a_stream_is_answered_in_order_with_its_errors(log: EventLog) -> None:
    async def requests() -> AsyncIterator[TurnRequest | MadlogError]:
        yield TurnRequest("c", "ada", "one")
        yield InvalidTurn("line 2 is no turn")
        yield TurnRequest("c", "Ada!", "a wrong name")
        yield TurnRequest("c", "ada", "two", idempotency_key="k")
        yield TurnRequest("c", "ada", "two", idempotency_key="k")

    answers = [answer async for answer in append_many(log, requests())]
    assert [answer.error is None for answer in answers] == [True, False, False, True, True]
    assert [answer.repeated for answer in answers][3:] == [False, True]
    assert answers[3].event_id == answers[4].event_id
