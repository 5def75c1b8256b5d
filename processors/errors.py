"""Errors of processors and of the engines that run them.

MadlogError (madlog.schemas)
└── ProcessorError
    ├── InvalidFeatures (TypeError) what is to be learned is not of the declared features
    ├── InvalidModel (ValueError)   a published model that cannot be served
    ├── NoEmbedding (LookupError)   what a model learned with is not installed
    ├── NoModel (LookupError)       a processor was stepped before its model was published
    ├── ReservedKey (KeyError)      a step wrote a state key that the engine owns
    ├── WrongPartition (ValueError) a record stands where its key does not belong
    ├── UnknownProcessor (LookupError), UnknownGroup (LookupError)
    └── RecoveryTimeout             exit code 3: state could not be rebuilt in time
"""

from typing import ClassVar

from madlog.schemas import MadlogError

__all__ = (
    "InvalidControl",
    "InvalidFeatures",
    "InvalidModel",
    "NoEmbedding",
    "NoModel",
    "ProcessorError",
    "RecoveryTimeout",
    "ReservedKey",
    "UnknownGroup",
    "UnknownProcessor",
    "WrongPartition",
)


class ProcessorError(MadlogError):
    """A processor could not do its part."""


class InvalidControl(ProcessorError, ValueError):
    """A Control event says what no processor can follow."""


class InvalidFeatures(ProcessorError, TypeError):
    """The tree learns declared integers and category names, never prose."""


class InvalidModel(ProcessorError, ValueError):
    """The model's parameters are not a decision tree that the router can walk."""


class NoEmbedding(ProcessorError, LookupError):
    """A model needs vectors of words that are not installed here."""


class NoModel(ProcessorError, LookupError):
    """The log holds no decision tree yet: the worker publishes the first one when it starts."""


class ReservedKey(ProcessorError, KeyError):
    """State keys that begin with @ belong to the engine: choose another key."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class WrongPartition(ProcessorError, ValueError):
    """The record is not in the partition of its key: its writer must use murmur2 partitioning."""


class UnknownProcessor(ProcessorError, LookupError):
    """No processor has this name."""


class UnknownGroup(ProcessorError, LookupError):
    """No consumer group of this name has read the log."""


class RecoveryTimeout(ProcessorError, TimeoutError):
    """State was not rebuilt in time: raise the limit, or look at the log with `madlog check`."""

    exit_code: ClassVar[int] = 3
