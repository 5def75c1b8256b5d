"""Chat messages from events; the importer asks the same functions what it must keep beside them.

So a round trip holds by construction: whatever the events alone would not give back stands in
the `extra` of the first event of a message (`message_rest`) or of a call (`call_rest`).
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from madlog.analytics.exporting.rest import with_rest
from madlog.schemas import Event, Part, ToolCall, ToolResult, Turn

__all__ = (
    "NAME_OF_ROLE",
    "GetBlob",
    "call_from",
    "grouped",
    "message_from",
    "message_told",
    "messages_from",
)

GetBlob = Callable[[str], bytes]

NAME_OF_ROLE = {"assistant": "agent", "user": "user", "system": "system"}
_ROLE_OF_KIND = {"mad": "assistant", "emad": "assistant", "system": "system"}


def call_from(call: ToolCall) -> dict[str, Any]:
    """Return a tool call as it stands in an assistant's message."""
    told = {
        "id": call.event_id if call.source_call_id is None else call.source_call_id,
        "type": "function",
        "function": {"name": call.action, "arguments": call.arguments},
    }
    return with_rest(told, call.extra.get("call_rest"))


def _result_told(result: ToolResult, named_results: bool) -> dict[str, Any]:
    content = result.result if result.error is None else result.error
    if result.extra.get("form") == "function":
        return {"role": "function", "name": result.action, "content": content}
    call_id = result.call_id if result.source_call_id is None else result.source_call_id
    told = {"role": "tool", "tool_call_id": call_id, "content": content}
    return told | {"name": result.action} if named_results else told


def _blob(part: Part, prefix: str, get_blob: GetBlob | None) -> str:
    """Return the data of a part that stands in the blob store, or its address there."""
    if get_blob is None or part.sha256 is None:
        return f"sha256:{part.sha256}"
    return prefix + base64.b64encode(get_blob(part.sha256)).decode()


def _item(part: Part) -> dict[str, Any]:
    """Return a part of a live turn as an item of a content list."""
    if part.text is not None:
        return {"type": "text", "text": part.text}
    where = part.uri or f"sha256:{part.sha256}"
    if (part.media_type or "").startswith("image/"):
        return {"type": "image_url", "image_url": {"url": where}}
    return {"type": "file", "file": {"file_id": where}}


def _content(turn: Turn, get_blob: GetBlob | None) -> Any:
    if "content_items" not in turn.extra:
        plain = all(part.text is not None for part in turn.parts)
        return turn.text if plain else [_item(part) for part in turn.parts]
    parts = iter(turn.parts)
    content = []
    for entry in json.loads(turn.extra["content_items"]):
        item, path = entry["item"], entry.get("at")
        if path:
            taken = [next(parts) for _ in range(entry["parts"])]
            if "prefix" in entry:
                value = _blob(taken[0], entry["prefix"], get_blob)
            else:
                value = "".join(part.text or part.uri or "" for part in taken)
                value = value.removeprefix(entry.get("uri_prefix", ""))
            inner = item
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = value
        content.append(item)
    return content


def message_told(
    events: Sequence[Event], *, named_results: bool = False, get_blob: GetBlob | None = None
) -> dict[str, Any]:
    """Return the message that the events alone tell, without the rest kept beside them."""
    first = events[0]
    if isinstance(first, ToolResult):
        return _result_told(first, named_results)
    role = _ROLE_OF_KIND.get(first.sender.kind, "user")
    message: dict[str, Any] = {"role": role, "content": None}
    if "original_name" in first.extra:
        message["name"] = first.extra["original_name"]
    elif first.sender.name != NAME_OF_ROLE[role]:
        message["name"] = first.sender.name
    calls = []
    for event in events:
        if isinstance(event, Turn):
            message[event.extra.get("field", "content")] = _content(event, get_blob)
        elif isinstance(event, ToolCall):
            calls.append(call_from(event))
    if calls and first.extra.get("form") == "function":
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return message


def message_from(
    events: Sequence[Event], *, named_results: bool = False, get_blob: GetBlob | None = None
) -> dict[str, Any]:
    """Return the message that these events stand for."""
    told = message_told(events, named_results=named_results, get_blob=get_blob)
    return with_rest(told, events[0].extra.get("message_rest"))


def grouped(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield the events of each message: a turn and the calls that its sender made with it."""
    group: list[Event] = []
    for event in events:
        if not isinstance(event, (Turn, ToolCall, ToolResult)):
            continue
        if group and _belongs(event, group[-1]):
            group.append(event)
            continue
        if group:
            yield group
        group = [event]
    if group:
        yield group


def _belongs(event: Event, last: Event) -> bool:
    number, last_number = event.extra.get("message"), last.extra.get("message")
    if number is not None or last_number is not None:
        return number == last_number
    same_sender = event.sender.name == last.sender.name
    return isinstance(event, ToolCall) and isinstance(last, (Turn, ToolCall)) and same_sender


def messages_from(
    events: Iterable[Event], *, named_results: bool = False, get_blob: GetBlob | None = None
) -> list[dict[str, Any]]:
    """Return the messages of one conversation, from its events in their order."""
    return [
        message_from(group, named_results=named_results, get_blob=get_blob)
        for group in grouped(events)
    ]
