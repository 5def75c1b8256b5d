"""Errors of this project; each message says what happened, where, and what to do.

MadlogError
├── SchemaError
│   ├── InvalidEvent (ValueError)
│   ├── UnknownSchema (LookupError)
│   ├── Undecodable (ValueError)
│   └── IncompatibleSchema (ValueError)
└── the log's own errors, in madlog.topics.errors
"""

from typing import ClassVar

__all__ = (
    "IncompatibleSchema",
    "InvalidEvent",
    "MadlogError",
    "SchemaError",
    "Undecodable",
    "UnknownSchema",
)


class MadlogError(Exception):
    """Something madlog was asked to do could not be done."""

    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class SchemaError(MadlogError):
    """An event or a schema is not what it should be."""


class InvalidEvent(SchemaError, ValueError):
    """The event breaks a rule of its kind: correct the named field and send it again."""


class UnknownSchema(SchemaError, LookupError):
    """The event names a schema that neither this program nor the log's mad.schemas holds."""


class Undecodable(SchemaError, ValueError):
    """The bytes are not an event: they are cut short, damaged, or were never one."""


class IncompatibleSchema(SchemaError, ValueError):
    """The new schema cannot read or be read by a released one: add fields with defaults only."""
