"""Records of the embedded log that were moved into packs: where they are, reading, checking them.

The packs of a partition hold its oldest offsets without a gap; its newest record is never moved.
So what the file says of a partition's end and count stays as it was, and a reader asks for a
block only below the first record that is in the file.
"""

import hashlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import apsw

from madlog.topics._embedded_packs import (
    Block,
    PackDamaged,
    records_of,
    resolved,
    unpack,
    unpacked,
    whole_pack,
)
from madlog.topics._embedded_storage import (
    CHAIN_START,
    FORMAT_NEWEST,
    PartitionRow,
    decode_headers,
    fetch,
    record_table,
)
from madlog.topics.cold import Pack
from madlog.topics.errors import LogUnavailable
from madlog.topics.log import Damage, Record
from madlog.topics.positions import TopicPartition

__all__ = (
    "ColdSum",
    "block_at",
    "chain_head",
    "check_packs",
    "cold_end",
    "first_cold_at",
    "first_in_block",
    "folder_of",
    "make_cold_tables",
    "packs_of",
    "read_block",
)

_sha256 = hashlib.sha256
_ALTERED = "the record does not match its checksum"
_COLUMNS = (
    "b.first, b.end, b.at, b.size, b.raw_size, b.crc, b.first_appended_at, b.last_appended_at, "
    "p.place, p.end"
)
_TABLES = """
CREATE TABLE packs(
    id INTEGER PRIMARY KEY, partition_id INTEGER NOT NULL, first INTEGER NOT NULL,
    end INTEGER NOT NULL, bytes INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    place TEXT NOT NULL, head BLOB NOT NULL, UNIQUE(partition_id, first));
CREATE TABLE pack_blocks(
    partition_id INTEGER, first INTEGER, end INTEGER NOT NULL, pack_id INTEGER NOT NULL,
    at INTEGER NOT NULL, size INTEGER NOT NULL, raw_size INTEGER NOT NULL, crc INTEGER NOT NULL,
    first_appended_at INTEGER NOT NULL, last_appended_at INTEGER NOT NULL,
    PRIMARY KEY(partition_id, first)) WITHOUT ROWID;
"""


def make_cold_tables(connection: apsw.Connection) -> None:
    """Make the tables that name packs, inside a transaction; from then on the format is newer."""
    if not _has_packs(connection):
        connection.execute(_TABLES)
        connection.execute("UPDATE meta SET value=? WHERE key='format'", (FORMAT_NEWEST,))
        connection.execute(f"PRAGMA user_version={FORMAT_NEWEST}")


def _has_packs(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name='pack_blocks'").get)


def folder_of(connection: apsw.Connection) -> Path:
    """Return the folder of the log that a connection is open to."""
    return Path(connection.filename).parent


def cold_end(connection: apsw.Connection, partition_id: int) -> int:
    """Return the offset after the last record of a partition that is in a pack, 0 without any."""
    if not _has_packs(connection):
        return 0
    return (
        connection.execute("SELECT max(end) FROM packs WHERE partition_id=?", (partition_id,)).get
        or 0
    )


def chain_head(connection: apsw.Connection, partition_id: int) -> bytes:
    """Return the chain's head after the last record of a partition that is in a pack."""
    if not _has_packs(connection):
        return CHAIN_START
    head: bytes | None = connection.execute(
        "SELECT head FROM packs WHERE partition_id=? ORDER BY first DESC LIMIT 1", (partition_id,)
    ).get
    return CHAIN_START if head is None else head


def packs_of(connection: apsw.Connection) -> list[Pack]:
    """Return every pack of a log."""
    if not _has_packs(connection):
        return []
    return [
        Pack(TopicPartition(topic, partition), *rest)
        for topic, partition, *rest in fetch(
            connection,
            "SELECT t.name, n.partition, p.first, p.end, p.bytes, p.size, p.sha256, p.place "
            "FROM packs p JOIN partitions n ON n.id = p.partition_id "
            "JOIN topics t ON t.id = n.topic_id ORDER BY t.name, n.partition, p.first",
        )
    ]


def block_at(connection: apsw.Connection, partition_id: int, offset: int) -> Block | None:
    """Return the block that holds an offset, None where the record is in the file or nowhere."""
    try:
        return _block_at(connection, partition_id, offset)
    except apsw.CorruptError:  # the record is then missed where it is looked for next, and named
        return None


def _block_at(connection: apsw.Connection, partition_id: int, offset: int) -> Block | None:
    try:
        warm = connection.execute(f"SELECT min(offset) FROM {record_table(partition_id)}").get
    except apsw.CorruptError:
        warm = None
    if (warm is not None and offset >= warm) or not _has_packs(connection):
        return None
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM pack_blocks b JOIN packs p ON p.id = b.pack_id "
        "WHERE b.partition_id=? AND b.first<=? ORDER BY b.first DESC LIMIT 1",
        (partition_id, offset),
    ).fetchone()
    return Block(*row) if row is not None and offset < row[1] else None


