"""Errors of what-if.

MadlogError (madlog.schemas)
└── AnalyticsError
    ├── NothingAsked (ValueError)     no model, promise, tier, price list or guard was named
    ├── UnknownModel (LookupError)    no such model on the log, and no such file
    ├── BadGuard (ValueError)         the guard cannot be loaded, or is no predicate
    ├── GuardFailed (RuntimeError)    the guard raised, or gave no answer that a guard gives
    ├── GuardTooSlow                  exit code 3: the guard did not come back in its time
    └── BadSnapshot (ValueError)      what a stopped replay left cannot be gone on from
"""

from typing import ClassVar

from madlog.analytics.errors import AnalyticsError

__all__ = (
    "BadGuard",
    "BadSnapshot",
    "GuardFailed",
    "GuardTooSlow",
    "NothingAsked",
    "UnknownModel",
)


class NothingAsked(AnalyticsError, ValueError):
    """Say what is to be otherwise: a model, a promised error, a tier, a price list or a guard."""


class UnknownModel(AnalyticsError, LookupError):
    """There is no such model: `madlog sql "select version, event_id from models"` lists them."""


class BadGuard(AnalyticsError, ValueError):
    """A guard is a SQL predicate, a .sql file of one, or FILE.py:FUNCTION, MODULE:FUNCTION."""


class GuardFailed(AnalyticsError, RuntimeError):
    """The guard raised: correct it and run it again; nothing was changed."""


class GuardTooSlow(AnalyticsError):
    """The guard did not come back in its time: it goes on for ever, or compares all with all."""

    exit_code: ClassVar[int] = 3


class BadSnapshot(AnalyticsError, ValueError):
    """The file of the stopped replay does not fit: remove it to begin anew."""
