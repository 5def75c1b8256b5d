"""A fold of mad.conversations: who takes part in what, and where each conversation's turns are."""

import asyncio
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from madlog.schemas import MadlogError
from madlog.topics import EventLog, LogEvent, Record, TopicPartition, Vector
from madlog.topics.catalog import CATALOG, partition_for

__all__ = ("ACK", "TOPIC", "Cause", "ConversationState", "Membership", "decoded")

TOPIC = "mad.conversations"
ACK = "ack"


class Cause(NamedTuple):
    """A turn that others can answer: its id, and the correlation that it carries."""

    event_id: str
    correlation_id: str | None


class ConversationState:
    """One conversation, folded: participants with their kinds, last event, its turns' offsets."""

    __slots__ = ("addressed", "correlation_id", "last_event_id", "participants", "turns")

    def __init__(self) -> None:
        self.participants: dict[str, str] = {}
        self.correlation_id: str | None = None
        self.last_event_id: str | None = None
        # The last turn addressed to each participant.
        self.addressed: dict[str, Cause] = {}
        # Offsets in order; those of acks as -1 - offset, so that a page need not decode to hide.
        self.turns = array("q")

    @property
    def exists(self) -> bool:
        """Whether the log holds any event of this conversation."""
        return self.last_event_id is not None

    def copy(self) -> "ConversationState":
        """Return a state that can go on by itself; its turns' offsets stay behind."""
        made = ConversationState()
        made.participants = dict(self.participants)
        made.correlation_id, made.last_event_id = self.correlation_id, self.last_event_id
        made.addressed = dict(self.addressed)
        return made

    def fold(self, kind: str, fields: Mapping[str, Any], offset: int | None = None) -> None:
        """Take one event in; without an offset it is on its way into the log."""
        event_id = fields["event_id"]
        if self.last_event_id is None:
            self.correlation_id = fields["correlation_id"] or event_id
        self.last_event_id = event_id
        if kind == "ConversationChanged":
            self._fold_change(fields)
        elif kind == "Turn":
            if offset is not None:
                self.turns.append(-1 - offset if ACK in fields["tags"] else offset)
            if fields["recipients"]:
                cause = Cause(event_id, fields["correlation_id"])
                self.addressed.update(dict.fromkeys(fields["recipients"], cause))

    def _fold_change(self, fields: Mapping[str, Any]) -> None:
        name = fields["participant"]
        if name is None:
            return
        if fields["change"] == "joined":
            self.participants[name] = fields["participant_kind"] or "human"
        elif fields["change"] == "left":
            self.participants.pop(name, None)


class Membership:
    """Every conversation's state, kept by reading the tail of a partition when asked.

    `only` limits it to some conversations: other records are passed over without decoding, which
    is what a program wants that writes one turn and ends. With `keys` it also remembers which
    idempotency keys it met, as hashes.
    """

    def __init__(
        self, log: EventLog, only: Collection[str] | None = None, *, keys: bool = False
    ) -> None:
        self._log = log
        self._keys: set[int] | None = set() if keys else None
        self._only = None if only is None else frozenset(name.encode() for name in only)
        self._states: dict[str, ConversationState] = {}
        self._folded: dict[TopicPartition, int] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._partitions: int | None = None

    async def partition(self, conversation_id: str) -> TopicPartition:
        """Return the partition that a conversation is in."""
        if self._partitions is None:
            self._partitions = (await self._log.log.topics()).get(TOPIC)
        count = self._partitions or CATALOG[TOPIC].partitions
        return TopicPartition(TOPIC, partition_for(conversation_id.encode(), count))

    async def fresh(self, conversation_id: str) -> ConversationState:
        """Return a conversation's state at the end of the log; empty where it is not there."""
        tp = await self.partition(conversation_id)
        async with self._locks.setdefault(tp.partition, asyncio.Lock()):
            if self._partitions is not None:
                end = (await self._log.log.end([TOPIC]))[tp]
                if end > self._folded.get(tp, -1):
                    await self._advance(tp, end)
        return self._states.get(conversation_id) or ConversationState()

    async def _advance(self, tp: TopicPartition, end: int) -> None:
        start = Vector({tp: self._folded[tp]} if tp in self._folded else {})
        async for records in self._log.log.read(start, Vector({tp: end})):
            for event in await decoded(self._log, records, self._only):
                state = self._states.setdefault(
                    event.fields["conversation_id"], ConversationState()
                )
                state.fold(event.kind, event.fields, event.record.offset)
                key = event.fields["idempotency_key"]
                if self._keys is not None and key is not None:
                    self._keys.add(hash((event.fields["sender"]["name"], key)))
            self._folded[tp] = records[-1].offset + 1
        self._folded[tp] = end

    def met(self, sender: str, idempotency_key: str) -> bool:
        """Say whether a sender's key was met before."""
        return self._keys is not None and hash((sender, idempotency_key)) in self._keys

    async def as_of(self, conversation_id: str, end: Vector) -> ConversationState:
        """Return a conversation's state when its partition ended where `end` says."""
        state = ConversationState()
        tp = await self.partition(conversation_id)
        if self._partitions is None or not end.get(tp):
            return state
        until = min(end[tp], (await self._log.log.end([TOPIC]))[tp])
        keys = frozenset((conversation_id.encode(),))
        async for records in self._log.log.read(Vector(), Vector({tp: until})):
            for event in await decoded(self._log, records, keys):
                state.fold(event.kind, event.fields, event.record.offset)
        return state


async def decoded(
    log: EventLog, records: Sequence[Record], keys: frozenset[bytes] | None
) -> list[LogEvent]:
    """Return the events of the records whose key is wanted; other records are not decoded."""
    events = []
    for record in records:
        if keys is not None and record.key not in keys:
            continue
        try:
            events.append(log.decode(record))
        except MadlogError:
            # Reading it as an event learns schemas that came since, or names the damage.
            tp, at = record.position.topic_partition, record.offset
            async for found in log.read(Vector({tp: at}), Vector({tp: at + 1})):
                events += found
    return events
