"""What the conformance tests ask of a backend's test class, and how they look at a log.

The hooks look past the method under test: what is stored, a byte flipped, a write that fails.
A hook that a backend cannot give skips its tests, visibly.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest

from madlog.topics.catalog import CATALOG, Topic, inbox, state
from madlog.topics.log import (
    Damage,
    Headers,
    Idempotency,
    Log,
    Membership,
    NewRecord,
    OnDamage,
    Record,
    log_damage,
)
from madlog.topics.positions import Position, TopicPartition, Vector
from madlog.topics.testing.clocks import ManualClock

__all__ = (
    "EXPIRING",
    "FOR_EVER",
    "LAST_OF_KEY",
    "SINGLE",
    "TOPICS",
    "Harness",
    "Opened",
    "idempotency",
    "new",
    "read_all",
    "values",
)

FOR_EVER: Topic = CATALOG["mad.conversations"]
SINGLE: Topic = CATALOG["mad.models"]
EXPIRING: Topic = inbox("tester")
LAST_OF_KEY: Topic = state("tester")
TOPICS: tuple[Topic, ...] = (FOR_EVER, SINGLE, EXPIRING, LAST_OF_KEY)


def idempotency(key: str, value: bytes, scope: str = "tester") -> Idempotency:
    """Return a client's key for this content."""
    return Idempotency(scope, key, hashlib.sha256(value).digest())


def new(
    value: bytes | str,
    *,
    key: bytes | str = b"key",
    topic: Topic = FOR_EVER,
    once: str | None = None,
    headers: Headers = (),
    partition: int | None = None,
) -> NewRecord:
    """Return a record to append; `once` is its idempotency key."""
    value = value.encode() if isinstance(value, str) else value
    key = key.encode() if isinstance(key, str) else key
    client_key = idempotency(once, value) if once is not None else None
    return NewRecord(topic.name, key, value, headers, client_key, partition)


def values(records: Iterable[Record]) -> list[str]:
    """Return what the records say."""
    return [record.value.decode() for record in records]


async def read_all(
    log: Log,
    topic: Topic = FOR_EVER,
    *,
    start: Vector | None = None,
    end: Vector | None = None,
    records_max: int = 1000,
    on_damage: OnDamage = log_damage,
) -> list[Record]:
    """Return the records of a topic, by default all of them."""
    end = await log.end([topic.name]) if end is None else end
    lists = log.read(start or Vector(), end, records_max=records_max, on_damage=on_damage)
    return [record async for records in lists for record in records]


class Opened:
    """A log under test, its clock, and the way to open it again."""

    def __init__(self, harness: "Harness", log: Log, clock: ManualClock) -> None:
        self._harness = harness
        self.log = log
        self.clock = clock

    async def reopen(self) -> Log:
        """Close the log and open it again, as after the end of its process."""
        self.log = await self._harness.reopen(self.log)
        return self.log

    async def collect(self, start: Vector, count: int, damages: list[Damage]) -> list[Record]:
        """Return the first `count` records of a subscription."""
        found: list[Record] = []
        stream = self.log.subscribe(start, on_damage=damages.append)
        async with asyncio.timeout(self._harness.patience_s):
            while len(found) < count:
                found += await anext(stream)
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
        return found


class Harness:
    """Make, reopen and look into one backend's logs; a backend's test class fills this in."""

    record_bytes_max: ClassVar[int] = 1 << 20
    # Whether a partition that nothing was dropped from has every offset from 0 on.
    gapless: ClassVar[bool] = True
    patience_s: ClassVar[float] = 30.0
    # How long a poll that brings nothing must have waited before nothing is there.
    poll_s: ClassVar[float] = 0.01

    async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        """Return a new, empty log."""
        raise NotImplementedError("a backend's test class makes its log")

    async def reopen(self, log: Log) -> Log:
        """Close a log and return it opened again."""
        raise NotImplementedError("a backend's test class reopens its log")

    async def make_small_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        """Return a new log with buffers as small as they can be set."""
        return await self.make_log(tmp_path, clock)

    async def raw_records(self, log: Log, topic: str) -> list[Record]:
        """Return what is stored of a topic, read past the log's own methods."""
        self.cannot("show what is stored")

    async def damage(self, log: Log, position: Position) -> None:
        """Flip a byte of a stored record's value behind the log's back."""
        self.cannot("damage what is stored")

    async def expire(self, log: Log, tp: TopicPartition, before_offset: int) -> None:
        """Let retention drop the records of a partition below an offset."""
        self.cannot("drop records by retention on demand")

    def failing_writes(self, log: Log) -> AbstractContextManager[None]:
        """Let the storage fail to write within this context."""
        self.cannot("make a write fail on demand")

    async def kill(self, member: Membership) -> None:
        """Let a member die without a word; where it lives by its polls nothing is to be done."""

    async def pass_time(self, opened: Opened, seconds: float) -> None:
        """Let time pass, on whatever clock the backend lives by."""
        opened.clock.advance(seconds)

    async def moment(self, opened: Opened) -> int:
        """Return a time in µs that lies after all that was appended and before what will be."""
        return opened.clock.now_us()

    async def settle(self, members: Sequence[Membership]) -> None:
        """Poll until the members, all that live in their group, have shared out the partitions."""
        for _ in range(6):
            for member in members:
                await member.poll(timeout_s=0)

    async def drain(
        self, member: Membership, polls_empty: int = 2, records_max: int = 500
    ) -> list[Record]:
        """Poll until a few polls in a row bring nothing."""
        found: list[Record] = []
        empty = 0
        while empty < polls_empty:
            records = await member.poll(records_max=records_max, timeout_s=self.poll_s)
            empty = 0 if records else empty + 1
            found += records
        return found

    def cannot(self, what: str) -> NoReturn:
        """Skip the test, saying what this backend's test class cannot do."""
        pytest.skip(f"{type(self).__name__} cannot {what}: override the hook to run this test")

    @asynccontextmanager
    async def opened(self, tmp_path: Path, *, small: bool = False) -> AsyncIterator[Opened]:
        """Make a log with the topics of these tests, and close it at the end."""
        clock = ManualClock()
        make = self.make_small_log if small else self.make_log
        opened = Opened(self, await make(tmp_path, clock), clock)
        try:
            for topic in TOPICS:
                await opened.log.create_topic(topic)
            yield opened
        finally:
            await opened.log.close()

    async def stored(self, log: Log, topic: Topic = FOR_EVER) -> Sequence[tuple[Position, bytes]]:
        """Return the places and values that are stored, in order."""
        raw = await self.raw_records(log, topic.name)
        return sorted((record.position, record.value) for record in raw)
