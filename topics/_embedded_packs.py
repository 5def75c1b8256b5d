"""Packs: files that hold records which were moved out of the embedded log's own file.

A pack is zstd frames, one a block, and nothing else, so any zstd program unpacks it. A block is
records, each as <size of value, checksum> and the bytes that checksum and chain are taken over.
Where each block is stands in the log's file (_embedded_cold.py).
"""

import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple
from zlib import crc32

from madlog.topics._embedded_storage import WIRE
from madlog.topics.errors import LogUnavailable
from madlog.topics.whole_files import PARTIAL, WholeFiles

__all__ = (
    "Block",
    "PackDamaged",
    "PackFolder",
    "Packed",
    "pack_block",
    "records_of",
    "resolved",
    "unpack",
    "unpacked",
    "whole_pack",
)

_PREFIX = Struct("<II")
_BLOCKS_HELD = 4
_LEVEL = 3
_SUFFIX = ".pack"


class PackDamaged(Exception):
    """A pack is not what was written; the text says how, `whole` that nothing of it can be read."""

    def __init__(self, reason: str, *, whole: bool = False) -> None:
        super().__init__(reason)
        self.whole = whole


class Block(NamedTuple):
    """Where a block is, and what it holds: offsets [first, end), appended within these times."""

    first: int
    end: int
    at: int
    size: int
    raw_size: int
    crc: int
    first_appended_at: int
    last_appended_at: int
    place: str = ""
    pack_end: int = 0


class Packed(NamedTuple):
    """A record as a block holds it; `data` is what its checksum and the chain are taken over."""

    offset: int
    appended_at: int
    key: bytes
    headers: bytes
    value: bytes
    crc: int
    data: bytes


def pack_block(rows: list[tuple[int, bytes, int]]) -> tuple[bytes, int]:
    """Return a block of (size of value, data, checksum) rows, compressed, and its size before."""
    raw = b"".join([part for size, data, crc in rows for part in (_PREFIX.pack(size, crc), data)])
    return _codec().compress(raw, asbytes=True), len(raw)


@lru_cache(maxsize=1)
def _codec() -> Any:
    import pyarrow  # three times zlib's speed; only who has packs waits for the import

    return pyarrow.Codec("zstd", compression_level=_LEVEL)


def records_of(raw: bytes) -> Iterator[Packed]:
    """Yield the records of a block; it ends early where the bytes are no records."""
    at, size = 0, len(raw)
    try:
        while at < size:
            value_size, crc = _PREFIX.unpack_from(raw, at)
            begin = at + _PREFIX.size
            offset, appended_at, key_size, headers_size = WIRE.unpack_from(raw, begin)
            key_at = begin + WIRE.size
            headers_at = key_at + key_size
            value_at = headers_at + headers_size
            at = value_at + value_size
            if at > size:
                return
            yield Packed(
                offset,
                appended_at,
                raw[key_at:headers_at],
                raw[headers_at:value_at],
                raw[value_at:at],
                crc,
                raw[begin:at],
            )
    except StructError:
        return


def resolved(folder: Path, place: str) -> str:
    """Return where a pack is: a relative place is below the log's folder."""
    return place if "://" in place else str(folder / place)


def unpacked(folder: Path, block: Block) -> bytes:
    """Return the bytes of a block; raises PackDamaged, LogUnavailable."""
    where = resolved(folder, block.place)
    stamp = None
    if "://" not in where:
        try:
            found = os.stat(where)
        except OSError as error:
            raise _unreadable(where, error) from error
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
    return _unpacked(where, stamp, block)


# A reader that takes a block in several batches unpacks it once; `_stamp` tells a file from
# another that came to its place.
@lru_cache(maxsize=_BLOCKS_HELD)
def _unpacked(where: str, _stamp: tuple[int, ...] | None, block: Block) -> bytes:
    return unpack(where, _bytes_at(where, block.at, block.at + block.size), block)


def unpack(where: str, packed: bytes, block: Block) -> bytes:
    """Return what a block of the pack at `where` holds; raises PackDamaged."""
    if len(packed) < block.size:
        raise PackDamaged(f"the pack {where} is cut off")
    if crc32(packed) != block.crc:
        raise PackDamaged(f"the pack {where} does not match its checksum here")
    try:
        raw: bytes = _codec().decompress(packed, block.raw_size, asbytes=True)
    except (OSError, ValueError) as error:
        raise PackDamaged(f"the pack {where} cannot be unpacked here") from error
    return raw


