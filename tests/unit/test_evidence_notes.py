"""Keys and checkpoints, in the formats that verifiers of others read."""

import stat
import threading
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from madlog.topics.evidence import (
    BadCheckpoint,
    BadKey,
    Checkpoint,
    EvidenceBroken,
    NotPublished,
    SigningKey,
    Tiles,
    VerifierKey,
    consistency,
    make_key,
    publish,
    read_key,
    read_published,
)
from madlog.topics.evidence.merkle import leaf_hash, verify_consistency
from madlog.topics.evidence.notes import open_checkpoint, split_notes, tree_of
from madlog.topics.positions import TopicPartition

SEED = bytes(range(32))
KEY = SigningKey.new(SEED, "example.com/log")
TREE = TopicPartition("mad.conversations", 3)
ORIGIN = "example.com/log/mad.conversations/3"


def test_a_checkpoint_is_three_lines_and_a_signature() -> None:
    checkpoint = Checkpoint(ORIGIN, 1234, leaf_hash(b"x"))
    note = checkpoint.signed(KEY)
    origin, size, root, empty, signature, end = note.split("\n")
    assert (origin, size, empty, end) == (ORIGIN, "1234", "", "")
    assert b64decode(root) == checkpoint.root
    assert signature.startswith(f"\u2014 {ORIGIN} ")
    assert open_checkpoint(note, KEY.verifier) == checkpoint
    assert tree_of("example.com/log", ORIGIN) == TREE
    assert tree_of("example.com/lo", ORIGIN) is None


def test_signatures_of_witnesses_and_lines_of_extensions_are_no_harm() -> None:
    checkpoint = Checkpoint(ORIGIN, 5, leaf_hash(b"x"))
    witness = SigningKey.new(SEED[::-1], "witness.example.com")
    cosigned = checkpoint.signed(KEY) + witness.sign(checkpoint.text()).split("\n\n")[1]
    assert open_checkpoint(cosigned, KEY.verifier) == checkpoint
    extended = KEY.sign(checkpoint.text() + "more\n", ORIGIN)
    assert open_checkpoint(extended, KEY.verifier) == checkpoint
    assert split_notes(f"{cosigned}\n{extended}") == [cosigned, extended]


def test_another_key_of_the_same_name_opens_nothing() -> None:
    note = Checkpoint(ORIGIN, 5, leaf_hash(b"x")).signed(KEY)
    other = SigningKey.new(SEED[::-1], KEY.name)
    assert open_checkpoint(note, other.verifier) is None
    with pytest.raises(BadCheckpoint, match="another log"):
        open_checkpoint(note, SigningKey.new(SEED, "example.com/other").verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n1\nAAAA\n",
        f"{ORIGIN}\n01\n{b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n-1\n{b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n1\n{'B'.join(b64encode(bytes(32)).decode().rsplit('A', 1))}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadCheckpoint):
        Checkpoint.parse(text)


@pytest.mark.parametrize("text", ["", "x", "a+b+c", "a+00000000+AQ==", f"{KEY.verifier}"[:-4]])
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(BadKey):
        VerifierKey.parse(text)


def test_an_altered_verifier_key_is_refused() -> None:
    with pytest.raises(BadKey, match="altered"):
        VerifierKey.parse(str(KEY.verifier).replace("example.com", "example.org"))


def test_a_key_stays_with_its_owner_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "evidence.key"
    assert read_key(file) is None
    made = make_key(file, lambda size: bytes(size), "example.com/log")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = read_key(file)
    assert again is not None
    assert again.verifier == made.verifier
    assert "AAAA" not in repr(again)
    with pytest.raises(BadKey, match="exists"):
        make_key(file, lambda size: bytes(size))


def test_a_key_that_names_itself_is_named_by_its_public_key() -> None:
    assert SigningKey.new(SEED).name == SigningKey.new(SEED).name != SigningKey.new(SEED[::-1]).name
    with pytest.raises(BadKey, match="without spaces"):
        SigningKey.new(SEED, "my log")


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evidence.key"
    make_key(file, lambda size: bytes(size))
    file.chmod(0o640)
    with pytest.raises(BadKey, match="chmod 600"):
        read_key(file)
    file.chmod(0o600)
    for content in (
        b"",
        b"\xff\xfe",
        b"PRIVATE+KEY+a+b+c",
        str(KEY).replace("log", "lag").encode(),
    ):
        file.write_bytes(content)
        with pytest.raises(BadKey, match="signing key") as refused:
            read_key(file)
        assert str(content) not in str(refused.value)
    file.unlink()
    file.mkdir(mode=0o700)
    with pytest.raises(BadKey, match="cannot be read"):
        read_key(file)


@pytest.fixture
def tiles(tmp_path: Path) -> Tiles:
    made = Tiles(tmp_path / "hashes")
    grow(made, 0, 300)
    return made


def grow(tiles: Tiles, first: int, end: int) -> None:
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(first, end)]
    tiles.extend(TREE, tiles.tree(TREE), leaves, range(first, end), end)
    note = Checkpoint(ORIGIN, end, tiles.root(TREE, end)).signed(KEY)
    tiles.mark_signed(TREE, note)


