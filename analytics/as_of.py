"""What `--as-of` means: a text becomes, once, the vector of positions that a reader stops at.

A time means append time, and what was appended *before* it: an event appended at that very µs is
not seen. A partition that a vector does not name is not read at all, so that a vector taken
before a topic existed gives the same answer for ever.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from madlog.analytics.errors import BadTime
from madlog.topics import EventLog, UnknownTopic, Vector
from madlog.topics.errors import InvalidPosition

__all__ = ("as_of", "event_topics", "parse_time")

_FILE_BYTES_MAX = 1 << 20
_POSITIONS = re.compile(r"[^@]+/[0-9]+@")


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


async def as_of(log: EventLog, text: str = "latest") -> Vector:
    """Return the vector that a text stands for: `latest`, positions, @FILE of them, or a time.

    Raises InvalidPosition, UnknownTopic, BadTime.
    """
    topics = await event_topics(log)
    text = text.strip()
    if text == "latest":
        return await log.log.end(topics)
    if text.startswith("@"):
        text = _file_text(text[1:])
    if _POSITIONS.match(text):
        return await _checked(log, Vector.parse(text))
    return await log.log.at_time(topics, parse_time(text))


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