def read_block(
    folder: Path, tp: TopicPartition, block: Block, offset: int, stop: int, records_max: int
) -> tuple[list[Record], int, list[Damage]]:
    """Return the records of a block in [offset, stop), where to go on, and what is damaged.

    Raises LogUnavailable where the place of packs cannot be reached.
    """
    try:
        raw = unpacked(folder, block)
    except PackDamaged as error:
        stop = min(stop, block.pack_end if error.whole else block.end)
        return [], stop, [Damage(*tp, offset, stop, str(error))]
    stop = min(stop, block.end)
    records: list[Record] = []
    damages: list[Damage] = []
    expected = offset
    for one in records_of(raw):
        if one.offset < offset:
            continue
        if one.offset != expected or expected == stop or len(records) == records_max:
            break
        expected += 1
        if crc32(one.data) == one.crc:
            headers = decode_headers(one.headers)
            records.append(Record(*tp, one.offset, one.key, one.value, headers, one.appended_at))
        else:
            damages.append(Damage(*tp, one.offset, expected, _ALTERED))
    if expected < stop and len(records) < records_max:
        reason = f"the pack {resolved(folder, block.place)} does not hold it"
        damages.append(Damage(*tp, expected, stop, reason))
        expected = stop
    return records, expected, damages


def first_cold_at(connection: apsw.Connection, partition_id: int, time_us: int) -> Block | None:
    """Return the first block with a record appended at or after a time, None without any."""
    if not _has_packs(connection):
        return None
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM pack_blocks b JOIN packs p ON p.id = b.pack_id "
        "WHERE b.partition_id=? AND b.last_appended_at>=? ORDER BY b.first LIMIT 1",
        (partition_id, time_us),
    ).fetchone()
    return None if row is None else Block(*row)


def first_in_block(folder: Path, tp: TopicPartition, block: Block, time_us: int) -> int:
    """Return the first offset of a block appended at or after a time; raises LogUnavailable."""
    if block.first_appended_at >= time_us:
        return block.first
    try:
        raw = unpacked(folder, block)
    except PackDamaged as error:
        raise LogUnavailable(
            f"which record of {tp} was the first at that time cannot be told, since {error}: "
            "restore a backup"
        ) from error
    return next((one.offset for one in records_of(raw) if one.appended_at >= time_us), block.end)


class ColdSum(NamedTuple):
    """What a partition's packs come to: the chain's head, how many records, the next offset."""

    head: bytes
    records: int
    offset: int


def check_packs(
    connection: apsw.Connection, row: PartitionRow, misplaced: Callable[[bytes, int], Damage | None]
) -> Generator[tuple[Damage | None, int], None, ColdSum]:
    """Yield damages in a partition's packs, and None with how many records were looked at since.

    A pack that is not whole is named; what follows it is checked from the head it should lead to.
    """
    head, expected = CHAIN_START, row.low_water
    tp, folder = TopicPartition(row.topic, row.partition), folder_of(connection)
    for first, end, sha256, place, head_after in _packs_to_check(connection, row.id):
        if first != expected:
            yield Damage(*tp, expected, first, "no pack holds it, and one did"), 0
        where, found = resolved(folder, place), _Checked(tp, first, end, head)
        try:
            blocks = fetch(
                connection,
                f"SELECT {_COLUMNS} FROM pack_blocks b JOIN packs p ON p.id = b.pack_id "
                "WHERE b.partition_id=? AND b.first>=? AND b.first<? ORDER BY b.first",
                (row.id, first, end),
            )
        except apsw.CorruptError:
            found.name(first, end, f"the page that says where in {where} it is cannot be read")
        else:
            found.look(where, sha256, [Block(*one) for one in blocks], misplaced)
        if not found.damages and found.head != head_after:
            found.name(first, end, f"the pack {where} holds other records: their chain differs")
        for damage in found.damages:
            yield damage, 0
        yield None, end - first
        head, expected = head_after, end
    return ColdSum(head, expected - row.low_water, expected)


def _packs_to_check(connection: apsw.Connection, partition_id: int) -> list[tuple[Any, ...]]:
    """Return a partition's packs; none where that cannot be read: its records are then missed."""
    if not _has_packs(connection):
        return []
    columns = "first, end, sha256, place, head"
    try:
        return fetch(
            connection,
            f"SELECT {columns} FROM packs WHERE partition_id=? ORDER BY first",
            (partition_id,),
        )
    except apsw.CorruptError:
        return []


class _Checked:
    """One pack, as it is being checked."""

    def __init__(self, tp: TopicPartition, first: int, end: int, head: bytes) -> None:
        self.head = head
        self.damages: list[Damage] = []
        self._tp, self._first, self._end = tp, first, end

    def name(self, first: int, end: int, reason: str) -> None:
        """Take up a damage, with the one before it where that goes on."""
        if self.damages and self.damages[-1][3:5] == (first, reason):
            self.damages[-1] = self.damages[-1]._replace(offset_end=end)
        else:
            self.damages.append(Damage(*self._tp, first, end, reason))

    def look(
        self,
        where: str,
        sha256: str,
        blocks: list[Block],
        misplaced: Callable[[bytes, int], Damage | None],
    ) -> None:
        """Look at every record of a pack."""
        try:
            content = whole_pack(where)
        except (PackDamaged, LogUnavailable) as error:
            self.name(self._first, self._end, str(error))
            return
        for block in blocks:
            try:
                raw = unpack(where, content[block.at : block.at + block.size], block)
            except PackDamaged as error:
                self.name(block.first, block.end, str(error))
                continue
            expected = block.first
            for one in records_of(raw):
                if one.offset != expected or crc32(one.data) != one.crc:
                    break
                self.head = _sha256(self.head + one.data).digest()
                wrong = misplaced(one.key, one.offset)
                if wrong is not None:
                    self.damages.append(wrong)
                expected += 1
            if expected != block.end:
                self.name(expected, block.end, _ALTERED)
        if not self.damages and _sha256(content).hexdigest() != sha256:
            self.name(self._first, self._end, f"the pack {where} is not the one that was written")
