"""What a format is: a pure function from one object of a file to the events of a conversation."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from madlog.schemas import Event

__all__ = ("Format", "PutBlob", "SourceObject", "canonical_sha256")

# Stores content and returns its SHA-256 in hex.
PutBlob = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One object of a file with where it stands and who it is."""

    value: dict[str, Any]
    line: int
    file_sha256: str
    # The source's own name of the conversation, never the file's name or the line's number.
    conversation: str
    put_blob: PutBlob | None = None


class Format(Protocol):
    """One form of foreign logs."""

    @property
    def name(self) -> str:
        """The name by which it is asked for."""

    @property
    def documents(self) -> bool:
        """Whether a file may be a single JSON document too."""

    @property
    def counts_equals(self) -> bool:
        """Whether equal objects are different conversations, told apart by their ordinal."""

    def check(self, value: Any) -> dict[str, Any]:
        """Return the object if it has this format's shape; raises BadLine."""

    def conversation(self, value: dict[str, Any]) -> str:
        """Return the source's own name of the conversation, from its content alone."""

    def events(self, found: SourceObject) -> list[Event]:
        """Return the events of the conversation in their order; raises BadLine."""


def canonical_sha256(value: Any) -> str:
    """Return the SHA-256 of an object's canonical JSON: keys sorted, no spaces, ASCII only."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
