"""The log on one machine: a SQLite file in a folder, shared by the processes of that machine."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import cast

import apsw

from madlog.topics._embedded_append import Request, Row
from madlog.topics._embedded_check import check_file
from madlog.topics._embedded_cold import packs_of
from madlog.topics._embedded_file import OpenFile
from madlog.topics._embedded_groups import (
    EmbeddedMembership,
    committed_positions,
    fences_for,
    group_states,
    reset_group,
)
from madlog.topics._embedded_maintenance import (
    back_up,
    compact_topic,
    expire_partition,
    make_topic,
    page_bytes,
)
from madlog.topics._embedded_moving import Mover, give_back
from madlog.topics._embedded_reading import Batch, Readers, first_offset_at, read_batch
from madlog.topics._embedded_storage import (
    connect,
    encode_headers,
    open_file,
    partition_of_key,
    partition_rows,
)
from madlog.topics._embedded_wakeups import wakeups_of
from madlog.topics._embedded_writer import Writer
from madlog.topics.catalog import Topic
from madlog.topics.clock import Clock, SystemClock, system_random
from madlog.topics.cold import COLD_BYTES_MIN, Pack
from madlog.topics.errors import (
    LogUnavailable,
    RecordTooLarge,
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
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("EmbeddedLog",)

# What key and headers may add to the value that the limit is about.
_ENVELOPE_BYTES = 64 << 10
_FOR_EVER = 1 << 62
_WAIT_S = 60.0


class EmbeddedLog:
    """A log in a folder (Log, ConditionalAppend, Compaction, Checkable, Backup, ColdStorage)."""

    def __init__(self, file: OpenFile, record_bytes_max: int) -> None:
        self._file = file
        self._record_bytes_max = record_bytes_max

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
        create: bool = True,
        read_only: bool = False,
        vfs: str | None = None,
        record_bytes_max: int = 1 << 20,
        queue_bytes_max: int = 32 << 20,
        wal_bytes_max: int = 256 << 20,
        session_timeout_s: float = 6.0,
        busy_s: float = 10.0,
    ) -> "EmbeddedLog":
        """Open the log in `folder`, making one if there is none; raises LogUnavailable.

        A write waits `busy_s` for another process before it raises NotWritten.
        """

        opening = await asyncio.to_thread(
            open_file,
            Path(folder),
            create=create,
            read_only=read_only,
            vfs=vfs,
            busy_ms=int(busy_s * 1000),
        )
        wakeups, readers = wakeups_of(os.path.realpath(opening.path)), Readers(opening)
        times, pid = clock or SystemClock(), os.getpid()
        try:
            watch = connect(opening)
            file = OpenFile(opening, times, random, session_timeout_s, pid, wakeups, readers, watch)
            if not read_only:
                file.written = Writer(
                    opening,
                    times,
                    queue_bytes_max=queue_bytes_max,
                    wal_bytes_max=wal_bytes_max,
                    committed=wakeups.notify,
                    poisoned=readers.drop,
                )
            await file.learn_topics()
        except apsw.Error as error:
            raise LogUnavailable(
                f"the log {opening.path} cannot be opened ({error}): check the disk, then try again"
            ) from error
        return cls(file, record_bytes_max)

    @property
    def url(self) -> str:
        """The address that opens this log again: its folder."""
        return str(self._file.opening.path.parent)

    @property
    def clock(self) -> Clock:
        """Where this log gets its times from."""
        return self._file.clock

    async def create_topic(self, topic: Topic) -> None:
        """Make a topic; nothing happens if it is there. Raises TopicMismatch, UnknownTopic."""
        await self._file.writer.call(lambda appender: make_topic(appender, topic))
        await self._file.learn_topics()

    async def topics(self) -> dict[str, int]:
        """Return the partition count of each topic of this log."""
        return {name: topic.partitions for name, topic in (await self._file.learn_topics()).items()}

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append records, durable when this returns; one receipt each, in their order."""
        return await self._submit(records)

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Append records and commit consumed positions, all or nothing; raises Fenced."""
        return await self._submit(records, commit=commit)

    async def append_at(self, records: Sequence[NewRecord], expected: Vector) -> list[Receipt]:
        """Append all records if every partition in `expected` ends there, else PositionConflict.

        When all of them are there already, by their keys, that is answered instead.
        """
        return await self._submit(records, expected=expected)

    async def _submit(
        self,
        records: Sequence[NewRecord],
        *,
        commit: Commit | None = None,
        expected: Vector | None = None,
    ) -> list[Receipt]:
        file, loop = self._file, asyncio.get_running_loop()
        writer = file.writer
        request = Request(loop.create_future(), loop)
        for record in records:
            request.rows.append(self._row(record) or await self._row_of_new_topic(record))
        request.size = sum([len(row.value) + len(row.key) + 200 for row in request.rows])
        for tp, offset in (expected or {}).items():
            await file.topic(tp.topic)
            request.expected[file.place(tp).id] = offset
        if commit is not None:
            membership = commit.membership
            request.fences = fences_for(file, membership.group, membership.member, commit.positions)
        if not request.rows and not request.fences and not request.expected:
            return []
        return cast(list[Receipt], await writer.submit(request))

    def _row(self, record: NewRecord) -> Row | None:
        """Make a record ready for the writer, or return None if its topic is not known yet."""
        topic = self._file.topics.get(record.topic)
        if topic is None:
            return None
        headers = encode_headers(record.headers)
        size = len(record.key) + len(record.value) + len(headers)
        limit = self._record_bytes_max
        if len(record.value) > limit or size > limit + _ENVELOPE_BYTES:
            raise RecordTooLarge(
                f"a record of {size:,} bytes for {record.topic} is over the limit of "
                f"{limit:,}: store the content as a blob and refer to it"
            )
        partition = record.partition
        if partition is None:
            partition = partition_of_key(record.key, topic.partitions)
        elif not 0 <= partition < topic.partitions:
            raise UnknownTopic(
                f"{record.topic}/{partition} is not a partition: {record.topic} has "
                f"{topic.partitions} of them, counted from 0"
            )
        return Row(
            topic.id, topic.ids[partition], record.key, headers, record.value, record.idempotency
        )

    async def _row_of_new_topic(self, record: NewRecord) -> Row:
        await self._file.topic(record.topic)
        row = self._row(record)
        assert row is not None
        return row

    async def start(self, topics: Collection[str]) -> Vector:
        """Return the low-water marks: the oldest offset that can be read of each partition."""
        rows = await self._file.readers.run(partition_rows, set(topics))
        return Vector({TopicPartition(row.topic, row.partition): row.low_water for row in rows})

    async def end(self, topics: Collection[str]) -> Vector:
        """Return the offset after the last readable record of each partition."""
        rows = await self._file.readers.run(partition_rows, set(topics))
        return Vector({TopicPartition(row.topic, row.partition): row.next_offset for row in rows})

    async def at_time(self, topics: Collection[str], time_us: int) -> Vector:
        """Return for each partition the first offset appended at or after a time, else its end."""
        found: dict[TopicPartition, int] = {}
        for name in topics:
            for partition in range((await self._file.topic(name)).partitions):
                tp = TopicPartition(name, partition)
                place = self._file.place(tp)
                found[tp] = await self._file.readers.run(first_offset_at, place, time_us)
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
        await self._file.check_topics({tp.topic for tp in [*start, *end]})
        for tp in sorted(end):
            offset, stop = start.get(tp), end[tp]
            place = self._file.place(tp)
            while offset is None or offset < stop:
                batch = await self._file.readers.run(read_batch, place, offset, stop, records_max)
                _report(batch, on_damage)
                if batch.records:
                    yield batch.records
                if batch.next_offset == offset or batch.next_offset >= batch.end:
                    break
                offset = batch.next_offset

    async def subscribe(
        self, start: Vector, *, records_max: int = 1000, on_damage: OnDamage = log_damage
    ) -> AsyncIterator[list[Record]]:
        """Yield the records of the partitions in `start` from there on: the past, then live."""
        file = self._file
        await file.check_topics({tp.topic for tp in start})
        places = {tp: file.place(tp) for tp in sorted(start)}
        offsets = dict(start)
        while True:
            seen = file.wakeups.version
            moved = False
            for tp, place in places.items():
                batch = await file.readers.run(
                    read_batch, place, offsets[tp], _FOR_EVER, records_max
                )
                moved = moved or batch.next_offset > offsets[tp]
                offsets[tp] = max(offsets[tp], batch.next_offset)
                _report(batch, on_damage)
                if batch.records:
                    yield batch.records
            if not moved:
                await file.wait(seen, _WAIT_S)
            if file.closed:
                return

    async def join(self, group: str, topics: Sequence[str]) -> Membership:
        """Become a member of a consumer group that reads these topics."""
        await self._file.check_topics(topics)
        membership = EmbeddedMembership(self._file, group, topics)
        await membership.start()
        return membership

    async def committed(self, group: str) -> Vector:
        """Return the positions that the group has committed."""
        return await self._file.readers.run(committed_positions, group)

    async def groups(self) -> list[GroupState]:
        """Return every consumer group."""
        clock = self._file.clock
        return await self._file.readers.run(group_states, clock.monotonic_ns(), clock.boot_id())

    async def reset(self, group: str, positions: Vector) -> None:
        """Set a group's committed positions; raises GroupBusy while members live."""
        await self._file.writer.call(lambda appender: reset_group(appender, group, positions))

    async def compact(self, topic: str) -> int:
        """Keep each key's last record of every partition; return how many were dropped."""
        stored = await self._file.topic(topic)
        if not stored.compacted:
            raise UnsupportedByBackend(
                f"{topic} is not a compacted topic, so each of its records is kept: compact a "
                "mad.state topic"
            )
        dropped = await self._file.writer.call(lambda appender: compact_topic(appender, stored))
        return cast(int, dropped)

    async def expire(self, topic: str, partition: int, before_offset: int) -> int:
        """Drop the records below an offset of a topic kept for a time; return how many."""
        await self._file.topic(topic)
        place = self._file.place(TopicPartition(topic, partition))
        dropped = await self._file.writer.call(
            lambda appender: expire_partition(appender, place, before_offset)
        )
        return cast(int, dropped)

    async def check(self, progress: Callable[[int], None] | None = None) -> AsyncIterator[Damage]:
        """Yield every damage found; `progress` is told how many records were looked at."""
        found = check_file(self._file.opening, progress)
        while (damage := await asyncio.to_thread(next, found, None)) is not None:
            yield damage

    async def backup(
        self, folder: Path, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write a consistent copy into an empty or new folder, check it, then give it its name."""
        await asyncio.to_thread(back_up, self._file.opening, folder, progress)

    async def disk_bytes(self, topic: str) -> int | None:
        """Return what a topic's records take in the file and in packs, None when it is not told."""
        stored = await self._file.topic(topic)
        pages = await self._file.readers.run(page_bytes, stored)
        if pages is None:
            return None
        return pages + sum(one.size for one in await self.packs() if one.tp.topic == topic)

    async def packs(self) -> list[Pack]:
        """Return every pack of this log."""
        return await self._file.readers.run(packs_of)

    def move_cold(
        self,
        upto: Vector,
        into: str,
        *,
        dry_run: bool = False,
        bytes_min: int = COLD_BYTES_MIN,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[Pack]:
        """Move records below `upto` into packs under the folder or URL `into`; yield each.

        With `dry_run` nothing is written. A partition's newest record stays.
        """
        return Mover(self._file, into, bytes_min, on_damage).move(upto, dry_run=dry_run)

    @staticmethod
    async def give_back(folder: Path) -> int | None:
        """Give the free pages of a closed log back to the disk; return how many bytes.

        None where another process has the log open: what is appended uses them first.
        """
        return await asyncio.to_thread(give_back, folder.expanduser().absolute())

    async def close(self) -> None:
        """Finish what was accepted and let go of the log."""
        file = self._file
        if file.closed:
            return
        for membership in list(file.members.values()):
            try:
                await cast(Membership, membership).leave()
            except (LogUnavailable, OSError):  # its lease runs out by itself
                continue
        file.stop_watching()
        await asyncio.to_thread(file.readers.close)
        # The last one to let go: it alone writes what is left of the WAL into the file.
        if file.written is not None:
            await asyncio.to_thread(file.written.close)


def _report(batch: Batch, on_damage: OnDamage) -> None:
    for damage in batch.damages:
        on_damage(damage)