def whole_pack(where: str) -> bytes:
    """Return all bytes of a pack; raises PackDamaged, LogUnavailable."""
    return _bytes_at(where, 0, None)


def _bytes_at(where: str, at: int, end: int | None) -> bytes:
    try:
        if "://" not in where:
            with open(where, "rb") as file:
                file.seek(at)
                return file.read(-1 if end is None else end - at)
        files, path = _remote(where)
        return bytes(files.cat_file(path, start=at, end=end))
    except Exception as error:  # what a remote store raises is its own
        raise _unreadable(where, error) from error


def _remote(where: str) -> tuple[Any, str]:
    import fsspec

    files, path = fsspec.core.url_to_fs(where)
    return files, path


def _unreadable(where: str, error: Exception) -> Exception:
    """Tell a pack that is gone from a place that cannot be reached."""
    local = "://" not in where
    root = Path(where).parents[2] if local else None
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if root is None or root.is_dir():
            return PackDamaged(f"the pack {where} is not there", whole=True)
        return LogUnavailable(
            f"the log's older records are in {root}, which is not there: mount it, or put it back "
            "from a backup"
        )
    reason = _said(error)
    if local and not isinstance(error, PermissionError):
        return PackDamaged(f"the pack {where} cannot be read ({reason})", whole=True)
    return LogUnavailable(
        f"the log's older records cannot be read from {where} ({reason}): check the connection "
        "and the permissions, then try again"
    )


class PackFolder(WholeFiles):
    """Where packs are written: a folder or an fsspec URL; each whole or not at all."""

    def __init__(self, base: str, random: Callable[[int], bytes]) -> None:
        try:
            super().__init__(base, random)
        except (ValueError, ImportError) as error:
            raise LogUnavailable(
                f"{base[:200]!r} is not where packs can be ({error}): name a folder or an fsspec "
                "URL in MADLOG_LAKE"
            ) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a pack; raises LogUnavailable."""
        try:
            self._write(name, content)
        except self.errors as error:
            raise LogUnavailable(
                f"{name} cannot be written to {self.url} ({_said(error)}): nothing of it was "
                "moved, and the log is as it was; make room, then try again"
            ) from error

    def read(self, name: str) -> bytes:
        """Return the bytes of a pack; raises LogUnavailable."""
        try:
            return bytes(self._files.cat_file(self._path(name)))
        except self.errors as error:
            raise self.gone(name, error) from error

    def size(self, name: str) -> int | None:
        """Return how many bytes a pack has, None where it is not there; raises LogUnavailable."""
        try:
            return int(self._files.size(self._path(name)))
        except FileNotFoundError:
            return None
        except self.errors as error:
            raise self.gone(name, error) from error

    def gone(self, name: str, error: object) -> LogUnavailable:
        """Return what to say where a pack cannot be found again after it was written."""
        return LogUnavailable(
            f"{name} was written to {self.url} and cannot be read back ({error}): nothing of it "
            "was moved, and the log is as it was; check the disk, then try again"
        )

    def is_below(self, folder: Path) -> bool:
        """Tell whether these are files below a folder of this machine."""
        return self.local and Path(self._root).resolve().is_relative_to(folder.resolve())

    def older_than(self, time_us: int, *, whole: bool) -> list[str]:
        """Return the names of what is left of packs, or of `whole` ones too, as old as that."""
        try:
            found = self._files.find(self._root)
        except FileNotFoundError:
            return []
        except self.errors as error:
            raise LogUnavailable(
                f"{self.url} cannot be looked through ({_said(error)}): nothing was moved; check "
                "the connection and the permissions, then try again"
            ) from error
        names = []
        for path in found:
            if not path.endswith((_SUFFIX, PARTIAL) if whole else PARTIAL):
                continue
            try:
                modified_us = int(self._files.modified(path).timestamp() * 1_000_000)
            except FileNotFoundError:
                continue  # another process has swept it
            if modified_us < time_us:
                names.append(posixpath.relpath(path, self._root))
        return names

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where it is gone, or cannot be removed yet."""
        with suppress(self.errors):
            self._files.rm(self._path(name))


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
