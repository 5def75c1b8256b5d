"""Conversations as OpenAI chat objects, one JSON line each: `{"messages": […], "tools": […]}`.

What was imported from this form comes back field for field; any other conversation becomes its
messages, with `metadata` naming the conversation.
"""

import json
from collections.abc import Sequence
from typing import Any

from madlog.analytics.exporting._exporter import created_of
from madlog.analytics.exporting.messages import GetBlob, messages_from
from madlog.schemas import Event

__all__ = ("OpenaiChat", "chat_from")

# The importer's name of this form.
_FORMAT = "openai-chat"


def chat_from(events: Sequence[Event], get_blob: GetBlob | None = None) -> dict[str, Any]:
    """Return the chat object that these events stand for."""
    created = created_of(events)
    chat: dict[str, Any] = {"messages": messages_from(events, get_blob=get_blob)}
    if created and created.source and created.source.format == _FORMAT:
        metadata = dict(created.metadata)
        metadata.pop("tools", None)
        if "tool_definitions" in metadata:
            chat["tools"] = json.loads(metadata.pop("tool_definitions"))
        chat |= json.loads(metadata.pop("other_fields", "{}"))
        return chat | {name: json.loads(text) for name, text in metadata.items()}
    if events:
        chat["metadata"] = {"conversation_id": events[0].conversation_id}
    if created and created.title:
        chat["metadata"]["title"] = created.title
    return chat


class OpenaiChat:
    """The exporter of OpenAI chat objects."""

    name = "openai"

    def fits(self, events: Sequence[Event]) -> bool:
        """Tell that every conversation has this form."""
        return True

    def text(self, events: Sequence[Event], get_blob: GetBlob | None) -> str:
        """Return the chat object as one JSON line."""
        return json.dumps(chat_from(events, get_blob)) + "\n"
