"""The log in memory, for tests: every guarantee but surviving the process.

What a file would hold is in `_Store`, which outlives a closed log, so that `reopen` shows what
was acknowledged. All calls run on one event loop and change the store without waiting in
between: that is what makes an append or a transaction whole.
"""

import asyncio
import zlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from madlog.topics import catalog
from madlog.topics.catalog import Topic, partition_for
from madlog.topics.clock import Clock, SystemClock, system_random
from madlog.topics.errors import (
    Fenced,
    GroupBusy,
    IdempotencyConflict,
    LogError,
    LogUnavailable,
    NotWritten,
    PositionConflict,
    PositionExpired,
    RecordTooLarge,
    TopicMismatch,
    UnknownTopic,
    UnsupportedByBackend,
)
from madlog.topics.log import (
    Commit,
    Damage,
    GroupState,
    Membership,
    NewRecord,
    OnDamage,
    Receipt,
    Record,
    log_damage,
)
from madlog.topics.memory_groups import Group, Groups, MemoryMember
from madlog.topics.positions import Position, TopicPartition, Vector

__all__ = ("MemoryLog",)

# What the log itself needs for each record: counted, so that empty records fill it too.
_OVERHEAD = 64
# What key and headers may add to the value that the limit is about.
_ENVELOPE_BYTES = 64 << 10


def _size(record: NewRecord | Record) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key) + len(record.value) + headers


def _checksum(record: Record) -> int:
    crc = zlib.crc32(record.value, zlib.crc32(record.key))
    for name, value in record.headers:
        crc = zlib.crc32(value, zlib.crc32(name.encode(), crc))
    return crc


@dataclass(slots=True)
class _Partition:
    low: int = 0
    end: int = 0
    records: list[Record] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)

    def index(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=lambda record: record.offset)

    def keep(self, kept: Sequence[int]) -> list[Record]:
        dropped = set(range(len(self.records))).difference(kept)
        gone = [self.records[i] for i in dropped]
        self.records = [self.records[i] for i in kept]
        self.checksums = [self.checksums[i] for i in kept]
        return gone