def test_published_checkpoints_are_read_again_and_growth_from_them_is_proven(
    tiles: Tiles, tmp_path: Path
) -> None:
    file = tmp_path / "published.txt"
    assert publish(tiles, KEY.verifier, str(file)) == 1
    grow(tiles, 300, 777)
    published = read_published(file, [KEY.verifier])
    assert [(one.tree, one.checkpoint.size, one.where) for one in published] == [
        (TREE, 300, str(file))
    ]
    (found,) = consistency(tiles, published, KEY.verifier)
    assert (found.old.size, found.new.size) == (300, 777)
    assert verify_consistency(300, 777, found.proof, found.old.root, found.new.root)
    assert publish(tiles, KEY.verifier, file.as_uri()) == 1
    assert read_published(file, [KEY.verifier])[0].checkpoint.size == 777


def test_bad_files_of_checkpoints_are_named(tiles: Tiles, tmp_path: Path) -> None:
    file = tmp_path / "published.txt"
    with pytest.raises(BadCheckpoint, match="No such file"):
        read_published(file, [KEY.verifier])
    for content in (b"", b"no checkpoint\n", b"\xff\xfe\x00", b"a\n1\n\n\xe2\x80\x94 a b\n"):
        file.write_bytes(content)
        with pytest.raises(BadCheckpoint, match="published"):
            read_published(file, [KEY.verifier])
    file.unlink()
    publish(tiles, KEY.verifier, str(file))
    with pytest.raises(BadCheckpoint, match="another log"):
        read_published(file, [SigningKey.new(SEED, "another.example.com").verifier])
    file.write_text(file.read_text().replace("\n300\n", "\n301\n"))
    with pytest.raises(EvidenceBroken, match="not signed by this log's key, or was altered"):
        read_published(file, [KEY.verifier])


def test_where_checkpoints_cannot_go_is_said(tiles: Tiles, tmp_path: Path) -> None:
    for to, error, words in (
        ("ftp://example.com/x", BadCheckpoint, "http"),
        ("http://127.0.0.1:1/x?y=secret", NotPublished, "did not reach http://127.0.0.1:1/x "),
        (str(tmp_path / "no" / "file"), NotPublished, "No such file"),
        (str(tiles.path / "file"), NotPublished, "Not a directory"),
        (str(tmp_path), BadCheckpoint, "directory"),
    ):
        with pytest.raises(error, match=words):
            publish(tiles, KEY.verifier, to)
    with (
        Tiles(tmp_path / "empty") as empty,
        pytest.raises(BadCheckpoint, match="no checkpoint was signed"),
    ):
        publish(empty, KEY.verifier, str(tmp_path / "file"))


class _Notary(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[str, str | None, str]]] = []

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.got.append((self.path, self.headers["Authorization"], body))
        self.send_response(403 if self.path == "/no" else 201)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_an_address_gets_the_checkpoints_and_its_password_is_not_shown(tiles: Tiles) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Notary)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        at = f"127.0.0.1:{server.server_port}"
        assert publish(tiles, KEY.verifier, f"http://ada:se%20cret@{at}/agents") == 1
        path, user, body = _Notary.got[-1]
        assert (path, body) == ("/agents", tiles.tree(TREE).signed)
        assert user == f"Basic {b64encode(b'ada:se cret').decode()}"
        with pytest.raises(NotPublished, match="it answered 403") as refused:
            publish(tiles, KEY.verifier, f"http://ada:secret@{at}/no")
        assert "secret" not in str(refused.value)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
