"""One conversation as a person reads it: its events in order, with decisions and costs beside.

Reads the log itself, only the partition that the conversation is in, never a projection.
"""

from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from madlog.schemas import MadlogError
from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import CATALOG, partition_for
from madlog.topics.log import OnDamage, log_damage

__all__ = (
    "ConversationView",
    "Entry",
    "LeftOut",
    "NoConversation",
    "conversation_view",
    "events_of",
    "latest_conversation",
)

_TOPIC = "mad.conversations"
_TOPICS = ("mad.conversations", "mad.decisions", "mad.llm", "mad.outcomes", "mad.processes")


class NoConversation(MadlogError, LookupError):
    """The log holds no conversation of this name."""


@dataclass(slots=True)
class Entry:
    """One thing said or done: a turn, a tool call with its result, or who came and went.

    `number` counts the turns from 1, None where it is none. `result` is the call's, where it came;
    a result whose call is not here stands for itself. `changes` are changes of membership that
    follow each other, `steps` the moves of processes that came of it.
    """

    event: LogEvent
    number: int | None = None
    result: LogEvent | None = None
    changes: list[LogEvent] = field(default_factory=list)
    steps: list[LogEvent] = field(default_factory=list)

    @property
    def event_ids(self) -> tuple[str, ...]:
        """The events that it is made of."""
        result = () if self.result is None else (self.result.event_id,)
        return self.event.event_id, *result, *(change.event_id for change in self.changes[1:])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a language model was not shown of what had been said and done before its call.

    `before` is what its answer became, where that is known; `shown` counts what it was shown.
    """

    call: LogEvent
    before: Entry | None
    shown: int
    entries: tuple[Entry, ...]


@dataclass
class ConversationView:
    """The events of one conversation: what was said and done, and what was recorded about it."""

    conversation_id: str
    said: list[LogEvent] = field(default_factory=list)
    decisions: list[LogEvent] = field(default_factory=list)
    calls: list[LogEvent] = field(default_factory=list)
    outcomes: list[LogEvent] = field(default_factory=list)
    steps: list[LogEvent] = field(default_factory=list)

    @property
    def cost_usd(self) -> float | None:
        """What its language model calls cost together; None where no call says."""
        known = [call.fields["cost_usd"] for call in self.calls]
        known = [cost for cost in known if cost is not None]
        return sum(known) if known else None

    def entries(self) -> list[Entry]:
        """Return what was said and done, in order, each tool call with its result."""
        made: list[Entry] = []
        calls: dict[str, Entry] = {}
        number = 0
        for event in self.said:
            if event.kind == "Turn":
                number += 1
                made.append(Entry(event, number))
            elif event.kind == "ConversationChanged":
                if not made or not made[-1].changes:
                    made.append(Entry(event))
                made[-1].changes.append(event)
            elif event.kind == "ToolCall":
                made.append(Entry(event))
                calls[event.event_id] = made[-1]
            elif event.kind == "ToolResult":
                of = calls.get(event.fields["call_id"] or "")
                if of is None or of.result is not None:
                    made.append(Entry(event))
                else:
                    of.result = event
        self._add_steps(made)
        return made

    def _add_steps(self, entries: list[Entry]) -> None:
        """Put each move of a process to what caused it, or else to what was there by then."""
        place = {name: entry for entry in entries for name in entry.event_ids}
        for step in self.steps:
            of = place.get(step.fields["causation_id"] or "")
            if of is None:
                at = step.fields["occurred_at"]
                then = (entry for entry in entries if entry.event.fields["occurred_at"] <= at)
                of = max(then, key=lambda entry: entry.event.fields["occurred_at"], default=None)
            (entries[0] if of is None else of).steps.append(step)

    def left_out(self) -> Iterator[LeftOut]:
        """Yield for each language model call that says what it was shown what it was not.

        Only calls that something was kept from; what was said later cannot have been shown.
        """
        entries = self.entries()
        place = {name: entry for entry in entries for name in entry.event_ids}
        order = {event.event_id: number for number, event in enumerate(self.said)}
        for call in self.calls:
            shown = set(call.fields["messages"])
            last = order.get(call.fields["seen"] or "")
            if not shown or last is None:
                continue
            earlier = [
                event
                for event in self.said[: last + 1]
                if event.kind != "ConversationChanged" and event.event_id not in shown
            ]
            kept = {id(place[event.event_id]): place[event.event_id] for event in earlier}
            if kept:
                before = place.get(call.fields["answer_id"] or "")
                yield LeftOut(call, before, len(shown), tuple(kept.values()))

    def as_json(self) -> dict[str, Any]:
        """Return the whole view as one object."""
        return {
            "conversation_id": self.conversation_id,
            "events": [{"kind": event.kind, **event.fields} for event in self.said],
            "decisions": [event.fields for event in self.decisions],
            "llm_calls": [event.fields for event in self.calls],
            "outcomes": [event.fields for event in self.outcomes],
            "process_steps": [event.fields for event in self.steps],
            "cost_usd": self.cost_usd,
        }


async def latest_conversation(
    log: EventLog, at: Vector | None = None, *, on_damage: OnDamage = log_damage
) -> str:
    """Return the conversation that was appended to last before `at`; raises NoConversation."""
    newest: tuple[int, str] | None = None
    if _TOPIC in await log.log.topics():
        end = (await log.log.end([_TOPIC])) if at is None else at.only([_TOPIC])
        low = await log.log.start([_TOPIC])
        for tp in end:
            # Offsets can have gaps, and what stands last can be damaged: look further back.
            reach, upto = 1, end[tp]
            found: tuple[int, str] | None = None
            while found is None and upto > low[tp]:
                since = max(low[tp], end[tp] - reach)
                span = log.read(Vector({tp: since}), Vector({tp: upto}), on_damage=on_damage)
                async for events in span:
                    for event in events:
                        found = (event.record.appended_at, str(event.fields["conversation_id"]))
                reach, upto = reach * 8, since
            if found is not None:
                newest = max(newest, found) if newest else found
    if newest is None:
        raise NoConversation(
            "the log holds no conversation there yet: `madlog append` or `madlog import` writes one"
        )
    return newest[1]


async def events_of(
    log: EventLog, conversation_id: str, topics: Collection[str], *, on_damage: OnDamage
) -> AsyncIterator[LogEvent]:
    """Yield what topics hold of a conversation, topic after topic; missing topics are empty."""
    key, partitions = conversation_id.encode(), await log.log.topics()
    for name in (name for name in topics if name in partitions):
        end = await log.log.end([name])
        if CATALOG[name].key == "conversation_id":
            tp = TopicPartition(name, partition_for(key, partitions[name]))
            end = Vector({tp: end[tp]})
        async for records in log.log.read(Vector(), end, on_damage=on_damage):
            # Ids stand in the bytes as text: what is of others need not be decoded.
            about = [record for record in records if key in record.value]
            for event in await log.decode_all(about, on_damage):
                if event.fields["conversation_id"] == conversation_id:
                    yield event


async def conversation_view(
    log: EventLog, conversation_id: str, *, on_damage: OnDamage = log_damage
) -> ConversationView:
    """Return a conversation, `latest` for the newest; raises NoConversation."""
    if conversation_id == "latest":
        conversation_id = await latest_conversation(log)
    view = ConversationView(conversation_id)
    lists = {
        "mad.conversations": view.said,
        "mad.decisions": view.decisions,
        "mad.llm": view.calls,
        "mad.outcomes": view.outcomes,
        "mad.processes": view.steps,
    }
    async for event in events_of(log, conversation_id, _TOPICS, on_damage=on_damage):
        lists[event.record.topic].append(event)
    if not view.said:
        raise NoConversation(
            f"the log holds no conversation {conversation_id[:80]!r}: "
            '`madlog sql "select conversation_id from conversations"` lists them'
        )
    return view
