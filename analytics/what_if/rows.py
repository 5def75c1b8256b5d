"""Every decision that differs and every act that is blocked, as JSON lines in a file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ("Rows",)

_SHOWN_MAX = 100


class Rows:
    """Keeps the first rows, and writes all to a file where one is named.

    The file has its name once it is whole; until then it is FILE.part.
    """

    def __init__(self, path: Path | None = None, state: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._part = None if path is None else path.with_name(path.name + ".part")
        self._file: IO[bytes] | None = None
        state = state or {"first": [], "count": 0, "bytes": 0}
        self.first: list[Mapping[str, Any]] = list(state["first"])
        self.count = int(state["count"])
        if self._part is None:
            return
        # What a stopped replay wrote after its snapshot is written again.
        self._file = self._part.open("r+b" if state["bytes"] else "wb")
        self._file.truncate(state["bytes"])
        self._file.seek(state["bytes"])

    def state(self) -> dict[str, Any]:
        """Put what was written on the disk, and return what goes on from there as plain JSON."""
        return {"first": self.first, "count": self.count, "bytes": self._flushed()}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take up a row."""
        self.count += 1
        if len(self.first) < _SHOWN_MAX:
            self.first.append(row)
        if self._file is not None:
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            self._file.write(line.encode() + b"\n")

    def _flushed(self) -> int:
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def done(self) -> None:
        """Give the file its name."""
        if self._file is None or self._part is None or self._path is None:
            return
        self._flushed()
        self._file.close()
        self._file = None
        self._part.replace(self._path)

    def close(self) -> None:
        """Let go of the file, whole or not."""
        if self._file is not None:
            self._file.close()
            self._file = None
