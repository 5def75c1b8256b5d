"""Outcomes: how it is known, from the log alone, how the handling of a turn ended."""

from madlog.processors.outcomes.errors import UnknownRule
from madlog.processors.outcomes.facts import ConversationFacts, Decided, Judged, Said
from madlog.processors.outcomes.job import TOPICS, judge_log
from madlog.processors.outcomes.judge import Judge
from madlog.processors.outcomes.labels import Label, Verdict, known, label
from madlog.processors.outcomes.rules import RULES, Rule, chosen

__all__ = (
    "RULES",
    "TOPICS",
    "ConversationFacts",
    "Decided",
    "Judge",
    "Judged",
    "Label",
    "Rule",
    "Said",
    "UnknownRule",
    "Verdict",
    "chosen",
    "judge_log",
    "known",
    "label",
)
