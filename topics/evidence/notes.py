"""Checkpoints as signed notes: the formats of C2SP that verifiers written by others read.

A note is a text, an empty line, and signature lines (c2sp.org/signed-note); a checkpoint is a note
whose text is an origin, the size of a tree and its root (c2sp.org/tlog-checkpoint). Each tree is a
log of its own to them: its origin and its key's name are NAME/TOPIC/PARTITION.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from madlog.topics.evidence.errors import BadCheckpoint, BadKey
from madlog.topics.evidence.merkle import HASH_BYTES
from madlog.topics.positions import TopicPartition

__all__ = (
    "Checkpoint",
    "SigningKey",
    "VerifierKey",
    "checkpoint_of",
    "open_checkpoint",
    "origin_of",
    "split_notes",
    "tree_of",
)

_ED25519 = b"\x01"
_KEY_BYTES = 32
_PRIVATE = "PRIVATE+KEY+"
_DASH = "\u2014"
_NAME = re.compile(r"[^\s+\x00-\x1f]{1,400}")
_TREE = re.compile(r"/([A-Za-z0-9._-]{1,249})/([0-9]{1,9})")
_SIGNATURE = re.compile(rf"{_DASH} ([^\s+]+) ([A-Za-z0-9+/]+={{0,2}})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _decoded(text: str) -> bytes:
    """Return what base64 stands for; ValueError for all but the one way to write it."""
    data = b64decode(text, validate=True)
    if b64encode(data).decode() != text:
        raise ValueError("not the canonical base64")
    return data


def origin_of(name: str, tree: TopicPartition) -> str:
    """Return the origin of one tree of the log of that name."""
    return f"{name}/{tree.topic}/{tree.partition}"


def tree_of(name: str, origin: str) -> TopicPartition | None:
    """Return the tree that an origin names, None if it is not one of the log of that name."""
    match = _TREE.fullmatch(origin.removeprefix(name)) if origin.startswith(name) else None
    return TopicPartition(match[1], int(match[2])) if match else None


class VerifierKey(NamedTuple):
    """A public key with the name of the log that signs with it."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read the form NAME+HASH+KEY; raises BadKey."""
        text = text.strip()
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = _decoded(encoded)
        except ValueError:
            data = b""
        made = cls(name, data[1:])
        if data[:1] != _ED25519 or len(made.public) != _KEY_BYTES or not _NAME.fullmatch(name):
            raise BadKey(
                f"{text[:80]!r} is not a verifier key: it reads NAME+HASH+KEY, and "
                "`madlog evidence key` shows that of a log"
            )
        if key_id != _key_id(*made).hex():
            raise BadKey(f"the verifier key of {name[:80]!r} was altered: its hash is another")
        return made

    def __str__(self) -> str:
        key_id = _key_id(self.name, self.public).hex()
        return f"{self.name}+{key_id}+{b64encode(_ED25519 + self.public).decode()}"

    def of_tree(self, tree: TopicPartition) -> "VerifierKey":
        """Return the same key as one of the log's trees signs with it."""
        return VerifierKey(origin_of(self.name, tree), self.public)

    def verified(self, note: str) -> str | None:
        """Return the text of a note that this key has signed, None where it has not."""
        text, _, signatures = note.rpartition("\n\n")
        text += "\n"
        key_id = _key_id(*self)
        for line in signatures.split("\n"):
            match = _SIGNATURE.fullmatch(line)
            if match is None or match[1] != self.name:
                continue
            try:
                data = _decoded(match[2])
                if data[:4] != key_id:
                    continue
                Ed25519PublicKey.from_public_bytes(self.public).verify(data[4:], text.encode())
            except (ValueError, InvalidSignature):
                return None
            return text
        return None


