"""What a language model is asked and what it answers: the interface that each Imperator has.

An Imperator decides; it runs nothing and appends nothing. What it does not know of its own costs
stays None, and is never 0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR
from madlog.processors.imperator.errors import InvalidAnswer
from madlog.processors.lppm.cases import Act
from madlog.processors.lppm.values import canonical
from madlog.processors.ports import Agent
from madlog.schemas import Event, ToolCall

__all__ = ("SAY", "Acts", "Answer", "Asked", "Imperator")

SAY = "say"
# What has room in a record, however many bytes its characters take.
_ANSWER_MAX = 200_000


@dataclass(frozen=True, eq=False)
class Asked:
    """One question to a language model: decide for an agent what it does about one turn.

    `past` ends with the turn itself, or with the act whose result is to be answered; `actions` is
    the closed set of what may be done; `steps` are the moves so far of the process that the
    conversation is in, as ProcessStep's fields. `escalation` says why it is asked, one of
    `madlog.processors.escalations`; None where its answer only judges what a cheaper tier did.
    `asker` is who gets the answer, None where nobody is known to wait for it.
    """

    decision_id: str
    conversation_id: str
    turn_id: str
    agent: Agent
    past: tuple[Act, ...]
    text: str
    actions: frozenset[str]
    steps: Sequence[Mapping[str, Any]] = ()
    escalation: str | None = None
    asker: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a language model decided: `route` is `say` or `action:NAME`.

    `arguments` is the action's, as canonical JSON.
    """

    route: str
    arguments: str | None = None
    text: str | None = None
    provider: str | None = None
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def says(cls, text: str, **known: Any) -> "Answer":
        """Return an answer in words."""
        return cls(SAY, text=text, **known)

    @classmethod
    def acts(
        cls, action: str, arguments: Mapping[str, Any] | None = None, **known: Any
    ) -> "Answer":
        """Return an answer that runs an action."""
        return cls(f"{ACTION_PREFIX}{action}", canonical(dict(arguments or {})), **known)

    @property
    def action(self) -> str | None:
        """The name of the action, None for words."""
        named = self.route.startswith(ACTION_PREFIX)
        return self.route[len(ACTION_PREFIX) :] if named else None

    def checked(self, actions: frozenset[str]) -> "Answer":
        """Return it with canonical arguments; raises InvalidAnswer where nothing can follow it."""
        if "\x00" in f"{self.text}{self.arguments}":
            raise InvalidAnswer("the language model answered with a NUL character")
        if len(self.text or "") + len(self.arguments or "") > _ANSWER_MAX:
            raise InvalidAnswer(f"the answer is longer than {_ANSWER_MAX:,} characters")
        if self.route in (SAY, IMPERATOR):
            if not (self.text or "").strip():
                raise InvalidAnswer("the language model answered with no words and no action")
            return self
        if self.action is None:
            raise InvalidAnswer(
                f"the language model answered {self.route[:80]!r}: a route is say or action:NAME"
            )
        if self.action not in actions:
            raise InvalidAnswer(f"{self.action[:80]!r} is no registered action of this agent")
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidAnswer(f"the arguments of {self.action} are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidAnswer(f"the arguments of {self.action} are no JSON object")
        return Answer(**{**vars(self), "arguments": canonical(value)})


class Imperator(Protocol):
    """A language model that decides for an agent; may take long, fail, or never answer."""

    async def decide(self, asked: Asked) -> Answer:
        """Return what the agent is to do about a turn."""


class Acts(Protocol):
    """What runs an action that was decided: checks, approvals and budgets are its part."""

    async def __call__(self, asked: Asked, call: ToolCall, along_with: Sequence[Event]) -> None:
        """See to it that the call is made, or asked about, or refused, so that the log shows it.

        Its id and key come from the decision, so a second one with them is no second act: it may
        be proposed again after a crash. `along_with` is appended in the same transaction.
        """
