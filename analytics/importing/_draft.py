"""The events of one foreign conversation, in their order, each linked to the one before it."""

from typing import Any, Literal, TypeVar

from madlog.schemas import Event, Sender, Source, imported_event_id

__all__ = ("IMPORT_SENDER", "Draft", "normal_name")

E = TypeVar("E", bound=Event)
IMPORT_SENDER = Sender(name="import", kind="import")


def normal_name(original: str, fallback: str) -> str:
    """Return a name that the log accepts: lower case, `-` for what it does not allow."""
    kept = "".join(
        char if char.isascii() and char.isalnum() else "-" for char in original.lower()[:200]
    ).strip("-")
    if not kept:
        return fallback
    if not kept[0].isalpha():
        kept = f"{fallback}-{kept}"
    return kept[:63].rstrip("-")


class Draft:
    """Gives the events of one conversation their ids, times and links.

    Everything is computed from the source alone, so that importing twice gives the same events.
    """

    def __init__(
        self,
        source_conversation: str,
        conversation_id: str,
        source: Source,
        start_us: int,
        step_us: int,
        synthetic: bool,
    ) -> None:
        self.source_conversation = source_conversation
        self.conversation_id = conversation_id
        self.events: list[Event] = []
        self._source = source
        self._start_us = start_us
        self._step_us = step_us
        self._time_source: Literal["imported", "synthetic"] = (
            "synthetic" if synthetic else "imported"
        )
        self._last: str | None = None

    def add(
        self,
        kind: type[E],
        sender: Sender = IMPORT_SENDER,
        *,
        extra: dict[str, str] | None = None,
        after: Event | None = None,
        **payload: Any,
    ) -> E:
        """Append an event; one with `after` is about that event and causes none of the next."""
        index = len(self.events)
        occurred_at = self._start_us + index * self._step_us
        event_id = imported_event_id(
            self._source.format, self.source_conversation, index, occurred_at
        )
        cause = self._last if after is None else after.event_id
        if "metadata" in payload:
            # The order of an object's keys says nothing, and must not make other bytes.
            payload["metadata"] = dict(sorted(payload["metadata"].items()))
        event = kind(
            event_id=event_id,
            conversation_id=self.conversation_id,
            correlation_id=self.events[0].event_id if self.events else event_id,
            causation_id=cause,
            seen=cause,
            sender=sender,
            occurred_at=occurred_at,
            time_source=self._time_source,
            idempotency_key=f"{self.source_conversation}/{index}",
            source=self._source,
            extra=extra or {},
            **payload,
        )
        self.events.append(event)
        if after is None:
            self._last = event_id
        return event

    def keep(self, event: E, **extra: str) -> E:
        """Put more into the `extra` of an event that was just added; returns the new one."""
        kept = event.model_copy(update={"extra": {**event.extra, **extra}})
        self.events[self._index(event)] = kept
        return kept

    def _index(self, event: Event) -> int:
        at = len(self.events) - 1
        while self.events[at].event_id != event.event_id:
            at -= 1
        return at
