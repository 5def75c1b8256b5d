"""The files of a lake: a folder, or any fsspec URL; each is written once, whole or not at all."""

import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import fsspec

from madlog.analytics.errors import LakeDamaged, LakeUnavailable
from madlog.analytics.lake.layout import FORM
from madlog.analytics.lake.manifest import File
from madlog.topics.clock import system_random

__all__ = ("LakeStore", "Stored", "footer_hash")

MARK = "madlog-lake.json"
_PARTIAL = ".partial"
_MAGIC = b"PAR1"
# The length of the footer, and the magic.
_TAIL = 8


class Stored(NamedTuple):
    """A file that is there: its path below the root, bytes, and when it was written, in µs."""

    path: str
    size: int
    modified_at: int


class LakeStore:
    """The files of one lake; raises LakeUnavailable where they cannot be reached."""

    def __init__(self, url: str, random: Callable[[int], bytes] = system_random) -> None:
        self.url = url
        self._random = random
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise LakeUnavailable(
                f"{url[:200]!r} is not where a lake can be ({error}): name a folder or an fsspec "
                "URL in MADLOG_LAKE"
            ) from error
        self._local = "file" in _protocols(self._files)
        # What clients of object stores raise beside OSError is their own.
        self._errors: type[Exception] = OSError if self._local else Exception
        self._looked_at: set[str] = set()

    @property
    def filesystem(self) -> Any:
        """What opens the lake's files for DuckDB, None where they are this machine's."""
        return None if self._local else self._files

    def place(self, path: str) -> str:
        """Return where a file is, as DuckDB opens it."""
        whole = posixpath.join(self._root, path)
        return whole if self._local else str(self._files.unstrip_protocol(whole))

    def lake_id(self) -> str | None:
        """Return the id that this lake was given when it was made, None where there is none."""
        try:
            content = self._files.cat_file(posixpath.join(self._root, MARK))
        except FileNotFoundError:
            return None
        except self._errors as error:
            raise self._unreachable(error) from error
        try:
            mark = json.loads(content)
            form, lake = int(mark["form"]), str(mark["lake"])
        except (ValueError, KeyError, TypeError) as error:
            raise LakeDamaged(
                f"{MARK} in {self.url} is not what marks a lake: copy it again from a backup"
            ) from error
        if form > FORM:
            raise LakeUnavailable(
                f"the lake {self.url} has form {form}, made by a newer madlog, and this one knows "
                f"form {FORM}: upgrade madlog"
            )
        return lake

    def mark(self, lake: str) -> None:
        """Make a lake of this id here."""
        self.write(MARK, json.dumps({"form": FORM, "lake": lake}).encode())

    def write(self, path: str, content: bytes) -> None:
        """Write a file: a name of its own first, made durable, then its name."""
        target = posixpath.join(self._root, path)
        partial = f"{target}.{uuid.UUID(bytes=self._random(16)).hex}{_PARTIAL}"
        try:
            self._make_folder(posixpath.dirname(target))
            self._put(partial, content)
            self._rename(partial, target)
            self._sync(posixpath.dirname(target))
        except self._errors as error:
            with suppress(self._errors):  # a later sweep finds it
                if self._files.exists(partial):
                    self._files.rm(partial)
            raise LakeUnavailable(
                f"{path} cannot be written to the lake {self.url} ({_told(error)}): "
                "nothing of it counts, and the log is as it was; make room, then try again"
            ) from error

    def _make_folder(self, path: str) -> None:
        """Make a folder and those it lies in, each durable in the one above."""
        if not self._local:
            self._files.makedirs(path, exist_ok=True)
        elif not self._files.isdir(path):
            above = posixpath.dirname(path)
            self._make_folder(above)
            self._files.makedirs(path, exist_ok=True)
            self._sync(above)

    def _put(self, path: str, content: bytes) -> None:
        """Write a file that is durable when this returns, but for its name."""
        with self._files.open(path, "wb") as file:
            file.write(content)
        self._sync(path)

    def _rename(self, partial: str, target: str) -> None:
        if self._local:
            os.replace(partial, target)  # one step, also over a file of that name
        else:
            self._files.mv(partial, target)

    def _sync(self, path: str) -> None:
        """Make a local file or folder durable; object stores are so when they answer."""
        if not self._local:
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self, file: File) -> bytes:
        """Return a file whose every byte is the manifest's; raises LakeDamaged."""
        self.look_at(file)
        try:
            content = bytes(self._files.cat_file(posixpath.join(self._root, file.path)))
        except self._errors as error:
            raise self._unreachable(error) from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise self._damaged(file, "its bytes are not those that were archived")
        return content

    def look_at(self, file: File) -> None:
        """See that a file is there and ends as the manifest says; raises LakeDamaged."""
        if file.path in self._looked_at:
            return
        try:
            footer = self._footer(posixpath.join(self._root, file.path), file)
        except FileNotFoundError as error:
            raise self._damaged(file, "it is not there") from error
        except LakeDamaged:
            raise
        except self._errors as error:
            raise self._unreachable(error) from error
        if hashlib.sha256(footer).hexdigest() != file.footer_sha256:
            raise self._damaged(file, "it is another file than was archived under this name")
        self._looked_at.add(file.path)

    def _footer(self, path: str, file: File) -> bytes:
        size = int(self._files.size(path))
        if size != file.size:
            raise self._damaged(file, f"it has {size:,} bytes and is to have {file.size:,}")
        tail = self._files.cat_file(path, start=max(0, size - _TAIL))
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length + _TAIL > size:
            raise self._damaged(file, "it does not end as a Parquet file does")
        return bytes(self._files.cat_file(path, start=size - _TAIL - length))

    def open(self, path: str) -> Any:
        """Open a file for reading."""
        return self._files.open(posixpath.join(self._root, path), "rb")

    def listed(self) -> Iterator[Stored]:
        """Yield all files of the lake but its mark, those that are being written too."""
        root = self._root.rstrip("/") + "/"
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return
        except self._errors as error:
            raise self._unreachable(error) from error
        for name, facts in sorted(found.items()):
            path = name[len(root) :] if name.startswith(root) else name.lstrip("/")
            if path != MARK and (path.endswith(".parquet") or path.endswith(_PARTIAL)):
                try:
                    yield Stored(path, int(facts["size"]), _micros(self._files.modified(name)))
                except FileNotFoundError:
                    continue  # another has swept it, or given it its name

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where it is gone."""
        try:
            self._files.rm_file(posixpath.join(self._root, path))
        except FileNotFoundError:
            return
        except self._errors as error:
            raise self._unreachable(error) from error

    def _damaged(self, file: File, what: str) -> LakeDamaged:
        return LakeDamaged(
            f"the lake's file {file.path} in {self.url}: {what}; put it back from a backup, or "
            "archive its range again from the log with `madlog lake repair`"
        )

    def _unreachable(self, error: Exception) -> LakeUnavailable:
        return LakeUnavailable(
            f"the lake {self.url} cannot be read ({_told(error)}): check its disk and "
            "permissions, or name where it is now in MADLOG_LAKE"
        )


def footer_hash(content: bytes) -> str:
    """Return the SHA-256 of a Parquet file's end: its footer, the footer's length, the magic."""
    length = int.from_bytes(content[-_TAIL:-4], "little")
    return hashlib.sha256(content[-_TAIL - length :]).hexdigest()


def _told(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _protocols(files: Any) -> tuple[str, ...]:
    names = files.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
