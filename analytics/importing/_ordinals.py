"""Counts equal objects without holding them: the counts stand in a temporary file."""

import sqlite3

__all__ = ("Ordinals",)


class Ordinals:
    """How often each name was seen; SQLite spills to disk, so memory stays constant."""

    def __init__(self) -> None:
        # The empty name is a temporary file that SQLite removes when it is closed.
        self._seen = sqlite3.connect("", isolation_level=None)
        self._seen.execute("PRAGMA cache_size = -2048")
        self._seen.execute("PRAGMA journal_mode = OFF")
        self._seen.execute("PRAGMA synchronous = OFF")
        self._seen.execute("CREATE TABLE seen (name BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")
        self._seen.execute("BEGIN")

    def next(self, name: str) -> int:
        """Return how often `name` was asked for before."""
        key = bytes.fromhex(name)
        row = self._seen.execute("SELECT times FROM seen WHERE name = ?", (key,)).fetchone()
        times = int(row[0]) if row else 0
        self._seen.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (key, times + 1))
        return times

    def close(self) -> None:
        """Let go of the temporary file."""
        self._seen.close()
