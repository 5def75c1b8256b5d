"""Processors: pure steps over events, and the engine that runs them."""

from madlog.processors.dead_letters import Letter, Retried, dead_letters, retry_letters
from madlog.processors.engine import Engine, Options, Report
from madlog.processors.errors import (
    InvalidModel,
    NoModel,
    ProcessorError,
    RecoveryTimeout,
    ReservedKey,
    UnknownProcessor,
    WrongPartition,
)
from madlog.processors.groups import group_rows
from madlog.processors.ports import Agent, Registry
from madlog.processors.router import Router
from madlog.processors.step import Processor, State

__all__ = (
    "Agent",
    "Engine",
    "InvalidModel",
    "Letter",
    "NoModel",
    "Options",
    "Processor",
    "ProcessorError",
    "RecoveryTimeout",
    "Registry",
    "Report",
    "ReservedKey",
    "Retried",
    "Router",
    "State",
    "UnknownProcessor",
    "WrongPartition",
    "dead_letters",
    "group_rows",
    "retry_letters",
)
