"""The pass-through processor, the same for our engine, Quix Streams and Faust."""

import resource
from collections.abc import Mapping
from typing import Any

from madlog.schemas import Delivery, Sender, derived_event_id

__all__ = ("cpu_s", "delivery")

_SENDER = Sender(name="passing", kind="system")


def delivery(fields: Mapping[str, Any], value: bytes, recipient: str) -> Delivery:
    """Return the turn's bytes as they came, addressed to a recipient: a new, validated event."""
    turn_id = fields["event_id"]
    return Delivery(
        event_id=derived_event_id(turn_id, recipient, 0),
        conversation_id=fields["conversation_id"],
        correlation_id=fields["correlation_id"],
        causation_id=turn_id,
        sender=_SENDER,
        occurred_at=fields["occurred_at"],
        recipient=recipient,
        decision_id=turn_id,
        turn_id=turn_id,
        turn=value,
    )


def cpu_s() -> float:
    """Return the CPU seconds of this process, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
