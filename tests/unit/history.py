"""Made-up history that was brought in: customers ask for orders, an agent looks them up."""

from random import Random
from typing import Any

from madlog.schemas import (
    SYNTHETIC_EPOCH_US,
    ConversationChanged,
    Event,
    Outcome,
    Part,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    imported_event_id,
)

__all__ = ("history",)

_CUSTOMER = Sender(name="user", kind="human")
_AGENT = Sender(name="agent", kind="mad")
_TOOLS = Sender(name="tools", kind="system")
_ASKED = (
    "Hello, where is my order {order}?",
    "I would like to know where order {order} is, please.",
    "Order {order} has not come yet, can you look?",
    "What about order {order}?",
)


class _Told:
    """One conversation's events, in order."""

    def __init__(self, number: int) -> None:
        self.name = f"case-{number:04}"
        self.events: list[Event] = []

    def add(self, model: type[Event], sender: Sender, **fields: Any) -> Event:
        index = len(self.events)
        at = SYNTHETIC_EPOCH_US + index * 1_000_000
        event = model(
            event_id=imported_event_id("made-up", self.name, index, at),
            conversation_id=self.name,
            sender=sender,
            occurred_at=at,
            time_source="synthetic",
            **fields,
        )
        self.events.append(event)
        return event

    def say(self, sender: Sender, to: str, text: str) -> Event:
        parts = (Part(content_class="prose", text=text),)
        return self.add(Turn, sender, recipients=(to,), parts=parts)


def history(count: int, *, seed: int = 0, fails_every: int = 0) -> list[list[Event]]:
    """Return the events of conversations; where one fails, the agent looks up another order."""
    random = Random(seed)
    told = []
    for number in range(count):
        one = _Told(number)
        for who in (_CUSTOMER, _AGENT):
            joined: dict[str, Any] = {"participant": who.name, "participant_kind": who.kind}
            one.add(ConversationChanged, who, change="joined", **joined)
        failed = bool(fails_every) and number % fails_every == 0
        order = str(random.randrange(10_000, 99_999))
        one.say(_CUSTOMER, "agent", random.choice(_ASKED).format(order=order))
        looked_up = "99999" if failed else order
        call = one.add(
            ToolCall, _AGENT, action="get_order", arguments=f'{{"order": "{looked_up}"}}'
        )
        one.add(
            ToolResult,
            _TOOLS,
            call_id=call.event_id,
            action="get_order",
            ok=True,
            result=f'{{"order": "{looked_up}", "status": "sent"}}',
        )
        one.say(_AGENT, "user", f"Order {looked_up} was sent yesterday.")
        one.say(_CUSTOMER, "agent", "Thank you very much for telling me so.")
        last = one.say(_AGENT, "user", "You are welcome.")
        one.add(
            Outcome,
            _CUSTOMER,
            causation_id=last.event_id,
            mad="agent",
            result="failure" if failed else "success",
            judged_by="reward",
            about="conversation",
            about_id=one.name,
        )
        told.append(one.events)
    return told
