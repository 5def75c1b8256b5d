"""Logs that break one guarantee each, on purpose: what the conformance suite must find out.

A suite that passes on these proves nothing. Each is the log in memory with one thing done wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from madlog.topics.errors import Fenced, NotWritten, PositionExpired
from madlog.topics.log import Commit, NewRecord, OnDamage, Receipt, Record, log_damage
from madlog.topics.memory import MemoryLog
from madlog.topics.memory_groups import Groups, MemoryMember
from madlog.topics.positions import Position, TopicPartition, Vector

__all__ = ("BROKEN",)

BROKEN: dict[int, list[type[MemoryLog]]] = {}


def _breaks(guarantee: int) -> Callable[[type[MemoryLog]], type[MemoryLog]]:
    def noted(log: type[MemoryLog]) -> type[MemoryLog]:
        BROKEN.setdefault(guarantee, []).append(log)
        return log

    return noted


@_breaks(1)
class ForgetsOnReopening(MemoryLog):
    """Acknowledges, and has lost the last record of each partition when it is opened again."""

    def reopened(self) -> "ForgetsOnReopening":
        """Return a log without the newest records."""
        for part in self._store.partitions.values():
            if part.records:
                part.records.pop()
                part.checksums.pop()
                part.end -= 1
        return super().reopened()


@_breaks(2)
class RepeatsOffsets(MemoryLog):
    """Gives one offset to the two records of an append."""

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append, and answer with the offset of the first for all of its partition."""
        first: dict[TopicPartition, Position] = {}
        receipts = await super().append(records)
        return [Receipt(first.setdefault(r.position.topic_partition, r.position)) for r in receipts]


@_breaks(2)
class LagsBehind(MemoryLog):
    """Answers with the offset before the record's own."""

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append, and name the place of another record."""
        receipts = await super().append(records)
        places = [receipt.position for receipt in receipts]
        return [Receipt(place._replace(offset=max(0, place.offset - 1))) for place in places]


@_breaks(3)
class ReadsBackwards(MemoryLog):
    """Reads the records of a batch in the wrong order."""

    def take(
        self,
        tp: TopicPartition,
        at: int,
        records_max: int,
        on_damage: OnDamage,
        end: int | None = None,
    ) -> tuple[list[Record], int]:
        """Return the next records, the last one first."""
        records, after = super().take(tp, at, records_max, on_damage, end)
        return records[::-1], after


@_breaks(4)
class SkipsWhatExpired(MemoryLog):
    """Reads on from the low-water mark without a word."""

    async def read(
        self,
        start: Vector,
        end: Vector,
        *,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[Record]]:
        """Read what is left."""
        low = await self.start({tp.topic for tp in start} | {tp.topic for tp in end})
        kept = {tp: max(offset, low[tp]) for tp, offset in start.items()}
        async for records in super().read(
            Vector(kept), end, records_max=records_max, on_damage=on_damage
        ):
            yield records

    def _check_kept(self, tp: TopicPartition, offset: int) -> None:
        try:
            super()._check_kept(tp, offset)
        except PositionExpired:
            return


@_breaks(4)
class DropsWhatIsKept(MemoryLog):
    """Compacts and expires every topic, also those kept for ever."""

    async def compact(self, topic: str) -> int:
        """Keep the last record of each key, whatever was promised."""
        with self._as_if_derivable(topic):
            return await super().compact(topic)

    async def expire(self, topic: str, partition: int, before_offset: int) -> None:
        """Drop old records, whatever was promised."""
        with self._as_if_derivable(topic):
            await super().expire(topic, partition, before_offset)

    @contextmanager
    def _as_if_derivable(self, name: str) -> Iterator[None]:
        kept = self._store.topics[name]
        self._store.topics[name] = replace(kept, compacted=True)
        yield
        self._store.topics[name] = kept


@_breaks(5)
class CommitsPositionsAlone(MemoryLog):
    """Commits the consumed positions of a transaction whose outputs are refused."""

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Commit first, append then, each on its own."""
        if commit is not None:
            await super().transact([], commit)
        receipts: list[Receipt] = []
        for record in records:
            receipts += await super().transact([record])
        return receipts


@_breaks(5)
class LosesOutputs(MemoryLog):
    """Commits positions, acknowledges the outputs and does not append them."""

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Drop the outputs of a commit."""
        if commit is None:
            return await super().transact(records)
        await super().transact([], commit)
        return [Receipt(Position(record.topic, 0, 0)) for record in records]


@_breaks(5)
class ShowsHalfATransaction(MemoryLog):
    """Lets readers in between the records of a transaction."""

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Append record by record, then commit."""
        receipts: list[Receipt] = []
        for record in records:
            receipts += await super().transact([record])
            await asyncio.sleep(0)
        await super().transact([], commit)
        return receipts


