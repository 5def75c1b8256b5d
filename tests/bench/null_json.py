"""The null product of files: lines of JSON, synced, turned into Parquet and asked by DuckDB.

It is what an expert writes in an afternoon: one write and one sync a batch, a file of Parquet a
kind, sorted by conversation, and views that join the files with the lines since.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
from tests.bench.null_turns import Said, json_line

__all__ = ("JsonLines", "Parquet")

_COLUMNS = {
    "id": "VARCHAR",
    "conversation_id": "VARCHAR",
    "sender": "VARCHAR",
    "occurred_at": "TIMESTAMP",
    "kind": "VARCHAR",
    "recipients": "VARCHAR[]",
    "tags": "VARCHAR[]",
    "text": "VARCHAR",
    "action": "VARCHAR",
    "arguments": "VARCHAR",
    "call_id": "VARCHAR",
    "ok": "BOOLEAN",
    "result": "VARCHAR",
    "error": "VARCHAR",
}
_KINDS = {"turn": "turns", "call": "calls", "result": "results"}
# Sorted files are worth it only where a look-up can pass over most of their groups.
_ROW_GROUP = 10_240
_ONLY: dict[str, Any] = {"autoinstall_known_extensions": False, "memory_limit": "2GB"}


class JsonLines:
    """A file that batches are appended to; a batch is on the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, said: Sequence[Said]) -> None:
        """Write a batch's lines in one call, and sync."""
        lines = b"".join(map(json_line, said))
        written = os.write(self._file, lines)
        if written != len(lines):
            raise OSError(f"only {written} of {len(lines)} bytes fitted into {self.path}")
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()


class Parquet:
    """The files of Parquet made of lines, a file a kind, and DuckDB with views over them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._con = duckdb.connect(":memory:", config=_ONLY)

    def convert(self, lines: Path) -> None:
        """Make the files of all lines so far, sorted by conversation, zstd."""
        self._folder.mkdir(exist_ok=True)
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE lines AS "
            f"SELECT row_number() OVER () AS seq, * FROM {_read(lines)}"
        )
        for kind, table in _KINDS.items():
            self._con.execute(
                f"COPY (SELECT * FROM lines WHERE kind = '{kind}' ORDER BY conversation_id, seq) "
                f"TO '{self._folder / table}.parquet' "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})"
            )
        self._con.execute("DROP TABLE lines")

    def open(self, since: Path | None = None) -> None:
        """Make the views: over the files, and over the lines of a file of those since, if any."""
        for kind, table in _KINDS.items():
            sql = f"SELECT * FROM '{self._folder / table}.parquet'"
            if since is not None:
                sql += (
                    f" UNION ALL BY NAME SELECT 1e12::BIGINT + row_number() OVER () AS seq, * "
                    f"FROM {_read(since)} WHERE kind = '{kind}'"
                )
            self._con.execute(f"CREATE OR REPLACE VIEW {table} AS {sql}")

    def ask(self, sql: str) -> list[tuple[str, ...]]:
        """Return a query's rows, every value as text."""
        return [tuple(map(str, row)) for row in self._con.execute(sql).fetchall()]

    @property
    def bytes(self) -> int:
        """What the files take."""
        return sum(path.stat().st_size for path in self._folder.glob("*.parquet"))

    def close(self) -> None:
        """Close DuckDB."""
        self._con.close()


def _read(lines: Path) -> str:
    columns = ", ".join(f"{name}: '{type_}'" for name, type_ in _COLUMNS.items())
    return f"read_json('{lines}', format = 'newline_delimited', columns = {{{columns}}})"
