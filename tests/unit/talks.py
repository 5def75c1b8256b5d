"""Made-up conversations of an agent that moves bookings, as events of the log."""

import json
from collections.abc import Sequence
from typing import Any

from madlog.processors.lppm.cases import Case, cases_of

__all__ = ("Event", "cases", "talk")

Event = tuple[str, dict[str, Any]]
_KINDS = {"ann": "human", "agent": "mad", "tools": "system", "system": "system"}


class _Talk:
    def __init__(self, name: str, began: int) -> None:
        self.name = name
        self.at = began
        self.events: list[Event] = []

    def add(self, kind: str, sender: str, **fields: Any) -> str:
        self.at += 1_000
        event_id = f"{self.name}-{len(self.events)}"
        self.events.append(
            (
                kind,
                {
                    "conversation_id": self.name,
                    "event_id": event_id,
                    "occurred_at": self.at,
                    "sender": {"name": sender, "kind": _KINDS[sender]},
                    **fields,
                },
            )
        )
        return event_id

    def say(self, sender: str, text: str) -> str:
        return self.add("Turn", sender, parts=[{"content_class": "prose", "text": text}])

    def call(self, action: str, arguments: Any, answer: Any, ok: bool = True) -> None:
        call_id = self.add("ToolCall", "agent", action=action, arguments=json.dumps(arguments))
        text = answer if isinstance(answer, str) else json.dumps(answer)
        told = {"result": text, "error": None} if ok else {"result": None, "error": text}
        self.add("ToolResult", "tools", action=action, call_id=call_id, ok=ok, **told)


def talk(number: int, result: str | None = "success", *, free: bool | None = None) -> list[Event]:
    """Return one conversation: ask for the id, look it up, then move it if seats are free."""
    seats = number % 3 != 0 if free is None else free
    made = _Talk(f"talk-{number:03d}", 1_000_000 * number)
    user, booking = f"ann_lee_{1000 + number}", f"B{number % 10}K{number:03d}"
    made.say("system", "Be kind.")
    made.say("ann", "Hello, please move my booking.")
    made.say("agent", "Of course. What is your id?")
    made.say("ann", f"It is {user}, thanks.")
    made.call("get_user", {"user_id": user}, {"name": user, "bookings": [booking]})
    made.call("get_booking", {"booking_id": booking}, {"id": booking, "free": seats, "to": "Oslo"})
    if seats:
        made.call("move_booking", {"booking_id": booking, "fee": 0}, {"id": booking})
        made.say("agent", "It is moved.")
    else:
        made.say("agent", "There is no seat free.")
    if result is not None:
        made.add(
            "Outcome",
            "agent",
            result=result,
            about="conversation",
            about_id=made.name,
        )
    return made.events


def cases(numbers: Sequence[int], result: str | None = "success") -> list[Case]:
    """Return the cases of some conversations."""
    return cases_of(event for number in numbers for event in talk(number, result))
