"""Conversations: create, join, say, read back; one line says something.

All events of a conversation are in mad.conversations under its id, so in one partition and in one
order. Who takes part is a fold of that partition. Membership is checked against the log's end as
it was just before the append: of a participant that leaves in that very moment one more turn may
follow its leaving.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, cast

from madlog.mads._membership import ACK, TOPIC, Cause, ConversationState, Membership, decoded
from madlog.mads._rules import checked_id, checked_name, checked_text
from madlog.mads.errors import (
    ConversationExists,
    InvalidTurn,
    NotAParticipant,
    UnknownConversation,
)
from madlog.schemas import (
    ConversationChanged,
    Event,
    Part,
    Sender,
    SenderKind,
    Turn,
    new_event_id,
)
from madlog.schemas.text import Parsed, parse
from madlog.topics import Clock, EventLog, Position, Vector

__all__ = ("Conversation", "Conversations", "Intent", "Page", "Random", "Said", "TurnMaker")

HISTORY_TURNS_MAX = 1000

Intent = Literal["INITIATE", "REQUEST", "RESPONSE", "TERMINATE", "ERROR"]
Random = Callable[[int], bytes]


class Said(NamedTuple):
    """A turn in the log: its id, its place, and the turn itself."""

    event_id: str
    position: Position
    turn: Turn

    @property
    def sender(self) -> str:
        """Who said it."""
        return self.turn.sender.name

    @property
    def text(self) -> str:
        """What was said, as it was typed."""
        return self.turn.text


class Page(NamedTuple):
    """Some turns of a conversation in order, and where the pages around it begin.

    `after` and `before` are None where there is nothing more in that direction.
    """

    turns: tuple[Said, ...]
    before: Position | None
    after: Position | None


class TurnMaker:
    """Makes the events of conversations from what was folded, a time and random bytes."""

    def __init__(self, sender: Sender, clock: Clock, random: Random) -> None:
        self.sender = sender
        self._clock = clock
        self._random = random

    def envelope(self, conversation_id: str, occurred_at: int | None = None) -> dict[str, Any]:
        """Return the envelope fields that depend on nothing but now."""
        now = self._clock.now_us() if occurred_at is None else occurred_at
        return {
            "event_id": new_event_id(now, self._random(10)),
            "conversation_id": conversation_id,
            "sender": self.sender,
            "occurred_at": now,
        }

    def change(
        self,
        conversation_id: str,
        change: Literal["created", "joined", "left"],
        state: ConversationState | None = None,
        **fields: Any,
    ) -> ConversationChanged:
        """Return the event of a change, caused by the conversation's last event."""
        if state is not None and state.exists:
            fields["correlation_id"] = state.correlation_id
            fields["causation_id"] = fields["seen"] = state.last_event_id
        envelope = self.envelope(conversation_id, fields.pop("occurred_at", None))
        return ConversationChanged(**envelope, change=change, **fields)

    def turn(
        self,
        conversation_id: str,
        parsed: Parsed,
        *,
        recipients: Iterable[str],
        state: ConversationState,
        tags: Iterable[str] = (),
        parts: Iterable[Part] = (),
        cause: Cause | None = None,
        occurred_at: int | None = None,
        **fields: Any,
    ) -> Turn:
        """Return a turn; what it answers is `cause`, else the last one addressed to its sender."""
        if cause is None and state.last_event_id is not None:
            last = Cause(state.last_event_id, None)
            cause = state.addressed.get(self.sender.name, last)
        fields.setdefault("seen", state.last_event_id)
        return Turn(
            **self.envelope(conversation_id, occurred_at),
            correlation_id=(cause.correlation_id if cause else None) or state.correlation_id,
            causation_id=cause.event_id if cause else None,
            recipients=tuple(dict.fromkeys(recipients)),
            mentions=tuple(parsed.mentions),
            tags=tuple(dict.fromkeys([*parsed.tags, *(tag.lstrip("#") for tag in tags)])),
            parts=(*parsed.parts, *parts),
            **fields,
        )


