"""The file that holds a log's signing key: for its owner's eyes only."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from madlog.topics.evidence.errors import BadKey
from madlog.topics.evidence.notes import SigningKey

__all__ = ("make_key", "read_key")

_SEED_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_key(path: Path) -> SigningKey | None:
    """Return the key in a file, None where there is no file; raises BadKey."""
    try:
        with path.open("rb") as file:
            others = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS
            text = file.read(4096).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadKey(
            f"the signing key {path} cannot be read ({error.strerror}): name another file with "
            "MADLOG_EVIDENCE_KEY, or change its permissions"
        ) from error
    if others:
        raise BadKey(
            f"the signing key {path} can be read or written by others: chmod 600 {path}, and make "
            "a new key if somebody may have copied it"
        )
    try:
        return SigningKey.parse(text)
    except BadKey as error:
        raise BadKey(f"{path}: {error}; put the right file there, or make a new key") from error


def make_key(path: Path, random: Callable[[int], bytes], name: str | None = None) -> SigningKey:
    """Make a new key and its file, which must not be there; raises BadKey."""
    key = SigningKey.new(random(_SEED_BYTES), name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadKey(
            f"the signing key {path} cannot be made ({error.strerror}): name another file with "
            "MADLOG_EVIDENCE_KEY"
        ) from error
    return key
