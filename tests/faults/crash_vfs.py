"""A SQLite VFS that records what is done to files and fails on command; images of a crash.

A run is recorded once. Cut after any step, the record gives the files as a crash at that step
leaves them: all writes before it there (a killed process), the last one half there (a torn
write), or only what was synced (a power cut).
"""

import itertools
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import apsw

__all__ = ("CrashVfs", "Image", "Mode", "Step", "full_disk", "images", "io_error")

_NAMES = itertools.count()


class Step(NamedTuple):
    """One thing done to a file, or a mark set by the test; `handle` counts the opened files."""

    what: str  # write, truncate, sync, delete, mark
    file: str
    handle: int = 0
    at: int = 0
    data: bytes = b""


class Mode(StrEnum):
    """What a crash leaves of the writes before it."""

    STOP = "stop"
    TEAR = "tear"
    LOSE = "lose"


class CrashVfs(apsw.VFS):
    """The system's VFS, watched: `fault`, when set, is called before each step and may raise."""

    def __init__(self) -> None:
        self.name = f"crash-{next(_NAMES)}"
        self.steps: list[Step] = []
        self.fault: Callable[[Step], None] | None = None
        self.faults = 0
        self.handles = itertools.count(1)
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _WatchedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.take(Step("delete", Path(filename).name))
        super().xDelete(filename, syncdir)

    def excepthook(self, *_: object) -> bool:
        """Say nothing: the only exceptions here are the planned faults."""
        return True

    def mark(self, number: int) -> None:
        """Note that the run was acknowledged up to `number`."""
        self.steps.append(Step("mark", "", at=number))

    def take(self, step: Step) -> None:
        """Fail if the test wants so, else record the step."""
        if self.fault is not None:
            try:
                self.fault(step)
            except apsw.Error:
                self.faults += 1
                raise
        self.steps.append(step)


class _WatchedFile(apsw.VFSFile):
    def __init__(
        self, vfs: CrashVfs, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        # A file without a name is temporary: no crash leaves anything of it.
        self._file = Path(full).name if full else ""
        self._vfs = vfs
        self._handle = next(vfs.handles)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._take("write", offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._take("truncate", newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._take("sync")
        super().xSync(flags)

    def excepthook(self, *_: object) -> bool:
        """Say nothing: the only exceptions here are the planned faults."""
        return True

    def _take(self, what: str, at: int = 0, data: bytes = b"") -> None:
        if self._file:
            self._vfs.take(Step(what, self._file, self._handle, at, data))


def full_disk() -> apsw.FullError:
    """Return what a write to a full disk raises."""
    return apsw.FullError("planned: no space left")


def io_error(code: int = apsw.SQLITE_IOERR_FSYNC) -> apsw.IOError:
    """Return what a failing disk raises."""
    error = apsw.IOError("planned: input/output error")
    error.extendedresult = code  # type: ignore[attr-defined]
    return error


class Image(NamedTuple):
    """The files that a crash leaves, and the last mark before it."""

    step: int
    acked: int
    files: dict[str, bytes]


def images(steps: list[Step], mode: Mode) -> Iterator[Image]:
    """Yield what a crash at each step leaves; states equal to the one before are left out."""
    now: dict[str, bytearray] = {}
    synced: dict[str, bytes] = {}
    acked = 0
    for number, step in enumerate(steps):
        if step.what == "mark":
            acked = step.at
            if mode is Mode.LOSE:
                yield Image(number, acked, dict(synced))
            continue
        if mode is Mode.LOSE:
            if step.what in ("sync", "delete"):
                yield Image(number, acked, dict(synced))
        else:
            torn = step._replace(data=step.data[: len(step.data) // 2])
            yield Image(number, acked, _with(now, torn) if mode is Mode.TEAR else _bytes(now))
        _apply(now, step)
        if step.what == "sync" and step.file in now:
            synced[step.file] = bytes(now[step.file])
        elif step.what == "delete":
            synced.pop(step.file, None)
    final = synced if mode is Mode.LOSE else _bytes(now)
    yield Image(len(steps), acked, dict(final))


def _bytes(files: dict[str, bytearray]) -> dict[str, bytes]:
    return {name: bytes(data) for name, data in files.items()}


def _with(files: dict[str, bytearray], step: Step) -> dict[str, bytes]:
    torn = {step.file: bytearray(files[step.file])} if step.file in files else {}
    if step.what == "write":
        _apply(torn, step)
    return {**_bytes(files), **_bytes(torn)}


def _apply(files: dict[str, bytearray], step: Step) -> None:
    if step.what == "delete":
        files.pop(step.file, None)
    elif step.what == "write":
        data = files.setdefault(step.file, bytearray())
        data.extend(bytes(max(0, step.at - len(data))))
        data[step.at : step.at + len(step.data)] = step.data
    elif step.what == "truncate":
        data = files.setdefault(step.file, bytearray())
        del data[step.at :]
        data.extend(bytes(step.at - len(data)))
