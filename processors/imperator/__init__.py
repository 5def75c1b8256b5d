"""The language model that decides what no cheaper tier may: asked, audited by, learned from."""

from madlog.processors.imperator.answering import AUDIT, call_id_of
from madlog.processors.imperator.errors import InvalidAnswer, NoAnswer
from madlog.processors.imperator.job import Answered, Escalations, Limits
from madlog.processors.imperator.ports import Acts, Answer, Asked, Imperator
from madlog.processors.imperator.scripted import RecordedImperator, ScriptedImperator

__all__ = (
    "AUDIT",
    "Acts",
    "Answer",
    "Answered",
    "Asked",
    "Escalations",
    "Imperator",
    "InvalidAnswer",
    "Limits",
    "NoAnswer",
    "RecordedImperator",
    "ScriptedImperator",
    "call_id_of",
)
