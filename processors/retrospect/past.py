"""What a log holds of the past: conversations, how they ended, what was decided of them already."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from madlog.processors.retrospect.conversation import Conversation, conversations_of
from madlog.processors.retrospect.deciding import RECORD
from madlog.processors.router import Decides, is_imported
from madlog.schemas import Decision, Outcome
from madlog.topics import LogEvent

__all__ = ("Decided", "Past")

_AGENTS = ("mad", "emad")


@dataclass(slots=True)
class Decided:
    """What was decided in retrospect of one conversation, and by which model first.

    `unjudged` holds the decisions of cheap tiers on which the record has said nothing yet.
    """

    model_id: str
    decisions: set[str] = field(default_factory=set)
    turns: set[str] = field(default_factory=set)
    unjudged: dict[str, Decision] = field(default_factory=dict)


class Past:
    """A fold over conversations, decisions and outcomes, of any topic in any order."""

    def __init__(self, decides: Decides) -> None:
        self._decides = decides
        self._events: dict[str, list[LogEvent]] = {}
        self._results: dict[str, str] = {}
        self._verdicts: dict[str, dict[str, str]] = defaultdict(dict)
        self._judged: set[str] = set()
        # What was added to since it was last gone through, be it to find nothing to decide.
        self._touched: set[str] = set()
        self.decided: dict[str, Decided] = {}

    def fold(self, event: LogEvent) -> None:
        """Take up one event; what was taken up by `add` before changes nothing."""
        fields = event.fields
        name = fields["conversation_id"]
        if event.kind == "Outcome":
            if fields["about"] == "conversation":
                self._results[fields["about_id"]] = fields["result"]
            elif fields["judged_by"] == RECORD:
                self._judge(name, fields["about_id"])
            elif "withdrawn" not in fields["extra"]:
                self._verdicts[name][fields["about_id"]] = fields["result"]
        elif event.kind == "Decision":
            if fields["mode"] == "retrospective" and not self._holds(name, event.event_id):
                decision = event.event
                assert isinstance(decision, Decision)
                self._decide(decision)
                self._touched.add(name)
        # Of a conversation that is lived here nothing is kept where it is not decided.
        elif name in self._events or self._decides == "all" or is_imported(fields):
            self._events.setdefault(name, []).append(event)
            self._touched.add(name)

    def add(self, outputs: Iterable[Decision | Outcome]) -> None:
        """Take up what was added to the log just now."""
        for output in outputs:
            if isinstance(output, Decision):
                self._decide(output)
            else:
                self._judge(output.conversation_id, output.about_id)

    def passed(self, names: Iterable[str]) -> None:
        """Note that these were gone through: nothing is left to decide until more is added."""
        self._touched.difference_update(names)

    def new(self, conversation: Conversation) -> bool:
        """Tell whether nothing of a conversation was decided, and it has not been gone through."""
        name = conversation.conversation_id
        return name not in self.decided and name in self._touched

    def undecided(self) -> bool:
        """Tell whether there are conversations of which nothing was decided."""
        return not self._touched <= self.decided.keys()

    def conversations(self) -> list[Conversation]:
        """Return all conversations, those decided before first."""
        made = conversations_of(self._events, self._ended())
        return sorted(made, key=self.new)

    def continued(self) -> Iterator[tuple[Conversation, Decided]]:
        """Go through the conversations that were decided and may hold more to decide by now."""
        for name in sorted(self._touched & self.decided.keys()):
            events, decided = self._events.get(name), self.decided[name]
            if events and (decided.unjudged or _may_ask(events, decided)):
                yield Conversation(name, tuple(events)), decided
            else:
                self.passed([name])

    def _holds(self, name: str, event_id: str) -> bool:
        decided = self.decided.get(name)
        return decided is not None and event_id in decided.decisions

    def _decide(self, decision: Decision) -> None:
        name = decision.conversation_id
        decided = self.decided.setdefault(name, Decided(decision.model_id))
        decided.decisions.add(decision.event_id)
        decided.turns.add(decision.turn_id)
        if decision.tier != "imperator" and decision.event_id not in self._judged:
            decided.unjudged[decision.event_id] = decision

    def _judge(self, name: str, decision_id: str) -> None:
        self._judged.add(decision_id)
        if name in self.decided:
            self.decided[name].unjudged.pop(decision_id, None)

    def _ended(self) -> dict[str, str]:
        """Return how each conversation ended: as was said of it, else as its decisions did."""
        by_decisions = {
            name: "failure" if "failure" in found.values() else "success"
            for name, found in self._verdicts.items()
            if "failure" in found.values() or "success" in found.values()
        }
        return {**by_decisions, **self._results}


def _may_ask(events: Iterable[LogEvent], decided: Decided) -> bool:
    """Tell whether anything that was not decided may ask an agent to decide; errs to yes."""
    agents: set[str] = set()
    for event in events:
        if event.kind == "ConversationChanged":
            if event.fields["participant_kind"] in _AGENTS:
                agents.add(event.fields["participant"])
        elif event.event_id in decided.turns:
            continue
        elif event.kind == "ToolResult" or (
            event.kind == "Turn" and not agents.isdisjoint(event.fields["recipients"])
        ):
            return True
    return False
