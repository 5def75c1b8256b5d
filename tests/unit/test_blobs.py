import hashlib
from pathlib import Path

import pytest

from madlog.topics.blobs import BlobStore
from madlog.topics.errors import BlobDamaged, BlobMissing


@pytest.mark.parametrize("content", [b"", b"refund form", bytes(range(256)) * 5000])
def test_content_comes_back_under_its_sha256(tmp_path: Path, content: bytes) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    assert store.put(content) == hashlib.sha256(content).hexdigest()
    assert store.get(store.put(content)) == content


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    assert store.put(b"a") == store.put(b"a")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_any_fsspec_url_will_do() -> None:
    store = BlobStore("memory://blobs-of-a-test")
    assert store.get(store.put(b"in memory")) == b"in memory"


def test_changed_content_is_found_when_it_is_read(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    name = store.put(b"original")
    (tmp_path / name[:2] / name).write_bytes(b"0riginal")
    with pytest.raises(BlobDamaged, match=name):
        store.get(name)


def test_missing_content_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    with pytest.raises(BlobMissing, match="holds no content"):
        store.get("0" * 64)
    with pytest.raises(BlobMissing, match="64 hex digits"):
        store.get("../../etc/passwd")
