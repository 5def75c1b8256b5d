"""Checkpoints kept elsewhere: written to a file or sent to an address, and read again.

Who can write the log's folder can put back an older copy of all of it, key and evidence included.
Only a checkpoint that is out of reach from there shows it.
"""

import os
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, url2pathname, urlopen

from madlog.topics.evidence.check import Published
from madlog.topics.evidence.errors import BadCheckpoint, EvidenceBroken, NotPublished
from madlog.topics.evidence.merkle import consistency_proof
from madlog.topics.evidence.notes import (
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    split_notes,
    tree_of,
)
from madlog.topics.evidence.tiles import Tiles
from madlog.topics.positions import TopicPartition

__all__ = ("Consistent", "consistency", "publish", "read_published")

_FILE_BYTES_MAX = 4 << 20
_TIMEOUT_S = 30.0
_MEDIA_TYPE = "text/plain; charset=utf-8"


class Consistent(NamedTuple):
    """The proof that a tree's records at one size are the beginning of those at another."""

    tree: TopicPartition
    old: Checkpoint
    new: Checkpoint
    proof: list[bytes]


def read_published(path: Path, keys: Iterable[VerifierKey]) -> list[Published]:
    """Return the checkpoints in a file that one of these keys has signed.

    Raises BadCheckpoint for what is no checkpoint or one of another log, EvidenceBroken where the
    signature is not by the key of the log that it names.
    """
    keys = list(keys)
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1).decode("utf-8")
        notes = split_notes(text)
        if len(text) > _FILE_BYTES_MAX:
            raise BadCheckpoint(f"it is larger than {_FILE_BYTES_MAX >> 20} MiB")
        return [_opened(note, keys, path) for note in notes]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadCheckpoint(
            f"the checkpoints in {path} cannot be read ({why}): name the file that "
            "`madlog evidence publish` wrote"
        ) from error
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path}: {error}") from error


def _opened(note: str, keys: list[VerifierKey], path: Path) -> Published:
    origin = Checkpoint.parse(note).origin
    key = next((one for one in keys if tree_of(one.name, origin)), None)
    if key is None:
        raise BadCheckpoint(
            f"it is of another log: its origin is {origin[:120]!r}, and this log's begin with "
            + " or ".join(repr(one.name[:120]) for one in keys)
        )
    checkpoint = open_checkpoint(note, key)
    tree = tree_of(key.name, origin)
    if checkpoint is None or tree is None:
        raise EvidenceBroken(
            f"{path}: the checkpoint of {origin} was not signed by this log's key, or was altered: "
            "one of the two was replaced"
        )
    return Published(tree, checkpoint, str(path))


def _must_go_on(tiles: Tiles, published: Iterable[Published]) -> None:
    """Raise EvidenceBroken where the log is not what was published of it before."""
    for tree, checkpoint, where in published:
        there = tiles.tree(tree).size
        if there < checkpoint.size or tiles.root(tree, checkpoint.size) != checkpoint.root:
            raise EvidenceBroken(
                f"{tree} does not go on from the checkpoint of {checkpoint.size} records in "
                f"{where}, which stays as it is: madlog check --against {where}"
            )


def consistency(tiles: Tiles, published: Iterable[Published], key: VerifierKey) -> list[Consistent]:
    """Return the proofs that the newest checkpoints go on from those that were published.

    Raises EvidenceBroken where one does not.
    """
    published = list(published)
    _must_go_on(tiles, published)
    found = []
    for tree, old, where in published:
        note = tiles.tree(tree).signed
        new = None if note is None else open_checkpoint(note, key)
        if new is None or new.size < old.size:
            raise BadCheckpoint(
                f"{tree} has no checkpoint of as many records as that in {where}: madlog evidence "
                "checkpoint signs one"
            )
        proof = consistency_proof(old.size, new.size, partial(tiles.node, tree))
        found.append(Consistent(tree, old, new, proof))
    return found


def publish(tiles: Tiles, key: VerifierKey, to: str) -> int:
    """Write the newest checkpoint of each tree to a file or an address; returns how many.

    `to` is a path, file:///PATH, or http(s)://…, which gets a PUT. A file that is there is replaced
    only if the log goes on from what it says. Raises EvidenceBroken, BadCheckpoint, NotPublished.
    """
    notes = [tree.signed for _, tree in sorted(tiles.trees().items()) if tree.signed]
    if not notes:
        raise BadCheckpoint("no checkpoint was signed yet: the log holds no records to sign")
    text = "\n".join(notes)
    scheme = urlsplit(to).scheme.lower()
    if scheme in ("http", "https"):
        _put(to, text)
    elif scheme in ("", "file") or len(scheme) == 1:  # one letter is a drive
        path = Path(url2pathname(urlsplit(to).path) if scheme == "file" else to)
        if path.exists():
            _must_go_on(tiles, read_published(path, [key]))
        _replace(path, text)
    else:
        raise BadCheckpoint(
            f"checkpoints cannot be written to {scheme}: name a file, or an address that begins "
            "with http:// or https://"
        )
    return len(notes)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise NotPublished(
            f"the checkpoints cannot be written to {path} ({error.strerror}): name another file"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _put(url: str, text: str) -> None:
    parts = urlsplit(url)
    # The address may hold a password: it is shown without.
    host = parts.netloc.rpartition("@")[2]
    shown = parts._replace(netloc=host, query="").geturl()
    headers = {"Content-Type": _MEDIA_TYPE}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
    try:
        request = Request(
            parts._replace(netloc=host).geturl(), text.encode(), headers, method="PUT"
        )
        with urlopen(request, timeout=_TIMEOUT_S):
            return
    except HTTPError as error:
        error.close()
        why = f"it answered {error.code} {error.reason}"
    except (URLError, OSError, ValueError) as error:
        why = str(getattr(error, "reason", "") or error)
    raise NotPublished(
        f"the checkpoints did not reach {shown} ({why}): see that it takes a PUT, then try again"
    )
