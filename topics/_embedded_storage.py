"""The file of the embedded log: its tables, how it is opened, what a record looks like in it.

One SQLite file, WAL, synchronous=FULL. Each partition has a table r<ID> of its own, so that a
damaged page touches one partition; the table's text names the partition, so that the records can
be found again when the page of `topics` itself is damaged.
"""

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import apsw

from madlog.topics.catalog import partition_for
from madlog.topics.errors import LogUnavailable, UnknownTopic
from madlog.topics.log import Headers

__all__ = (
    "APPLICATION_ID",
    "BUSY_MS",
    "CHAIN_START",
    "FILE_NAME",
    "FORMAT_NEWEST",
    "FORMAT_VERSION",
    "SQLITE_OLDEST",
    "WIRE",
    "Opening",
    "PartitionRow",
    "StoredTopic",
    "connect",
    "create_partition_sql",
    "create_tables",
    "decode_headers",
    "encode_headers",
    "fetch",
    "network_file_system",
    "open_file",
    "partition_of_key",
    "partition_rows",
    "record_table",
    "stored_topics",
    "sync_folder",
    "wire",
)

FILE_NAME = "log.sqlite"
APPLICATION_ID = 0x4D41444C  # "MADL", in the file's header
# A log has format 2 once records were moved into packs: who knows none would miss them.
FORMAT_VERSION = 1
FORMAT_NEWEST = 2
BUSY_MS = 10_000
CHAIN_START = bytes(32)
# Older ones lose commits in a race between a WAL reset and a checkpoint of another process.
SQLITE_OLDEST = 3_051_003
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs", "davfs")
_IN_TABLE = re.compile(r"/\* ([A-Za-z0-9._-]+)/([0-9]+) of ([0-9]+)( compacted)? \*/")

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE topics(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, partitions INTEGER NOT NULL,
    compacted INTEGER NOT NULL);
CREATE TABLE partitions(
    id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL, low_water INTEGER NOT NULL, count INTEGER NOT NULL,
    head BLOB NOT NULL, last_appended_at INTEGER NOT NULL);
CREATE TABLE idempotency(
    topic_id INTEGER, scope TEXT, key TEXT, content BLOB NOT NULL, partition_id INTEGER NOT NULL,
    offset INTEGER NOT NULL, PRIMARY KEY(topic_id, scope, key)) WITHOUT ROWID;
CREATE TABLE group_topics(
    "group" TEXT, topic TEXT, PRIMARY KEY("group", topic)) WITHOUT ROWID;
CREATE TABLE group_members(
    "group" TEXT, member TEXT, topics TEXT NOT NULL, lease_until_ns INTEGER NOT NULL,
    boot_id TEXT NOT NULL, pid INTEGER NOT NULL, PRIMARY KEY("group", member)) WITHOUT ROWID;
CREATE TABLE group_partitions(
    "group" TEXT, topic TEXT, partition INTEGER, member TEXT, epoch INTEGER NOT NULL,
    PRIMARY KEY("group", topic, partition)) WITHOUT ROWID;
CREATE TABLE committed(
    "group" TEXT, topic TEXT, partition INTEGER, offset INTEGER NOT NULL,
    PRIMARY KEY("group", topic, partition)) WITHOUT ROWID;
"""

WIRE = Struct("<qqII")
_HEADER = Struct("<HI")


class Opening(NamedTuple):
    """What is needed to open another connection to the same file."""

    path: Path
    vfs: str | None = None
    read_only: bool = False
    # No other process can write where the folder is read-only and no WAL is left.
    immutable: bool = False
    busy_ms: int = BUSY_MS


class StoredTopic(NamedTuple):
    """A topic as the file holds it; `ids` are those of its partitions, in their order."""

    id: int
    name: str
    partitions: int
    compacted: bool
    ids: tuple[int, ...]


class PartitionRow(NamedTuple):
    """What the file says about one partition."""

    id: int
    topic: str
    partition: int
    next_offset: int
    low_water: int
    records: int
    head: bytes
    last_appended_at: int
    compacted: bool


def fetch(
    connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Return all rows of a query; a column has the type that its table gives it."""
    return connection.execute(sql, tuple(bindings)).fetchall()


def record_table(partition_id: int) -> str:
    """Return the name of the table that holds a partition's records."""
    return f"r{partition_id}"


def create_partition_sql(
    partition_id: int, topic: str, partition: int, of: int, compacted: bool
) -> str:
    """Return the statement that makes a partition's table; its comment names the partition."""
    mark = f"/* {topic}/{partition} of {of}{' compacted' if compacted else ''} */"
    return (
        f"CREATE TABLE {record_table(partition_id)}({mark} offset INTEGER PRIMARY KEY, "
        "key BLOB, value BLOB, headers BLOB, appended_at INTEGER, crc INTEGER)"
    )


