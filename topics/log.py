"""The log: one interface, whose guarantees every backend keeps and a test of that number proves.

G1  An acknowledged append survives. Embedded: kill -9 and power loss (fsync before the
    acknowledgement, group commit). Kafka: process kill and the loss of a minority of replicas,
    not a power cut of all nodes at once, since Kafka acknowledges before it syncs.
G2  Offsets in a partition strictly increase in append order. Embedded: no gaps, except where a
    compacted topic dropped superseded records. Kafka: gaps are possible, nobody counts on n+1.
G3  Events of one key are read in the order in which they were appended.
G4  No call alters or removes a record of a topic kept for ever; elsewhere a read below the
    low-water mark raises PositionExpired, never a silent skip.
G5  A transaction appends its outputs and commits its consumed positions together or not at all;
    readers see committed records only.
G6  Readers and projections see a record appended twice with one idempotency key once. The key is
    scoped to (topic, scope). Embedded also returns the first position (ConditionalAppend).
G7  A consumer group gives each partition to one live member; when a member dies another goes on
    from the committed position in at most 10 s.
G8  A member that lost its partition can no longer commit: Fenced.
G9  read(start, end) is repeatable for topics kept for ever. `end` is exclusive and reached when
    the reader's position is at or past it.
G10 A damaged record is detected, named by position, and stops nothing else from being read.
G11 Every buffer is bounded; a full one slows the sender down, or fails loudly, and drops nothing.
G12 An append that was not made durable raises NotWritten (it is not there) or OutcomeUnknown (it
    may be: repeat it with the same key, safely). A failed fsync is never retried on one handle.

The log carries bytes; what the bytes say is madlog.topics.event_log's part.
"""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from madlog.topics.catalog import Topic
from madlog.topics.clock import Clock
from madlog.topics.positions import Position, TopicPartition, Vector

__all__ = (
    "SOURCE",
    "Backup",
    "Checkable",
    "Commit",
    "Compaction",
    "ConditionalAppend",
    "Damage",
    "GroupState",
    "Headers",
    "Idempotency",
    "Log",
    "Membership",
    "NewRecord",
    "OnDamage",
    "Recall",
    "Receipt",
    "Record",
    "log_damage",
)

Headers = tuple[tuple[str, bytes], ...]

# The header that names an output's input, PROCESSOR/TOPIC/PARTITION@OFFSET/INDEX: an engine makes
# its outputs in the order of their inputs, and by it readers drop what was made twice (G6).
SOURCE = "source"


class Idempotency(NamedTuple):
    """A client's key: `content` is the SHA-256 of what must be equal when the key comes again."""

    scope: str
    key: str
    content: bytes


class NewRecord(NamedTuple):
    """A record to append; its partition is murmur2(key) over the topic's partition count.

    `partition` overrides that for records whose place is given by another (changelogs, compacted
    state): never for a topic that is keyed by conversation.
    """

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()
    idempotency: Idempotency | None = None
    partition: int | None = None


class Record(NamedTuple):
    """A record as the log holds it; `appended_at`: µs since 1970, not falling in a partition."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Headers
    appended_at: int

    @property
    def position(self) -> Position:
        """The record's place."""
        return Position(self.topic, self.partition, self.offset)


class Receipt(NamedTuple):
    """Where an appended record stands; `repeated` when its idempotency key was there before."""

    position: Position
    repeated: bool = False


class Damage(NamedTuple):
    """Offsets [offset, offset_end) of a partition that cannot be read as they were written.

    `page` is the storage page where that is known; topic "" means damage outside any partition.
    """

    topic: str
    partition: int
    offset: int
    offset_end: int
    reason: str
    page: int | None = None

    def __str__(self) -> str:
        where = f"{self.topic}/{self.partition}@{self.offset}" if self.topic else "the log's file"
        if self.topic and self.offset_end > self.offset + 1:
            where += f" to @{self.offset_end - 1}"
        return f"{where}: {self.reason}" + (f" (page {self.page})" if self.page else "")


OnDamage = Callable[[Damage], None]


def log_damage(damage: Damage) -> None:
    """Name the damage in the program's log: what a reader does that was given nothing better."""
    logging.getLogger("madlog").error("damaged: %s", damage)


