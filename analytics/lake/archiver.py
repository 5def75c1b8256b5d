"""The archiver: a consumer group that turns what is committed into files of the lake.

A range's files are written first, then the RangeArchived event that names them is appended and the
group's position committed, in one transaction. What a crash leaves behind is files that no event
names: they count for nobody, and are swept. Where a range begins is said by the manifest, not by
the group's position, so a group that was reset archives nothing twice.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import duckdb

from madlog.analytics.errors import LakeDamaged, LakeUnavailable
from madlog.analytics.lake.compaction import to_merge
from madlog.analytics.lake.layout import FORM, QUIET
from madlog.analytics.lake.manifest import SYSTEM, File, Manifest, Range, read_manifest
from madlog.analytics.lake.store import LakeStore
from madlog.analytics.lake.writing import RangeWriter, merged
from madlog.schemas import (
    LakeFile,
    RangeArchived,
    Sender,
    Undecodable,
    UnknownSchema,
    Unreadable,
    new_event_id,
)
from madlog.topics import (
    CATALOG,
    Commit,
    Damage,
    EventLog,
    Fenced,
    Membership,
    Record,
    TopicPartition,
    Vector,
    system_random,
)
from madlog.topics.catalog import kept_for_ever
from madlog.topics.log import OnDamage, log_damage

__all__ = ("GROUP", "Archived", "Archiver", "ArchiverOptions", "Flaw", "check_lake")

GROUP = "archiver"
_SENDER = Sender(name=GROUP, kind="system")
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class ArchiverOptions:
    """When a range is archived, how large it may be, how long what was replaced is kept."""

    records_min: int = 2_000
    age_s: float = 60.0
    records_max: int = 250_000
    bytes_max: int = 64 << 20
    grace_s: float = 3_600.0


WHOLE = ArchiverOptions(records_max=1 << 62, bytes_max=1 << 62)


class Flaw(NamedTuple):
    """A file that is not what was archived, the range that it is of, and what is wrong."""

    path: str
    range: Range
    reason: str


@dataclass(slots=True)
class Archived:
    """What an archiver has done."""

    ranges: int = 0
    events: int = 0
    files: int = 0
    bytes: int = 0
    unreadable: int = 0
    merged: int = 0
    swept: int = 0


async def check_lake(store: LakeStore, manifest: Manifest) -> bool:
    """Tell whether a log's lake is where the store is, False where it is to be made.

    Raises LakeUnavailable where the store holds another log's lake, or none and there was one.
    """
    there = await asyncio.to_thread(store.lake_id)
    if there is None and any(manifest):
        raise LakeUnavailable(
            f"this log's lake is not in {store.url}: name where it is now in MADLOG_LAKE, or make "
            "it again there with `madlog lake repair`"
        )
    if there not in (None, manifest.lake):
        raise LakeUnavailable(
            f"{store.url} holds the lake of another log: name another folder in MADLOG_LAKE"
        )
    return there is not None


class Archiver:
    """Archives the topics kept for ever, but for mad.system, which says what is archived."""

    def __init__(
        self,
        log: EventLog,
        store: LakeStore,
        options: ArchiverOptions | None = None,
        *,
        random: Callable[[int], bytes] = system_random,
        on_damage: OnDamage = log_damage,
    ) -> None:
        self._log = log
        self._store = store
        self._options = options or ArchiverOptions()
        self._random = random
        self._on_damage = on_damage
        self._manifest = Manifest()
        # When a partition was first seen to hold something that is not archived.
        self._since: dict[TopicPartition, int] = {}
        self._swept_us: int | None = None
        self.archived = Archived()

    @cached_property
    def _duckdb(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(":memory:", config=QUIET)

    async def run(
        self,
        *,
        until_idle: bool = False,
        stop: asyncio.Event | None = None,
        progress: Callable[[int], None] | None = None,
        every_s: float = 1.0,
    ) -> Archived:
        """Archive until `stop` is set or, with until_idle, all that there is now, however little.

        `progress` is told the events archived so far. Raises LakeUnavailable.
        """
        await self._log.ensure_topics([SYSTEM])
        await self._claim()
        goal = await self._log.log.end(await self._topics()) if until_idle else None
        while stop is None or not stop.is_set():
            topics = await self._topics()
            membership = await self._log.log.join(GROUP, topics) if topics else None
            try:
                while stop is None or not stop.is_set():
                    done = membership is None or await self._pass(membership, goal, progress)
                    if until_idle and done:
                        await self.sweep()
                        return self.archived
                    if done:
                        await self._sweep_at_times()
                        await asyncio.sleep(every_s)
                    if await self._topics() != topics:
                        break  # a topic is new: it is joined too
            finally:
                if membership is not None:
                    await membership.leave()
        return self.archived

    async def _claim(self) -> None:
        """See that the store is this log's lake; a new one is named on the log before it is made.

        So what a crash leaves of a first file is known to be this log's.
        """
        self._manifest = await read_manifest(self._log, self._manifest)
        if await check_lake(self._store, self._manifest):
            return
        if self._manifest.lake is None:
            nothing = Range("", TopicPartition(SYSTEM, 0), 0, 0, (), (), 0)
            await self._log.append([self._event(nothing, ())])
            # The first one counts, where another archiver appended one too.
            self._manifest = await read_manifest(self._log, self._manifest)
        await asyncio.to_thread(self._store.mark, str(self._manifest.lake))

    async def _topics(self) -> list[str]:
        there = await self._log.log.topics()
        wanted = kept_for_ever(topic for topic in CATALOG.values() if topic.name in there)
        return [name for name in wanted if name != SYSTEM]

    async def _pass(
        self,
        membership: Membership,
        goal: Vector | None,
        progress: Callable[[int], None] | None,
    ) -> bool:
        """Look at each partition that is ours; tells whether nothing was left to do."""
        # It is for the assignment; the records come from reading, which can be repeated.
        await membership.poll(records_max=1, timeout_s=0, on_damage=lambda damage: None)
        ours = sorted(membership.assignment)
        # After the poll: what another archived before these became ours is on the log by now.
        self._manifest = await read_manifest(self._log, self._manifest)
        topics = {tp.topic for tp in ours}
        start = await self._log.log.start(topics)
        end = await self._log.log.end(topics) if goal is None else goal
        idle = True
        for step in (self._archive_some, self._tidy):
            # What cannot be merged keeps nothing from being archived, of no partition.
            for tp in ours:
                try:
                    if await step(membership, tp, (start[tp], end.get(tp, 0)), goal is not None):
                        idle = False
                except Fenced:  # another has the partition now
                    with suppress(Fenced):
                        await membership.rewind(tp)
                    idle = False
                if progress is not None:
                    progress(self.archived.events)
        return idle

    async def _archive_some(
        self, membership: Membership, tp: TopicPartition, there: tuple[int, int], everything: bool
    ) -> bool:
        """Archive one range of each gap where it is time; tells whether there was one."""
        some = False
        for gap in list(self._manifest.gaps(tp, *there)):
            # Before what is archived there are gaps where mad.system lost what said it was.
            inner = gap[1] < there[1]
            some = await self._archive(membership, tp, gap, everything or inner) or some
        if some or not any(self._manifest.gaps(tp, *there)):
            self._since.pop(tp, None)
        return some

    async def _tidy(self, membership: Membership, tp: TopicPartition, *_: object) -> bool:
        await self._merge(membership, tp)
        await self._restate(membership, tp)
        return False

    async def _archive(
        self, membership: Membership, tp: TopicPartition, there: tuple[int, int], everything: bool
    ) -> bool:
        """Archive one range of what is there where it is time; tells whether there was one."""
        options = self._options
        start, end = there
        now_us = self._log.log.clock.now_us()
        waited_us = now_us - self._since.setdefault(tp, now_us)
        if not everything and end - start < options.records_min and waited_us < options.age_s * _US:
            return False
        reading = _Reading(RangeWriter(self._log.schemas, self._duckdb), start)
        await reading.read(self._log, tp, end, options)
        if reading.offset_end == start:
            return False  # on Kafka the end of a transaction takes an offset and is no record
        span = (start, reading.offset_end)
        files = await reading.writer.write(self._store, tp, span)
        new = Range("", tp, *span, tuple(files), tuple(reading.unreadable), 0)
        await self._append(membership, new)
        done = self.archived
        done.ranges += 1
        done.events += reading.events
        done.files += len(files)
        done.bytes += new.size
        done.unreadable += sum(end - at for at, end, _ in reading.unreadable)
        for at, end, reason in reading.unreadable:
            self._on_damage(Damage(tp.topic, tp.partition, at, end, reason))
        return True

    async def _append(self, membership: Membership, new: Range, over: Iterable[Range] = ()) -> None:
        """Append the event that makes a range count, and commit, all or nothing."""
        position = max(new.offset_end, self._manifest.archived_to(new.tp))
        commit = Commit(membership, Vector({new.tp: position}))
        await self._log.transact([self._event(new, over)], commit)
        self._manifest = await read_manifest(self._log, self._manifest)

    def _event(self, new: Range, over: Iterable[Range]) -> RangeArchived:
        now_us = self._log.log.clock.now_us()
        return RangeArchived(
            event_id=new_event_id(now_us, self._random(10)),
            conversation_id=SYSTEM,
            sender=_SENDER,
            occurred_at=now_us,
            lake=self._manifest.lake or self._random(16).hex(),
            form=FORM,
            topic=new.tp.topic,
            partition=new.tp.partition,
            offset=new.offset,
            offset_end=new.offset_end,
            files=tuple(LakeFile(**_fields(file)) for file in new.files),
            unreadable=tuple(
                Unreadable(offset=at, offset_end=end, reason=reason)
                for at, end, reason in new.unreadable
            ),
            supersedes=tuple(one.event_id for one in over),
        )

    async def _merge(self, membership: Membership, tp: TopicPartition) -> None:
        """Merge small files of a partition while there are many."""
        while some := to_merge(self._manifest.ranges.get(tp, ())):
            await self._replace(membership, some)
            self.archived.merged += len(some)

    async def _replace(self, membership: Membership, some: list[Range]) -> None:
        tp, span = some[0].tp, (some[0].offset, some[-1].offset_end)
        files = [file for one in some for file in one.files]
        made = await asyncio.to_thread(merged, self._store, tp, span, files)
        unreadable = tuple(gap for one in some for gap in one.unreadable)
        new = Range("", tp, *span, tuple(made), unreadable, 0)
        await self._append(membership, new, some)

    async def _restate(self, membership: Membership, tp: TopicPartition) -> None:
        """Say old ranges again before mad.system forgets them."""
        kept_s = CATALOG[SYSTEM].retention_s
        if kept_s is None:
            return
        before_us = self._log.log.clock.now_us() - kept_s * _US // 2
        for one in list(self._manifest.ranges.get(tp, ())):
            if one.archived_at < before_us:
                await self._append(membership, one, [one])

    async def check(self) -> list[Flaw]:
        """Read every file of the lake and return those that are not what was archived."""
        self._manifest = await read_manifest(self._log, self._manifest)
        if any(self._manifest):
            await check_lake(self._store, self._manifest)
        flaws = []
        for one in self._manifest:
            for file in one.files:
                try:
                    await asyncio.to_thread(self._store.read, file)
                except LakeDamaged as error:
                    flaws.append(Flaw(file.path, one, str(error)))
        return flaws

    async def repair(self) -> int:
        """Archive the ranges of damaged files again from the log, all where the lake is gone.

        Returns how many. Raises LakeUnavailable.
        """
        self._manifest = await read_manifest(self._log, self._manifest)
        if self._manifest.lake and await asyncio.to_thread(self._store.lake_id) is None:
            await asyncio.to_thread(self._store.mark, self._manifest.lake)
        await self._claim()
        flaws = {flaw.range.event_id: flaw.range for flaw in await self.check()}
        membership = await self._log.log.join(GROUP, await self._topics())
        mended = 0
        try:
            await membership.poll(records_max=1, timeout_s=0, on_damage=lambda damage: None)
            for one in flaws.values():
                if one.tp not in membership.assignment:
                    raise LakeUnavailable(
                        f"{one.tp} is being archived by another process: stop `madlog worker`, "
                        "then repair"
                    )
                reading = _Reading(RangeWriter(self._log.schemas, self._duckdb), one.offset)
                await reading.read(self._log, one.tp, one.offset_end, WHOLE)
                span = (one.offset, one.offset_end)
                files = await reading.writer.write(self._store, one.tp, span)
                new = Range("", one.tp, *span, tuple(files), tuple(reading.unreadable), 0)
                await self._append(membership, new, [one])
                mended += 1
        finally:
            await membership.leave()
        return mended

    async def _sweep_at_times(self) -> None:
        """Sweep when what was replaced may have been so for long enough, and not more often."""
        now_us = self._log.log.clock.now_us()
        if self._swept_us is None or now_us - self._swept_us > self._options.grace_s * _US / 4:
            self._swept_us = now_us
            await self.sweep()

    async def sweep(self, grace_s: float | None = None) -> int:
        """Remove files that no reader can need any more; return how many.

        Those are files whose place others took, and files that no event ever named, each only
        when that is longer ago than the grace time: a reader in mid-query still has it, and an
        archiver at work has not named its file yet.
        """
        grace = self._options.grace_s if grace_s is None else grace_s
        before_us = self._log.log.clock.now_us() - int(grace * _US)
        # The files first: what is named in between is in the manifest that is read after.
        listed = await asyncio.to_thread(lambda: list(self._store.listed()))
        self._manifest = await read_manifest(self._log, self._manifest)
        used = {file.path for one in self._manifest for file in one.files}
        removed = 0
        for stored in listed:
            since_us = self._manifest.superseded.get(stored.path, stored.modified_at)
            if stored.path not in used and since_us < before_us:
                await asyncio.to_thread(self._store.remove, stored.path)
                removed += 1
        self.archived.swept += removed
        return removed


class _Reading:
    """What one range holds, read until it is large enough."""

    def __init__(self, writer: RangeWriter, start: int) -> None:
        self.writer = writer
        self.offset_end = start
        self.events = 0
        self._damages: list[Damage] = []
        self._records = self._bytes = 0

    @property
    def unreadable(self) -> list[tuple[int, int, str]]:
        """What of the range could not be read."""
        # Damage may be told ahead of the records before it, which are another range's.
        return [
            (one.offset, one.offset_end, one.reason)
            for one in self._damages
            if one.offset < self.offset_end
        ]

    async def read(
        self, log: EventLog, tp: TopicPartition, end: int, options: ArchiverOptions
    ) -> None:
        """Read from the start up to `end`, or to where the range is large enough.

        It ends before an event whose schema is not known yet: later it may be read.
        """
        span = Vector({tp: self.offset_end}), Vector({tp: end})
        async for batch in log.log.read(*span, on_damage=self._damages.append):
            if not await self._take(log, batch):
                return
            if self._records >= options.records_max or self._bytes >= options.bytes_max:
                return
        self.offset_end = max([self.offset_end, *(one.offset_end for one in self._damages)])

    async def _take(self, log: EventLog, batch: list[Record]) -> bool:
        """Take up records; tells whether to go on."""
        undecodable: list[Damage] = []
        events = await log.decode_all(batch, undecodable.append)
        stop = self._unknown(log, batch, {one.offset for one in undecodable})
        self._damages += [one for one in undecodable if one.offset < stop]
        if stop <= batch[-1].offset:
            events = [event for event in events if event.record.offset < stop]
        self.writer.add(events)
        self.events += len(events)
        self.offset_end = max(self.offset_end, min(stop, batch[-1].offset + 1))
        self._records += len(batch)
        self._bytes += sum([len(record.value) for record in batch])
        return stop > batch[-1].offset

    def _unknown(self, log: EventLog, batch: list[Record], undecodable: set[int]) -> int:
        """Return the offset of the first event whose schema is not known, else one past all."""
        for record in batch if undecodable else ():
            if record.offset in undecodable:
                try:
                    log.decode(record)
                except UnknownSchema:
                    return record.offset
                except Undecodable:
                    continue
        return batch[-1].offset + 1


def _fields(file: File) -> dict[str, Any]:
    return {name: getattr(file, name) for name in File.__slots__}
