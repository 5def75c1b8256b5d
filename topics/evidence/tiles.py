"""Where the hashes of the trees are kept: a file beside the log that can be made anew from it.

Hashes stand in tiles of 256, as in c2sp.org/tlog-tiles: tile n of level 0 holds the hashes of the
leaves from 256·n on, tile n of level l the roots over 256 whole tiles each of level l-1. A tile of
level 0 also says at which offset each of its records stands. Tiles of all trees are rows of one
SQLite file, so that a batch of records is in it whole or not at all, whatever is killed when.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import pack, unpack
from types import TracebackType
from typing import Any, NamedTuple

import apsw

from madlog.topics._embedded_storage import fetch
from madlog.topics.evidence.errors import HashesDamaged
from madlog.topics.evidence.merkle import HASH_BYTES, complete_root, root_of
from madlog.topics.positions import TopicPartition

__all__ = ("TILE", "Tiles", "Tree")

TILE = 256
_APPLICATION_ID = 0x4D414454  # "MADT", in the file's header
_FORMAT = 1
_BUSY_MS = 30_000
_HEIGHT = 8
_OFFSET_BYTES = 8

_TABLES = """
CREATE TABLE trees(
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    size INTEGER NOT NULL, next_offset INTEGER NOT NULL, signed TEXT,
    UNIQUE(topic, partition));
CREATE TABLE tiles(
    tree INTEGER NOT NULL, level INTEGER NOT NULL, number INTEGER NOT NULL, hashes BLOB NOT NULL,
    offsets BLOB, PRIMARY KEY(tree, level, number));
