"""The facts about one conversation that outcomes and labels are judged by: a compact fold.

Events of different topics may come in any order, those of one topic in theirs. So what was said is
linked by what was said alone, and a decision finds its turn by id whenever it comes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from madlog.processors.outcomes.words import TurnMarks, turn_marks
from madlog.topics import LogEvent

__all__ = (
    "EVENTS_MAX",
    "NO_MARKS",
    "WITHDRAWN",
    "ConversationFacts",
    "Decided",
    "Judged",
    "Order",
    "Result",
    "Said",
)

# So many of the newest events of a conversation are kept; older ones are judged no more.
EVENTS_MAX = 2_000
NO_MARKS = TurnMarks()
# In the `extra` of an outcome: its rule says nothing any more, so the verdict before it is void.
WITHDRAWN = "withdrawn"

Result = Literal["success", "failure", "partial", "novel"]
# Appended at, partition, offset: newest by place, as the SQL view `conversations` has it.
Order = tuple[int, int, int]
_SAID = frozenset({"Turn", "ConversationChanged", "ToolCall", "ToolResult"})
_AGENTS = ("mad", "emad")


@dataclass(frozen=True, slots=True)
class Said:
    """One event of mad.conversations; `answers` is the turn that its sender answers by it."""

    event_id: str
    kind: str
    sender: str
    sender_kind: str
    cause: str | None
    answers: str | None
    occurred_at: int
    time_source: str
    recipients: tuple[str, ...] = ()
    marks: TurnMarks = NO_MARKS
    action: str | None = None
    arguments: str | None = None
    call: str | None = None
    ok: bool = True

    @property
    def by_agent(self) -> bool:
        """Whether an agent sent it."""
        return self.sender_kind in _AGENTS


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision: what of it outcomes need."""

    event_id: str
    turn_id: str
    recipient: str
    mode: str
    tier: str
    route: str
    occurred_at: int
    time_source: str
    correlation_id: str | None
    subject: str | None


class Judged(NamedTuple):
    """One Outcome as the log holds it; `route` is the right one where a correction names it."""

    event_id: str
    judged_by: str
    result: Result
    quality: float | None
    cause: str | None
    order: Order
    occurred_at: int
    time_source: str
    route: str | None = None
    withdrawn: bool = False


