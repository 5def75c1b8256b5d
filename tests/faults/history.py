"""What writers were told and readers saw, held against what the log holds afterwards.

A value says who wrote it: `KEY NUMBER`, numbers of one key counting up from 0 without a gap. A
writer sends the next batch of a key only after the acknowledgement of the one before, so what
the log holds beyond the acknowledged numbers of a key is at most one batch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from madlog.topics.log import Record
from madlog.topics.positions import Position, TopicPartition

__all__ = ("BATCH_MAX", "Ack", "Anomaly", "History", "anomalies", "name_of", "value_of")

BATCH_MAX = 3


class Ack(NamedTuple):
    """One acknowledged record."""

    position: Position
    key: str
    number: int


class Anomaly(NamedTuple):
    """One thing that must not be: lost, repeated, reordered, phantom, gap, skipped."""

    kind: str
    where: str


@dataclass(slots=True)
class History:
    """Acknowledgements, the whole log read at the end, and what each reader saw meanwhile."""

    acks: list[Ack] = field(default_factory=list)
    log: list[Record] = field(default_factory=list)
    readers: dict[str, list[Record]] = field(default_factory=dict)


def value_of(key: str, number: int) -> bytes:
    """Return the value of the record with that number under that key."""
    return f"{key} {number} ".encode() + b"." * (number % 97)


def name_of(record: Record) -> tuple[str, int]:
    """Return the key and the number that a value names; ("", -1) where it names none."""
    pieces = record.value.split(b" ")
    if len(pieces) != 3 or not pieces[1].isdigit():
        return "", -1
    key, number = pieces[0].decode(), int(pieces[1])
    written = value_of(key, number) == record.value and key.encode() == record.key
    return (key, number) if written else ("", -1)


def anomalies(history: History) -> list[Anomaly]:
    """Return everything in the history that a log which keeps its guarantees never shows."""
    found = [*_lost(history), *_repeated(history), *_reordered(history), *_phantoms(history)]
    found += _gaps(history.log)
    for name, seen in history.readers.items():
        found += _misread(name, seen, history.log)
    return found


def _lost(history: History) -> Iterator[Anomaly]:
    there = {record.position: name_of(record) for record in history.log}
    for ack in history.acks:
        if there.get(ack.position) != (ack.key, ack.number):
            yield Anomaly("lost", f"{ack.key} {ack.number} acknowledged at {ack.position}")


def _repeated(history: History) -> Iterator[Anomaly]:
    for (key, number), times in Counter(map(name_of, history.log)).items():
        if times > 1 and key:
            yield Anomaly("repeated", f"{key} {number} stands {times} times")


def _reordered(history: History) -> Iterator[Anomaly]:
    last: dict[tuple[TopicPartition, str], int] = {}
    for record in history.log:
        key, number = name_of(record)
        place = (record.position.topic_partition, key)
        if key and number < last.get(place, -1):
            yield Anomaly("reordered", f"{key} {number} after {last[place]}, {record.position}")
        last[place] = number


def _phantoms(history: History) -> Iterator[Anomaly]:
    acked: dict[str, int] = defaultdict(lambda: -1)
    for ack in history.acks:
        acked[ack.key] = max(acked[ack.key], ack.number)
    for record in history.log:
        key, number = name_of(record)
        if not key or number > acked[key] + BATCH_MAX:
            yield Anomaly("phantom", f"{record.value[:40]!r} at {record.position}")


def _gaps(records: Sequence[Record]) -> Iterator[Anomaly]:
    following: dict[TopicPartition, int] = defaultdict(int)
    for record in records:
        place = record.position.topic_partition
        if record.offset != following[place]:
            yield Anomaly("gap", f"{record.position} follows @{following[place] - 1}")
        following[place] = record.offset + 1


def _misread(name: str, seen: Sequence[Record], log: Sequence[Record]) -> Iterator[Anomaly]:
    there = {record.position: record for record in log}
    following: dict[TopicPartition, int] = {}
    for record in seen:
        where = f"reader {name}: {record.position}"
        expected = following.get(record.position.topic_partition, record.offset)
        if record.offset < expected:
            yield Anomaly("repeated", where)
        elif record.offset > expected:
            yield Anomaly("skipped", where)
        same = there.get(record.position)
        if same is None or (same.key, same.value) != (record.key, record.value):
            yield Anomaly("phantom", where)
        following[record.position.topic_partition] = record.offset + 1
