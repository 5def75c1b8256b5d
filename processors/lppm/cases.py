"""Cases: conversations as mining sees them, each a list of acts in order and how it ended.

What one participant did is an act: it said something, asked something, or ran an action. The
answer of a tool belongs to the act that called it. A case holds no more than the log's events of
one conversation say, and two orders of reading the log give the same cases.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from madlog.processors.lppm.values import canonical, flattened, tokens, year_of

__all__ = ("ACTION", "ASK", "PAST_MAX", "SAY", "Act", "Answer", "Case", "Point", "cases_of")

ACTION = "action:"
SAY = "say"
ASK = "ask"
# A decision looks back over so many acts, lest a conversation that goes on for ever gets slower.
PAST_MAX = 200
_CHEAP = frozenset(("dtr", "lppm"))
# Who answers or configures, but takes no part in the work.
_NO_PARTICIPANTS = frozenset(("system", "import"))


class Answer(NamedTuple):
    """What a tool answered: `value` is the parsed JSON, or the text where it is none."""

    ok: bool
    value: Any


@dataclass(frozen=True, eq=False)
class Act:
    """One thing that one participant did.

    `what` is `action:NAME`, `ask` or `say`; `arguments` is None where the call's arguments are
    no JSON object; `said` is the act's own words, for an action those that came right before it;
    `tier` is who settled the turn that it answers, None if no decision is on the log.
    """

    actor: str
    human: bool
    what: str
    event_id: str
    said: str = ""
    arguments: Mapping[str, Any] | None = None
    preconditions: tuple[str, ...] = ()
    answer: Answer | None = None
    took_us: int | None = None
    tier: str | None = None

    @cached_property
    def action(self) -> str | None:
        """The name of the action, None for words."""
        return self.what[len(ACTION) :] if self.what.startswith(ACTION) else None

    @cached_property
    def given(self) -> str | None:
        """The arguments as canonical JSON, None where there are none."""
        return None if self.arguments is None else canonical(self.arguments)

    @cached_property
    def paths(self) -> dict[str, list[Any]]:
        """The answer's values by path; places in lists, and keys that hold digits, are `*`."""
        return flattened(self.answer.value) if self.answer is not None and self.answer.ok else {}

    @cached_property
    def places(self) -> dict[str, list[str]]:
        """The paths of each value in the answer, values as canonical JSON."""
        found: dict[str, list[str]] = {}
        for path, values in self.paths.items():
            for text in dict.fromkeys(map(canonical, values)):
                found.setdefault(text, []).append(path)
        return found

    @cached_property
    def year(self) -> str | None:
        """The newest year of the full dates in the answer or the words."""
        text = self.said if self.answer is None else canonical(self.answer.value)
        return year_of(text)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The words, numbers, ids and dates of what was said, in order."""
        return () if self.action else tokens(self.said)


class Point(NamedTuple):
    """A place where an agent had to decide: what came before, and what it did."""

    past: tuple[Act, ...]
    act: Act


@dataclass(frozen=True, eq=False)
class Case:
    """One conversation; `result` is the outcome's word, None while nobody judged it."""

    conversation_id: str
    occurred_at: int
    acts: tuple[Act, ...]
    result: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the conversation is known to have ended well."""
        return self.result == "success"

    @property
    def mended(self) -> "Case":
        """The conversation without what cheap tiers did in vain: what mended it was right at once.

        Else a tier would learn its own mistakes from conversations that ended well all the same.
        """
        kept = [
            act
            for act in self.acts
            if act.tier not in _CHEAP or act.answer is None or act.answer.ok
        ]
        return replace(self, acts=tuple(kept))

    def points(self) -> Iterator[Point]:
        """Go through the decisions of agents: after words of a human, and after an action.

        What an agent does after words of its own belongs to these words, so it is no decision.
        """
        for at in range(1, len(self.acts)):
            last, act = self.acts[at - 1], self.acts[at]
            if not act.human and (last.human or last.actor != act.actor or last.action):
                yield Point(self.acts[max(0, at - PAST_MAX) : at], act)


def cases_of(events: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Case]:
    """Make the cases of (kind, fields) of events, each conversation's in the log's order.

    They are sorted by when they began and by name, so how conversations lay between one another
    on the log changes nothing.
    """
    folds: dict[str, _Fold] = defaultdict(_Fold)
    for kind, fields in events:
        folds[fields["conversation_id"]].add(kind, fields)
    cases = [fold.case(name) for name, fold in folds.items()]
    return sorted(cases, key=lambda case: (case.occurred_at, case.conversation_id))


class _Fold:
    """Gathers the acts of one conversation."""

    def __init__(self) -> None:
        self.occurred_at: int | None = None
        self.acts: list[Act] = []
        self.result: str | None = None
        self._called: dict[str, tuple[int, Mapping[str, Any]]] = {}
        # (turn, recipient) -> the tier that settled it.
        self._tiers: dict[tuple[str, str], str] = {}
        self._turn_id = ""

    def add(self, kind: str, fields: Mapping[str, Any]) -> None:
        if self.occurred_at is None:
            self.occurred_at = fields["occurred_at"]
        if kind == "Turn":
            self._said(fields)
        elif kind == "ToolCall":
            self._called_action(fields)
        elif kind == "ToolResult":
            self._answered(fields)
        elif kind == "Decision" and fields["mode"] == "live":
            self._tiers[fields["turn_id"], fields["recipient"]] = fields["tier"]
        elif kind == "Outcome" and fields["about"] == "conversation":
            self.result = fields["result"]

    def case(self, conversation_id: str) -> Case:
        return Case(conversation_id, self.occurred_at or 0, tuple(self.acts), self.result)

    def _act(self, fields: Mapping[str, Any], what: str, said: str, **more: Any) -> None:
        sender = fields["sender"]
        self.acts.append(
            Act(
                sender["name"],
                sender["kind"] == "human",
                what,
                fields["event_id"],
                said,
                # An act that was decided says by whom; other acts are of the turn before them.
                tier=(fields.get("extra") or {}).get("tier")
                or self._tiers.get((self._turn_id, sender["name"])),
                **more,
            )
        )

    def _said(self, fields: Mapping[str, Any]) -> None:
        if fields["sender"]["kind"] in _NO_PARTICIPANTS:
            return
        text = "".join(part.get("text") or "" for part in fields.get("parts") or ())
        self._act(fields, ASK if "?" in text else SAY, text)
        self._turn_id = fields["event_id"]

    def _called_action(self, fields: Mapping[str, Any]) -> None:
        arguments = _parsed(fields["arguments"])
        self._called[fields["event_id"]] = len(self.acts), fields
        self._act(
            fields,
            ACTION + fields["action"],
            self.acts[-1].said if self.acts else "",
            arguments=arguments if isinstance(arguments, dict) else None,
            preconditions=tuple(fields.get("preconditions") or ()),
        )

    def _answered(self, fields: Mapping[str, Any]) -> None:
        found = self._called.get(fields.get("call_id") or "")
        if found is None:
            return
        at, call = found
        took = fields["occurred_at"] - call["occurred_at"]
        # Times that an import made up say nothing about how long the action takes.
        known = fields.get("time_source", "observed") != "synthetic"
        text = fields.get("result") if fields["ok"] else fields.get("error")
        self.acts[at] = replace(
            self.acts[at],
            answer=Answer(fields["ok"], _parsed(text or "")),
            took_us=took if known and took >= 0 else None,
        )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
