"""Errors of asking a language model.

ProcessorError (madlog.processors.errors)
├── NoAnswer (LookupError)      the script or the record has nothing to say here
└── InvalidAnswer (ValueError)  a route or arguments that nothing can follow
"""

from madlog.processors.errors import ProcessorError

__all__ = ("InvalidAnswer", "NoAnswer")


class NoAnswer(ProcessorError, LookupError):
    """The script or the record has no answer to this turn: add one, or give a default."""


class InvalidAnswer(ProcessorError, ValueError):
    """An answer says something, or runs a registered action with a JSON object."""
