"""Made-up lived conversations: an agent cancels orders in two steps; and a model of them."""

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any

from madlog.processors.ports import Action, Agent, Registry
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.models import train
from madlog.processors.retrospect.processes import conductible
from madlog.processors.router import Router
from madlog.processors.tiers import TierModels
from madlog.schemas import (
    ConversationChanged,
    Event,
    Part,
    Schemas,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    encode,
    new_event_id,
)
from madlog.topics import LogEvent, Record

__all__ = (
    "AGENT",
    "CUSTOMER",
    "ORDERS",
    "REGISTRY",
    "TOOLS",
    "lived",
    "log_event",
    "model",
    "taught",
)

CUSTOMER = Sender(name="maria", kind="human")
AGENT = Sender(name="orders", kind="mad")
TOOLS = Sender(name="tools", kind="system")
_CONTRACTS = {
    "get_order": Action("get_order", idempotent=True),
    "cancel_order": Action(
        "cancel_order", risk="medium", compensation="restore_order", timeout_s=60.0
    ),
    "restore_order": Action("restore_order"),
}
ORDERS = Agent("orders", actions=frozenset(_CONTRACTS), contracts=_CONTRACTS)
REGISTRY = Registry([ORDERS])
_ASKED = (
    "Please cancel my order {order}.",
    "I want to cancel order {order}, thanks.",
    "Could you cancel {order} for me?",
    "Cancel the order {order} please!",
)
_SCHEMAS = Schemas()


def log_event(event: Event, topic: str = "mad.conversations", offset: int = 0) -> LogEvent:
    value = encode(event)
    record = Record(topic, 0, offset, b"", value, (), 0)
    return LogEvent(record, *_SCHEMAS.decode_fields(value))


class _Told:
    def __init__(self, number: int) -> None:
        self.name = f"lived-{number:04}"
        self.number = number
        self.events: list[Event] = []

    def add(self, kind: type[Event], sender: Sender, **fields: Any) -> Event:
        at = 1_700_000_000_000_000 + self.number * 1_000_000_000 + len(self.events) * 1_000_000
        random = self.number.to_bytes(6, "big") + len(self.events).to_bytes(6, "big")
        event = kind(
            event_id=new_event_id(at, random),
            conversation_id=self.name,
            sender=sender,
            occurred_at=at,
            **fields,
        )
        self.events.append(event)
        return event

    def say(self, sender: Sender, to: str, text: str) -> None:
        parts = (Part(content_class="prose", text=text),)
        self.add(Turn, sender, recipients=(to,), parts=parts)

    def act(self, action: str, arguments: str, result: str) -> None:
        call = self.add(ToolCall, AGENT, action=action, arguments=arguments)
        self.add(ToolResult, TOOLS, call_id=call.event_id, action=action, ok=True, result=result)


def taught(count: int, *, seed: int = 0) -> list[list[Event]]:
    """Return conversations in which the agent looks an order up and cancels it."""
    random = Random(seed)
    told = []
    for number in range(count):
        one = _Told(number)
        for who in (CUSTOMER, AGENT):
            joined: dict[str, Any] = {"participant": who.name, "participant_kind": who.kind}
            one.add(ConversationChanged, who, change="joined", **joined)
        order = f"A{random.randrange(10_000, 99_999)}"
        one.say(CUSTOMER, "orders", random.choice(_ASKED).format(order=order))
        arguments = f'{{"order": "{order}"}}'
        one.act("get_order", arguments, f'{{"order": "{order}", "status": "open"}}')
        one.act("cancel_order", arguments, f'{{"order": "{order}", "cancelled": true}}')
        one.say(AGENT, "maria", f"Order {order} is cancelled.")
        one.say(CUSTOMER, "orders", random.choice(("Thank you so much", "Great, bye then")))
        one.say(AGENT, "maria", "You are welcome.")
        told.append(one.events)
    return told


def lived(told: Sequence[Sequence[Event]], result: str = "success") -> list[Conversation]:
    return [
        Conversation(
            events[0].conversation_id,
            tuple(log_event(event, offset=at) for at, event in enumerate(events)),
            result,
        )
        for events in told
    ]


@lru_cache
def model(count: int = 80) -> TierModels:
    """Return what is learned from so many of these conversations, with the agent's process."""
    seen = lived(taught(count))
    learned = train(seen, Router(REGISTRY, decides="all"))
    return TierModels(learned.tree, learned.steps, conductible(seen))