class ConversationFacts:
    """What is known of one conversation, folded from its events."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.said: dict[str, Said] = {}
        self.decisions: dict[str, Decided] = {}
        # By the decision's id and then by who judged; of the conversation itself by who judged.
        self.judged: dict[str, dict[str, Judged]] = {}
        self.ends: dict[str, Judged] = {}
        self._by_turn: dict[tuple[str, str], list[Decided]] = {}
        self._answers: dict[tuple[str, str], list[Said]] = {}
        # The newest turn to each name, and the newest by any agent.
        self._addressed: dict[str, str] = {}
        self._by_agent: str | None = None

    def fold(self, event: LogEvent) -> None:
        """Take up one event; the same event again changes nothing."""
        if event.kind in _SAID:
            if event.event_id not in self.said:
                self._say(event)
        elif event.kind == "Decision":
            if event.event_id not in self.decisions:
                self._decide(event.fields)
        elif event.kind == "Outcome":
            self._judge(event)

    def decided(self, turn_id: str, recipient: str) -> list[Decided]:
        """Return the decisions about a turn for a recipient, in their order."""
        return self._by_turn.get((turn_id, recipient), [])

    def answers(self, turn_id: str, recipient: str) -> list[Said]:
        """Return what the recipient said and did about a turn, in order."""
        return self._answers.get((turn_id, recipient), [])

    def outcomes(self, decision_id: str) -> list[Judged]:
        """Return the newest outcome of each judge about a decision, oldest first."""
        return sorted(self.judged.get(decision_id, {}).values(), key=lambda one: one.order)

    def turns(self) -> Iterator[Said]:
        """Yield the turns in order."""
        return (one for one in self.said.values() if one.kind == "Turn")

    def _say(self, event: LogEvent) -> None:
        fields, kind = event.fields, event.kind
        sender = fields["sender"]
        cause = fields["causation_id"]
        if kind == "ToolCall" and cause not in self.said and fields["seen"] in self.said:
            # What caused it is a decision; what that was about is the last that it had seen.
            cause = fields["seen"]
        answers = self._answered(cause, sender["name"], sender["kind"])
        more: dict[str, Any] = {}
        if kind == "Turn":
            more["recipients"] = tuple(fields["recipients"])
            more["marks"] = turn_marks(fields["parts"], fields["tags"], fields["intent"])
        elif kind == "ToolCall":
            more = {"action": fields["action"], "arguments": fields["arguments"]}
        elif kind == "ToolResult":
            more = {"call": fields["call_id"] or fields["causation_id"], "ok": fields["ok"]}
        said = Said(
            event.event_id,
            kind,
            sender["name"],
            sender["kind"],
            fields["causation_id"],
            answers,
            fields["occurred_at"],
            fields["time_source"],
            **more,
        )
        self.said[said.event_id] = said
        if answers is not None:
            self._answers.setdefault((answers, said.sender), []).append(said)
        if kind == "Turn":
            self._addressed.update(dict.fromkeys(said.recipients, said.event_id))
            if said.by_agent:
                self._by_agent = said.event_id
        if len(self.said) > EVENTS_MAX:
            self._forget(next(iter(self.said)))

    def _forget(self, event_id: str) -> None:
        old = self.said.pop(event_id)
        for name in old.recipients:
            self._answers.pop((event_id, name), None)
            for decided in self.decided(event_id, name)[:]:
                self._drop(decided)

    def _drop(self, decided: Decided) -> None:
        del self.decisions[decided.event_id]
        key = (decided.turn_id, decided.recipient)
        self._by_turn[key].remove(decided)
        if not self._by_turn[key]:
            del self._by_turn[key]
        self.judged.pop(decided.event_id, None)

    def _answered(self, cause: str | None, sender: str, kind: str) -> str | None:
        """Return the turn that an event answers: along its causes, else the newest to its sender.

        A person's turn to nobody's address answers the newest turn of an agent.
        """
        while cause is not None and (said := self.said.get(cause)) is not None:
            if said.sender == sender:
                # What the same sender did before was about the same turn, or about none.
                if said.answers is not None:
                    return said.answers
            elif said.kind == "Turn" and sender in said.recipients:
                return said.event_id
            cause = said.cause
        turn = self._addressed.get(sender)
        if turn is None or self.said.get(turn) is None or self.said[turn].sender == sender:
            turn = None
        if turn is None and kind not in _AGENTS:
            return self._by_agent
        return turn

    def _decide(self, fields: Mapping[str, Any]) -> None:
        decided = Decided(
            fields["event_id"],
            fields["turn_id"],
            fields["recipient"],
            fields["mode"],
            fields["tier"],
            fields["route"],
            fields["occurred_at"],
            fields["time_source"],
            fields["correlation_id"],
            fields["subject"],
        )
        self.decisions[decided.event_id] = decided
        self._by_turn.setdefault((decided.turn_id, decided.recipient), []).append(decided)
        if len(self.decisions) > EVENTS_MAX:
            self._drop(next(iter(self.decisions.values())))

    def _judge(self, event: LogEvent) -> None:
        fields, record = event.fields, event.record
        one = Judged(
            fields["event_id"],
            fields["judged_by"],
            fields["result"],
            fields["quality"],
            fields["causation_id"],
            (record.appended_at, record.partition, record.offset),
            fields["occurred_at"],
            fields["time_source"],
            fields["extra"].get("route"),
            WITHDRAWN in fields["extra"],
        )
        held = self.ends
        if fields["about"] == "decision":
            held = self.judged.setdefault(fields["about_id"], {})
        old = held.get(one.judged_by)
        if old is None or old.order < one.order:
            held[one.judged_by] = one
