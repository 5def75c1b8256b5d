"""A proposal: one action that a decision, or a language model's answer, wants to run.

Arguments are one canonical JSON object. A learned process brings its own; a command has them in
the text of its turn: `KEY=VALUE` is the argument KEY, other words stand in order under `args`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from madlog.processors.dtr.tree import ACTION_PREFIX
from madlog.processors.lppm.values import canonical
from madlog.schemas import InvalidEvent, derived_event_id
from madlog.schemas.text import Command, parse

__all__ = ("NO_ARGUMENTS", "Proposal", "Tier", "arguments_of", "normal", "object_of", "proposed")

Tier = Literal["dtr", "lppm", "imperator"]
NO_ARGUMENTS = "{}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """An action that wants to run; `arguments` None: nobody can tell what they are.

    `text` is what was said, which has to be readable. A decision that leads to several acts
    numbers them from 0. `call_id` and `cause_id` are those of its ToolCall where another part has
    named them already; `asker` is told where a language model's act is refused.
    """

    decision_id: str
    conversation_id: str
    agent: str
    action: str
    arguments: str | None
    tier: Tier
    occurred_at: int
    correlation_id: str | None = None
    turn_id: str | None = None
    number: int = 0
    text: str = ""
    subject: str | None = None
    call_id: str | None = None
    cause_id: str | None = None
    asker: str | None = None

    @property
    def act_id(self) -> str:
        """The id of the act: its decision's, or for the acts after the first one derived."""
        if self.number == 0:
            return self.decision_id
        return derived_event_id(self.decision_id, "act", self.number)


def proposed(decision: Mapping[str, Any], turn: Mapping[str, Any] | None) -> Proposal:
    """Return what a Decision with an action's route wants to run, given the turn it is on.

    What it is on may also be a tool's result, which is data and orders nothing. Where it cannot
    be read nobody can tell what it orders, so there are no arguments.
    """
    action = decision["route"].removeprefix(ACTION_PREFIX)
    text, arguments = "", None
    if turn is not None:
        text = "".join(part["text"] or "" for part in turn.get("parts", ()))
        arguments = decision["arguments"]
        arguments = arguments_of(text, action) if arguments is None else normal(arguments)
    return Proposal(
        decision_id=decision["event_id"],
        conversation_id=decision["conversation_id"],
        agent=decision["recipient"],
        action=action,
        arguments=arguments,
        tier=decision["tier"],
        occurred_at=decision["occurred_at"],
        correlation_id=decision["correlation_id"],
        turn_id=decision["turn_id"],
        text=text,
        subject=decision["subject"],
    )


def arguments_of(text: str, action: str) -> str | None:
    """Return the arguments that a turn gives to an action, None where they cannot be told.

    A turn whose one command is another one, or that has none, gives no arguments.
    """
    try:
        command = parse(text).command
    except InvalidEvent:
        return None
    if command is None or command.verb != action:
        return NO_ARGUMENTS
    return _arguments(command)


def _arguments(command: Command) -> str | None:
    named: dict[str, Any] = {}
    rest = []
    pairs = list(command.options)
    for word in command.args:
        name, sign, value = word.partition("=")
        if sign and name.isidentifier() and command.verb != "sql":
            pairs.append((name, value))
        else:
            rest.append(word)
    for name, value in pairs:
        if name in named:
            # Which of the two is meant nobody can tell.
            return None
        named[name] = value
    if rest:
        if "args" in named:
            return None
        named["args"] = rest
    return canonical(named)


def normal(text: str | None) -> str | None:
    """Return the canonical text of a JSON object, None where it is none."""
    value = object_of(text)
    return None if value is None else canonical(value)


def object_of(text: str | None) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None where it is none."""
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
