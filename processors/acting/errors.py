"""Errors of acting.

ProcessorError (madlog.processors.errors)
├── CannotAnswer (LookupError)   nothing waits for this answer
├── InvalidRule (ValueError)     a precondition that no guard knows
├── InvalidBudget (ValueError)   a budget that nobody can keep
└── InvalidRegistry (ValueError) a registry file that says what cannot be followed
"""

from madlog.processors.errors import ProcessorError

__all__ = ("CannotAnswer", "InvalidBudget", "InvalidRegistry", "InvalidRule")


class CannotAnswer(ProcessorError, LookupError):
    """Nothing waits for this answer: `madlog control list` shows what does."""


class InvalidRule(ProcessorError, ValueError):
    """There is no such precondition: docs/guards.md lists those there are."""


class InvalidBudget(ProcessorError, ValueError):
    """A budget says how many acts, or how much money, in how many seconds."""


class InvalidRegistry(ProcessorError, ValueError):
    """The file of agents cannot be followed: correct what the message names."""
