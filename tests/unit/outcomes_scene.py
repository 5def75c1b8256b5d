"""A conversation made by hand, and a judge that hears of it: for the tests of outcomes."""

from typing import Any

from madlog.processors.outcomes import ConversationFacts, Judge, Judged, Verdict, known
from madlog.schemas import (
    ConversationChanged,
    Decision,
    Event,
    Outcome,
    Schemas,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    encode,
)
from madlog.schemas.text import parse
from madlog.topics import LogEvent, Record
from madlog.topics.catalog import topic_for

__all__ = ("MARIA", "ORDERS", "SECOND", "Scene", "judged_in")

MARIA = Sender(name="maria", kind="human")
ORDERS = Sender(name="orders", kind="mad")
SECOND = 1_000_000
_SCHEMAS = Schemas()


class Scene:
    """One log as a list of events: `maria` asks, `orders` answers, the router decides."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.newest_us = 0
        self._offsets: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def put(self, event: Event) -> str:
        topic = topic_for(event).name
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        value = encode(event)
        record = Record(topic, 0, offset, b"", value, (), len(self.events))
        self.events.append(LogEvent(record, *_SCHEMAS.decode_fields(value)))
        return event.event_id

    def add(self, model: type[Event], sender: Sender, after_s: float = 1, **fields: Any) -> str:
        conversation = fields.setdefault("conversation_id", "c")
        self.newest_us += int(after_s * SECOND)
        number = len(self.events) + 1
        envelope = {
            "event_id": f"01890000-0000-7000-8000-{number:012x}",
            "causation_id": self._last.get(conversation),
            "sender": sender,
            "occurred_at": self.newest_us,
        }
        event_id = self.put(model(**{**envelope, **fields}))
        if topic_for(self.events[-1].event).name == "mad.conversations":
            self._last[conversation] = event_id
        return event_id

    def created(self, **fields: Any) -> str:
        return self.add(ConversationChanged, MARIA, change="created", **fields)

    def say(self, sender: Sender, text: str, *to: str, tags: Any = (), **fields: Any) -> str:
        found = parse(text)
        fields |= {"parts": found.parts, "tags": (*found.tags, *tags)}
        return self.add(Turn, sender, recipients=to, **fields)

    def ask(self, text: str = "Where is my order 17?", **fields: Any) -> tuple[str, str]:
        """Maria asks orders, and that is decided; returns the ids of turn and decision."""
        turn = self.say(MARIA, text, "orders", **fields)
        where = {name: fields[name] for name in fields if name == "conversation_id"}
        return turn, self.decide(turn, **where)

    def decide(self, turn: str, route: str = "imperator", **more: Any) -> str:
        tier = "imperator" if route == "imperator" else "dtr"
        given: dict[str, Any] = {
            "turn_id": turn,
            "causation_id": turn,
            "recipient": "orders",
            "mode": "live",
            "tier": tier,
            "route": route,
            "confidence": 1.0,
            "max_error": 0.05,
            "model_id": "01890000-0000-7000-8000-000000000000",
            "model_version": "1",
            "reason": "because",
            "propensity": 1.0,
            "audited": False,
            **more,
        }
        router = Sender(name="router", kind="system")
        return self.add(Decision, router, 0, **given)

    def answer(self, text: str = "It is on its way.", **fields: Any) -> str:
        return self.say(ORDERS, text, "maria", **fields)

    def call(self, action: str = "get_order", **fields: Any) -> str:
        return self.add(ToolCall, ORDERS, action=action, arguments='{"id": 17}', **fields)

    def result(self, call: str, ok: bool = True, **fields: Any) -> str:
        return self.add(ToolResult, Sender(name="tools", kind="system"), call_id=call, ok=ok)

    def outcome(self, result: str, about: str, about_id: str, by: str, **fields: Any) -> str:
        fields |= {"mad": "orders", "result": result, "about": about, "about_id": about_id}
        return self.add(Outcome, MARIA, judged_by=by, **fields)

    def judged(self, judge: Judge | None = None, batch: int = 10**9) -> "Scene":
        """Fold and conclude in batches of the events that there are, then until nothing is new."""
        judge = judge or Judge()
        at = 0
        while at < len(self.events):
            events = self.events[at : at + batch]
            at += len(events)
            for event in events:
                judge.fold(event)
            for outcome in judge.conclude():
                self.put(outcome)
        return self

    def facts(self, conversation: str = "c") -> ConversationFacts:
        judge = Judge()
        for event in self.events:
            judge.fold(event)
        facts = judge.facts(conversation)
        assert facts is not None
        return facts

    def outcomes(self, decision: str) -> dict[str, Judged]:
        held = self.facts().outcomes(decision)
        return {one.judged_by: one for one in held if not one.withdrawn}

    def said_of(self, decision: str, rule: str) -> str | None:
        """Return the result by one rule, None where it says nothing."""
        found = self.outcomes(decision).get(rule)
        return found.result if found else None

    def verdict(self, decision: str) -> Verdict | None:
        return known(self.facts().outcomes(decision))


def judged_in(events: list[LogEvent]) -> list[Outcome]:
    """Return what a new judge says that the log should hold and does not."""
    judge = Judge()
    for event in events:
        judge.fold(event)
    return judge.conclude()