def wire(offset: int, appended_at: int, key: bytes, headers: bytes, value: bytes) -> bytes:
    """Return the bytes that a record's checksum and its partition's chain are taken over."""
    head = WIRE.pack(offset, appended_at, len(key), len(headers))
    return b"".join((head, key, headers, value))


@lru_cache(maxsize=8192)
def encode_headers(headers: Headers) -> bytes:
    """Return headers as bytes: for each the sizes of its name and value, then both."""
    pieces: list[bytes] = []
    for name, value in headers:
        encoded = name.encode()
        pieces += (_HEADER.pack(len(encoded), len(value)), encoded, value)
    return b"".join(pieces)


@lru_cache(maxsize=8192)
def decode_headers(data: bytes) -> Headers:
    """Return the headers that encode_headers wrote."""
    headers: list[tuple[str, bytes]] = []
    at, size = 0, len(data)
    while at < size:
        name_size, value_size = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        name = data[at : at + name_size].decode()
        at += name_size
        headers.append((name, data[at : at + value_size]))
        at += value_size
    return tuple(headers)


# Few keys are appended to at one time, and murmur2 in Python costs as much as the insert.
partition_of_key = lru_cache(maxsize=65_536)(partition_for)


def network_file_system(path: Path, mounts: str) -> str | None:
    """Return the type of the network file system that `path` is on, from /proc/mounts' text."""
    best, found = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mounted = Path(fields[1].replace("\\040", " "))
        if len(mounted.parts) >= best and path.is_relative_to(mounted):
            best, found = len(mounted.parts), fields[2]
    return found if found.startswith(_NETWORK) else None


def sync_folder(folder: Path) -> None:
    """Make a folder's list of files durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(opening: Opening) -> apsw.Connection:
    """Open one more connection to a log's file, as every connection to it must be set."""
    flags = apsw.SQLITE_OPEN_READONLY if opening.read_only else apsw.SQLITE_OPEN_READWRITE
    name = str(opening.path)
    if opening.immutable:
        name, flags = f"{opening.path.as_uri()}?immutable=1", flags | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(name, flags=flags, vfs=opening.vfs)
    connection.set_busy_timeout(opening.busy_ms)
    # Only the writer writes, also when connections are closed: it knows when a handle has failed.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    # 16 MiB: what a scan holds of the file at most, so that memory stays bounded.
    connection.execute("PRAGMA synchronous=FULL; PRAGMA cache_size=-16384")
    connection.execute("PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY").fetchall()
    return connection


def open_file(
    folder: Path, *, create: bool, read_only: bool, vfs: str | None, busy_ms: int = BUSY_MS
) -> Opening:
    """Check that `folder` holds a log that this program can use, or make one there."""
    if apsw.SQLITE_VERSION_NUMBER < SQLITE_OLDEST:
        raise LogUnavailable(
            f"SQLite {apsw.sqlite_lib_version()} can lose commits: install apsw 3.51.3 or newer"
        )
    folder = folder.expanduser().absolute()
    path = folder / FILE_NAME
    if folder.exists() and not folder.is_dir():
        raise LogUnavailable(f"{folder} is a file, not a folder: name the folder of a log")
    if not path.exists():
        if not create or read_only:
            raise LogUnavailable(
                f"there is no log in {folder}: name the folder of a log, or append to make one"
            )
        _make_folder(folder)
    elif not _may_be_sqlite(path):
        raise LogUnavailable(f"{path} is not a log of madlog: name another folder")
    _refuse_network(folder)
    if not read_only and not os.access(path if path.exists() else folder, os.W_OK):
        raise LogUnavailable(
            f"{folder} cannot be written: open the log for reading only, or change its permissions"
        )
    alone = read_only and not os.access(folder, os.W_OK) and not Path(f"{path}-wal").exists()
    opening = Opening(path, vfs, read_only, alone, busy_ms)
    try:
        _check_or_create(opening, create=create and not read_only)
    except apsw.NotADBError as error:
        raise LogUnavailable(f"{path} is not a log of madlog: name another folder") from error
    except apsw.CorruptError as error:
        raise LogUnavailable(
            f"the first pages of {path}, which say what is in it, are damaged: restore a backup"
        ) from error
    except (apsw.Error, OSError) as error:
        raise LogUnavailable(
            f"the log {path} cannot be opened ({error}): check the disk and the permissions, "
            "or restore a backup"
        ) from error
    return opening


