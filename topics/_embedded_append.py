"""Appending in a transaction: what one batch of requests does to the file of the embedded log."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

import apsw

from madlog.topics._embedded_storage import record_table, wire
from madlog.topics.clock import Clock
from madlog.topics.errors import Fenced, IdempotencyConflict, NotWritten, PositionConflict
from madlog.topics.log import Idempotency, Receipt
from madlog.topics.positions import Position

__all__ = ("Appender", "Fence", "PartitionState", "Request", "Row")

_sha256 = hashlib.sha256


class Row(NamedTuple):
    """A record made ready for its table."""

    topic_id: int
    partition_id: int
    key: bytes
    headers: bytes
    value: bytes
    idempotency: Idempotency | None


class Fence(NamedTuple):
    """A position that a member commits; it holds while the partition is the member's."""

    group: str
    member: str
    topic: str
    partition: int
    epoch: int
    offset: int


@dataclass(slots=True, eq=False)
class Request:
    """One call that waits for the writer: records to append, or `call` to run in the batch."""

    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    rows: list[Row] = field(default_factory=list)
    expected: dict[int, int] = field(default_factory=dict)
    fences: list[Fence] = field(default_factory=list)
    call: "Callable[[Appender], Any] | None" = None
    size: int = 0
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class PartitionState:
    """A partition's end as the writer holds it between commits, and the rows not inserted yet."""

    id: int
    topic: str
    partition: int
    next_offset: int
    count: int
    head: bytes
    last_appended_at: int
    rows: list[tuple[int, bytes, bytes, bytes, int, int]] = field(default_factory=list)


_Key = tuple[int, str, str]


