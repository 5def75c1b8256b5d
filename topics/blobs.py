"""Fixed content by its SHA-256: files, images, model parameters; in a folder or any fsspec URL."""

import hashlib
import re

from madlog.topics.errors import BlobDamaged, BlobMissing
from madlog.topics.whole_files import WholeFiles

__all__ = ("BlobStore",)

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobStore(WholeFiles):
    """Content-addressed storage; what is put twice is stored once, what is got is verified."""

    def _path(self, name: str) -> str:
        if not _SHA256.fullmatch(name):
            raise BlobMissing(f"{name[:80]!r} is not the SHA-256 of anything: 64 hex digits")
        # Two levels, so that no folder grows past what file systems list quickly.
        return super()._path(f"{name[:2]}/{name}")

    def put(self, content: bytes) -> str:
        """Store content and return its SHA-256 in hex; whole or not at all."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self._files.exists(self._path(sha256)):
            self._write(sha256, content)
        return sha256

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
