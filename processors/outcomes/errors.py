"""Errors of outcomes.

ProcessorError (madlog.processors.errors)
└── UnknownRule (LookupError)   no rule of this name
"""

from madlog.processors.errors import ProcessorError

__all__ = ("UnknownRule",)


class UnknownRule(ProcessorError, LookupError):
    """There is no rule of this name: docs/outcomes.md lists those there are."""
