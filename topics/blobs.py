"""Fixed content by its SHA-256: files, images, model parameters; in a folder or any fsspec URL."""

import hashlib
import posixpath
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec

from madlog.topics.clock import system_random
from madlog.topics.errors import BlobDamaged, BlobMissing

__all__ = ("BlobStore",)

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Content-addressed storage; what is put twice is stored once, what is got is verified."""

    def __init__(self, url: str, random: Callable[[int], bytes] = system_random) -> None:
        self.url = url
        self._random = random
        self._files, self._root = fsspec.core.url_to_fs(url)

    def _path(self, sha256: str) -> str:
        if not _SHA256.fullmatch(sha256):
            raise BlobMissing(f"{sha256[:80]!r} is not the SHA-256 of anything: 64 hex digits")
        # Two levels, so that no folder grows past what file systems list quickly.
        return posixpath.join(self._root, sha256[:2], sha256)

    def put(self, content: bytes) -> str:
        """Store content and return its SHA-256 in hex; whole or not at all."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._path(sha256)
        if self._files.exists(path):
            return sha256
        self._files.makedirs(posixpath.dirname(path), exist_ok=True)
        partial = f"{path}.{uuid.UUID(bytes=self._random(16)).hex}.partial"
        try:
            with self._files.open(partial, "wb") as file:
                file.write(content)
            # Before it has its name: a name whose content was lost would never be put again.
            self._sync(partial)
            self._files.mv(partial, path)
        finally:
            if self._files.exists(partial):
                self._files.rm(partial)
        self._sync(path)
        return sha256

    def _sync(self, path: str) -> None:
        """Make a local file and its name durable; object stores are so when they answer."""
        if "file" not in self._files.protocol:
            return
        import os

        for name in (Path(path), Path(path).parent):
            handle = os.open(name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def get(self, sha256: str) -> bytes:
        """Return the content of a SHA-256; raises BlobMissing, BlobDamaged."""
        path = self._path(sha256)
        try:
            content = bytes(self._files.cat_file(path))
        except FileNotFoundError as error:
            raise BlobMissing(
                f"{self.url} holds no content {sha256}: copy the blobs beside the log too"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise BlobDamaged(
                f"the content stored as {sha256} in {self.url} has SHA-256 {found}: "
                "put it there again from its source"
            )
        return content
