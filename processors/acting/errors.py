"""Errors of acting.

ProcessorError (madlog.processors.errors)
├── InvalidRule (ValueError)     a precondition that no guard knows
├── InvalidBudget (ValueError)   a budget that nobody can keep
└── InvalidRegistry (ValueError) a registry file that says what cannot be followed
"""

from madlog.processors.errors import ProcessorError

__all__ = ("InvalidBudget", "InvalidRegistry", "InvalidRule")


class InvalidRule(ProcessorError, ValueError):
    """There is no such precondition: docs/guards.md lists those there are."""


class InvalidBudget(ProcessorError, ValueError):
    """A budget says how many acts, or how much money, in how many seconds."""


class InvalidRegistry(ProcessorError, ValueError):
    """The file of agents cannot be followed: correct what the message names."""