@dataclass(slots=True)
class _Store:
    topics: dict[str, Topic] = field(default_factory=dict)
    partitions: dict[TopicPartition, _Partition] = field(default_factory=dict)
    keys: dict[tuple[str, str, str], tuple[bytes, Position]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    size: int = 0


class MemoryLog:
    """A log in memory: Log, ConditionalAppend and Compaction; one event loop, one process.

    It holds at most `bytes_max`; what does not fit is refused with NotWritten (G11).
    `fault`, when set, is called before each write and may raise what a disk would (G12).
    """

    def __init__(
        self,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
        *,
        record_bytes_max: int = 1 << 20,
        bytes_max: int = 1 << 30,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._random = random
        self._record_bytes_max = record_bytes_max
        self._bytes_max = bytes_max
        self._store = _Store()
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False
        self.fault: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """The address of every log in memory; it opens a new, empty one."""
        return "memory://"

    @property
    def clock(self) -> Clock:
        """Where this log gets its times from."""
        return self._clock

    def reopened(self) -> Self:
        """Return a new log over what this one stored, as opening a file again would."""
        log = type(self)(
            self._clock,
            self._random,
            record_bytes_max=self._record_bytes_max,
            bytes_max=self._bytes_max,
        )
        log._store = self._store
        return log

    async def create_topic(self, topic: Topic) -> None:
        """Make a topic; nothing happens if it is there."""
        self._check_open()
        catalog.topic(topic.name)
        there = self._store.topics.setdefault(topic.name, topic)
        if there.partitions != topic.partitions:
            raise TopicMismatch(
                f"{topic.name} has {there.partitions} partitions, not {topic.partitions}: "
                "give the number that it has"
            )
        for number in range(topic.partitions):
            self._store.partitions.setdefault(TopicPartition(topic.name, number), _Partition())

    async def topics(self) -> dict[str, int]:
        """Return the partition count of each topic of this log."""
        self._check_open()
        return {name: topic.partitions for name, topic in sorted(self._store.topics.items())}

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append records, all or none; one receipt each, in their order."""
        return self._write(records)

    async def append_at(self, records: Sequence[NewRecord], expected: Vector) -> list[Receipt]:
        """Append all records if every partition in `expected` ends there, else PositionConflict.

        A repeat of an append whose records all had idempotency keys gets its first receipts.
        """
        self._check_open()
        repeated = records and all(self._first(record) is not None for record in records)
        for tp, offset in expected.items():
            end = self._partition(tp).end
            if end != offset and not repeated:
                raise PositionConflict(f"{tp} ends at {end}, not {offset}: read on, decide again")
        return self._write(records)

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Append records and commit consumed positions, all or nothing."""
        return self._write(records, commit)

    async def start(self, topics: Collection[str]) -> Vector:
        """Return the oldest offset that can be read of each partition."""
        return Vector({tp: part.low for tp, part in self._partitions(topics)})

    async def end(self, topics: Collection[str]) -> Vector:
        """Return the offset after the last record of each partition."""
        return Vector({tp: part.end for tp, part in self._partitions(topics)})

    async def at_time(self, topics: Collection[str], time_us: int) -> Vector:
        """Return for each partition the first offset appended at or after a time, else its end."""
        found = {}
        for tp, part in self._partitions(topics):
            at = bisect_left(part.records, time_us, key=lambda record: record.appended_at)
            found[tp] = part.records[at].offset if at < len(part.records) else part.end
        return Vector(found)

    async def read(
        self,
        start: Vector,
        end: Vector,
        *,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[Record]]:
        """Yield the records from start up to end (exclusive), each list of one partition."""
        self._check_open()
        place = {tp: start.get(tp, self._partition(tp).low) for tp in end}
        for tp in (tp for tp in start if tp not in end):
            self._partition(tp)
        for tp, offset in place.items():
            if offset < end[tp]:
                self._check_kept(tp, offset)
        for tp, offset in place.items():
            at = offset
            while at < min(end[tp], self._partition(tp).end):
                records, at = self.take(tp, at, records_max, on_damage, end[tp])
                if records:
                    yield records

    async def subscribe(
        self, start: Vector, *, records_max: int = 1000, on_damage: OnDamage = log_damage
    ) -> AsyncIterator[list[Record]]:
        """Yield the records of the partitions in `start` from there on: the past, then live."""
        self._check_open()
        place = dict(start)
        for tp, offset in place.items():
            self._check_kept(tp, offset)
        while not self._closed:
            news = False
            for tp in place:
                records, place[tp] = self.take(tp, place[tp], records_max, on_damage)
                if records:
                    news = True
                    yield records
            if not news and not self._closed:
                await self.wait(None)

    async def join(self, group: str, topics: Sequence[str]) -> Membership:
        """Become a member of a consumer group that reads these topics."""
        partitions = [tp for tp, _ in self._partitions(topics)]
        member = f"member-{self._random(6).hex()}"
        joined = self._groups(group).join(member, tuple(topics), partitions)
        self.wake()
        return MemoryMember(self, joined, group, member)

    async def committed(self, group: str) -> Vector:
        """Return the positions that the group has committed."""
        self._check_open()
        there = self._store.groups.get(group)
        return Vector(there.committed if there else {})

    async def groups(self) -> list[GroupState]:
        """Return every consumer group."""
        self._check_open()
        return [self._groups(name).state() for name in sorted(self._store.groups)]

    async def reset(self, group: str, positions: Vector) -> None:
        """Set a group's committed positions; raises GroupBusy while members live."""
        self._check_open()
        for tp in positions:
            self._partition(tp)
        groups = self._groups(group)
        groups.state()  # settles it, so that only live members are left
        if groups.group.members:
            raise GroupBusy(
                f"{group} has {len(groups.group.members)} live members: stop them, then reset it"
            )
        groups.group.committed.update(positions)

    async def close(self) -> None:
        """Let go of the log; whoever waits for records of it is woken."""
        self._closed = True
        self.wake()

    async def compact(self, topic: str) -> int:
        """Keep each key's last record of every partition; return how many were dropped."""
        partitions = self._partitions([topic])
        if not self._store.topics[topic].compacted:
            raise UnsupportedByBackend(
                f"{topic} is not a compacted topic, so each of its records is kept: compact a "
                "mad.state topic"
            )
        dropped = 0
        for _, part in partitions:
            last = {record.key: i for i, record in enumerate(part.records)}
            dropped += self._free(part.keep(sorted(last.values())))
        return dropped

    async def expire(self, topic: str, partition: int, before_offset: int) -> None:
        """Drop the records below an offset, as retention does; refused for topics kept for ever."""
        self._check_open()
        part = self._partition(TopicPartition(topic, partition))
        if self._store.topics[topic].keeps == "for ever":
            raise LogError(f"{topic} is kept for ever: no record of it can be dropped")
        part.low = max(part.low, min(before_offset, part.end))
        self._free(part.keep(range(part.index(part.low), len(part.records))))

    def stored(self, topic: str) -> list[Record]:
        """Return what is stored of a topic, unchecked and whole: what a test compares with."""
        return [record for _, part in self._partitions([topic]) for record in part.records]

    def damage(self, position: Position) -> None:
        """Flip one bit of a stored record, as a failing disk would."""
        part = self._partition(position.topic_partition)
        at = part.index(position.offset)
        old = part.records[at]
        value = old.value or b"\0"
        part.records[at] = old._replace(value=bytes([value[0] ^ 1]) + value[1:])

    def take(
        self,
        tp: TopicPartition,
        at: int,
        records_max: int,
        on_damage: OnDamage,
        end: int | None = None,
    ) -> tuple[list[Record], int]:
        """Return up to records_max records of a partition from `at` on, and the next offset."""
        self._check_open()
        self._check_kept(tp, at)
        part = self._partition(tp)
        end = part.end if end is None else min(end, part.end)
        i = part.index(at)
        found: list[Record] = []
        while i < len(part.records) and len(found) < records_max:
            record = part.records[i]
            if record.offset >= end:
                break
            at = record.offset + 1
            if _checksum(record) == part.checksums[i]:
                found.append(record)
            else:
                reason = "the record does not match its checksum"
                on_damage(Damage(tp.topic, tp.partition, record.offset, at, reason))
            i += 1
        # What follows was compacted away when nothing was left to take.
        return found, at if len(found) == records_max else max(at, end)

    def wake(self) -> None:
        """Wake all who wait for a change."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until something changes, at most timeout_s."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=timeout_s)
        finally:
            self._waiting.discard(future)

    def _write(self, records: Sequence[NewRecord], commit: Commit | None = None) -> list[Receipt]:
        self._check_open()
        for record in records:
            self._check_record(record)
        self._check_room(records)
        if commit is not None:
            self._check_commit(commit)
        self._check_content(records)
        if self.fault is not None:
            self.fault()
        receipts = [self._put(record) for record in records]
        if commit is not None:
            self._groups(commit.membership.group).group.committed.update(commit.positions)
        self.wake()
        return receipts

    def _free(self, gone: Sequence[Record]) -> int:
        self._store.size -= sum(_size(record) + _OVERHEAD for record in gone)
        return len(gone)

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the log in memory is closed: open a new one")

    def _check_record(self, record: NewRecord) -> None:
        self._partition(self._place(record))
        size = _size(record)
        limit = self._record_bytes_max
        if len(record.value) > limit or size > limit + _ENVELOPE_BYTES:
            raise RecordTooLarge(
                f"a record of {size:,} bytes for {record.topic} is over the limit of "
                f"{limit:,}: store the content as a blob and refer to it"
            )

    def _check_room(self, records: Sequence[NewRecord]) -> None:
        size = self._store.size + sum(_size(record) + _OVERHEAD for record in records)
        if size > self._bytes_max:
            raise NotWritten(
                f"the log in memory is full, {self._store.size} of {self._bytes_max} bytes: "
                "give it a larger bytes_max"
            )

    def _check_commit(self, commit: Commit) -> None:
        member = commit.membership
        if not isinstance(member, MemoryMember):
            raise Fenced(f"{member.member} is no member of a log in memory: join a group of it")
        for tp in commit.positions:
            if not member.owns(tp):
                raise Fenced(
                    f"{member.member} does not own {tp} in {member.group} any more: "
                    "drop the batch and poll again"
                )

    def _check_content(self, records: Sequence[NewRecord]) -> None:
        seen: dict[tuple[str, str, str], bytes] = {}
        for record in records:
            if (key := record.idempotency) is None:
                continue
            name = (record.topic, key.scope, key.key)
            first = self._store.keys.get(name)
            content = first[0] if first else seen.setdefault(name, key.content)
            if content != key.content:
                raise IdempotencyConflict(
                    f"{record.topic} holds other content under the idempotency key "
                    f"{key.key!r} of {key.scope!r}: use a new key for a new event"
                )

    def _first(self, record: NewRecord) -> tuple[bytes, Position] | None:
        if (key := record.idempotency) is None:
            return None
        return self._store.keys.get((record.topic, key.scope, key.key))

    def _put(self, record: NewRecord) -> Receipt:
        first = self._first(record)
        if first is not None:
            return Receipt(first[1], repeated=True)
        tp = self._place(record)
        part = self._partition(tp)
        last = part.records[-1].appended_at if part.records else 0
        stored = Record(
            tp.topic,
            tp.partition,
            part.end,
            record.key,
            record.value,
            record.headers,
            max(last, self._clock.now_us()),
        )
        part.records.append(stored)
        part.checksums.append(_checksum(stored))
        part.end += 1
        self._store.size += _size(record) + _OVERHEAD
        if (key := record.idempotency) is not None:
            name = (record.topic, key.scope, key.key)
            self._store.keys[name] = (key.content, stored.position)
        return Receipt(stored.position)

    def _place(self, record: NewRecord) -> TopicPartition:
        topic = self._topic(record.topic)
        if record.partition is not None:
            return TopicPartition(topic.name, record.partition)
        return TopicPartition(topic.name, partition_for(record.key, topic.partitions))

    def _topic(self, name: str) -> Topic:
        topic = self._store.topics.get(name)
        if topic is None:
            raise UnknownTopic(f"the log holds no topic {name[:80]!r}: create it first")
        return topic

    def _partition(self, tp: TopicPartition) -> _Partition:
        topic = self._topic(tp.topic)
        part = self._store.partitions.get(tp)
        if part is None:
            raise UnknownTopic(f"there is no {tp}: {topic.name} has {topic.partitions} partitions")
        return part

    def _partitions(self, topics: Collection[str]) -> Iterator[tuple[TopicPartition, _Partition]]:
        self._check_open()
        every = [self._topic(name) for name in topics]
        pairs = [TopicPartition(topic.name, i) for topic in every for i in range(topic.partitions)]
        return iter([(tp, self._store.partitions[tp]) for tp in pairs])

    def _check_kept(self, tp: TopicPartition, offset: int) -> None:
        low = self._partition(tp).low
        if offset < low:
            raise PositionExpired(
                f"{tp}@{offset} is not kept any more: start from {tp}@{low}, the oldest record"
            )

    def _groups(self, name: str) -> Groups:
        group = self._store.groups.setdefault(name, Group(name))
        return Groups(group, self._clock)
