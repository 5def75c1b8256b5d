"""Files that are written whole or not at all: what is durable when, what a failure leaves."""

import os
from pathlib import Path

import pytest

from madlog.topics.blobs import BlobStore
from madlog.topics.whole_files import PARTIAL, WholeFiles


class Watched(WholeFiles):
    """Files that note what is made durable, and when a name is given."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.steps: list[str] = []

    def _sync(self, path: str) -> None:
        super()._sync(path)
        self.steps.append(path)

    def _rename(self, partial: str, target: str) -> None:
        super()._rename(partial, target)
        self.steps.append("renamed")


def test_a_file_is_durable_before_it_has_its_name_and_its_folders_after(tmp_path: Path) -> None:
    files = Watched(str(tmp_path / "new" / "root"))
    files._write("a/b/file", b"content")
    root = tmp_path / "new" / "root"
    assert files.steps[0].startswith(str(root / "a" / "b" / "file."))
    # Each folder that may be new is a name in the one above it, up to one that was there.
    folders = (root / "a" / "b", root / "a", root, tmp_path / "new", tmp_path)
    assert files.steps[1:] == ["renamed", *map(str, folders)]


def test_folders_below_the_root_are_made_durable_again_by_the_next_file(tmp_path: Path) -> None:
    # A crash may have come between making them and making them durable.
    (tmp_path / "root" / "a").mkdir(parents=True)
    files = Watched(str(tmp_path / "root"))
    files._write("a/file", b"content")
    assert len(files.steps) == 5


def test_a_write_that_fails_leaves_nothing_and_the_file_as_it_was(tmp_path: Path) -> None:
    class Full(WholeFiles):
        def _put(self, path: str, content: bytes) -> None:
            Path(path).write_bytes(content[:2])
            raise OSError("No space left on device")

    WholeFiles(str(tmp_path))._write("file", b"before")
    with pytest.raises(OSError, match="No space"):
        Full(str(tmp_path))._write("file", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))


def test_the_first_blob_is_durable_with_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    sha256 = BlobStore(str(tmp_path / "blobs")).put(b"content")
    folders = (tmp_path / "blobs" / sha256[:2], tmp_path / "blobs", tmp_path)
    assert [str(folder) for folder in folders] == synced[-3:]
