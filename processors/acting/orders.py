"""What people have ordered: the fold of mad.control with approvals and budgets.

An act of high risk is asked about by a Control event `ask` (about_id: the act), and answered by
`approve` or `refuse` before its time is up; the first answer counts. `expire` says that none came.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from madlog.processors.acting.budgets import Budget, budget_of
from madlog.processors.acting.proposal import Proposal, Tier
from madlog.processors.control import ALL, NOTHING, fold
from madlog.processors.errors import ProcessorError
from madlog.processors.lppm.values import canonical
from madlog.topics import LogEvent

__all__ = ("TOPIC", "Answered", "Ask", "Orders", "place_of")

TOPIC = "mad.control"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a question: by whom, when, why."""

    how: Literal["approve", "refuse", "expire"]
    by: str
    at: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A question about an act that waits for an approval."""

    event_id: str
    proposal: Proposal
    expires_at: int
    place: tuple[int, int, int]
    answered: Answered | None = None


def place_of(event: LogEvent) -> tuple[int, int, int]:
    """Return what orders acts: within a conversation it is the order of its log."""
    return event.record.appended_at, event.record.partition, event.record.offset


class Orders:
    """What holds now by the Control events read so far."""

    def __init__(self) -> None:
        self.controls: Mapping[str, Any] = NOTHING
        self.last_id: str | None = None
        self.asks: dict[str, Ask] = {}
        self._budgets: dict[tuple[str, str], tuple[Budget, int | None]] = {}

    def fold(self, event: LogEvent) -> None:
        """Take up one Control event; one that cannot be followed is named and changes nothing."""
        fields = event.fields
        self.last_id = event.event_id
        try:
            self.controls = fold(self.controls, fields)
            if fields["command"] == "budget":
                self._budget(fields)
        except ProcessorError as error:
            logging.getLogger("madlog").warning("%s: %s", event.position, error)
            return
        if fields["command"] == "ask":
            self._ask(event)
        elif fields["command"] in ("approve", "refuse", "expire"):
            self._answer(fields)

    def budgets(self, agent: str, own: Mapping[str, Budget], now: int) -> list[Budget]:
        """Return the budgets of an agent: its file's, and what was ordered since in their place."""
        found = dict(own)
        for target in (ALL, agent):
            for (whose, name), (budget, expires_at) in self._budgets.items():
                if whose == target and (expires_at is None or now < expires_at):
                    found[name] = budget
        return [found[name] for name in sorted(found)]

    def ordered_budgets(self, now: int) -> list[tuple[str, Budget, int | None]]:
        """Return (whose, budget, until) of what was ordered and holds now."""
        return [
            (target, budget, expires_at)
            for (target, _), (budget, expires_at) in sorted(self._budgets.items())
            if expires_at is None or now < expires_at
        ]

    def waiting(self, now: int) -> list[Ask]:
        """Return the questions that can still be answered, the oldest first."""
        found = [one for one in self.asks.values() if one.answered is None and now < one.expires_at]
        return sorted(found, key=lambda one: (one.expires_at, one.event_id))

    def _budget(self, fields: Mapping[str, Any]) -> None:
        key = (fields["target"], fields["name"] or "")
        if fields["value"] is None:
            self._budgets.pop(key, None)
        else:
            self._budgets[key] = (budget_of(key[1], fields["value"]), fields["expires_at"])

    def _ask(self, event: LogEvent) -> None:
        fields = event.fields
        about, value = fields["about_id"], _object(fields["value"])
        if about is None or about in self.asks or fields["expires_at"] is None:
            return
        if not isinstance(value.get("action"), str):
            return
        arguments = value.get("arguments")
        proposal = Proposal(
            decision_id=fields["causation_id"] or about,
            conversation_id=fields["conversation_id"],
            agent=fields["target"],
            action=value["action"],
            arguments=None if arguments is None else canonical(arguments),
            tier=cast(Tier, fields["tier"] or "imperator"),
            occurred_at=fields["occurred_at"],
            correlation_id=fields["correlation_id"],
            number=value["number"] if type(value.get("number")) is int else 0,
            subject=fields["subject"],
            call_id=fields["extra"].get("call"),
            cause_id=fields["extra"].get("cause"),
            asker=fields["extra"].get("asker"),
        )
        if proposal.act_id == about:
            until = fields["expires_at"]
            self.asks[about] = Ask(event.event_id, proposal, until, place_of(event))

    def _answer(self, fields: Mapping[str, Any]) -> None:
        ask = self.asks.get(fields["about_id"] or "")
        if ask is None or ask.answered is not None:
            return
        # A late approval approves nothing: what was asked about may be wrong by now.
        if fields["command"] == "approve" and fields["occurred_at"] >= ask.expires_at:
            return
        answered = Answered(
            fields["command"], fields["sender"]["name"], fields["occurred_at"], fields["reason"]
        )
        self.asks[ask.proposal.act_id] = replace(ask, answered=answered)


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
