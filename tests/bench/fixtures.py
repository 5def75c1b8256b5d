"""The events that the benchmarks are about, and their schema as fastavro takes it."""

from typing import Any

import fastavro

from madlog.schemas import ConversationChanged, Event, Part, Sender, SenderKind, Turn, new_event_id
from madlog.schemas.codec import fingerprint, released_schemas

__all__ = ("LONG_TEXT", "joined", "turn", "turn_schemas")

_SENTENCE = "The parcel of order 4711 left the warehouse on Monday and should be with you soon. "
_TEXT = _SENTENCE * 5
# Makes turns of 800 bytes.
LONG_TEXT = _SENTENCE * 8
_START_US = 1_767_225_600_000_000
_WHO: tuple[tuple[str, SenderKind], ...] = (("ada", "human"), ("shop", "mad"))


def turn(number: int, conversations: int = 200, *, key: bool = True, text: str = _TEXT) -> Turn:
    """Return full turn `number`, validated: about 570 bytes on the wire."""
    at = _START_US + number * 1000
    event_id = new_event_id(at, number.to_bytes(10, "big"))
    return Turn(
        event_id=event_id,
        conversation_id=f"order-{number % conversations:06}",
        correlation_id=f"order-{number % conversations:06}",
        sender=Sender(name="ada", kind="human"),
        occurred_at=at,
        idempotency_key=f"k-{number:012}" if key else None,
        recipients=("shop",),
        mentions=("shop",),
        tags=("parcel",),
        parts=(Part(content_class="prose", text=text),),
    )


def joined(conversations: int) -> list[Event]:
    """Return the events by which ada and shop take part in so many conversations."""
    made: list[Event] = []
    for number in range(conversations):
        for index, (who, kind) in enumerate(_WHO):
            at = _START_US + number
            tail = (10**12 + number * 2 + index).to_bytes(10, "big")
            made.append(
                ConversationChanged(
                    event_id=new_event_id(at, tail),
                    conversation_id=f"order-{number:06}",
                    sender=Sender(name="ada", kind="human"),
                    occurred_at=at,
                    change="joined",
                    participant=who,
                    participant_kind=kind,
                )
            )
    return made


def turn_schemas() -> dict[bytes, Any]:
    """Return the schema of turns by its fingerprint, parsed by fastavro without logical types."""

    def bare(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {name: bare(item) for name, item in schema.items() if name != "logicalType"}
        return [bare(item) for item in schema] if isinstance(schema, list) else schema

    return {fingerprint("Turn"): fastavro.parse_schema(bare(released_schemas()["Turn"][-1]))}
