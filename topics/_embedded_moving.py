"""Moving the oldest records of the embedded log into packs, and giving their space back.

A pack is written, made durable, read back and compared with the rows; then one transaction names
it and removes them. A crash before leaves a file that nobody reads, and one after it nothing to
do. What nobody reads is swept under the same lock in which packs get named, so no pack that is
about to be named is taken away.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import error as StructError
from typing import Any, NamedTuple
from zlib import crc32

import apsw

from madlog.topics._embedded_append import Appender
from madlog.topics._embedded_cold import chain_head, cold_end, make_cold_tables, packs_of
from madlog.topics._embedded_file import OpenFile
from madlog.topics._embedded_packs import Block, PackFolder, pack_block, records_of, unpack
from madlog.topics._embedded_reading import PartitionPlace
from madlog.topics._embedded_storage import FILE_NAME, record_table, wire
from madlog.topics.catalog import topic as catalog_topic
from madlog.topics.cold import Pack
from madlog.topics.errors import LogUnavailable, UnsupportedByBackend
from madlog.topics.log import Damage, OnDamage
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("Mover", "give_back")

_sha256 = hashlib.sha256
_BLOCK_BYTES = 256 << 10
# What one transaction removes at most: appends wait for it.
_PACK_BYTES = 16 << 20
_PACK_RECORDS = 50_000
_SWEPT_AFTER_US = 3_600_000_000
_COLUMNS = "offset, key, value, headers, appended_at, crc"


class Gathered(NamedTuple):
    """Records of a partition as the content of a pack; `damage` is where they had to end."""

    first: int
    end: int
    held: int
    raw_size: int
    content: bytes
    blocks: list[Block]
    head: bytes
    damage: Damage | None

    @property
    def sha256(self) -> str:
        """The SHA-256 of the pack, in hex."""
        return _sha256(self.content).hexdigest()


class _Filling:
    """A pack that is being filled, block by block."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.blocks: list[Block] = []
        self.pieces: list[bytes] = []
        self.bytes = self.records = self.raw_size = self._size = self._waiting = 0
        self._rows: list[tuple[int, bytes, int]] = []
        self._place: list[tuple[int, int]] = []

    def add(self, row: tuple[Any, ...], data: bytes) -> bool:
        """Take up a record; tells whether the pack may have more."""
        offset, key, value, headers, appended_at, crc = row
        self._rows.append((len(value), data, crc))
        self._place.append((offset, appended_at))
        self.head = _sha256(self.head + data).digest()
        self.bytes += len(key) + len(value) + len(headers)
        self.records += 1
        self._waiting += len(data)
        if self._waiting >= _BLOCK_BYTES:
            self.end_block()
        return self.raw_size < _PACK_BYTES and self.records < _PACK_RECORDS

    def end_block(self) -> None:
        """Compress what waits."""
        if not self._rows:
            return
        packed, raw_size = pack_block(self._rows)
        (first, first_at), (last, last_at) = self._place[0], self._place[-1]
        at = self._size
        self.blocks.append(
            Block(first, last + 1, at, len(packed), raw_size, crc32(packed), first_at, last_at)
        )
        self.pieces.append(packed)
        self._size += len(packed)
        self.raw_size += raw_size
        self._rows, self._place, self._waiting = [], [], 0


def gather(connection: apsw.Connection, place: PartitionPlace, first: int, to: int) -> Gathered:
    """Return what is to be moved next from `first` on, below `to`, up to where a pack is full.

    It begins after what is in packs already, and ends before the newest record, which stays.
    """
    with _one_moment(connection):
        first = max(first, cold_end(connection, place.id))
        filling, expected, reason = _Filling(chain_head(connection, place.id)), first, ""
        try:
            last = connection.execute(f"SELECT max(offset) FROM {record_table(place.id)}").get
            for row in _rows(connection, place, first, min(to, last or 0)):
                offset, key, value, headers, appended_at, crc = row
                if offset != expected:
                    reason = "there is no record, and there was one"
                    break
                data = wire(offset, appended_at, key, headers, value)
                if crc32(data) != crc:
                    reason = "the record does not match its checksum"
                    break
                expected += 1
                if not filling.add(row, data):
                    break
        except apsw.CorruptError:
            reason = "the page that holds it cannot be read"
        except (TypeError, AttributeError, StructError):  # a type byte was hit
            reason = "the record does not match its checksum"
    filling.end_block()
    damage = Damage(place.topic, place.partition, expected, expected + 1, reason)
    return Gathered(
        first,
        expected,
        filling.bytes,
        filling.raw_size,
        b"".join(filling.pieces),
        filling.blocks,
        filling.head,
        damage if reason else None,
    )


