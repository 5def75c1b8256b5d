"""What writers were told and readers saw, held against what the log holds afterwards.

A value says who wrote it: `KEY NUMBER`, numbers of one key counting up from 0 without a gap. A
writer sends the next batch of a key only after it was told of the one before, so what the log
holds beyond the numbers of a key that a writer was told of is at most one batch.

An append has one of three outcomes: acknowledged (it must be seen), refused (NotWritten: it must
not be seen, unless it was sent again), unknown (OutcomeUnknown: it may be).
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from madlog.topics.log import Record
from madlog.topics.positions import Position, TopicPartition

__all__ = ("BATCH_MAX", "Ack", "Anomaly", "History", "Sent", "anomalies", "name_of", "value_of")

BATCH_MAX = 3


class Sent(NamedTuple):
    """One record that a writer sent."""

    key: str
    number: int


class Ack(NamedTuple):
    """One acknowledged record."""

    position: Position
    key: str
    number: int


class Anomaly(NamedTuple):
    """One thing that must not be.

    lost, repeated, reordered (of one key or of one partition), phantom, gap, skipped, two values.
    """

    kind: str
    where: str


@dataclass(slots=True)
class History:
    """What writers were told, the whole log read at the end, what each reader saw meanwhile.

    `gaps` is Kafka's: offsets are not counted on, and of a record that was sent twice the copy
    that was acknowledged need not be the one that readers are given. `in_flight_max` is how many
    records of a key may have been sent by a writer that ended before it was told.
    """

    acks: list[Ack] = field(default_factory=list)
    log: list[Record] = field(default_factory=list)
    readers: dict[str, list[Record]] = field(default_factory=dict)
    refused: list[Sent] = field(default_factory=list)
    unknown: list[Sent] = field(default_factory=list)
    gaps: bool = False
    in_flight_max: int = BATCH_MAX


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
    found = [
        *_lost(history),
        *_repeated(history),
        *_reordered(history),
        *_out_of_place(history),
        *_phantoms(history),
        *_two_values(history),
    ]
    if not history.gaps:
        found += _gaps(history.log)
    misread = _misread_with_gaps if history.gaps else _misread
    for name, seen in history.readers.items():
        found += misread(name, seen, history.log)
    return found


def _lost(history: History) -> Iterator[Anomaly]:
    there = {record.position: name_of(record) for record in history.log}
    names = set(there.values())
    for ack in history.acks:
        name = (ack.key, ack.number)
        if not (name in names if history.gaps else there.get(ack.position) == name):
            yield Anomaly("lost", f"{ack.key} {ack.number} acknowledged at {ack.position}")


def _repeated(history: History) -> Iterator[Anomaly]:
    for (key, number), times in Counter(map(name_of, history.log)).items():
        if times > 1 and key:
            yield Anomaly("repeated", f"{key} {number} stands {times} times")


def _reordered(history: History) -> Iterator[Anomaly]:
    yield from _fallen_back("log", history.log)
    for reader, seen in history.readers.items():
        yield from _fallen_back(f"reader {reader}", seen)


def _fallen_back(whose: str, records: Sequence[Record]) -> Iterator[Anomaly]:
    last: dict[tuple[TopicPartition, str], int] = {}
    for record in records:
        key, number = name_of(record)
        place = (record.position.topic_partition, key)
        if key and number < last.get(place, -1):
            yield Anomaly(
                "reordered", f"{whose}: {key} {number} after {last[place]}, {record.position}"
            )
        last[place] = number


def _out_of_place(history: History) -> Iterator[Anomaly]:
    """Name what was read after a higher offset, or acknowledged below an earlier number."""
    for reader, records in {"": history.log, **history.readers}.items():
        highest: dict[TopicPartition, int] = {}
        for record in records:
            place = record.position.topic_partition
            if record.offset < highest.get(place, -1):
                whose = f"reader {reader}" if reader else "log"
                yield Anomaly("reordered", f"{whose}: {record.position} after @{highest[place]}")
            highest[place] = max(record.offset, highest.get(place, -1))
    acked: dict[tuple[TopicPartition, str], Ack] = {}
    for ack in sorted(history.acks, key=lambda ack: ack.number):
        before = acked.setdefault((ack.position.topic_partition, ack.key), ack)
        if ack.number > before.number and ack.position.offset <= before.position.offset:
            yield Anomaly(
                "reordered",
                f"{ack.key} {ack.number} acknowledged at {ack.position}, "
                f"{before.number} at @{before.position.offset}",
            )
        acked[ack.position.topic_partition, ack.key] = ack


def _phantoms(history: History) -> Iterator[Anomaly]:
    maybe = {(key, number) for _, key, number in history.acks} | set(history.unknown)
    told: dict[str, int] = defaultdict(lambda: -1)
    for key, number in (*maybe, *history.refused):
        told[key] = max(told[key], number)
    never = set(history.refused) - maybe
    for record in history.log:
        key, number = name_of(record)
        if not key or number > told[key] + history.in_flight_max or (key, number) in never:
            yield Anomaly("phantom", f"{record.value[:40]!r} at {record.position}")


def _two_values(history: History) -> Iterator[Anomaly]:
    values: dict[Position, set[bytes]] = defaultdict(set)
    for ack in history.acks:
        values[ack.position].add(value_of(ack.key, ack.number))
    for records in (history.log, *history.readers.values()):
        for record in records:
            values[record.position].add(record.value)
    for position, different in values.items():
        if len(different) > 1:
            shown = sorted(value[:20] for value in different)
            yield Anomaly("two values", f"{position}: {shown}")


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


def _misread_with_gaps(
    name: str, seen: Sequence[Record], log: Sequence[Record]
) -> Iterator[Anomaly]:
    """Hold a reader against the log by what it saw between its first place and its last."""
    names = {name_of(record) for record in log}
    saw: Counter[tuple[str, int]] = Counter(map(name_of, seen))
    for (key, number), times in saw.items():
        if times > 1:
            yield Anomaly("repeated", f"reader {name}: {key} {number} {times} times")
        if (key, number) not in names:
            yield Anomaly("phantom", f"reader {name}: {key} {number}")
    by_partition: dict[TopicPartition, list[Record]] = defaultdict(list)
    for record in log:
        by_partition[record.position.topic_partition].append(record)
    for place, first, last in _spans(seen):
        records = sorted(by_partition[place], key=lambda record: record.offset)
        offsets = [record.offset for record in records]
        for record in records[bisect_left(offsets, first) : bisect_left(offsets, last)]:
            if name_of(record) not in saw:
                yield Anomaly("skipped", f"reader {name}: {record.position}")


def _spans(seen: Sequence[Record]) -> Iterator[tuple[TopicPartition, int, int]]:
    spans: dict[TopicPartition, list[int]] = defaultdict(list)
    for record in seen:
        spans[record.position.topic_partition].append(record.offset)
    for place, offsets in spans.items():
        yield place, min(offsets), max(offsets)
