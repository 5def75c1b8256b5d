"""Errors of questions, SQL and replay.

MadlogError (madlog.schemas)
└── AnalyticsError
    ├── BadSql (ValueError)              not one SELECT, or DuckDB cannot run it
    ├── SqlLimit                         exit code 3: the query needs more memory than it may have
    ├── UnknownQuestion (LookupError)    no named question of this name
    ├── BadParameter (ValueError)        a question's parameter is unknown, missing, of another type
    ├── BadTime (ValueError)             not a time in ISO 8601
    ├── BadSearch (ValueError)           no word to look for, or not readable
    ├── IndexUnavailable (OSError)       exit code 3: the search index cannot be read or written
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
    "SqlLimit",
    "UnknownQuestion",
)


class AnalyticsError(MadlogError):
    """The log could not be asked this."""


class BadSql(AnalyticsError, ValueError):
    """The text is not one SELECT that can be run: correct it and ask again."""


class SqlLimit(AnalyticsError):
    """The query needs more memory than it may have: select fewer rows or columns."""

    exit_code: ClassVar[int] = 3


class UnknownQuestion(AnalyticsError, LookupError):
    """There is no question of this name: `madlog ask` lists those there are."""


class BadParameter(AnalyticsError, ValueError):
    """The question does not take this parameter: `madlog ask` shows those it takes."""


class BadTime(AnalyticsError, ValueError):
    """A time reads 2026-11-24T12:00:00, UTC where it names no zone."""


class BadSearch(AnalyticsError, ValueError):
    """What is looked for is some words, phrases in quotes, or beginnings such as refund*."""


class IndexUnavailable(AnalyticsError, OSError):
    """The search index cannot be used: check its disk, or remove it, it is made anew."""

    exit_code: ClassVar[int] = 3


class CannotWrite(AnalyticsError, ValueError):
    """The result holds a type that this file format cannot: cast the column to VARCHAR."""