@contextmanager
def _one_moment(connection: apsw.Connection) -> Iterator[None]:
    """Let all reads within see the same state of the log: another process may be moving too."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _rows(
    connection: apsw.Connection, place: PartitionPlace, first: int, end: int
) -> Iterator[tuple[Any, ...]]:
    yield from connection.execute(
        f"SELECT {_COLUMNS} FROM {record_table(place.id)} WHERE offset>=? AND offset<? "
        "ORDER BY offset",
        (first, end),
    )


def same_as_stored(
    connection: apsw.Connection, place: PartitionPlace, one: Gathered, content: bytes
) -> bool:
    """Tell whether a pack as it was read back holds the rows of the file, byte for byte."""
    rows = _rows(connection, place, one.first, one.end)
    compared = 0
    for block in one.blocks:
        raw = unpack(place.topic, content[block.at : block.at + block.size], block)
        for record in records_of(raw):
            held = (record.offset, record.key, record.value, record.headers)
            if next(rows, None) != (*held, record.appended_at, record.crc):
                return False
            compared += 1
    return compared == one.end - one.first and next(rows, None) is None


def name_pack(
    appender: Appender,
    place: PartitionPlace,
    one: Gathered,
    pack: Pack,
    there: Callable[[], bool],
) -> bool:
    """Name a pack and remove its rows, in the writer's transaction; raises LogUnavailable.

    Tells whether it did: another process may have moved these records first.
    """
    connection = appender.connection
    make_cold_tables(connection)
    if cold_end(connection, place.id) != one.first:
        return False
    if not there():
        raise LogUnavailable(
            f"{pack.place} is gone since it was written: nothing of it was moved; see what "
            "removes files there, then try again"
        )
    number = connection.execute(
        "INSERT INTO packs(partition_id, first, end, bytes, size, sha256, place, head) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (place.id, one.first, one.end, one.held, pack.size, pack.sha256, pack.place, one.head),
    ).get
    connection.executemany(
        "INSERT INTO pack_blocks VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(place.id, *block[:2], number, *block[2:8]) for block in one.blocks],
    )
    connection.execute(
        f"DELETE FROM {record_table(place.id)} WHERE offset>=? AND offset<?", (one.first, one.end)
    )
    if connection.changes() != one.end - one.first:
        raise LogUnavailable(
            f"the records of {pack.tp} changed while they were moved: nothing of them was; run "
            "`madlog check`"
        )
    return True


class Mover:
    """Moves records of an open log into packs below one folder or URL."""

    def __init__(self, file: OpenFile, into: str, bytes_min: int, on_damage: OnDamage) -> None:
        self._file = file
        self._folder = PackFolder(into, file.random)
        self._bytes_min = bytes_min
        self._on_damage = on_damage

    async def move(self, upto: Vector, *, dry_run: bool) -> AsyncIterator[Pack]:
        """Move what is below `upto`, a pack at a time; raises UnsupportedByBackend."""
        for tp in upto:
            if catalog_topic(tp.topic).keeps != "for ever":
                raise UnsupportedByBackend(
                    f"{tp.topic} is kept {catalog_topic(tp.topic).keeps}, so nothing of it is "
                    "moved: only topics kept for ever are"
                )
        await self._file.check_topics({tp.topic for tp in upto})
        if not dry_run:
            await self.sweep()
        for tp in sorted(upto):
            async for pack in self._move_partition(tp, upto[tp], dry_run):
                yield pack

    async def _move_partition(self, tp: TopicPartition, to: int, dry: bool) -> AsyncIterator[Pack]:
        run, place = self._file.readers.run, self._file.place(tp)
        first = 0
        while True:
            one = await run(gather, place, first, to)
            if one.damage is not None:
                self._on_damage(one.damage)
            if one.end == one.first or one.raw_size < self._bytes_min:
                return
            pack = Pack(tp, one.first, one.end, one.held, len(one.content), one.sha256, "")
            if dry:
                first = one.end
                yield pack
            elif (moved := await self._move(place, one, pack)) is not None:
                yield moved
            if one.damage is not None:
                return

    async def _move(self, place: PartitionPlace, one: Gathered, pack: Pack) -> Pack | None:
        file, tp = self._file, pack.tp
        name = f"{tp.topic}/{tp.partition}/{one.first}-{one.end}.{pack.sha256[:16]}.pack"

        def written(connection: apsw.Connection) -> bool:
            self._folder.write(name, one.content)
            content = self._folder.read(name)
            with _one_moment(connection):
                if cold_end(connection, place.id) > one.first:
                    return False  # another process was faster
                whole = _sha256(content).hexdigest() == pack.sha256
                if not whole or not same_as_stored(connection, place, one, content):
                    raise self._folder.gone(name, "other bytes came back")
            return True

        if not await file.readers.run(written):
            return None
        pack = pack._replace(place=self._named(name))
        moved = await file.writer.call(
            lambda appender: name_pack(
                appender, place, one, pack, lambda: self._folder.size(name) == pack.size
            )
        )
        return pack if moved else None

    def _named(self, name: str) -> str:
        """Return a pack's place: relative where it is in the log's folder, which may move."""
        place, folder = self._folder.place(name), self._file.opening.path.parent
        if "://" in place or not Path(place).is_relative_to(folder):
            return place
        return str(Path(place).relative_to(folder))

    async def sweep(self) -> None:
        """Remove what a crash left, an hour after it was written.

        Whole packs only below the log's own folder: elsewhere a copy of this log, which has moved
        other ranges than this one, may keep its packs too.
        """
        file = self._file
        before_us = file.clock.now_us() - _SWEPT_AFTER_US
        own = self._folder.is_below(file.opening.path.parent)
        old = await file.readers.run(lambda _: self._folder.older_than(before_us, whole=own))
        if not old:
            return

        def remove(appender: Appender) -> None:
            # By their ends: a folder may be named in more than one way.
            named = {_end_of(pack.place) for pack in packs_of(appender.connection)}
            for name in old:
                if _end_of(name) not in named:
                    self._folder.remove(name)

        await file.writer.call(remove)


def _end_of(place: str) -> tuple[str, ...]:
    """Return TOPIC, PARTITION and the file's own name."""
    return tuple(place.rsplit("/", 3)[-3:])


def give_back(folder: Path, least: float = 0.2) -> int | None:
    """Give the free pages of a closed log's file back to the disk, where `least` of it is free.

    Returns by how many bytes the file shrank, None where another process has the log open.
    Raises LogUnavailable.
    """
    path = folder / FILE_NAME
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # Also keeps others out until it is done. Nobody has the file open when this succeeds.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL").fetchall()
        connection.execute("BEGIN IMMEDIATE; COMMIT")
        pages, free = connection.pragma("page_count"), connection.pragma("freelist_count")
        if free < pages * least:
            return 0
        connection.execute("VACUUM")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return int((pages - connection.pragma("page_count")) * connection.pragma("page_size"))
    except apsw.BusyError:
        return None
    except apsw.Error as error:
        raise LogUnavailable(
            f"{path} could not be made smaller ({error}): it is as it was, and its free pages are "
            "used by what is appended next; make room for a second copy of it, then try again"
        ) from error
    finally:
        connection.close()
