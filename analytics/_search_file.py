"""The file of the search index: SQLite, one row a turn, FTS5 over the texts.

A row's id is made of the turn's place in the log, so what the file holds does not depend on the
batches that brought it. Everything here blocks; madlog.analytics.search calls it in a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from madlog.analytics.errors import IndexUnavailable
from madlog.topics import Vector
from madlog.topics.positions import TopicPartition

__all__ = (
    "DAMAGE",
    "TOPIC",
    "Folded",
    "IndexFile",
    "Row",
    "add",
    "folded",
    "place_of",
    "positions",
    "row_id",
    "tokens",
    "upto",
)

TOPIC = "mad.conversations"
# An SQLError means that the tables are not those of this program: what it asks never changes.
DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError)

# Raised when the tables, or what is put into them, change: an index of before is made anew.
_VERSION = 1
_BUSY_MS = 10_000
_OFFSET_BITS = 48
_TOKENIZER = ("unicode61", "remove_diacritics", "2")
# `folded` says how far each partition was read, and which event stood last there.
_TABLES = f"""
CREATE TABLE folded(
    partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL, last_offset INTEGER NOT NULL,
    last_event TEXT NOT NULL);
CREATE TABLE turns(
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL, occurred_at INTEGER NOT NULL,
    conversation_id TEXT NOT NULL, sender TEXT NOT NULL, recipients TEXT NOT NULL,
    tags TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX turns_of_conversation ON turns(conversation_id);
CREATE VIRTUAL TABLE words USING fts5(
    text, content = 'turns', content_rowid = 'id', tokenize = '{" ".join(_TOKENIZER)}');
PRAGMA user_version = {_VERSION};
"""


class Row(NamedTuple):
    """A turn as the index holds it; recipients and tags are JSON arrays."""

    id: int
    event_id: str
    occurred_at: int
    conversation_id: str
    sender: str
    recipients: str
    tags: str
    text: str


class Folded(NamedTuple):
    """How far a partition was read: the next offset, and the event that was read last."""

    next_offset: int
    last_offset: int
    last_event: str


def row_id(partition: int, offset: int) -> int:
    """Return the id of the turn at a place of the log; they sort as places do."""
    return partition << _OFFSET_BITS | offset


def place_of(row_id: int) -> tuple[int, int]:
    """Return the (partition, offset) that an id was made of."""
    return row_id >> _OFFSET_BITS, row_id & ((1 << _OFFSET_BITS) - 1)


def upto(at: Vector) -> tuple[str, list[int]]:
    """Return the condition that a turn stands before a vector of positions, and its values."""
    pieces, values = [], []
    for tp in at:
        if tp.topic == TOPIC and at[tp]:
            pieces.append("t.id BETWEEN ? AND ?")
            values += [row_id(tp.partition, 0), row_id(tp.partition, at[tp] - 1)]
    return f"({' OR '.join(pieces)})" if pieces else "0", values


class IndexFile:
    """One connection to the index; several processes may have one each."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path = path
        self._tell = tell
        self._open: apsw.Connection | None = None
        self._stamp = (0, 0)

    def _connection(self) -> apsw.Connection:
        if self._open is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = apsw.Connection(str(self.path))
            try:
                opened.set_busy_timeout(_BUSY_MS)
                self._stamp = self._stamped()
                self._prepare(opened)
            except BaseException:
                opened.close()
                raise
            self._open = opened
        return self._open

    def _prepare(self, connection: apsw.Connection) -> None:
        # What it holds can be made again: a power cut may cost the newest commits, no more.
        connection.execute("PRAGMA synchronous = normal; PRAGMA cache_size = -65536").fetchall()
        version = int(connection.pragma("user_version"))
        if version not in (0, _VERSION):
            self._tell(f"{self.path} was written by another version of madlog: it is made anew")
            _empty(connection)
            version = 0
        if version == 0:
            connection.execute("PRAGMA journal_mode = wal").fetchall()
            with _Immediate(connection):
                # Another process may have been faster.
                if int(connection.pragma("user_version")) == 0:
                    connection.execute(_TABLES).fetchall()

    def throw_away(self) -> bool:
        """Empty the file, unless it changed since it was opened: then another look is due.

        Returns whether it was emptied; another process may have been faster.
        """
        changed = self._stamp != self._stamped()
        self.close()
        if changed:
            return False
        try:
            connection = apsw.Connection(str(self.path))
            try:
                connection.set_busy_timeout(_BUSY_MS)
                _empty(connection)
            finally:
                connection.close()
        except apsw.BusyError:
            return False  # another process is making it anew, or reads it
        except apsw.Error as error:
            raise self.unavailable(error) from error
        return True

    def _stamped(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def unavailable(self, error: Exception) -> IndexUnavailable:
        """Return the error to raise where the file cannot be used."""
        said = getattr(error, "strerror", None) or error
        return IndexUnavailable(
            f"the search index {self.path} cannot be used ({said}): check the disk and the "
            "permissions, or remove the file, which is made anew"
        )

    def guarded(self, work: Callable[[apsw.Connection], Any]) -> Any:
        """Run work on the connection; raises what DAMAGE names, IndexUnavailable."""
        try:
            return work(self._connection())
        except DAMAGE:
            raise
        except (apsw.Error, OSError) as error:
            raise self.unavailable(error) from error

    def interrupt(self) -> None:
        """End what another thread is doing on the connection."""
        if self._open is not None:
            self._open.interrupt()

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None


class _Immediate:
    """A transaction that writes from its beginning, so that it never has to start again."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK" if kind else "COMMIT")


def _empty(connection: apsw.Connection) -> None:
    # SQLite's own way to empty a file that may be damaged: locks hold, no file is removed under
    # another process.
    connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 1)
    try:
        connection.execute("VACUUM").fetchall()
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 0)


def tokens(connection: apsw.Connection, text: str) -> list[str]:
    """Return the words of a text as the index parts it."""
    tokenizer = connection.fts5_tokenizer(_TOKENIZER[0], list(_TOKENIZER[1:]))
    found = tokenizer(
        text.encode(),
        apsw.FTS5_TOKENIZE_QUERY,
        None,
        include_offsets=False,
        include_colocated=False,
    )
    return [str(token) for token in found]


def folded(connection: apsw.Connection) -> dict[int, Folded]:
    """Return how far each partition was read."""
    rows = connection.execute("SELECT partition, next_offset, last_offset, last_event FROM folded")
    return {partition: Folded(*rest) for partition, *rest in rows}


def positions(held: Mapping[int, Folded]) -> Vector:
    """Return how far an index was read, as a vector."""
    return Vector({TopicPartition(TOPIC, part): one.next_offset for part, one in held.items()})


def add(
    connection: apsw.Connection,
    rows: Sequence[Row],
    before: Mapping[int, Folded],
    after: Mapping[int, Folded],
) -> bool:
    """Put in what was read between two states of `folded`, both or neither.

    Returns False, and puts in nothing, where another process was faster.
    """
    with _Immediate(connection):
        if folded(connection) != before:
            return False
        # FTS5 wants rising ids: it writes out what it holds at each step back.
        ordered = sorted(rows)
        marks = ", ".join("?" * len(Row._fields))
        connection.executemany(f"INSERT INTO turns VALUES({marks})", ordered)
        connection.executemany(
            "INSERT INTO words(rowid, text) VALUES(?, ?)", ((row.id, row.text) for row in ordered)
        )
        connection.executemany(
            "INSERT OR REPLACE INTO folded VALUES(?, ?, ?, ?)",
            ((partition, *one) for partition, one in after.items()),
        )
    return True
