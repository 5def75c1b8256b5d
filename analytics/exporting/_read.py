"""The conversations of a log, whole and one after the other.

Two passes. The first looks at keys only and remembers four numbers a conversation; the second
holds the events of a few neighbouring conversations at a time, of one alone when it is long. So
memory grows with the number of conversations by an index entry, not by their content.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from madlog.analytics.exporting._errors import UnknownConversation
from madlog.schemas import Event
from madlog.topics.catalog import partition_for
from madlog.topics.event_log import EventLog
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("Span", "conversations", "spans")

_TOPIC = "mad.conversations"
_EVENTS_HELD_MAX = 5_000


@dataclass(slots=True)
class Span:
    """Where the events of one conversation stand in the log."""

    conversation: str
    partition: int
    first: int
    last: int
    events: int
    appended_at: int


async def spans(log: EventLog, conversation: str | None = None) -> list[Span]:
    """Return the span of each conversation in first-seen order, or of one; `latest` is the newest.

    First seen is by append time, then by partition and offset. Raises UnknownConversation.
    """
    partitions = (await log.log.topics()).get(_TOPIC, 0)
    named = conversation is not None and conversation != "latest"
    wanted = (conversation or "").encode("utf-8", "surrogatepass") if named else None
    end = await log.log.end([_TOPIC]) if partitions else Vector()
    if wanted is not None and partitions:
        tp = TopicPartition(_TOPIC, partition_for(wanted, partitions))
        end = Vector({tp: end[tp]} if tp in end else {})
    found: dict[bytes, Span] = {}
    if end:
        async for records in log.log.read(Vector(), end):
            for record in records:
                if wanted is not None and record.key != wanted:
                    continue
                span = found.get(record.key)
                if span is None:
                    name = record.key.decode("utf-8", "replace")
                    at, offset = record.appended_at, record.offset
                    found[record.key] = Span(name, record.partition, offset, offset, 1, at)
                else:
                    span.last = record.offset
                    span.events += 1
    order = sorted(found.values(), key=lambda span: (span.appended_at, span.partition, span.first))
    if conversation is None:
        return order
    if not order:
        raise UnknownConversation(
            f"this log holds no conversation {conversation[:80]!r}: "
            '`madlog sql "select conversation_id from conversations"` lists those there are'
        )
    return order[-1:]


def _neighbours(order: list[Span]) -> list[list[Span]]:
    """Cut the order into runs that may be held together."""
    runs: list[list[Span]] = []
    held = _EVENTS_HELD_MAX
    for span in order:
        if held + span.events > _EVENTS_HELD_MAX:
            runs.append([])
            held = 0
        runs[-1].append(span)
        held += span.events
    return runs


async def conversations(
    log: EventLog, order: list[Span]
) -> AsyncIterator[tuple[Span, list[Event]]]:
    """Yield each conversation with its events in append order, a repeated event once."""
    for run in _neighbours(order):
        start: dict[TopicPartition, int] = {}
        end: dict[TopicPartition, int] = {}
        held: dict[bytes, dict[str, Event]] = {}
        for span in run:
            tp = TopicPartition(_TOPIC, span.partition)
            start[tp] = min(start.get(tp, span.first), span.first)
            end[tp] = max(end.get(tp, 0), span.last + 1)
            held[span.conversation.encode("utf-8", "replace")] = {}
        async for found in log.read(Vector(start), Vector(end)):
            for event in found:
                events = held.get(event.record.key)
                if events is not None:
                    events.setdefault(event.event_id, event.event)
        for span in run:
            yield span, list(held.pop(span.conversation.encode("utf-8", "replace")).values())