def _may_be_sqlite(path: Path) -> bool:
    # SQLite takes a file of a few bytes for an empty one, and would write over it.
    try:
        with path.open("rb") as file:
            return file.read(16) in (b"", b"SQLite format 3\0")
    except OSError as error:
        raise LogUnavailable(
            f"{path} cannot be read ({error.strerror}): check its permissions"
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogUnavailable(
            f"the folder {folder} cannot be made ({error.strerror}): name one that can be written"
        ) from error


def _refuse_network(folder: Path) -> None:
    mounts = Path("/proc/mounts")
    kind = network_file_system(folder.resolve(), mounts.read_text()) if mounts.exists() else None
    if kind:
        raise LogUnavailable(
            f"{folder} is on a network file system ({kind}), whose locks cannot be trusted: "
            "keep the log on a local disk"
        )


def _check_or_create(opening: Opening, *, create: bool) -> None:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    if create:
        connection = apsw.Connection(str(opening.path), flags=flags, vfs=opening.vfs)
        connection.set_busy_timeout(opening.busy_ms)
    else:
        connection = connect(opening)
    try:
        if create and not _identity(connection)[0]:
            create_tables(connection)
            sync_folder(opening.path.parent)
            sync_folder(opening.path.parent.parent)
        application, version = _identity(connection)
        if application != APPLICATION_ID:
            raise LogUnavailable(f"{opening.path} is not a log of madlog: name another folder")
        if version > FORMAT_NEWEST:
            raise LogUnavailable(
                f"the log {opening.path} has format {version}, made by a newer madlog, and this "
                f"one knows format {FORMAT_NEWEST}: upgrade madlog"
            )
    finally:
        connection.close()


def _identity(connection: apsw.Connection) -> tuple[int, int]:
    # Also parses the whole schema, so that a damaged one is found here and not in mid-work.
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    application = connection.pragma("application_id")
    return int(application), int(connection.pragma("user_version"))


def create_tables(connection: apsw.Connection) -> None:
    """Make the tables of an empty file; does nothing where another process just did."""
    connection.execute("PRAGMA page_size=4096; PRAGMA synchronous=FULL")
    with_tables = "SELECT count(*) FROM sqlite_schema"
    if connection.execute(with_tables).get and _identity(connection)[0] != APPLICATION_ID:
        return
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute(with_tables).get:
            connection.execute(_TABLES)
            connection.execute("INSERT INTO meta VALUES('format', ?)", (FORMAT_VERSION,))
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def stored_topics(connection: apsw.Connection) -> dict[str, StoredTopic]:
    """Return every topic in the file; from the tables' own text where `topics` is damaged."""
    try:
        rows = fetch(
            connection,
            "SELECT t.id, t.name, t.partitions, t.compacted, p.id FROM topics t "
            "JOIN partitions p ON p.topic_id = t.id ORDER BY t.id, p.partition",
        )
    except apsw.CorruptError:
        rows = [
            (0, row.topic, of, row.compacted, row.id) for row, of in _rows_by_table_text(connection)
        ]
    topics: dict[str, StoredTopic] = {}
    for topic_id, name, partitions, compacted, partition_id in rows:
        before = topics[name].ids if name in topics else ()
        topics[name] = StoredTopic(
            topic_id, name, partitions, bool(compacted), (*before, partition_id)
        )
    return topics


def partition_rows(
    connection: apsw.Connection, topics: Iterable[str] | None = None
) -> list[PartitionRow]:
    """Return what the file says of each partition of `topics`; raises UnknownTopic."""
    try:
        rows = [
            PartitionRow(*row)
            for row in fetch(
                connection,
                "SELECT p.id, t.name, p.partition, p.next_offset, p.low_water, p.count, p.head, "
                "p.last_appended_at, t.compacted FROM partitions p JOIN topics t "
                "ON t.id = p.topic_id ORDER BY t.name, p.partition",
            )
        ]
    except apsw.CorruptError:
        rows = [row for row, _ in _rows_by_table_text(connection)]
    if topics is None:
        return rows
    wanted = set(topics)
    for missing in sorted(wanted - {row.topic for row in rows}):
        raise UnknownTopic(
            f"the log holds no topic {missing[:80]!r}: `madlog topics list` shows those there are"
        )
    return [row for row in rows if row.topic in wanted]


def _rows_by_table_text(connection: apsw.Connection) -> list[tuple[PartitionRow, int]]:
    rows = []
    for name, sql in fetch(
        connection, "SELECT name, sql FROM sqlite_schema WHERE name GLOB 'r[0-9]*'"
    ):
        match = _IN_TABLE.search(sql)
        if not match:
            continue
        try:
            last = fetch(connection, f"SELECT max(offset) FROM {name}")[0][0]
        except apsw.CorruptError:
            last = None
        next_offset = 0 if last is None else last + 1
        row = PartitionRow(
            int(name[1:]), match[1], int(match[2]), next_offset, 0, 0, b"", 0, bool(match[4])
        )
        rows.append((row, int(match[3])))
    return sorted(rows, key=lambda pair: (pair[0].topic, pair[0].partition))
