"""Errors of questions, SQL and replay.

MadlogError (madlog.schemas)
└── AnalyticsError
    ├── BadSql (ValueError)              not one SELECT, or DuckDB cannot run it
    │   └── SqlRefused                   SQL of others asks for what it may not have
    ├── SqlLimit                         exit code 3: the query needs more than it may have
    ├── UnknownQuestion (LookupError)    no named question of this name
    ├── BadParameter (ValueError)        a question's parameter is unknown, missing, of another type
    ├── BadTime (ValueError)             not a time in ISO 8601
    ├── UnknownEvent (LookupError)       no event of this id
    ├── BadSearch (ValueError)           no word to look for, or not readable
    ├── IndexUnavailable (OSError)       exit code 3: the search index cannot be read or written
    ├── LakeUnavailable                  exit code 3: the lake cannot be reached, or is newer
    │   └── LakeDamaged                  exit code 3: a file is missing, or not what was archived
    └── CannotWrite (ValueError)         the result does not fit the file format
"""

from typing import ClassVar

from madlog.schemas import MadlogError

__all__ = (
    "AnalyticsError",
    "BadParameter",
    "BadSearch",
    "BadSql",
    "BadTime",
    "CannotWrite",
    "IndexUnavailable",
    "LakeDamaged",
    "LakeUnavailable",
    "SqlLimit",
    "SqlRefused",
    "UnknownEvent",
    "UnknownQuestion",
)


class AnalyticsError(MadlogError):
    """The log could not be asked this."""


class BadSql(AnalyticsError, ValueError):
    """The text is not one SELECT that can be run: correct it and ask again."""


class SqlRefused(BadSql):
    """The query asks for what SQL of others may not have: only the views can be read."""


class SqlLimit(AnalyticsError):
    """The query needs more memory than it may have: select fewer rows or columns."""

    exit_code: ClassVar[int] = 3


class UnknownQuestion(AnalyticsError, LookupError):
    """There is no question of this name: `madlog ask` lists those there are."""


class BadParameter(AnalyticsError, ValueError):
    """The question does not take this parameter: `madlog ask` shows those it takes."""


class BadTime(AnalyticsError, ValueError):
    """A time reads 2026-11-24T12:00:00, UTC where it names no zone."""


class UnknownEvent(AnalyticsError, LookupError):
    """The log holds no event of this id."""


class BadSearch(AnalyticsError, ValueError):
    """What is looked for is some words, phrases in quotes, or beginnings such as refund*."""


class IndexUnavailable(AnalyticsError, OSError):
    """The search index cannot be used: check its disk, or remove it, it is made anew."""

    exit_code: ClassVar[int] = 3


class CannotWrite(AnalyticsError, ValueError):
    """The result holds a type that this file format cannot: cast the column to VARCHAR."""


class LakeUnavailable(AnalyticsError):
    """The lake cannot be used: check where MADLOG_LAKE says that it is."""

    exit_code: ClassVar[int] = 3


class LakeDamaged(LakeUnavailable):
    """A file of the lake is not what was archived: `madlog lake check` names all of them."""