class SigningKey:
    """A private key with the name of the log that signs with it."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = VerifierKey(name, self._private.public_key().public_bytes_raw())

    @classmethod
    def new(cls, seed: bytes, name: str | None = None) -> "SigningKey":
        """Make a key of 32 random bytes; the name is by default computed from the public key."""
        if name is None:
            public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
            name = f"madlog-{hashlib.sha256(public).hexdigest()[:16]}"
        if not _NAME.fullmatch(name):
            raise BadKey(
                f"{name[:80]!r} cannot name a log: use an address without spaces and +, such as "
                "example.com/agents"
            )
        return cls(name, seed)

    @classmethod
    def parse(cls, text: str) -> "SigningKey":
        """Read the form PRIVATE+KEY+NAME+HASH+KEY; raises BadKey, without the text."""
        name, _, rest = text.strip().removeprefix(_PRIVATE).partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = _decoded(encoded)
        except ValueError:
            data = b""
        right = text.startswith(_PRIVATE) and data[:1] == _ED25519 and len(data) == 1 + _KEY_BYTES
        if not right or not _NAME.fullmatch(name):
            raise BadKey("it holds no signing key")
        made = cls(name, data[1:])
        if key_id != _key_id(*made.verifier).hex():
            raise BadKey("its signing key was altered")
        return made

    def __str__(self) -> str:
        key_id = _key_id(*self.verifier).hex()
        return f"{_PRIVATE}{self.name}+{key_id}+{b64encode(_ED25519 + self._seed).decode()}"

    def __repr__(self) -> str:  # never the seed: this may come into a traceback
        return f"SigningKey({self.name!r})"

    def sign(self, text: str, name: str | None = None) -> str:
        """Return the note of a text that ends with a newline, signed under a name."""
        verifier = VerifierKey(name or self.name, self.verifier.public)
        data = _key_id(*verifier) + self._private.sign(text.encode())
        return f"{text}\n{_DASH} {verifier.name} {b64encode(data).decode()}\n"


class Checkpoint(NamedTuple):
    """What a tree held when it was signed: its origin, size and root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a checkpoint's text, or its note; lines after the root are ignored.

        Raises BadCheckpoint.
        """
        origin, size, root, *_ = [*text.split("\n"), "", "", ""]
        try:
            data = _decoded(root)
        except ValueError:
            data = b""
        if not origin or not _SIZE.fullmatch(size) or len(data) != HASH_BYTES:
            raise BadCheckpoint(
                f"{text[:60]!r} is no checkpoint: its lines are an origin, a size and a root"
            )
        return cls(origin, int(size), data)

    def signed(self, key: SigningKey) -> str:
        """Return the note of this checkpoint, signed under its origin."""
        return key.sign(self.text(), self.origin)


def checkpoint_of(note: str, key: VerifierKey) -> Checkpoint | None:
    """Return the checkpoint of a note if it is of the tree that the key is named after, and signed.

    A signature covers the text and not the name beside it, which anybody can write: so the note of
    another tree, or another text that the same key signed, is none of this tree.
    """
    text = key.verified(note)
    try:
        found = None if text is None else Checkpoint.parse(text)
    except BadCheckpoint:
        return None
    return found if found is not None and found.origin == key.name else None


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint | None:
    """Return the checkpoint of a note if it is of a tree of the key's log and signed by it.

    Raises BadCheckpoint for what is no checkpoint, or one of another log.
    """
    found = Checkpoint.parse(note)
    tree = tree_of(key.name, found.origin)
    if tree is None:
        raise BadCheckpoint(
            f"the checkpoint is of another log: its origin is {found.origin[:120]!r}, and this "
            f"log's begin with {key.name[:120]!r}"
        )
    return checkpoint_of(note, key.of_tree(tree))


def split_notes(text: str) -> list[str]:
    """Return the notes that stand one after another in a text; raises BadCheckpoint."""
    notes: list[str] = []
    lines: list[str] = []
    signed = False
    for line in text.split("\n"):
        if signed and not line.startswith(_DASH):
            notes.append("".join(lines))
            lines, signed = [], False
        if lines or line.strip():
            lines.append(line + "\n")
            signed = line.startswith(_DASH)
    if lines or not notes:
        raise BadCheckpoint("it holds no signed checkpoint")
    return notes
