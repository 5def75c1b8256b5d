"""Where a replay begins and ends: a position, a time, an event or a conversation, found once.

Other partitions than that of a named event or conversation are cut where the log stood when it was
appended. What is named is in the range: it begins with it, and ends right after it.
"""

import re
from dataclasses import dataclass

from madlog.analytics.as_of import Place, as_of, event_topics, find_event, parse_time
from madlog.analytics.errors import AnalyticsError, BadTime
from madlog.topics import EventLog, Position, Record, TopicPartition, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.log import OnDamage, log_damage

__all__ = ("NoSuchPlace", "Range", "replay_range")

_EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TOPIC = "mad.conversations"


class NoSuchPlace(AnalyticsError, LookupError):
    """The log holds no such event or conversation: name one that it holds, or a time."""


@dataclass(frozen=True, slots=True)
class Range:
    """From where to where a log is replayed; `start` {}: from its first event."""

    start: Vector
    end: Vector

    def __contains__(self, position: Position) -> bool:
        """Tell whether a place of a topic that the range is of lies in it."""
        tp = position.topic_partition
        return self.start.get(tp, 0) <= position.offset < self.end.get(tp, 0)


async def replay_range(
    log: EventLog,
    since: str | None = None,
    until: str | None = None,
    *,
    on_damage: OnDamage = log_damage,
) -> Range:
    """Return the range between two places; None: the log's first event, and its end now.

    A Decision stands for what it is about. Raises NoSuchPlace, and what analytics.as_of raises.
    """
    end = await as_of(log, "latest")
    start = Vector()
    if until is not None:
        end = await _place(log, until, end, on_damage, after=True)
    if since is not None:
        start = await _place(log, since, end, on_damage, after=False)
    for tp in start:
        if start[tp] > end.get(tp, 0) and tp.topic == _TOPIC:
            raise NoSuchPlace(
                f"the replay would begin at {tp}@{start[tp]} and end before it, at "
                f"{tp}@{end.get(tp, 0)}: let --from name what lies before --to"
            )
    return Range(start, end)


async def _place(
    log: EventLog, named: str, end: Vector, on_damage: OnDamage, *, after: bool
) -> Vector:
    if _EVENT_ID.fullmatch(named.strip()):
        found = await _event(log, named.strip(), end)
        if found is None:
            raise NoSuchPlace(f"the log holds no event {named.strip()} before {_shown(end)}")
        return await _cut(log, found, after)
    try:
        vector = await as_of(log, named)
    except BadTime:
        span = await _conversation(log, named, end, on_damage)
        if span is None and _is_time(named):
            raise
        if span is None:
            raise NoSuchPlace(
                f"{named[:80]!r} is no position (TOPIC/PARTITION@OFFSET), no time (2026-11-24T12:00"
                "), no event_id, and no conversation of this log"
            ) from None
        return await _cut(log, span[1 if after else 0], after)
    if _TOPIC not in {tp.topic for tp in vector} and _TOPIC in await log.log.topics():
        raise NoSuchPlace(
            f"{named[:80]!r} is no place in {_TOPIC}, of which a replay's range is: name a "
            "position there, or the event_id of what stands where you mean"
        )
    return vector


def _is_time(text: str) -> bool:
    """Tell whether a text is a time at all, which may still be refused as one."""
    try:
        parse_time(text)
    except BadTime:
        return False
    return True


async def _cut(log: EventLog, place: Place, after: bool) -> Vector:
    """Return where the log stood before an event was appended, or after it."""
    moment = place.appended_at + (1 if after else 0)
    vector = await log.log.at_time(await event_topics(log), moment)
    return vector.with_offsets({place.tp: place.offset + (1 if after else 0)})


async def _event(log: EventLog, event_id: str, end: Vector) -> Place | None:
    found = await find_event(log, event_id, [(Vector(), end)])
    if found is None or found.tp.topic != "mad.decisions":
        return found
    span = Vector({found.tp: found.offset}), Vector({found.tp: found.offset + 1})
    async for events in log.read(*span):
        turn = await find_event(log, events[0].fields["turn_id"], [(Vector(), end.only([_TOPIC]))])
        return turn or found
    return found


async def _conversation(
    log: EventLog, name: str, end: Vector, on_damage: OnDamage
) -> tuple[Place, Place] | None:
    """Return where a conversation's first and last records stand."""
    partitions = (await log.log.topics()).get(_TOPIC, 0)
    key = name.encode()
    if not partitions:
        return None
    tp = TopicPartition(_TOPIC, partition_for(key, partitions))
    upto = Vector({tp: end.get(tp, 0)})
    first: Record | None = None
    last: Record | None = None
    async for records in log.log.read(Vector(), upto, on_damage=on_damage):
        for record in records:
            if record.key == key:
                first, last = first or record, record
    if first is None or last is None:
        return None
    return Place(tp, first.offset, first.appended_at), Place(tp, last.offset, last.appended_at)


def _shown(end: Vector) -> str:
    conversations = str(end.only([_TOPIC]))
    return conversations if len(conversations) < 200 else "the end of the range"
