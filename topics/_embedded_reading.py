"""Reading the embedded log: short read transactions, every record verified, damage passed over."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import apsw

from madlog.topics._embedded_cold import (
    block_at,
    cold_end,
    first_cold_at,
    first_in_block,
    folder_of,
    read_block,
)
from madlog.topics._embedded_storage import (
    Opening,
    connect,
    decode_headers,
    record_table,
    wire,
)
from madlog.topics.errors import LogUnavailable, PositionExpired
from madlog.topics.log import Damage, Record
from madlog.topics.positions import TopicPartition

__all__ = ("Batch", "PartitionPlace", "Readers", "first_offset_at", "read_batch")

_T = TypeVar("_T")
_THREADS = 2
_BYTES_MAX = 8 << 20
_ROWS = 64
# How many offsets one transaction looks up one by one where a page is damaged.
_SEEKS_MAX = 2000
_UNREADABLE = "the page that holds it cannot be read"
_COLUMNS = "offset, key, value, headers, appended_at, crc"

_Row = tuple[int, Any, Any, Any, Any, Any]


class PartitionPlace(NamedTuple):
    """Which table holds which partition, and whether its offsets may have gaps."""

    id: int
    topic: str
    partition: int
    compacted: bool


class Batch(NamedTuple):
    """What one short read transaction found, and where the next one goes on."""

    records: list[Record]
    next_offset: int
    damages: list[Damage]
    # The partition's end when the batch was read.
    end: int


class Readers:
    """A few connections for reading, each used by one thread at a time."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="madlog-reader")
        self._lock = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._generation = 0
        self._closed = False

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call `function` with a connection and `arguments` in a thread."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise LogUnavailable(f"the log {self._opening.path.parent} is closed: open it again")
        try:
            return await loop.run_in_executor(self._executor, self._call, function, arguments)
        except apsw.CorruptError as error:
            raise LogUnavailable(
                f"a page of {self._opening.path} that every reader needs is damaged: run "
                "`madlog check`, then restore a backup"
            ) from error
        except apsw.Error as error:
            raise LogUnavailable(
                f"{self._opening.path} cannot be read ({error}): check the disk, then try again"
            ) from error

    def drop(self) -> None:
        """Close all connections: they were opened before the file's handle failed."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            _close(connection)

    def close(self) -> None:
        """Finish what is being read and close all connections."""
        self._closed = True
        self._executor.shutdown(wait=True)
        self.drop()

    def _call(self, function: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
        with self._lock:
            generation = self._generation
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = connect(self._opening)
        try:
            return function(connection, *arguments)
        finally:
            with self._lock:
                keep = generation == self._generation
                if keep:
                    self._idle.append(connection)
            if not keep:
                _close(connection)


def _close(connection: apsw.Connection) -> None:
    with contextlib.suppress(Exception):
        connection.close(True)


def read_batch(
    connection: apsw.Connection,
    place: PartitionPlace,
    offset: int | None,
    end: int,
    records_max: int,
) -> Batch:
    """Read records of a partition from `offset` (None: its low-water mark) up to `end`."""
    connection.execute("BEGIN")
    try:
        low_water, next_offset = _bounds(connection, place, end)
        if offset is None:
            offset = low_water
        elif offset < low_water:
            raise PositionExpired(
                f"{place.topic}/{place.partition}@{offset} is no longer kept: start from "
                f"@{low_water}, the oldest record there is"
            )
        stop = min(end, next_offset)
        if offset >= stop:
            return Batch([], offset, [], next_offset)
        block = None if place.compacted else block_at(connection, place.id, offset)
        if block is None:
            return _warm_batch(connection, place, offset, stop, records_max)._replace(
                end=next_offset
            )
    finally:
        if connection.in_transaction:  # some failures have ended it by themselves
            connection.execute("ROLLBACK")
    # Outside the transaction, which a slow store would keep open: a pack never changes.
    tp, folder = TopicPartition(place.topic, place.partition), folder_of(connection)
    return Batch(*read_block(folder, tp, block, offset, stop, records_max), next_offset)


def _warm_batch(
    connection: apsw.Connection, place: PartitionPlace, offset: int, stop: int, records_max: int
) -> Batch:
    try:
        rows, full = _rows(connection, place.id, offset, stop, records_max)
    except apsw.CorruptError:
        stop = min(stop, offset + max(1, min(_SEEKS_MAX, records_max)))
        return Batch(*_seek_each(connection, place, offset, stop), stop)
    return Batch(*_verified(connection, place, rows, offset, stop, full), stop)


def _bounds(connection: apsw.Connection, place: PartitionPlace, end: int) -> tuple[int, int]:
    try:
        row = connection.execute(
            "SELECT low_water, next_offset FROM partitions WHERE id=?", (place.id,)
        ).fetchone()
        if row is not None:
            return row[0], row[1]
    except apsw.CorruptError:
        pass
    # The page that says where the partition ends is damaged: its records still do.
    try:
        last = connection.execute(f"SELECT max(offset) FROM {record_table(place.id)}").get
    except apsw.CorruptError:
        return 0, end
    return 0, 0 if last is None else last + 1


def _rows(
    connection: apsw.Connection, partition_id: int, offset: int, stop: int, records_max: int
) -> tuple[list[_Row], bool]:
    """Return the rows, and whether there may be more of them before `stop`."""
    cursor = connection.execute(
        f"SELECT {_COLUMNS} FROM {record_table(partition_id)} "
        "WHERE offset>=? AND offset<? ORDER BY offset LIMIT ?",
        (offset, stop, records_max),
    )
    rows: list[_Row] = []
    size = 0
    while chunk := list(islice(cursor, _ROWS)):
        rows += chunk
        if len(rows) >= records_max:
            return rows, True
        size += sum([len(row[2] or b"") for row in chunk])
        if size > _BYTES_MAX:
            cursor.close()
            return rows, True
    return rows, False


def _verified(
    connection: apsw.Connection,
    place: PartitionPlace,
    rows: list[_Row],
    offset: int,
    stop: int,
    full: bool,
) -> tuple[list[Record], int, list[Damage]]:
    topic, partition = place.topic, place.partition
    records: list[Record] = []
    damages: list[Damage] = []
    expected = offset
    for at, key, value, headers, appended_at, crc in rows:
        if at != expected and not place.compacted:
            found, _, missing = _seek_each(connection, place, expected, at)
            records += found
            damages += missing
        expected = at + 1
        try:
            good = crc32(wire(at, appended_at, key, headers, value)) == crc
        except Exception:  # a type byte was hit, so that a column is no longer what it was
            good = False
        if good:
            records.append(
                Record(topic, partition, at, key, value, decode_headers(headers), appended_at)
            )
        else:
            damages.append(_damaged(place, at))
    if full:
        return records, expected, damages
    if expected < stop and not place.compacted:
        last = min(stop, expected + _SEEKS_MAX)
        found, stop, missing = _seek_each(connection, place, expected, last)
        records += found
        damages += missing
    return records, stop, damages


def _damaged(place: PartitionPlace, offset: int) -> Damage:
    reason = "the record does not match its checksum"
    return Damage(place.topic, place.partition, offset, offset + 1, reason)


def _seek_each(
    connection: apsw.Connection, place: PartitionPlace, offset: int, stop: int
) -> tuple[list[Record], int, list[Damage]]:
    """Look up every offset by itself, so that a damaged page costs only what it holds."""
    records: list[Record] = []
    damages: list[Damage] = []
    statement = f"SELECT {_COLUMNS} FROM {record_table(place.id)} WHERE offset=?"
    for at in range(offset, stop):
        try:
            row = connection.execute(statement, (at,)).fetchone()
        except apsw.CorruptError:
            _extend(damages, place, at, _UNREADABLE)
            continue
        if row is None:
            if not place.compacted:
                _extend(damages, place, at, "there is no record, and there was one")
            continue
        try:
            good = crc32(wire(at, row[4], row[1], row[3], row[2])) == row[5]
        except Exception:
            good = False
        if good:
            records.append(
                Record(
                    place.topic, place.partition, at, row[1], row[2], decode_headers(row[3]), row[4]
                )
            )
        else:
            damages.append(_damaged(place, at))
    return records, stop, damages


def _extend(damages: list[Damage], place: PartitionPlace, offset: int, reason: str) -> None:
    if damages and damages[-1].offset_end == offset and damages[-1].reason == reason:
        damages[-1] = damages[-1]._replace(offset_end=offset + 1)
    else:
        damages.append(Damage(place.topic, place.partition, offset, offset + 1, reason))


def first_offset_at(connection: apsw.Connection, place: PartitionPlace, time_us: int) -> int:
    """Return the first offset appended at or after a time, else the partition's end."""
    connection.execute("BEGIN")
    try:
        low, high = _bounds(connection, place, 0)
        end = high
        block = None if place.compacted else first_cold_at(connection, place.id, time_us)
        low = max(low, cold_end(connection, place.id))
        while block is None and low < high:  # append times never fall in a partition
            middle = (low + high) // 2
            row = connection.execute(
                f"SELECT offset, appended_at FROM {record_table(place.id)} "
                "WHERE offset>=? ORDER BY offset LIMIT 1",
                (middle,),
            ).fetchone()
            if row is None or row[0] >= high or row[1] >= time_us:
                high = middle
            else:
                low = row[0] + 1
    finally:
        if connection.in_transaction:  # some failures have ended it by themselves
            connection.execute("ROLLBACK")
    if block is None:
        return min(low, end)
    tp = TopicPartition(place.topic, place.partition)
    return first_in_block(folder_of(connection), tp, block, time_us)
