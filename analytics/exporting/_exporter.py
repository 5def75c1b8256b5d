"""What an exporter is: the text of one conversation, made from its events alone."""

from collections.abc import Sequence
from typing import Protocol

from madlog.analytics.exporting.messages import GetBlob
from madlog.schemas import ConversationChanged, Event

__all__ = ("Exporter", "created_of")


class Exporter(Protocol):
    """One form of conversations for others."""

    @property
    def name(self) -> str:
        """The name by which it is asked for."""

    def fits(self, events: Sequence[Event]) -> bool:
        """Tell whether this form can hold the conversation."""

    def text(self, events: Sequence[Event], get_blob: GetBlob | None) -> str:
        """Return the conversation in this form, its line end included."""


def created_of(events: Sequence[Event]) -> ConversationChanged | None:
    """Return the event that created the conversation, None when it was never announced."""
    for event in events:
        if isinstance(event, ConversationChanged) and event.change == "created":
            return event
    return None
