"""What `--as-of` means: a text becomes, once, the vector of positions that a reader stops at.

A time means append time, and what was appended *before* it: an event appended at that very µs is
not seen. A partition that a vector does not name is not read at all, so that a vector taken
before a topic existed gives the same answer for ever.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from madlog.analytics.errors import BadTime, UnknownEvent
from madlog.topics import EventLog, TopicPartition, UnknownTopic, Vector
from madlog.topics.errors import InvalidPosition
from madlog.topics.log import log_damage

__all__ = ("Find", "Place", "as_of", "event_topics", "find_event", "parse_time")

_FILE_BYTES_MAX = 1 << 20
_EVENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_POSITIONS = re.compile(r"[^@]+/[0-9]+@")


class Place(NamedTuple):
    """Where an event stands, and when it was appended, in µs."""

    tp: TopicPartition
    offset: int
    appended_at: int


Find = Callable[[str], Awaitable[Place | None]]


def parse_time(text: str) -> int:
    """Return a time in ISO 8601 as µs since 1970; UTC where it names no zone. Raises BadTime."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise BadTime(
            f"{text[:80]!r} is not a time: write it as 2026-11-24T12:00:00, "
            "UTC unless it ends in a zone such as +01:00"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


async def event_topics(log: EventLog) -> list[str]:
    """Return the log's topics that hold events; a processor's changelog holds none."""
    return sorted(name for name in await log.log.topics() if not name.startswith("mad.state."))


async def as_of(log: EventLog, text: str = "latest", find: Find | None = None) -> Vector:
    """Return the vector that a text stands for: `latest`, positions, @FILE, a time, an event_id.

    An event stands for all that was appended before it, and itself; `find` looks for it where it
    is given, else the log is read. Raises InvalidPosition, UnknownTopic, UnknownEvent, and BadTime,
    also for a time that is yet to come: the same text would have another answer later.
    """
    topics = await event_topics(log)
    text = text.strip()
    if text == "latest":
        return await log.log.end(topics)
    if text.startswith("@"):
        text = _file_text(text[1:])
    if _POSITIONS.match(text):
        return await _checked(log, Vector.parse(text))
    if _EVENT_ID.fullmatch(text):
        found = await (find or partial(_in_log, log, topics))(text)
        if found is None:
            raise UnknownEvent(
                f"the log holds no event {text}: name one by its event_id, as "
                '`madlog sql "select event_id from events"` shows them'
            )
        at = await log.log.at_time(topics, found.appended_at)
        return at.with_offsets({found.tp: found.offset + 1})
    moment = parse_time(text)
    if moment > log.log.clock.now_us():
        raise BadTime(
            f"{text[:80]!r} is yet to come, and what is appended until then would change the "
            "answer: name a time that is past, or leave it out"
        )
    return await log.log.at_time(topics, moment)


async def _in_log(log: EventLog, topics: list[str], event_id: str) -> Place | None:
    return await find_event(log, event_id, [(Vector(), await log.log.end(topics))])


async def find_event(
    log: EventLog, event_id: str, spans: Iterable[tuple[Vector, Vector]]
) -> Place | None:
    """Return where an event stands between (start, end) pairs of the log, None where nowhere."""
    needle = event_id.encode()
    for start, end in spans:
        async for records in log.log.read(start, end):
            # Few records hold the id at all, so nearly none is decoded.
            likely = [record for record in records if needle in record.value]
            for event in await log.decode_all(likely, log_damage):
                if event.event_id == event_id:
                    record = event.record
                    tp = TopicPartition(record.topic, record.partition)
                    return Place(tp, record.offset, record.appended_at)
    return None


def _file_text(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            text = file.read(_FILE_BYTES_MAX).decode().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidPosition(
            f"the positions in {name[:200]!r} cannot be read ({reason}): "
            "name a text file of TOPIC/PARTITION@OFFSET, joined by commas"
        ) from error
    if not _POSITIONS.match(text):
        raise InvalidPosition(
            f"{name[:200]!r} holds no positions: write TOPIC/PARTITION@OFFSET, joined by commas"
        )
    return text.replace("\n", ",")


async def _checked(log: EventLog, vector: Vector) -> Vector:
    names = {tp.topic for tp in vector}
    missing = sorted(names - set(await log.log.topics()))
    if missing:
        raise UnknownTopic(
            f"this log holds no topic {missing[0][:80]!r}: `madlog topics list` shows its topics"
        )
    end = await log.log.end(sorted(names))
    for tp in vector:
        if tp not in end:
            count = sum(1 for other in end if other.topic == tp.topic)
            raise InvalidPosition(f"{tp} is no partition: {tp.topic} has {count}, from 0 on")
        if vector[tp] > end[tp]:
            raise InvalidPosition(
                f"{tp}@{vector[tp]} is past the end of the log, which is {tp}@{end[tp]}"
            )
    return vector
