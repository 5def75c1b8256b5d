"""Errors of tamper evidence.

LogError (madlog.topics.errors)
└── EvidenceError
    ├── BadKey (ValueError)               the signing key or verifier key is missing or wrong
    ├── BadCheckpoint (ValueError)        a text is no checkpoint, or is one of another log
    ├── BadBundle (ValueError)            a bundle cannot be written or read
    ├── NotPublished (OSError)            a checkpoint did not reach where it was sent (exit code 3)
    ├── EvidenceBroken                    the log is not what was signed before (exit code 1)
    └── HashesDamaged (OSError)           the stored hashes cannot be read: they can be made anew
"""

from typing import ClassVar

from madlog.topics.errors import LogError

__all__ = (
    "BadBundle",
    "BadCheckpoint",
    "BadKey",
    "EvidenceBroken",
    "EvidenceError",
    "HashesDamaged",
    "NotPublished",
)


class EvidenceError(LogError):
    """Tamper evidence could not be made or checked."""


class BadKey(EvidenceError, ValueError):
    """A key is missing, or is not one: `madlog evidence key` makes and shows it."""


class BadCheckpoint(EvidenceError, ValueError):
    """This is no checkpoint of this log: name the file that `madlog evidence publish` wrote."""


class BadBundle(EvidenceError, ValueError):
    """The bundle cannot be written or read."""


class NotPublished(EvidenceError, OSError):
    """The checkpoint did not reach the place it was sent to: try again, or another place."""

    exit_code: ClassVar[int] = 3


class EvidenceBroken(EvidenceError):
    """The log is not what was signed before: `madlog check` says where."""

    exit_code: ClassVar[int] = 1


class HashesDamaged(EvidenceError, OSError):
    """The stored hashes cannot be read: delete their file, they are made anew from the log."""

    exit_code: ClassVar[int] = 1
