"""The log on Kafka: the same guarantees as the embedded log, kept by a cluster of brokers.

What differs, and what a caller may rely on:
- an acknowledged append survives the death of processes and of a minority of replicas, not a power
  cut of all brokers at once, since Kafka acknowledges before it syncs (G1);
- offsets have gaps where transactions ended (G2), and readers end at the last stable offset (G9);
- a repeated key is dropped by readers, in a bounded window; what this process knows of it is not
  appended again (G6). There is no append at an expected position: UnsupportedByBackend;
- damage is named by record batch (G10).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import lru_cache
from typing import NoReturn, Self

from madlog.topics import _kafka_plan, catalog
from madlog.topics._kafka_client import EARLIEST, LATEST, Cluster
from madlog.topics._kafka_group_requests import committed, group_states, reset
from madlog.topics._kafka_groups import KafkaMembership
from madlog.topics._kafka_keys import Keys
from madlog.topics._kafka_stream import Memory, Stream
from madlog.topics._kafka_topics import create_topic, delete_records, disk_bytes
from madlog.topics._kafka_waits import OpenTransaction, Waits, open_transactions
from madlog.topics._kafka_writer import Placed, Writer
from madlog.topics.catalog import Topic, partition_for, topic
from madlog.topics.clock import Clock, SystemClock, system_random
from madlog.topics.errors import (
    Fenced,
    LogError,
    LogUnavailable,
    OutcomeUnknown,
    PositionExpired,
    RecordTooLarge,
    UnknownTopic,
    UnsupportedByBackend,
)
from madlog.topics.kafka_address import KafkaAddress
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
from madlog.topics.plan import TopicPlan
from madlog.topics.positions import Position, TopicPartition, Vector

__all__ = ("KafkaLog",)

_ENVELOPE_BYTES = 64 << 10
_LONG_POLL_MS = 500


@lru_cache(maxsize=65_536)
def _place_of(topic: str, key: bytes, partitions: int) -> TopicPartition:
    return TopicPartition(topic, partition_for(key, partitions))


class KafkaLog:
    """A log whose topics are those of a Kafka cluster with a prefix: Log, Checkable, Planned."""

    def __init__(
        self,
        address: KafkaAddress,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
        *,
        record_bytes_max: int = 1 << 20,
        queue_bytes_max: int = 32 << 20,
        session_timeout_s: float = 6.0,
        timeout_s: float = 15.0,
    ) -> None:
        self.address = address
        self._clock: Clock = clock or SystemClock()
        self._random = random
        self._record_bytes_max = record_bytes_max
        self._queue_bytes_max = queue_bytes_max
        self._session_timeout_s = session_timeout_s
        self._cluster = Cluster(address, timeout_s)
        self._keys = Keys(self._cluster)
        self._memory = Memory()
        self._waits = Waits(self._cluster, self._clock)
        self._writer = self._new_writer(None)
        client_id = f"client-{random(8).hex()}"
        self._transactions = self._new_writer(self._cluster.physical(client_id))
        self._members: set[KafkaMembership] = set()
        self._streams: set[Stream] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
        record_bytes_max: int = 1 << 20,
        queue_bytes_max: int = 32 << 20,
        session_timeout_s: float = 6.0,
        timeout_s: float = 15.0,
    ) -> Self:
        """Connect to the cluster at an address; raises WrongAddress, LogUnavailable."""
        log = cls(
            KafkaAddress.parse(url),
            clock,
            random,
            record_bytes_max=record_bytes_max,
            queue_bytes_max=queue_bytes_max,
            session_timeout_s=session_timeout_s,
            timeout_s=timeout_s,
        )
        await log._cluster.open()
        return log

    @property
    def url(self) -> str:
        """The address that opens this log again; it holds no password."""
        return self.address.url

    @property
    def clock(self) -> Clock:
        """Where this log gets its times from."""
        return self._clock

    async def create_topic(self, topic: Topic) -> None:
        """Make a topic; nothing happens if it is there. Raises TopicMismatch, UnknownTopic."""
        self._check_open()
        await create_topic(self._cluster, topic, self._record_bytes_max)

    async def topics(self) -> dict[str, int]:
        """Return the partition count of each topic of this log."""
        self._check_open()
        return await self._cluster.topics()

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append records, durable when this returns; one receipt each, in their order.

        Raises NotWritten, OutcomeUnknown, IdempotencyConflict, RecordTooLarge, UnknownTopic.
        """
        return await self._append(records, self._writer.write)

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Append records and commit consumed positions, all or nothing (G5, G8: Fenced).

        The positions are of one partition: each has a transactional producer of its own. With
        `transactions=off` in the address, records come first and positions after: at least once.
        """
        if commit is None or not commit.positions:
            if commit is not None and isinstance(commit.membership, KafkaMembership):
                commit.membership.check_owned(commit.positions)
            return await self._append(records, self._transactions.write)
        member = commit.membership
        if not isinstance(member, KafkaMembership):
            raise Fenced(f"{member.member} is no member of a Kafka log: join a group of it")
        member.check_owned(commit.positions)
        if not self.address.transactions:
            receipts = await self._append_in_order(records)
            await member.commit(commit.positions)
            return receipts
        if len(commit.positions) > 1:
            raise UnsupportedByBackend(
                "on Kafka a transaction commits the position of one partition, since each has a "
                "producer of its own: commit them one by one"
            )
        writer = member.writer(commit.positions)

        async def write(placed: Sequence[Placed]) -> list[int]:
            return await writer.write(placed, commit.positions, member.group)

        return await self._append(records, write, always=True)

    async def start(self, topics: Collection[str]) -> Vector:
        """Return the oldest offset that can be read of each partition."""
        tps = await self._partitions(topics)
        return Vector(await self._cluster.offsets(tps, EARLIEST))

    async def end(self, topics: Collection[str]) -> Vector:
        """Return the last stable offset of each partition: what is before it can be read."""
        tps = await self._partitions(topics)
        return Vector(await self._cluster.offsets(tps, LATEST))

    async def at_time(self, topics: Collection[str], time_us: int) -> Vector:
        """Return for each partition the first offset appended at or after a time, else its end.

        Kafka keeps milliseconds: a time between two of them means the later.
        """
        tps = await self._partitions(topics)
        found = await self._cluster.offsets(tps, max(0, -(-time_us // 1000)))
        end = await self.end(topics)
        return Vector({tp: end[tp] if at < 0 else min(at, end[tp]) for tp, at in found.items()})

    async def read(
        self,
        start: Vector,
        end: Vector,
        *,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[Record]]:
        """Yield the records from start up to end (exclusive), each list of one partition."""
        tps = {*end, *start}
        low, high = await self._bounds(tps)
        stream = self._new_stream(records_max, 50)
        try:
            for tp in end:
                at, until = start.get(tp, low[tp]), min(end[tp], high[tp])
                if at >= until:
                    continue
                self._check_kept(tp, at, low[tp])
                await stream.add(tp, at, low[tp], until)
            while not stream.done():
                records = stream.take(records_max, on_damage)
                if records:
                    stream.ahead()
                    yield records
                else:
                    await stream.wait(1.0)
        finally:
            self._streams.discard(stream)
            await stream.close()

    async def subscribe(
        self, start: Vector, *, records_max: int = 1000, on_damage: OnDamage = log_damage
    ) -> AsyncIterator[list[Record]]:
        """Yield the records of the partitions in `start` from there on: the past, then live."""
        low, _ = await self._bounds(start)
        stream = self._new_stream(records_max, _LONG_POLL_MS)
        try:
            for tp, offset in start.items():
                self._check_kept(tp, offset, low[tp])
                await stream.add(tp, offset, low[tp], None)
            while not self._closed:
                records = stream.take(records_max, on_damage)
                if records:
                    stream.ahead()
                    yield records
                else:
                    await stream.wait(1.0)
        finally:
            self._streams.discard(stream)
            await stream.close()

    async def join(self, group: str, topics: Sequence[str]) -> Membership:
        """Become a member of a consumer group that reads these topics."""
        await self._partitions(topics)
        stream = self._new_stream(500, _LONG_POLL_MS)
        new_writer = None
        if self.address.transactions:

            def new_writer(tp: TopicPartition) -> Writer:
                name = self._cluster.physical(f"{group}-{tp.topic}-{tp.partition}")
                return self._new_writer(name, once=True)

        member = KafkaMembership(self._cluster, group, stream, new_writer)
        self._members.add(member)
        await member.join(topics, self._session_timeout_s)
        return member

    async def committed(self, group: str) -> Vector:
        """Return the positions that the group has committed."""
        self._check_open()
        return await committed(self._cluster, group)

    async def groups(self) -> list[GroupState]:
        """Return every consumer group."""
        self._check_open()
        return await group_states(self._cluster)

    async def reset(self, group: str, positions: Vector) -> None:
        """Set a group's committed positions; raises GroupBusy while members live."""
        self._check_open()
        await reset(self._cluster, group, positions)

    async def expire(self, topic: str, partition: int, before_offset: int) -> None:
        """Drop the records of a partition below an offset; a topic kept for ever refuses."""
        if catalog.topic(topic).keeps != "for a time":
            raise UnsupportedByBackend(f"{topic} is kept for ever: nothing is dropped from it")
        await delete_records(self._cluster, TopicPartition(topic, partition), before_offset)

    async def check(self, progress: Callable[[int], None] | None = None) -> AsyncIterator[Damage]:
        """Yield every damage found in what can be read; `progress` is told the records so far."""
        topics = list(await self.topics())
        damages: list[Damage] = []
        looked = 0
        async for records in self.read(Vector(), await self.end(topics), on_damage=damages.append):
            looked += len(records)
            if progress is not None:
                progress(looked)
            damages += await self._misplaced(records)
            while damages:
                yield damages.pop(0)
        for damage in damages:
            yield damage

    async def _misplaced(self, records: Sequence[Record]) -> list[Damage]:
        if topic(records[0].topic).keeps != "for ever":
            return []  # a record's place may be given by another's
        count = await self._cluster.partition_count(records[0].topic)
        return [
            Damage(
                *record.position.topic_partition,
                record.offset,
                record.offset + 1,
                f"its key belongs in partition {place.partition}: its writer must use murmur2 "
                "partitioning",
            )
            for record in records
            if (place := _place_of(record.topic, record.key, count)).partition != record.partition
        ]

    async def plan(self, topics: Sequence[Topic]) -> TopicPlan:
        """Return what it takes to make these topics as the catalogue has them; changes nothing."""
        self._check_open()
        return await _kafka_plan.plan(self._cluster, topics, self._record_bytes_max)

    async def apply(self, plan: TopicPlan) -> None:
        """Do what a plan says that refuses nothing; raises LogUnavailable, TopicMismatch."""
        self._check_open()
        await _kafka_plan.apply(self._cluster, plan, self._record_bytes_max)

    async def disk_bytes(self, topic: str) -> int | None:
        """Return what a topic takes on the disks of all that keep it, None when it is not told."""
        return await disk_bytes(self._cluster, await self._partitions([topic]))

    async def recall(self, progress: Callable[[int], None] | None = None) -> None:
        """Learn the idempotency keys of all that the log holds, not only of its tails."""
        names = [name for name in await self.topics() if not topic(name).compacted]
        await self._keys.recall(await self._partitions(names), progress)

    async def open_transactions(self) -> list[OpenTransaction]:
        """Return the transactions that have not ended yet, each with its producer and age."""
        return await open_transactions(self._cluster, await self._partitions(await self.topics()))

    async def close(self) -> None:
        """Finish what was accepted and let go of the cluster."""
        if self._closed:
            return
        self._closed = True
        for member in self._members:
            await member.leave()
        await self._writer.close()
        await self._transactions.close()
        for stream in list(self._streams):
            await stream.close()
        self._keys.close()
        await self._cluster.close()

    async def _append(
        self,
        records: Sequence[NewRecord],
        write: Callable[[Sequence[Placed]], Awaitable[list[int]]],
        *,
        always: bool = False,
    ) -> list[Receipt]:
        self._check_open()
        placed = await self._place(records)
        if not any(record.idempotency for record in records):
            if not placed and not always:
                return []
            offsets = await write(placed)
            return [Receipt(Position(*tp, at)) for (tp, _), at in zip(placed, offsets, strict=True)]
        await self._keys.prepare(placed)
        admitted = self._keys.admit(placed)
        fresh = [index for index, one in enumerate(admitted) if one is None or not one[1]]
        positions: dict[int, Position] = {}
        try:
            if fresh or always:
                offsets = await write([placed[index] for index in fresh])
                for index, at in zip(fresh, offsets, strict=True):
                    positions[index] = Position(*placed[index][0], at)
        except BaseException as error:
            unknown = OutcomeUnknown("the first append of this key was given up: repeat it")
            told = error if isinstance(error, LogError) else unknown
            self._keys.settle(placed, admitted, told)
            raise
        self._keys.settle(placed, admitted, positions)
        return [
            Receipt(positions[index])
            if one is None or not one[1]
            else Receipt(await one[0].position(), repeated=True)
            for index, one in enumerate(admitted)
        ]

    async def _append_in_order(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append outputs before the changes of state that say that they were made."""
        late = [topic(record.topic).compacted for record in records]
        receipts: dict[int, Receipt] = {}
        for wanted in (False, True):
            indexes = [index for index, one in enumerate(late) if one is wanted]
            made = await self._append([records[index] for index in indexes], self._writer.write)
            receipts.update(zip(indexes, made, strict=True))
        return [receipts[index] for index in range(len(records))]

    async def _place(self, records: Sequence[NewRecord]) -> list[Placed]:
        counts = {
            name: await self._cluster.partition_count(name)
            for name in {record.topic for record in records}
        }
        placed: list[Placed] = []
        for record in records:
            name, key, value, headers, _, number = record
            rest = len(key)
            for title, content in headers:
                rest += len(title) + len(content)
            if rest > _ENVELOPE_BYTES or len(value) > self._record_bytes_max:
                self._refuse_size(record, rest)
            count = counts[name]
            if number is None:
                placed.append((_place_of(name, key, count), record))
            elif 0 <= number < count:
                placed.append((TopicPartition(name, number), record))
            else:
                raise UnknownTopic(f"there is no {name}/{number}: it has {count} partitions")
        return placed

    def _refuse_size(self, record: NewRecord, rest: int) -> NoReturn:
        size, limit = len(record.value), self._record_bytes_max
        if size > limit:
            raise RecordTooLarge(
                f"a record of {size:,} bytes for {record.topic} is over the limit of "
                f"{limit:,}: store the content as a blob and refer to it"
            )
        raise RecordTooLarge(
            f"the key and headers of a record for {record.topic} are {rest:,} bytes, over the "
            f"limit of {_ENVELOPE_BYTES:,}: shorten them"
        )

    def _new_writer(self, transactional_id: str | None, *, once: bool = False) -> Writer:
        return Writer(
            self._cluster,
            lambda: self._clock.now_us() // 1000,
            bytes_max=self._queue_bytes_max,
            transactional_id=transactional_id,
            once=once,
        )

    def _new_stream(self, records_max: int, max_wait_ms: int) -> Stream:
        stream = Stream(
            self._cluster,
            self._memory,
            self._waits,
            records_max=records_max,
            max_wait_ms=max_wait_ms,
        )
        self._streams.add(stream)
        return stream

    async def _partitions(self, topics: Collection[str]) -> list[TopicPartition]:
        self._check_open()
        return await self._cluster.partitions(topics)

    async def _bounds(self, tps: Collection[TopicPartition]) -> tuple[Vector, Vector]:
        self._check_open()
        for tp in tps:
            await self._cluster.check_partition(tp)
        low = await self._cluster.offsets(tps, EARLIEST)
        return Vector(low), Vector(await self._cluster.offsets(tps, LATEST))

    def _check_kept(self, tp: TopicPartition, offset: int, low: int) -> None:
        if offset < low:
            raise PositionExpired(
                f"{tp}@{offset} is not kept any more: start from {tp}@{low}, the oldest record"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable(f"the log at {self.url} is closed: open it again")
