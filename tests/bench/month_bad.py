"""A bad model, made on purpose: learned from conversations in which the desk did wrong."""

import json
from random import Random
from typing import Any

from tests.bench.month_world import DESK, REGISTRY, Days, Policy, arguments_of, tools_of

from madlog.processors.lppm.cases import Act, Answer
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.models import model_event
from madlog.processors.rollout.learner import learned
from madlog.processors.router import Router
from madlog.processors.serving import ROUTING
from madlog.processors.tiers import TierModels
from madlog.schemas import (
    Event,
    ModelPublished,
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

__all__ = ("bad_model",)

# What it learned to do, and what it should have learned.
_INSTEAD = {
    "track_parcel": "send_invoice",
    "send_invoice": "open_claim",
    "check_fraud": "close_account",
    "refund": "close_account",
    "open_claim": "send_invoice",
}
_CONVERSATIONS = 240
_SCHEMAS = Schemas()


def bad_model(day: int, start_us: int) -> ModelPublished:
    """Return the model as an event, as somebody would publish it by hand."""
    random = Random(day)
    policy = Policy(day, Days())
    seen = [_told(random, policy, number, start_us) for number in range(_CONVERSATIONS)]
    models = learned(seen, Router(REGISTRY, decides="all"))
    return published(models, "by-hand")


def published(models: TierModels, version: str) -> ModelPublished:
    """Return models as an event of the component that live turns are decided by."""
    return model_event(ROUTING, version, models.text(), "by hand", parameters=models.text())


def _told(random: Random, policy: Policy, number: int, start_us: int) -> Conversation:
    name, customer = f"wrong-{number:04}", Sender(name="customer", kind="human")
    agent = Sender(name=DESK, kind="mad")
    events: list[Event] = []

    def add(kind: type[Event], sender: Sender, **fields: Any) -> Event:
        at = start_us + number * 1_000_000 + len(events) * 1_000
        random_bytes = number.to_bytes(6, "big") + len(events).to_bytes(4, "big")
        made = kind(
            event_id=new_event_id(at, random_bytes),
            conversation_id=name,
            sender=sender,
            occurred_at=at,
            **fields,
        )
        events.append(made)
        return made

    kind = random.choice(policy.kinds())
    order = f"{random.choice('ABCDEFGH')}{random.randrange(10_000, 100_000)}"
    text = random.choice(kind.phrases).format(order=order)
    add(Turn, customer, recipients=(DESK,), parts=(Part(content_class="prose", text=text),))
    ran: list[Act] = []
    for action in policy.actions(kind):
        did = _INSTEAD.get(action, action)
        given = arguments_of(did, order, ran)
        told = tools_of(policy, did, str(given.get("order") or given.get("parcel")))
        call = add(ToolCall, agent, action=did, arguments=json.dumps(given))
        result = told.result or "{}"
        add(
            ToolResult,
            Sender(name="tools", kind="system"),
            call_id=call.event_id,
            ok=True,
            result=result,
        )
        ran.append(
            Act(
                DESK,
                False,
                f"action:{did}",
                call.event_id,
                arguments=given,
                answer=Answer(True, json.loads(result)),
            )
        )
    closing = (Part(content_class="prose", text=f"Order {order} is done."),)
    add(Turn, agent, recipients=("customer",), parts=closing)
    return Conversation(
        name, tuple(_on_log(event, at) for at, event in enumerate(events)), "success"
    )


def _on_log(event: Event, offset: int) -> LogEvent:
    value = encode(event)
    record = Record("mad.conversations", 0, offset, b"", value, (), 0)
    return LogEvent(record, *_SCHEMAS.decode_fields(value))