"""


class Tree(NamedTuple):
    """How far one partition's tree goes: `size` records, all of those below `next_offset`.

    `signed` is the note of its newest checkpoint, None where none was signed yet.
    """

    size: int
    next_offset: int
    signed: str | None


class Tiles:
    """The trees of one log; several processes may share the file, one thread at a time uses it."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file, making it if it is not there; raises HashesDamaged."""
        self.path = path
        name, flags = str(path), apsw.SQLITE_OPEN_READONLY
        if not read_only:
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        elif not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
            # Nobody writes where nothing can be: else readers too would make files beside it.
            name = f"{path.absolute().as_uri()}?immutable=1"
            flags |= apsw.SQLITE_OPEN_URI
        self._using = threading.Lock()
        try:
            self._connection = apsw.Connection(name, flags=flags)
            self._connection.set_busy_timeout(_BUSY_MS)
            self._make_tables(read_only)
        except apsw.Error as error:
            raise self._damaged(error) from error

    def _make_tables(self, read_only: bool) -> None:
        connection = self._connection
        if not read_only:
            # NORMAL: a power cut may take the last batches, which are then hashed again.
            connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL").fetchall()
            with connection:
                if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
                    connection.execute(_TABLES)
                    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version={_FORMAT}")
        found = connection.pragma("application_id"), connection.pragma("user_version")
        if found != (_APPLICATION_ID, _FORMAT):
            raise apsw.NotADBError("not the hashes of a log, or made by another version")

    def __enter__(self) -> "Tiles":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._using:
            self._connection.close(True)

    def trees(self) -> dict[TopicPartition, Tree]:
        """Return every tree of the file."""
        rows = self._rows("SELECT topic, partition, size, next_offset, signed FROM trees")
        return {TopicPartition(row[0], row[1]): Tree(*row[2:]) for row in rows}

    def tree(self, tp: TopicPartition) -> Tree:
        """Return a partition's tree; one that is not there is empty."""
        row = self._rows(
            "SELECT size, next_offset, signed FROM trees WHERE topic=? AND partition=?", *tp
        )
        return Tree(*row[0]) if row else Tree(0, 0, None)

    def extend(
        self,
        tp: TopicPartition,
        before: Tree,
        leaves: Sequence[bytes],
        offsets: Sequence[int],
        next_offset: int,
    ) -> Tree:
        """Add the hashes of the next leaves and where their records stand.

        Where another process has extended the tree since `before`, what it holds is returned and
        nothing is added.
        """
        with self._using:
            try:
                return self._extend(tp, before, leaves, offsets, next_offset)
            except apsw.Error as error:
                raise self._damaged(error) from error

    def _extend(
        self,
        tp: TopicPartition,
        before: Tree,
        leaves: Sequence[bytes],
        offsets: Sequence[int],
        next_offset: int,
    ) -> Tree:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            tree_id = self._tree_id(tp)
            row = fetch(
                connection, "SELECT size, next_offset, signed FROM trees WHERE id=?", (tree_id,)
            )
            now = Tree(*row[0])
            if now[:2] == before[:2]:
                self._write(tree_id, now.size, leaves, offsets)
                now = Tree(now.size + len(leaves), next_offset, now.signed)
                connection.execute(
                    "UPDATE trees SET size=?, next_offset=? WHERE id=?",
                    (now.size, now.next_offset, tree_id),
                )
            connection.execute("COMMIT")
            return now
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def mark_signed(self, tp: TopicPartition, note: str) -> None:
        """Remember the note of a tree's newest checkpoint."""
        with self._using:
            try:
                with self._connection:
                    self._connection.execute(
                        "UPDATE trees SET signed=? WHERE id=?", (note, self._tree_id(tp))
                    )
            except apsw.Error as error:
                raise self._damaged(error) from error

    def _tree_id(self, tp: TopicPartition) -> int:
        self._connection.execute(
            "INSERT OR IGNORE INTO trees(topic, partition, size, next_offset) VALUES(?, ?, 0, 0)",
            tuple(tp),
        )
        found = self._connection.execute(
            "SELECT id FROM trees WHERE topic=? AND partition=?", tuple(tp)
        ).get
        return int(found)

    def _write(
        self, tree_id: int, size: int, leaves: Sequence[bytes], offsets: Sequence[int]
    ) -> None:
        places = pack(f">{len(offsets)}q", *offsets)
        level, at, new = 0, size, list(leaves)
        while new:
            number, filled = divmod(at, TILE)
            data = b"".join(new)
            if filled:
                held, held_places = self._tile(tree_id, level, number)
                data = held[: filled * HASH_BYTES] + data
                if level == 0:
                    places = held_places[: filled * _OFFSET_BYTES] + places
            up: list[bytes] = []
            for start in range(0, len(data), TILE * HASH_BYTES):
                hashes = data[start : start + TILE * HASH_BYTES]
                first = start // HASH_BYTES * _OFFSET_BYTES
                self._connection.execute(
                    "INSERT OR REPLACE INTO tiles VALUES(?, ?, ?, ?, ?)",
                    (
                        tree_id,
                        level,
                        number,
                        hashes,
                        places[first : first + TILE * _OFFSET_BYTES] if level == 0 else None,
                    ),
                )
                if len(hashes) == TILE * HASH_BYTES:
                    up.append(complete_root(_each(hashes)))
                number += 1
            level, at, new = level + 1, at // TILE, up

    def _tile(self, tree_id: int, level: int, number: int) -> tuple[bytes, bytes]:
        row = self._connection.execute(
            "SELECT hashes, offsets FROM tiles WHERE tree=? AND level=? AND number=?",
            (tree_id, level, number),
        ).fetchone()
        return (b"", b"") if row is None else (row[0], row[1] or b"")

    def node(self, tp: TopicPartition, height: int, index: int) -> bytes:
        """Return the root of a complete subtree (madlog.topics.evidence.merkle.Node)."""
        level, within = divmod(height, _HEIGHT)
        number, at = divmod(index << within, TILE)
        row = self._rows(
            "SELECT hashes FROM tiles JOIN trees ON id=tree "
            "WHERE topic=? AND partition=? AND level=? AND number=?",
            *tp,
            level,
            number,
        )
        hashes = row[0][0][at * HASH_BYTES : (at + (1 << within)) * HASH_BYTES] if row else b""
        if len(hashes) != HASH_BYTES << within:
            raise HashesDamaged(
                f"{self.path} lacks hashes of {tp}: delete it, and the next `madlog evidence "
                "checkpoint` makes it anew from the log"
            )
        return complete_root(_each(hashes))

    def root(self, tp: TopicPartition, size: int) -> bytes:
        """Return the root over a tree's first `size` leaves."""
        return root_of(size, lambda height, index: self.node(tp, height, index))

    def leaves(
        self, tp: TopicPartition, start: int = 0, end: int | None = None
    ) -> Iterator[tuple[bytes, int]]:
        """Yield the hash and the offset of each leaf in [start, end), by default to the last."""
        if end is None:
            end = self.tree(tp).size
        while start < end:
            row = self._rows(
                "SELECT hashes, offsets FROM tiles JOIN trees ON id=tree "
                "WHERE topic=? AND partition=? AND level=0 AND number=?",
                *tp,
                start // TILE,
            )
            hashes, places = row[0] if row else (b"", b"")
            count = len(hashes) // HASH_BYTES
            offsets = unpack(f">{len(places) // _OFFSET_BYTES}q", places)
            first, stop = start % TILE, min(TILE, end - start // TILE * TILE)
            if count < stop or len(offsets) < stop:
                raise HashesDamaged(
                    f"{self.path} lacks hashes of {tp}: delete it, and the next `madlog evidence "
                    "checkpoint` makes it anew from the log"
                )
            for at in range(first, stop):
                yield hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES], offsets[at]
            start += stop - first

    def _rows(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        with self._using:
            try:
                return self._connection.execute(sql, bindings).fetchall()
            except apsw.Error as error:
                raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> HashesDamaged:
        return HashesDamaged(
            f"{self.path} cannot be used ({error}): see that the disk is there and not full, or "
            "delete the file: the next `madlog evidence checkpoint` makes it anew from the log"
        )


def _each(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
