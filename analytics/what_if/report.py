"""What a what-if found: the record beside what would have been."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from madlog.analytics.what_if.acts import Act
from madlog.analytics.what_if.effects import VERDICTS, Verdict, amount_of
from madlog.analytics.what_if.excerpt import Excerpt
from madlog.analytics.what_if.tally import Tally
from madlog.topics import Vector

__all__ = ("Blocked", "GuardReport", "WhatIfReport")


@dataclass(frozen=True, slots=True)
class Blocked:
    """A tool call that a guard would have blocked, and what it had been on the record."""

    act: Act
    position: str
    reason: str
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """Return it as a row."""
        act = self.act
        return {
            "what": "act",
            "conversation_id": act.conversation_id,
            "position": self.position,
            "event_id": act.event_id,
            "agent": act.agent,
            "action": act.action,
            "arguments": act.text,
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class GuardReport:
    """What a guard would have blocked of the tool calls that it was asked about."""

    guard: str
    acts: int
    blocked: Sequence[Blocked]

    def count(self, verdict: Verdict) -> int:
        """Return how many of what was blocked had been that."""
        return sum(one.verdict == verdict for one in self.blocked)

    def amounts(self) -> dict[str, float]:
        """Return the money that the blocked calls name, by the argument's name."""
        sums: dict[str, float] = {}
        for one in self.blocked:
            found = amount_of(one.act)
            if found is not None:
                sums[found[0]] = round(sums.get(found[0], 0.0) + found[1], 6)
        return sums

    def as_json(self) -> dict[str, Any]:
        """Return it as one object; the calls themselves are rows."""
        return {
            "guard": self.guard,
            "acts": self.acts,
            "blocked": len(self.blocked),
            **{verdict: self.count(verdict) for verdict in VERDICTS},
            "amounts": self.amounts(),
        }


@dataclass(frozen=True)
class WhatIfReport:
    """The whole answer; `rows` are the first of all that differs, of which there are `differs`."""

    asked: Mapping[str, Any]
    start: Vector
    end: Vector
    events: int
    seconds: float
    tally: Tally | None
    cost: Mapping[str, Any]
    guard: GuardReport | None
    conversations: Sequence[Mapping[str, Any]]
    excerpts: Sequence[Excerpt]
    rows: Sequence[Mapping[str, Any]]
    differs: int
    failed: Mapping[str, str] = field(default_factory=dict)
    damaged: Sequence[str] = ()
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the report as one object."""
        tally = self.tally
        return {
            "asked": dict(self.asked),
            "from": str(self.start),
            "to": str(self.end),
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "decisions": 0 if tally is None else tally.decisions,
            "changed": 0 if tally is None else tally.changed,
            "undecided": 0 if tally is None else tally.undecided,
            "tiers": [] if tally is None else list(tally.tiers()),
            "promises": [] if tally is None else list(tally.promises()),
            "moves": [] if tally is None else tally.moves(),
            "cost": dict(self.cost),
            "guard": None if self.guard is None else self.guard.as_json(),
            "conversations": list(self.conversations),
            "excerpts": [excerpt.as_json() for excerpt in self.excerpts],
            "rows": list(self.rows),
            "rows_in_all": self.differs,
            "models_not_read": dict(self.failed),
            "damaged": list(self.damaged),
            "notes": list(self.notes),
        }
