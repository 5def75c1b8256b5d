"""Orders of people as Control events: who gives them, and when."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madlog.schemas import Control, Sender

__all__ = ("CONVERSATION", "order", "person")

CONVERSATION = "control"


def person() -> "Sender":
    """Return the operating system's user as a sender: a claim, as all senders are."""
    import getpass

    from madlog.schemas import Sender

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    name = re.sub(r"[^a-z0-9-]+", "-", user.lower()).lstrip("-0123456789")[:63]
    return Sender(name=name or "operator", kind="human")


def order(now: int, command: str, target: str, **fields: Any) -> "Control":
    """Return an order that this person gives now."""
    from madlog.schemas import Control, new_event_id
    from madlog.topics.clock import system_random

    return Control(
        event_id=new_event_id(now, system_random(10)),
        sender=person(),
        occurred_at=now,
        target=target,
        command=command,
        **{"conversation_id": CONVERSATION, **fields},
    )
