"""Clients' idempotency keys as one process knows them: what it wrote, and the tail of the log.

The tail of a partition is read when a key is first used on it, all of it when it is asked for
(`recall`). Another process may append the same key at the same time: that repeat is in the log, and
readers drop it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from madlog.topics._kafka_client import EARLIEST, LATEST, Cluster
from madlog.topics._kafka_recall import Recalled
from madlog.topics._kafka_repeats import IDEMPOTENCY, WINDOW, Repeats, idempotency_header
from madlog.topics._kafka_stream import look_back
from madlog.topics._kafka_writer import Placed
from madlog.topics.errors import (
    IdempotencyConflict,
    LogError,
    LogUnavailable,
    NotWritten,
)
from madlog.topics.positions import Position, TopicPartition

__all__ = ("Entry", "Keys")

_KEYS_MAX = 500_000


class Entry:
    """One key: its content's part of the header, and its place once it is acknowledged."""

    __slots__ = ("content", "place")

    def __init__(self, content: bytes, place: "Position | asyncio.Future[Position]") -> None:
        self.content = content
        self.place = place

    async def position(self) -> Position:
        """Wait for the place; raises what the append of it raised."""
        if isinstance(self.place, Position):
            return self.place
        return await asyncio.shield(self.place)


class Keys:
    """The keys that are known, the oldest forgotten first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._entries: OrderedDict[tuple[str, bytes], Entry] = OrderedDict()
        self._ready: dict[str, asyncio.Task[None]] = {}
        self._recalled: Recalled | None = None

    async def recall(
        self, tps: Sequence[TopicPartition], progress: Callable[[int], None] | None = None
    ) -> None:
        """Learn the keys of these partitions from their start; `progress`: records read so far."""
        start, end = [await self._cluster.offsets(tps, at) for at in (EARLIEST, LATEST)]
        done = 0

        def read(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done)

        recalled = self._recalled = self._recalled or Recalled()
        for tp in tps:
            await recalled.read(self._cluster, tp, start[tp], end[tp], read)

    def close(self) -> None:
        """Forget what was recalled."""
        if self._recalled is not None:
            self._recalled.close()
            self._recalled = None

    def _known(self, name: tuple[str, bytes]) -> Entry | None:
        entry = self._entries.get(name)
        if entry is None and self._recalled is not None:
            found = self._recalled.find(*name)
            if found is not None:
                entry = self._entries[name] = Entry(*found)
        return entry

    async def prepare(self, placed: Sequence[Placed]) -> None:
        """Read the tails of those topics on which a key is used for the first time.

        Raises NotWritten where they cannot be read.
        """
        for name in {tp.topic for tp, record in placed if record.idempotency is not None}:
            task = self._ready.get(name)
            if task is None or (task.done() and (task.cancelled() or task.exception())):
                task = self._ready[name] = self._cluster.background(self._read_all(name))
            try:
                await asyncio.shield(task)
            except LogUnavailable as error:
                raise NotWritten(f"nothing was written: {error}") from error

    async def _read_all(self, topic: str) -> None:
        # All its partitions: a key that comes again with another topic key is a conflict.
        await asyncio.gather(*map(self._read, await self._cluster.partitions([topic])))

    async def _read(self, tp: TopicPartition) -> None:
        start = (await self._cluster.offsets([tp], EARLIEST))[tp]
        end = (await self._cluster.offsets([tp], LATEST))[tp]
        found = await look_back(self._cluster, tp, max(start, end - WINDOW), end, Repeats())
        for offset, headers in found:
            for name, value in headers:
                if name == IDEMPOTENCY:
                    key, _, content = value.partition(b"-")
                    entry = Entry(content, Position(*tp, offset))
                    self._entries.setdefault((tp.topic, key), entry)

    def admit(self, placed: Sequence[Placed]) -> list[tuple[Entry, bool] | None]:
        """Return for each record with a key its entry, and whether it was there before.

        Raises IdempotencyConflict, and then takes up nothing.
        """
        named: list[tuple[tuple[str, bytes], bytes] | None] = []
        mine: dict[tuple[str, bytes], bytes] = {}
        for tp, record in placed:
            if (once := record.idempotency) is None:
                named.append(None)
                continue
            key, _, content = idempotency_header(once)[1].partition(b"-")
            name = (tp.topic, key)
            there = self._known(name)
            first = there.content if there is not None else mine.setdefault(name, content)
            if first != content:
                raise IdempotencyConflict(
                    f"{tp.topic} holds other content under the idempotency key "
                    f"{once.key!r} of {once.scope!r}: use a new key for a new event"
                )
            named.append((name, content))
        admitted: list[tuple[Entry, bool] | None] = []
        loop = asyncio.get_running_loop()
        for one in named:
            if one is None:
                admitted.append(None)
                continue
            name, content = one
            entry = self._entries.get(name)
            if entry is not None:
                admitted.append((entry, True))
                continue
            entry = self._entries[name] = Entry(content, loop.create_future())
            admitted.append((entry, False))
        return admitted

    def settle(
        self,
        placed: Sequence[Placed],
        admitted: Sequence[tuple[Entry, bool] | None],
        positions: Mapping[int, Position] | LogError,
    ) -> None:
        """Tell the new keys their places, or forget them because their append failed."""
        for index, one in enumerate(admitted):
            if one is None or one[1]:
                continue
            entry = one[0]
            future = entry.place
            if isinstance(positions, LogError):
                tp, record = placed[index]
                assert record.idempotency is not None
                key = idempotency_header(record.idempotency)[1].partition(b"-")[0]
                self._entries.pop((tp.topic, key), None)
                if isinstance(future, asyncio.Future) and not future.done():
                    future.set_exception(positions)
                    future.exception()  # nobody may be waiting for it
                continue
            entry.place = positions[index]
            if isinstance(future, asyncio.Future) and not future.done():
                future.set_result(positions[index])
        while len(self._entries) > _KEYS_MAX:
            self._entries.popitem(last=False)