class Commit(NamedTuple):
    """Consumed positions to commit for a member of a group, in the transaction of its outputs."""

    membership: "Membership"
    positions: Vector


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group as the log knows it: committed positions, and live members by partition.

    `state` is the backend's own word for it (stable, empty, rebalancing), "" where it has none.
    """

    group: str
    topics: tuple[str, ...]
    committed: Vector
    members: dict[TopicPartition, str]
    state: str = ""


class Membership(Protocol):
    """One member of a consumer group."""

    @property
    def group(self) -> str:
        """The group's name."""

    @property
    def member(self) -> str:
        """This member's id, unique in the group."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member owned at its last poll."""

    async def poll(
        self, *, records_max: int = 500, timeout_s: float = 1.0, on_damage: OnDamage = log_damage
    ) -> list[Record]:
        """Return the next records of one owned partition, [] when none came within timeout_s.

        Goes on from the committed position when a partition is newly owned, and from the last
        record returned otherwise. Also renews the lease and takes up changes of assignment.
        """

    async def rewind(self, topic_partition: TopicPartition) -> None:
        """Let the next poll of this partition go on from its committed position."""

    async def leave(self) -> None:
        """Give up all partitions at once."""


class Log(Protocol):
    """What every backend does; abilities beyond it are the small Protocols below."""

    @property
    def url(self) -> str:
        """The address that opens this log again."""

    @property
    def clock(self) -> Clock:
        """Where this log gets its times from."""

    async def create_topic(self, topic: Topic) -> None:
        """Make a topic; nothing happens if it is there. Raises TopicMismatch, UnknownTopic."""

    async def topics(self) -> dict[str, int]:
        """Return the partition count of each topic of this log."""

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        """Append records, durable when this returns; one receipt each, in their order.

        Raises NotWritten, OutcomeUnknown, IdempotencyConflict, RecordTooLarge, UnknownTopic.
        """

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        """Append records and commit consumed positions, all or nothing (G5, G8: Fenced)."""

    async def start(self, topics: Collection[str]) -> Vector:
        """Return the low-water marks: the oldest offset that can be read of each partition."""

    async def end(self, topics: Collection[str]) -> Vector:
        """Return the offset after the last readable record of each partition."""

    async def at_time(self, topics: Collection[str], time_us: int) -> Vector:
        """Return for each partition the first offset appended at or after a time, else its end."""

    def read(
        self,
        start: Vector,
        end: Vector,
        *,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[Record]]:
        """Yield the records from start up to end (exclusive), each list of one partition.

        Partitions in `end` that `start` lacks are read from their low-water mark. Order between
        partitions is not promised. Raises PositionExpired, UnknownTopic.
        """

    def subscribe(
        self, start: Vector, *, records_max: int = 1000, on_damage: OnDamage = log_damage
    ) -> AsyncIterator[list[Record]]:
        """Yield the records of the partitions in `start` from there on: the past, then live."""

    async def join(self, group: str, topics: Sequence[str]) -> Membership:
        """Become a member of a consumer group that reads these topics."""

    async def committed(self, group: str) -> Vector:
        """Return the positions that the group has committed."""

    async def groups(self) -> list[GroupState]:
        """Return every consumer group."""

    async def reset(self, group: str, positions: Vector) -> None:
        """Set a group's committed positions; raises GroupBusy while members live."""

    async def close(self) -> None:
        """Finish what was accepted and let go of the log."""


@runtime_checkable
class ConditionalAppend(Protocol):
    """Ability: append at an expected end, and be told the first position of a repeated key."""

    async def append_at(self, records: Sequence[NewRecord], expected: Vector) -> list[Receipt]:
        """Append all records if every partition in `expected` ends there, else PositionConflict."""


@runtime_checkable
class Compaction(Protocol):
    """Ability: drop superseded records of a compacted topic now."""

    async def compact(self, topic: str) -> int:
        """Keep each key's last record of every partition; return how many were dropped."""


@runtime_checkable
class Checkable(Protocol):
    """Ability: look for damage in everything that is stored."""

    def check(self, progress: Callable[[int], None] | None = None) -> AsyncIterator[Damage]:
        """Yield every damage found; `progress` is told how many records were looked at."""


@runtime_checkable
class Recall(Protocol):
    """Ability of a log that remembers keys for a time: learn all that it holds."""

    async def recall(self, progress: Callable[[int], None] | None = None) -> None:
        """Learn the idempotency keys of all records; `progress` is told the records so far."""


@runtime_checkable
class Backup(Protocol):
    """Ability: copy the log while it is in use."""

    async def backup(
        self, folder: Path, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write a consistent copy into an empty or new folder, check it, then give it its name."""
