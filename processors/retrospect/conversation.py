"""A conversation of the past: its events, what set each decision off, and what was done then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from madlog.processors.dtr.tree import IMPERATOR
from madlog.processors.lppm.cases import PAST_MAX, Act, Case, cases_of
from madlog.processors.outcomes.words import TurnMarks, turn_marks
from madlog.processors.router import is_imported
from madlog.topics import LogEvent

__all__ = ("Conversation", "Done", "Trigger", "conversations_of")

# What an agent does later than this many acts after a turn is no answer to it.
_ACTS_MAX = 8


class Done(NamedTuple):
    """What an agent did, and the route that leads there."""

    act: Act
    route: str


class Trigger(NamedTuple):
    """What makes an agent decide: the past up to it, and what the agent did next, if anything."""

    past: tuple[Act, ...]
    done: Done | None


@dataclass(frozen=True, eq=False)
class Conversation:
    """One conversation's events in their order; `result` is how it ended, None if unknown."""

    conversation_id: str
    events: tuple[LogEvent, ...]
    result: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """When it began, and its name: the order in which conversations are learned."""
        return self.events[0].fields["occurred_at"], self.conversation_id

    @property
    def imported(self) -> bool:
        """Whether it was brought in from elsewhere."""
        return any(is_imported(event.fields) for event in self.events)

    @cached_property
    def case(self) -> Case:
        """The conversation as mining sees it, with how it ended."""
        (case,) = cases_of((event.kind, event.fields) for event in self.events)
        return replace(case, result=self.result)

    @property
    def family(self) -> str:
        """What repeats of one task share: the task that the import named, else only itself."""
        for event in self.events:
            if event.kind == "ConversationChanged" and "task_id" in event.fields["metadata"]:
                return f"task {event.fields['metadata']['task_id']}"
        return self.conversation_id

    @cached_property
    def _places(self) -> dict[str, int]:
        return {act.event_id: at for at, act in enumerate(self.case.acts)}

    @cached_property
    def _answered(self) -> dict[str, list[int]]:
        """Where in the conversation the answers to each call stand: one may come twice."""
        found: dict[str, list[int]] = {}
        for at, event in enumerate(self.events):
            if event.kind == "ToolResult" and event.fields["call_id"]:
                found.setdefault(event.fields["call_id"], []).append(at)
        return found

    def caller(self, result: LogEvent) -> str | None:
        """Return who made the call that a result answers, None where the call is not there."""
        at = self._places.get(result.fields["call_id"] or "")
        return None if at is None else self.case.acts[at].actor

    def trigger(self, number: int, name: str) -> Trigger:
        """Return what event `number` makes of the past, and what the agent `name` did next."""
        event = self.events[number]
        cause = event.event_id if event.kind == "Turn" else event.fields["call_id"]
        at = self._places.get(cause or "")
        if at is None:
            return Trigger((), None)
        acts = self.case.acts
        recent = acts[max(0, at + 1 - PAST_MAX) : at + 1]
        past = tuple(self._then(act, number) for act in recent)
        act = self._about.get((name, event.event_id), (None,))[0]
        if act is None:
            following = acts[at + 1 : at + 1 + _ACTS_MAX]
            if event.kind == "ToolResult":
                # Where something else came first, the result was not what the agent acted on.
                following = following[:1]
            named = self._naming
            act = next(
                (act for act in following if act.actor == name and act.event_id not in named), None
            )
        return Trigger(past, None if act is None else Done(act, self._route(event, act)))

    @cached_property
    def _about(self) -> dict[tuple[str, str], list[Act]]:
        """The acts about each turn or result, by (agent, event), where acts name what they answer.

        Where several things are asked at once, the next act need not be the answer. Acts that were
        brought in name what stood before them, and nothing more is known of them.
        """
        if self.imported:
            return {}
        asked = {
            (name, event.event_id)
            for event in self.events
            for name in (
                event.fields["recipients"]
                if event.kind == "Turn"
                else (self.caller(event),)
                if event.kind == "ToolResult"
                else ()
            )
        }
        found: dict[tuple[str, str], list[Act]] = {}
        by_id = {event.event_id: event.fields for event in self.events}
        for act in self.case.acts:
            fields = by_id[act.event_id]
            # What acts on a decision was caused by that, and had seen what the decision is about.
            about = fields["seen" if "decision" in fields["extra"] else "causation_id"]
            if about is not None and (act.actor, about) in asked:
                found.setdefault((act.actor, about), []).append(act)
        return found

    @cached_property
    def _naming(self) -> frozenset[str]:
        return frozenset(act.event_id for acts in self._about.values() for act in acts)

    @cached_property
    def _turns(self) -> dict[str, LogEvent]:
        return {event.event_id: event for event in self.events if event.kind == "Turn"}

    def _route(self, asked: LogEvent, act: Act) -> str:
        """Return the route to an act: words are the language model's, but for these two."""
        if act.action is not None:
            return act.what
        if _marks(self._turns[act.event_id]).ack:
            return "ack"
        health = asked.kind == "Turn" and _marks(asked).health
        return "health" if health else IMPERATOR

    def _then(self, act: Act, number: int) -> Act:
        """Return an act as it was known at event `number`: an answer may have come later."""
        answered = self._answered.get(act.event_id)
        if act.answer is None or answered is None or answered[-1] <= number:
            return act
        known = [at for at in answered if at <= number]
        if not known:
            return replace(act, answer=None, took_us=None)
        (before,) = cases_of(
            (event.kind, event.fields)
            for event in (*self._call(act.event_id), self.events[known[-1]])
        )
        answer = before.acts[0]
        return replace(act, answer=answer.answer, took_us=answer.took_us)

    def _call(self, event_id: str) -> list[LogEvent]:
        return [event for event in self.events if event.event_id == event_id]


def _marks(turn: LogEvent) -> TurnMarks:
    return turn_marks(turn.fields["parts"], turn.fields["tags"], turn.fields["intent"])


def conversations_of(
    events: Mapping[str, Sequence[LogEvent]], results: Mapping[str, str]
) -> list[Conversation]:
    """Make the conversations of events by name, sorted by when they began and by name."""
    made = (Conversation(name, tuple(of), results.get(name)) for name, of in events.items())
    return sorted(made, key=lambda conversation: conversation.order)