class Conversations:
    """The conversations of a log, as one sender takes part in them."""

    def __init__(self, log: EventLog, *, sender: Sender, clock: Clock, random: Random) -> None:
        self._log = log
        self._maker = TurnMaker(sender, clock, random)
        self._membership = Membership(log)

    def as_sender(self, sender: Sender) -> "Conversations":
        """Return the same conversations for another sender; both share one fold of the log."""
        made = Conversations.__new__(Conversations)
        made._log, made._membership = self._log, self._membership
        made._maker = TurnMaker(sender, self._maker._clock, self._maker._random)
        return made

    async def create(
        self,
        title: str | None = None,
        conversation_id: str | None = None,
        participants: Collection[str] | Mapping[str, SenderKind] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> "Conversation":
        """Begin a conversation: the sender and `participants` (name, or name to kind) join it.

        Raises ConversationExists, InvalidTurn.
        """
        maker = self._maker
        if conversation_id is None:
            conversation_id = maker.envelope("new")["event_id"]
        conversation_id = checked_id(conversation_id)
        if (await self._membership.fresh(conversation_id)).exists:
            raise ConversationExists(
                f"the log holds a conversation {conversation_id[:80]!r} already: open it, or "
                "choose another id"
            )
        kinds: dict[str, SenderKind] = {maker.sender.name: maker.sender.kind}
        for name in participants:
            kind = participants[name] if isinstance(participants, Mapping) else "mad"
            kinds.setdefault(checked_name(name), kind)
        state = ConversationState()
        events: list[Event] = [
            maker.change(conversation_id, "created", title=title, metadata=dict(metadata or {}))
        ]
        state.fold("ConversationChanged", vars(events[0]))
        for name, kind in kinds.items():
            events.append(joined(maker, conversation_id, state, name, kind))
        await self._log.transact(events)
        return await self.open(conversation_id)

    async def open(self, conversation_id: str) -> "Conversation":
        """Return a conversation that the log holds; raises UnknownConversation."""
        state = await self._membership.fresh(checked_id(conversation_id))
        if not state.exists:
            raise UnknownConversation(
                f"the log holds no conversation {conversation_id[:80]!r}: create it first, or "
                "check its id"
            )
        return Conversation(self._log, self._membership, self._maker, conversation_id)

    async def exists(self, conversation_id: str) -> bool:
        """Say whether the log holds a conversation of this id."""
        return (await self._membership.fresh(checked_id(conversation_id))).exists


def joined(
    maker: TurnMaker,
    conversation_id: str,
    state: ConversationState,
    name: str,
    kind: str,
    occurred_at: int | None = None,
) -> ConversationChanged:
    """Return the event by which `name` joins, and take it into `state`."""
    event = maker.change(
        conversation_id,
        "joined",
        state,
        participant=name,
        participant_kind=kind,
        occurred_at=occurred_at,
    )
    state.fold(event.kind, vars(event))
    return event


class Conversation:
    """One conversation, for one sender."""

    def __init__(
        self, log: EventLog, membership: Membership, maker: TurnMaker, conversation_id: str
    ) -> None:
        self._log = log
        self._membership = membership
        self._maker = maker
        self.conversation_id = conversation_id
        # A sender that subscribes knows what was delivered to it; any other one knows all that
        # was folded before it spoke.
        self._delivered: ConversationState | None = None

    @property
    def sender(self) -> Sender:
        """Who speaks here."""
        return self._maker.sender

    async def say(
        self,
        text: str,
        *,
        to: str | Iterable[str] | None = None,
        tags: Iterable[str] = (),
        intent: Intent | None = None,
        causation: "Said | Turn | str | None" = None,
        idempotency_key: str | None = None,
        parts: Iterable[Part] | None = None,
    ) -> Said:
        """Say something, durable when this returns; participants mentioned receive it besides `to`.

        The same idempotency_key returns what was said the first time. Raises NotAParticipant,
        InvalidTurn, TurnTooLarge, and what an append raises.
        """
        checked_text(text)
        state = await self._member_state()
        wanted = (to,) if isinstance(to, str) else tuple(to or ())
        for name in wanted:
            if checked_name(name) not in state.participants:
                raise NotAParticipant(
                    f"{name} does not take part in {self.conversation_id[:80]!r}: let it join, "
                    f"for example `await conversation.join({name!r})`"
                )
        parsed = parse(text)
        mentioned = [name for name in parsed.mentions if name in state.participants]
        recipients = [name for name in (*wanted, *mentioned) if name != self.sender.name]
        known = self._delivered if self._delivered and self._delivered.exists else state
        turn = self._maker.turn(
            self.conversation_id,
            parsed,
            recipients=recipients,
            state=known,
            tags=tags,
            parts=parts or (),
            cause=_cause(causation),
            intent=intent,
            idempotency_key=idempotency_key,
        )
        receipt = (await self._log.append([turn]))[0]
        if receipt.repeated:
            return await said_at(self._log, receipt.position)
        return Said(turn.event_id, receipt.position, turn)

    async def ack(self, turn: "Said | Turn", text: str = "ACK #ack") -> Said:
        """Acknowledge a turn to its sender; histories hide acknowledgements unless asked."""
        turn = turn.turn if isinstance(turn, Said) else turn
        to = turn.sender.name
        present = to in (await self._membership.fresh(self.conversation_id)).participants
        return await self.say(
            text, to=to if present and to != self.sender.name else None, tags=[ACK], causation=turn
        )

    async def join(self, name: str | None = None, kind: SenderKind = "mad") -> None:
        """Join, or let another participant join; nothing happens where it takes part already."""
        state = await self._membership.fresh(self.conversation_id)
        me = self.sender
        name, kind = (me.name, me.kind) if name in (None, me.name) else (checked_name(name), kind)
        if name in state.participants:
            return
        if name != me.name:
            await self._member_state()
        event = self._maker.change(
            self.conversation_id, "joined", state, participant=name, participant_kind=kind
        )
        await self._log.append([event])

    async def leave(self, name: str | None = None) -> None:
        """Leave, or remove another participant; nothing happens where it does not take part."""
        name = self.sender.name if name is None else checked_name(name)
        state = await self._membership.fresh(self.conversation_id)
        if name not in state.participants:
            return
        await self._member_state()
        event = self._maker.change(
            self.conversation_id,
            "left",
            state,
            participant=name,
            participant_kind=cast(SenderKind, state.participants[name]),
        )
        await self._log.append([event])

    async def participants(self, as_of: Vector | None = None) -> dict[str, SenderKind]:
        """Return who takes part, name to kind, now or as the log stood at a vector of positions."""
        if as_of is None:
            state = await self._membership.fresh(self.conversation_id)
        else:
            state = await self._membership.as_of(self.conversation_id, as_of)
        return cast(dict[str, SenderKind], dict(state.participants))

    async def history(
        self,
        *,
        after: Position | None = None,
        before: Position | None = None,
        limit: int = 50,
        show_acks: bool = False,
    ) -> Page:
        """Return a page of turns in order: the first after a position, or the last before one.

        With neither, the first page. The page's own `after` and `before` lead to the next ones.
        """
        if not 1 <= limit <= HISTORY_TURNS_MAX:
            raise InvalidTurn(f"a page has 1 to {HISTORY_TURNS_MAX} turns, not {limit}")
        state = await self._membership.fresh(self.conversation_id)
        offsets = [at if at >= 0 else -1 - at for at in state.turns if show_acks or at >= 0]
        low = -1 if after is None else after.offset
        high = None if before is None else before.offset
        within = [at for at in offsets if at > low and (high is None or at < high)]
        page = within[-limit:] if before is not None and after is None else within[:limit]
        if not page:
            return Page((), None, None)
        tp = await self._membership.partition(self.conversation_id)
        # From the offsets, not from what was read: a damaged turn must not end the paging.
        return Page(
            tuple([said async for said in self._read(page)]),
            Position(*tp, page[0]) if offsets[0] < page[0] else None,
            Position(*tp, page[-1]) if offsets[-1] > page[-1] else None,
        )

    async def _read(self, offsets: list[int]) -> AsyncIterator[Said]:
        tp = await self._membership.partition(self.conversation_id)
        wanted, keys = set(offsets), frozenset((self.conversation_id.encode(),))
        end = Vector({tp: offsets[-1] + 1})
        async for records in self._log.log.read(Vector({tp: offsets[0]}), end):
            for event in await decoded(self._log, records, keys):
                if event.position.offset in wanted:
                    yield Said(event.event_id, event.position, cast(Turn, event.event))

    async def subscribe(
        self, *, after: Position | None = None, show_acks: bool = True
    ) -> AsyncIterator[Said]:
        """Yield the turns of this conversation from its beginning (or after a position), then live.

        Programs see acknowledgements too, since they may wait for them.
        """
        tp = await self._membership.partition(self.conversation_id)
        await self._log.ensure_topics([TOPIC])
        start = after.offset + 1 if after else (await self._log.log.start([TOPIC]))[tp]
        state = self._delivered = ConversationState()
        if after is not None:
            state = self._delivered = await self._membership.as_of(
                self.conversation_id, Vector({tp: start})
            )
        keys = frozenset((self.conversation_id.encode(),))
        try:
            async for records in self._log.log.subscribe(Vector({tp: start})):
                for event in await decoded(self._log, records, keys):
                    state.fold(event.kind, event.fields, event.position.offset)
                    if event.kind != "Turn" or (not show_acks and ACK in event.fields["tags"]):
                        continue
                    yield Said(event.event_id, event.position, cast(Turn, event.event))
        finally:
            self._delivered = None

    async def _member_state(self) -> ConversationState:
        state = await self._membership.fresh(self.conversation_id)
        if self.sender.name not in state.participants:
            raise NotAParticipant(
                f"{self.sender.name} does not take part in {self.conversation_id[:80]!r}: "
                "`await conversation.join()` first"
            )
        return state


def _cause(causation: "Said | Turn | str | None") -> Cause | None:
    if causation is None or isinstance(causation, str):
        return None if causation is None else Cause(causation, None)
    turn = causation.turn if isinstance(causation, Said) else causation
    return Cause(turn.event_id, turn.correlation_id)


async def said_at(log: EventLog, position: Position) -> Said:
    """Return the turn at a position of the log."""
    tp, at = position.topic_partition, position.offset
    async for events in log.read(Vector({tp: at}), Vector({tp: at + 1})):
        for event in events:
            return Said(event.event_id, event.position, cast(Turn, event.event))
    raise UnknownConversation(f"the log holds no turn at {position}: read from an earlier position")