@_breaks(6)
class AppendsRepeats(MemoryLog):
    """Does not look at idempotency keys."""

    def _first(self, record: NewRecord) -> None:
        return None


@_breaks(6)
class TakesOtherContent(MemoryLog):
    """Takes other content under a known key for a repeat."""

    def _check_content(self, records: Sequence[NewRecord]) -> None:
        return


@_breaks(6)
class MixesScopes(MemoryLog):
    """Takes one client's key for another's."""

    def _write(self, records: Sequence[NewRecord], commit: Commit | None = None) -> list[Receipt]:
        mixed = [
            record._replace(idempotency=once and once._replace(scope=""))
            for record in records
            for once in [record.idempotency]
        ]
        return super()._write(mixed, commit)


@_breaks(7)
class GivesAPartitionToAll(MemoryLog):
    """Tells every member that all partitions are its own."""

    async def join(self, group: str, topics: Sequence[str]) -> MemoryMember:
        """Join a group of one's own, under the same name."""
        member = await super().join(f"{group}-{self._random(4).hex()}", topics)
        assert isinstance(member, MemoryMember)
        return member


class _EndlessLeases(Groups):
    def _lease(self) -> int:
        return super()._lease() + 3_600_000_000_000


@_breaks(7)
class WaitsForTheDead(MemoryLog):
    """Leaves the partitions of a dead member with it for an hour."""

    def _groups(self, name: str) -> Groups:
        return _EndlessLeases(super()._groups(name).group, self.clock)


@_breaks(8)
class LetsTheFencedCommit(MemoryLog):
    """Commits for whoever asks."""

    def _check_commit(self, commit: Commit) -> None:
        try:
            super()._check_commit(commit)
        except Fenced:
            return


@_breaks(9)
class IncludesTheEnd(MemoryLog):
    """Reads one record past the end that it was given."""

    async def read(
        self,
        start: Vector,
        end: Vector,
        *,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[Record]]:
        """Read too far."""
        past = Vector({tp: offset + 1 for tp, offset in end.items()})
        async for records in super().read(
            start, past, records_max=records_max, on_damage=on_damage
        ):
            yield records


@_breaks(10)
class ServesDamage(MemoryLog):
    """Serves a damaged record as if it were whole."""

    def damage(self, position: Position) -> None:
        """Flip a bit and make the checksum fit."""
        from madlog.topics.memory import _checksum

        super().damage(position)
        part = self._partition(position.topic_partition)
        at = part.index(position.offset)
        part.checksums[at] = _checksum(part.records[at])


@_breaks(11)
class DropsWhenFull(MemoryLog):
    """Acknowledges what no longer fits, and drops it."""

    def _write(self, records: Sequence[NewRecord], commit: Commit | None = None) -> list[Receipt]:
        try:
            return super()._write(records, commit)
        except NotWritten:
            if self.fault is not None:
                raise
            return [Receipt(Position(record.topic, 0, 0)) for record in records]


@_breaks(11)
class LeavesTheSlowBehind(MemoryLog):
    """Skips what a subscriber did not fetch in time."""

    def take(
        self,
        tp: TopicPartition,
        at: int,
        records_max: int,
        on_damage: OnDamage,
        end: int | None = None,
    ) -> tuple[list[Record], int]:
        """Return the next records, the last hundred at most when nobody set an end."""
        if end is None:
            at = max(at, self._partition(tp).end - 100)
        return super().take(tp, at, records_max, on_damage, end)


@_breaks(12)
class SwallowsFailedWrites(MemoryLog):
    """Acknowledges an append that the storage refused."""

    def _write(self, records: Sequence[NewRecord], commit: Commit | None = None) -> list[Receipt]:
        fault, failed = self.fault, False

        def noted() -> None:
            nonlocal failed
            try:
                if fault is not None:
                    fault()
            except NotWritten:
                failed = True
                raise

        self.fault = noted if fault is not None else None
        try:
            return super()._write(records, commit)
        except NotWritten:
            if not failed:
                raise
            return [Receipt(Position(record.topic, 0, 0)) for record in records]
        finally:
            self.fault = fault


@_breaks(12)
class WritesAndDenies(MemoryLog):
    """Says NotWritten of an append that is in the log."""

    def _write(self, records: Sequence[NewRecord], commit: Commit | None = None) -> list[Receipt]:
        fault, self.fault = self.fault, None
        try:
            receipts = super()._write(records, commit)
        finally:
            self.fault = fault
        if fault is not None:
            fault()
        return receipts
