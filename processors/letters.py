"""Dead letters as events: what could not be processed, and the mark that one was settled since."""

from collections.abc import Mapping
from typing import Any

from madlog.schemas import DeadLetter, Sender, build, content_id_and_time, derived_event_id
from madlog.topics import Damage, LogEvent, Record

__all__ = ("SETTLED", "dead_letter", "settled_mark")

# The error_type of the event that settles a dead letter; its causation_id names that letter.
SETTLED = "settled"
_ERROR_CHARS_MAX = 2_000
_ENVELOPE: dict[str, Any] = {
    "correlation_id": None,
    "seen": None,
    "handler_step": 0,
    "principal": "none",
    "idempotency_key": None,
    "source": None,
    "subject": None,
    "key_id": None,
    "cipher": "none",
    "extra": {},
}


def dead_letter(
    processor: str,
    item: Record | Damage,
    event: LogEvent | None,
    error: Exception | str,
    attempts: int,
    *,
    with_bytes: bool = True,
) -> DeadLetter:
    """Return the dead letter of a record (or of offsets that could not be read).

    Its id comes from the input event, else from the position, so doing it twice gives it twice the
    same. `with_bytes` is off for records that leave no room for an envelope around them: these are
    read from their position again.
    """
    if event is not None:
        fields = event.fields
        event_id = derived_event_id(event.event_id, f"{processor}/dead-letters", 0)
        occurred_at, time_source = fields["occurred_at"], fields["time_source"]
        conversation = fields["conversation_id"]
    else:
        place = f"{item.topic}/{item.partition}@{item.offset}"
        event_id, occurred_at = content_id_and_time("DeadLetter", processor, place)
        time_source, conversation = "synthetic", "mad.dead-letters"
    value = item.value if isinstance(item, Record) and with_bytes else b""
    made = build(
        "DeadLetter",
        {
            **_ENVELOPE,
            "event_id": event_id,
            "conversation_id": conversation,
            "causation_id": None if event is None else event.event_id,
            "sender": {"name": processor, "kind": "system", "version": None},
            "occurred_at": occurred_at,
            "time_source": time_source,
            "subject": None if event is None else event.fields["subject"],
            "processor": processor,
            "topic": item.topic,
            "partition": item.partition,
            "offset": item.offset,
            "record_key": item.key if isinstance(item, Record) else b"",
            "record_value": value,
            "record_headers": dict(item.headers) if isinstance(item, Record) else {},
            "error_type": _kind_of(item, error),
            "error": _text(error),
            "attempts": attempts,
        },
    )
    assert isinstance(made, DeadLetter)
    return made


def _kind_of(item: Record | Damage, error: Exception | str) -> str:
    if isinstance(error, Exception):
        return type(error).__name__
    return "Damaged" if isinstance(item, Damage) else "Refused"


def _text(error: Exception | str) -> str:
    return (str(error) or type(error).__name__).replace("\x00", "")[:_ERROR_CHARS_MAX]


def settled_mark(letter: Mapping[str, Any], attempts: int) -> DeadLetter:
    """Return the event that says that a dead letter (its fields) was processed after all."""
    return DeadLetter(
        event_id=derived_event_id(letter["event_id"], "dead-letters", 0),
        conversation_id=letter["conversation_id"],
        causation_id=letter["event_id"],
        sender=Sender(name=letter["processor"], kind="system"),
        occurred_at=letter["occurred_at"],
        time_source=letter["time_source"],
        idempotency_key=f"settled {letter['event_id']}",
        processor=letter["processor"],
        topic=letter["topic"],
        partition=letter["partition"],
        offset=letter["offset"],
        record_key=b"",
        record_value=b"",
        error_type=SETTLED,
        error="",
        attempts=attempts,
    )
