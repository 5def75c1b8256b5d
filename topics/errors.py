"""Errors of the log.

MadlogError (madlog.schemas)
└── LogError
    ├── NotWritten, OutcomeUnknown (OSError)      an append that was not made durable (G12)
    ├── IdempotencyConflict (ValueError)          same key, other content (G6)
    ├── PositionConflict (ValueError)             append_at met another end (ConditionalAppend)
    ├── PositionExpired (LookupError)             below the low-water mark (G4)
    ├── Fenced                                    the member lost this partition (G8)
    ├── RecordTooLarge (ValueError)               over the size limit
    ├── UnknownTopic (LookupError), TopicMismatch (ValueError), InvalidPosition (ValueError)
    ├── WrongAddress (ValueError)                 the log's URL, or a file that it names
    ├── GroupBusy                                 the group has live members
    ├── UnsupportedByBackend (NotImplementedError)
    ├── LogUnavailable (OSError)                  exit code 3: no log here, newer, read-only, …
    └── BlobDamaged, BlobMissing                  content does not match its address, is not there
"""

from typing import ClassVar

from madlog.schemas import MadlogError

__all__ = (
    "BlobDamaged",
    "BlobMissing",
    "Fenced",
    "GroupBusy",
    "IdempotencyConflict",
    "InvalidPosition",
    "LogError",
    "LogUnavailable",
    "NotWritten",
    "OutcomeUnknown",
    "PositionConflict",
    "PositionExpired",
    "RecordTooLarge",
    "TopicMismatch",
    "UnknownTopic",
    "UnsupportedByBackend",
    "WrongAddress",
)


class LogError(MadlogError):
    """The log could not do what it was asked to do."""


class NotWritten(LogError, OSError):
    """The append is not in the log; `retriable` says whether trying again can help."""

    retriable: ClassVar[bool] = True
    exit_code: ClassVar[int] = 3


class OutcomeUnknown(LogError, OSError):
    """The append may or may not be in the log: repeat it with the same idempotency key."""

    retriable: ClassVar[bool] = True
    exit_code: ClassVar[int] = 3


class IdempotencyConflict(LogError, ValueError):
    """This idempotency key was used with other content: use a new key for a new event."""


class PositionConflict(LogError, ValueError):
    """The partition's end is not where the append expected it: read on and decide again."""


class PositionExpired(LogError, LookupError):
    """The position is below the low-water mark: start from the oldest record still kept."""


class Fenced(LogError):
    """Another member owns this partition now: drop the batch and poll again."""


class RecordTooLarge(LogError, ValueError):
    """The record is over the size limit: store the content as a blob and refer to it."""


class UnknownTopic(LogError, LookupError):
    """The log holds no topic of this name: `madlog topics list` shows those there are."""


class TopicMismatch(LogError, ValueError):
    """The topic exists with another number of partitions, which would break key order."""


class InvalidPosition(LogError, ValueError):
    """A position reads TOPIC/PARTITION@OFFSET, several are joined by commas."""


class WrongAddress(LogError, ValueError):
    """The log's URL, or a file that it names, is not right: correct what the message names."""


class GroupBusy(LogError):
    """The consumer group has live members: stop them before its positions are reset."""


class UnsupportedByBackend(LogError, NotImplementedError):
    """This backend cannot do that."""


class LogUnavailable(LogError, OSError):
    """The log cannot be opened."""

    exit_code: ClassVar[int] = 3


class BlobDamaged(LogError, OSError):
    """The stored content does not match the SHA-256 that names it."""

    exit_code: ClassVar[int] = 1


class BlobMissing(LogError, LookupError):
    """No content is stored under this SHA-256."""
