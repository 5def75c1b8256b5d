"""The log: one interface, durable backends, the catalogue of topics, blobs."""

from madlog.topics.catalog import CATALOG, Topic
from madlog.topics.clock import Clock, SystemClock, system_random
from madlog.topics.errors import (
    Fenced,
    IdempotencyConflict,
    LogError,
    LogUnavailable,
    NotWritten,
    OutcomeUnknown,
    PositionExpired,
    RecordTooLarge,
    UnknownTopic,
    UnsupportedByBackend,
    WrongAddress,
)
from madlog.topics.event_log import EventLog, LogEvent, NewEvent
from madlog.topics.log import Commit, Damage, Log, Membership, NewRecord, Receipt, Record
from madlog.topics.positions import Position, TopicPartition, Vector

__all__ = (
    "CATALOG",
    "Clock",
    "Commit",
    "Damage",
    "EventLog",
    "Fenced",
    "IdempotencyConflict",
    "Log",
    "LogError",
    "LogEvent",
    "LogUnavailable",
    "Membership",
    "NewEvent",
    "NewRecord",
    "NotWritten",
    "OutcomeUnknown",
    "Position",
    "PositionExpired",
    "Receipt",
    "Record",
    "RecordTooLarge",
    "SystemClock",
    "Topic",
    "TopicPartition",
    "UnknownTopic",
    "UnsupportedByBackend",
    "Vector",
    "WrongAddress",
    "system_random",
)
