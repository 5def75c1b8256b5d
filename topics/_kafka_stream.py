"""A stream of records from partitions of a Kafka cluster: fetched ahead, bounded, in order.

One fetch is under way at a time, on a connection of its own: a request that waits for news must
not hold up others. A partition is fetched ahead only while less than one batch of it is at hand.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError

from madlog.topics._kafka_batches import take
from madlog.topics._kafka_client import EARLIEST, Cluster, Fetched
from madlog.topics._kafka_repeats import WINDOW, Repeats
from madlog.topics._kafka_waits import Waits
from madlog.topics.catalog import topic
from madlog.topics.errors import LogUnavailable, PositionExpired
from madlog.topics.log import Damage, Headers, OnDamage, Record
from madlog.topics.positions import TopicPartition

__all__ = ("Memory", "Stream", "look_back")

_BACKOFF_S = 0.1
# No more is fetched of a partition of which this much is at hand.
_AHEAD_BYTES = 8 << 20


class Memory:
    """What readers have seen of partitions, kept for the reader that goes on where one stopped."""

    def __init__(self) -> None:
        self._kept: dict[TopicPartition, tuple[int, Repeats]] = {}

    def keep(self, tp: TopicPartition, offset: int, repeats: Repeats) -> None:
        """Keep what was seen up to an offset, unless more is kept."""
        kept = self._kept.get(tp)
        if kept is None or kept[0] <= offset:
            self._kept[tp] = offset, repeats

    def lend(self, tp: TopicPartition, offset: int) -> Repeats | None:
        """Give away what was seen up to exactly this offset."""
        kept = self._kept.get(tp)
        if kept is None or kept[0] != offset:
            return None
        return self._kept.pop(tp)[1]


class _Partition:
    __slots__ = ("at", "buffer", "bytes", "end", "repeats", "yielded")

    def __init__(self, at: int, end: int | None, repeats: Repeats | None) -> None:
        self.at = at  # where the next fetch goes on
        self.end = end
        self.yielded = at
        self.repeats = repeats
        self.buffer: deque[Record | Damage] = deque()
        self.bytes = 0  # of what was fetched since the buffer was last empty

    def finished(self) -> bool:
        return self.end is not None and self.at >= self.end


class Stream:
    """Records of the partitions that were added, from where they were added."""

    def __init__(
        self, cluster: Cluster, memory: Memory, waits: Waits, *, records_max: int, max_wait_ms: int
    ) -> None:
        self._cluster = cluster
        self._memory = memory
        self._waits = waits
        self.records_max = records_max  # what is fetched ahead of a partition, at least
        self._max_wait_ms = max_wait_ms
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._fetching: asyncio.Task[dict[TopicPartition, Fetched]] | None = None
        self._failing_since: float | None = None

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._partitions

    def __len__(self) -> int:
        return len(self._partitions)

    async def add(self, tp: TopicPartition, offset: int, start: int, end: int | None) -> None:
        """Read a partition from an offset on; `start`: its oldest offset, `end`: exclusive."""
        repeats: Repeats | None = None
        if not topic(tp.topic).compacted:
            repeats = self._memory.lend(tp, offset) or Repeats()
            if not len(repeats) and offset > start:
                await look_back(self._cluster, tp, max(start, offset - WINDOW), offset, repeats)
        self._partitions[tp] = _Partition(offset, end, repeats)

    def drop(self, tp: TopicPartition) -> None:
        """Stop reading a partition, and forget what was fetched of it."""
        gone = self._partitions.pop(tp, None)
        if gone is not None and gone.repeats is not None and not gone.buffer:
            self._memory.keep(tp, gone.at, gone.repeats)

    def take(
        self, records_max: int, on_damage: OnDamage, of: Collection[TopicPartition] | None = None
    ) -> list[Record]:
        """Return what is at hand of one partition (one `of` these), [] when nothing is."""
        for tp in list(self._partitions):
            part = self._partitions[tp]
            if not part.buffer or (of is not None and tp not in of):
                continue
            records: list[Record] = []
            while part.buffer and len(records) < records_max:
                one = part.buffer.popleft()
                if isinstance(one, Damage):
                    on_damage(one)
                    part.yielded = one.offset_end
                else:
                    records.append(one)
                    part.yielded = one.offset + 1
            if not part.buffer:
                part.bytes = 0
            # Put back at the end: each partition gets its turn.
            self._partitions[tp] = self._partitions.pop(tp)
            if records:
                return records
        return []

    async def wait(
        self, timeout_s: float | None, also: "asyncio.Future[Any] | None" = None
    ) -> None:
        """Fetch, for at most timeout_s or until `also`; raises PositionExpired, LogUnavailable."""
        self._settle()
        task = self.ahead()
        if task is None:
            return
        waiters: set[asyncio.Future[Any]] = {task} if also is None else {task, also}
        await asyncio.wait(waiters, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._settle()

    def ahead(self) -> "asyncio.Task[dict[TopicPartition, Fetched]] | None":
        """See that a fetch is under way where one is wanted."""
        if self._fetching is None:
            wanted = {
                tp: part.at
                for tp, part in self._partitions.items()
                if len(part.buffer) < self.records_max
                and part.bytes < _AHEAD_BYTES
                and not part.finished()
            }
            if wanted:
                self._fetching = self._cluster.background(self._fetch(wanted))
        return self._fetching

    def done(self) -> bool:
        """Whether all that was asked for has been handed out."""
        return all(part.finished() and not part.buffer for part in self._partitions.values())

    async def close(self) -> None:
        """Let go of the connection."""
        task, self._fetching = self._fetching, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        for tp in list(self._partitions):
            self.drop(tp)
        self._cluster.hang_up(id(self))

    async def _fetch(self, wanted: Mapping[TopicPartition, int]) -> dict[TopicPartition, Fetched]:
        try:
            found = await self._cluster.fetch(
                wanted, max_wait_ms=self._max_wait_ms, channel=id(self)
            )
        except (KafkaError, OSError, TimeoutError):
            self._cluster.client.force_metadata_update()
            await asyncio.sleep(_BACKOFF_S)
            raise
        for tp, part in found.items():
            if part.error is kafka_errors.NoError and not part.data:
                await self._waits.look(tp, part.at, part.stable_end, part.end)
        if any(part.error is not kafka_errors.NoError for part in found.values()):
            found = await self._explain(found)
        return found

    async def _explain(self, found: dict[TopicPartition, Fetched]) -> dict[TopicPartition, Fetched]:
        """Ask where partitions start whose fetch failed for being out of range."""
        lost = [
            tp for tp, part in found.items() if part.error is kafka_errors.OffsetOutOfRangeError
        ]
        if lost:
            low = await self._cluster.offsets(lost, EARLIEST)
            for tp in lost:
                part = found[tp]
                found[tp] = Fetched(
                    part.at, part.stable_end, part.end, low[tp], [], b"", part.error
                )
        await asyncio.sleep(_BACKOFF_S)
        return found

    def _settle(self) -> None:
        task = self._fetching
        if task is None or not task.done():
            return
        self._fetching = None
        now = asyncio.get_running_loop().time()
        try:
            found = task.result()
        except (KafkaError, OSError, TimeoutError) as error:
            self._fail(error, now)
            return
        failure = None
        for tp, fetched in found.items():
            part = self._partitions.get(tp)
            if part is None or part.at != fetched.at:
                continue  # given up or rewound while it was on its way
            failure = self._put(tp, part, fetched, len(found) == 1) or failure
        if failure is None:
            self._failing_since = None
        else:
            self._fail(failure(), now)

    def _fail(self, error: Exception, now: float) -> None:
        # A bounded read gives up; one that waits for news waits for the broker too.
        self._failing_since = self._failing_since or now
        bounded = any(part.end is not None for part in self._partitions.values())
        if bounded and now - self._failing_since > self._cluster.timeout_s:
            raise LogUnavailable(
                f"the Kafka cluster at {self._cluster.address.url} has not sent records for "
                f"{self._cluster.timeout_s:g} s ({error!r}): see that it runs, then read again"
            ) from error

    def _put(
        self, tp: TopicPartition, part: _Partition, fetched: Fetched, alone: bool
    ) -> type[KafkaError] | None:
        error = fetched.error
        if error is kafka_errors.OffsetOutOfRangeError:
            if part.at < fetched.start:
                raise PositionExpired(
                    f"{tp}@{part.at} is not kept any more: start from {tp}@{fetched.start}, "
                    "the oldest record"
                )
            return None  # beyond the end: it may get there
        if error is kafka_errors.CorruptRecordException:
            reason = "the broker cannot read the record batch"
            part.buffer.append(Damage(*tp, part.at, part.at + 1, reason))
            part.at += 1
            return None
        if error is kafka_errors.TopicAuthorizationFailedError:
            raise LogUnavailable(f"we may not read {tp}: ask for the right to read its topic")
        if error is not kafka_errors.NoError:
            return error
        damages: list[Damage] = []
        records, at = take(tp, fetched, damages.append, repeats=part.repeats, end=part.end)
        if at == part.at and alone and fetched.stable_end > at:
            at = fetched.stable_end  # nothing is left there: compacted away
        if damages:
            part.buffer.extend(sorted([*records, *damages], key=lambda one: one.offset))
        else:
            part.buffer.extend(records)
        part.at = at
        part.bytes = part.bytes + len(fetched.data) if part.buffer else 0
        return None


async def look_back(
    cluster: Cluster, tp: TopicPartition, start: int, end: int, repeats: Repeats
) -> list[tuple[int, Headers]]:
    """Take up what stands between two offsets; return the (offset, headers) of each record."""
    found: list[tuple[int, Headers]] = []
    channel = f"back-{tp}"

    async def work() -> None:
        at = found[-1][0] + 1 if found else start
        while at < end:
            fetched = (await cluster.fetch({tp: at}, max_wait_ms=0, channel=channel))[tp]
            if fetched.error is kafka_errors.OffsetOutOfRangeError:
                low = await cluster.offsets([tp], EARLIEST)
                if low[tp] <= at:
                    return
                at = low[tp]
                continue
            if fetched.error is not kafka_errors.NoError:
                raise fetched.error()
            records, after = take(tp, fetched, lambda damage: None, end=end, whole=True)
            for record in records:
                repeats.seen(record.offset, record.headers)
                found.append((record.offset, record.headers))
            at = after if after > at else end

    await cluster.call("looking back", work)
    return found
