"""The files of a lake: a folder, or any fsspec URL; each is written once, whole or not at all."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from madlog.analytics.errors import LakeDamaged, LakeUnavailable
from madlog.analytics.lake.layout import FORM
from madlog.analytics.lake.manifest import File
from madlog.topics.clock import system_random
from madlog.topics.whole_files import PARTIAL, WholeFiles

__all__ = ("LakeStore", "Stored", "footer_hash")

MARK = "madlog-lake.json"
_MAGIC = b"PAR1"
# The length of the footer, and the magic.
_TAIL = 8


class Stored(NamedTuple):
    """A file that is there: its path below the root, bytes, and when it was written, in µs."""

    path: str
    size: int
    modified_at: int


class LakeStore(WholeFiles):
    """The files of one lake; raises LakeUnavailable where they cannot be reached."""

    def __init__(self, url: str, random: Callable[[int], bytes] = system_random) -> None:
        try:
            super().__init__(url, random)
        except (ValueError, ImportError) as error:
            raise LakeUnavailable(
                f"{url[:200]!r} is not where a lake can be ({error}): name a folder or an fsspec "
                "URL in MADLOG_LAKE"
            ) from error
        self._looked_at: set[str] = set()

    @property
    def filesystem(self) -> Any:
        """What opens the lake's files for DuckDB, None where they are this machine's."""
        return None if self.local else self._files

    def lake_id(self) -> str | None:
        """Return the id that this lake was given when it was made, None where there is none."""
        try:
            content = self._files.cat_file(self._path(MARK))
        except FileNotFoundError:
            return None
        except self.errors as error:
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
        """Write a file; raises LakeUnavailable."""
        try:
            self._write(path, content)
        except self.errors as error:
            raise LakeUnavailable(
                f"{path} cannot be written to the lake {self.url} ({_told(error)}): "
                "nothing of it counts, and the log is as it was; make room, then try again"
            ) from error

    def read(self, file: File) -> bytes:
        """Return a file whose every byte is the manifest's; raises LakeDamaged."""
        self.look_at(file)
        try:
            content = bytes(self._files.cat_file(self._path(file.path)))
        except self.errors as error:
            raise self._unreachable(error) from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise self._damaged(file, "its bytes are not those that were archived")
        return content

    def look_at(self, file: File) -> None:
        """See that a file is there and ends as the manifest says; raises LakeDamaged."""
        if file.path in self._looked_at:
            return
        try:
            footer = self._footer(self._path(file.path), file)
        except FileNotFoundError as error:
            raise self._damaged(file, "it is not there") from error
        except LakeDamaged:
            raise
        except self.errors as error:
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
        return self._files.open(self._path(path), "rb")

    def listed(self) -> Iterator[Stored]:
        """Yield all files of the lake but its mark, those that are being written too."""
        root = self._root.rstrip("/") + "/"
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return
        except self.errors as error:
            raise self._unreachable(error) from error
        for name, facts in sorted(found.items()):
            path = name[len(root) :] if name.startswith(root) else name.lstrip("/")
            if path != MARK and (path.endswith(".parquet") or path.endswith(PARTIAL)):
                try:
                    yield Stored(path, int(facts["size"]), _micros(self._files.modified(name)))
                except FileNotFoundError:
                    continue  # another has swept it, or given it its name

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where it is gone."""
        try:
            self._files.rm_file(self._path(path))
        except FileNotFoundError:
            return
        except self.errors as error:
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


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