class Appender:
    """Applies requests inside the writer's transaction.

    The ends of partitions are kept in memory between transactions; `forget` drops them after a
    rollback or when another process has written.
    """

    def __init__(self, connection: apsw.Connection, clock: Clock) -> None:
        self.connection = connection
        self.clock = clock
        self._partitions: dict[int, PartitionState] = {}
        self._dirty: dict[int, PartitionState] = {}
        self._new_keys: dict[_Key, tuple[bytes, int, int]] = {}

    def forget(self) -> None:
        """Drop what is held in memory: the file says otherwise, or will."""
        self._partitions.clear()
        self._dirty.clear()
        self._new_keys.clear()

    def apply(self, request: Request) -> None:
        """Do a request; where a LogError leaves it, nothing of it has been done."""
        if request.call is not None:
            self.flush()
            with self.connection:  # a savepoint: a failed call leaves the batch as it was
                request.result = request.call(self)
            return
        known = self._known(request.rows)
        repeats = sum(at is not None for at in known)
        # A repeat of the whole call is answered, not judged again: its end has moved since.
        if not request.rows or repeats < len(request.rows):
            self._check_expected(request.expected)
        self._check_fences(request.fences)
        for fence in request.fences:
            self.connection.execute(
                "INSERT OR REPLACE INTO committed VALUES(?, ?, ?, ?)",
                (fence.group, fence.topic, fence.partition, fence.offset),
            )
        request.result = self._append(request.rows, known)

    def _known(self, rows: list[Row]) -> list[tuple[int, int] | None]:
        """Return for each row the place of the record appended with its key before, or None."""
        known: list[tuple[int, int] | None] = []
        in_request: dict[_Key, bytes] = {}
        execute, new_keys = self.connection.execute, self._new_keys
        for row in rows:
            if row.idempotency is None:
                known.append(None)
                continue
            scope, name, content = row.idempotency
            key = (row.topic_id, scope, name)
            first = new_keys.get(key)
            if first is None:
                if key in in_request:
                    if in_request[key] != content:
                        raise _conflict(row.idempotency)
                    known.append((-1, -1))
                    continue
                first = execute(
                    "SELECT content, partition_id, offset FROM idempotency "
                    "WHERE topic_id=? AND scope=? AND key=?",
                    key,
                ).fetchone()
                if first is None:
                    in_request[key] = content
                    known.append(None)
                    continue
            if first[0] != content:
                raise _conflict(row.idempotency)
            known.append((first[1], first[2]))
        return known

    def _check_expected(self, expected: dict[int, int]) -> None:
        for partition_id, offset in expected.items():
            state = self.partition(partition_id)
            if state.next_offset != offset:
                raise PositionConflict(
                    f"{state.topic}/{state.partition} ends at @{state.next_offset}, not at "
                    f"@{offset}: read on from there and decide again"
                )

    def _check_fences(self, fences: list[Fence]) -> None:
        for fence in fences:
            owner = self.connection.execute(
                'SELECT member, epoch FROM group_partitions WHERE "group"=? AND topic=? '
                "AND partition=?",
                (fence.group, fence.topic, fence.partition),
            ).get
            if owner != (fence.member, fence.epoch):
                raise Fenced(
                    f"{fence.topic}/{fence.partition} is no longer assigned to member "
                    f"{fence.member} of group {fence.group}: drop the batch and poll again"
                )

    def partition(self, partition_id: int) -> PartitionState:
        """Return the end of a partition, with what this batch has appended so far."""
        state = self._partitions.get(partition_id)
        if state is None:
            row = self.connection.execute(
                "SELECT p.id, t.name, p.partition, p.next_offset, p.count, p.head, "
                "p.last_appended_at FROM partitions p JOIN topics t ON t.id = p.topic_id "
                "WHERE p.id=?",
                (partition_id,),
            ).fetchone()
            if row is None:
                raise NotWritten(
                    f"the file no longer says where partition {partition_id} ends: run "
                    "`madlog check`, then restore a backup"
                )
            state = self._partitions[partition_id] = PartitionState(*row)
        return state

    def _append(self, rows: list[Row], known: list[tuple[int, int] | None]) -> list[Receipt]:
        now = self.clock.now_us()
        receipts = []
        for row, at in zip(rows, known, strict=True):
            topic_id, partition_id, key, headers, value, idempotency = row
            if at is not None:
                receipts.append(self._repeated(row, at))
                continue
            state = self._partitions.get(partition_id) or self.partition(partition_id)
            offset = state.next_offset
            appended_at = max(now, state.last_appended_at)
            data = wire(offset, appended_at, key, headers, value)
            state.head = _sha256(state.head + data).digest()
            state.next_offset = offset + 1
            state.count += 1
            state.last_appended_at = appended_at
            state.rows.append((offset, key, value, headers, appended_at, crc32(data)))
            self._dirty[partition_id] = state
            if idempotency is not None:
                self._new_keys[topic_id, idempotency[0], idempotency[1]] = (
                    idempotency[2],
                    partition_id,
                    offset,
                )
            receipts.append(Receipt(Position(state.topic, state.partition, offset)))
        return receipts

    def _repeated(self, row: Row, at: tuple[int, int]) -> Receipt:
        partition_id, offset = at
        if partition_id < 0 and row.idempotency is not None:  # its first one is in this request
            scope, key, _ = row.idempotency
            _, partition_id, offset = self._new_keys[row.topic_id, scope, key]
        state = self.partition(partition_id)
        return Receipt(Position(state.topic, state.partition, offset), repeated=True)

    def flush(self) -> None:
        """Insert what the requests so far have appended."""
        connection = self.connection
        for state in self._dirty.values():
            connection.executemany(
                f"INSERT INTO {record_table(state.id)} VALUES(?, ?, ?, ?, ?, ?)", state.rows
            )
            connection.execute(
                "UPDATE partitions SET next_offset=?, count=?, head=?, last_appended_at=? "
                "WHERE id=?",
                (state.next_offset, state.count, state.head, state.last_appended_at, state.id),
            )
            state.rows = []
        if self._new_keys:
            connection.executemany(
                "INSERT INTO idempotency VALUES(?, ?, ?, ?, ?, ?)",
                [(*key, *value) for key, value in self._new_keys.items()],
            )
        self._dirty.clear()
        self._new_keys.clear()


def _conflict(idempotency: Idempotency) -> IdempotencyConflict:
    return IdempotencyConflict(
        f"the idempotency key {idempotency.key[:80]!r} of {idempotency.scope[:80]!r} was used with "
        "other content: use a new key for a new event"
    )
