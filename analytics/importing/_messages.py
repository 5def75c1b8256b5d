"""Chat messages as events, shared by the formats that hold such messages.

A message becomes a Turn if it says something, a ToolCall for each tool that it calls, a
ToolResult if it is an answer. What these events alone would not give back is kept in `extra`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from madlog.analytics.exporting.messages import NAME_OF_ROLE, call_from, message_told
from madlog.analytics.exporting.rest import json_text, rest_of
from madlog.analytics.importing._content import clean, content_of, plain_text_of
from madlog.analytics.importing._draft import Draft, normal_name
from madlog.analytics.importing._errors import BadLine
from madlog.analytics.importing._format import PutBlob
from madlog.schemas import (
    ConversationChanged,
    Event,
    Sender,
    SenderKind,
    ToolCall,
    ToolResult,
    Turn,
)
from madlog.schemas.text import parse

__all__ = ("actions_called", "add_messages", "check_messages")

# An answer to a call further back than this is kept without its call.
_OPEN_CALLS_MAX = 1000
_TOOLS = Sender(name="tools", kind="system")
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_KIND_OF_ROLE: dict[str, SenderKind] = {"assistant": "mad", "user": "human", "system": "system"}


class _Speaker(NamedTuple):
    role: str
    sender: Sender
    original: str | None


def check_messages(messages: Any, field: str) -> None:
    """Refuse what is no list of chat messages; raises BadLine."""
    if not isinstance(messages, list):
        raise BadLine(f"`{field}` is not a list of messages")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise BadLine(f"message {number} is not an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise BadLine(f"message {number} has no role of {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise BadLine(f"message {number} has a content that is neither text, list nor null")
        for call in _calls(message):
            if not isinstance(call, dict) or _function(call) is None:
                raise BadLine(f"message {number} has a tool call that names no function")


def _calls(message: dict[str, Any]) -> list[Any]:
    if message.get("role") != "assistant":
        return []
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return calls
    form = message.get("function_call")
    return [{"function": form}] if form is not None else []


def _function(call: dict[str, Any]) -> tuple[str, Any] | None:
    """Return (action, arguments) of a call, None if it names no action."""
    for form, field in (("function", "arguments"), ("custom", "input")):
        inner = call.get(form)
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            return inner["name"], inner.get(field)
    return None


def actions_called(messages: list[dict[str, Any]]) -> list[str]:
    """Return the names of the actions that the messages call, sorted."""
    named = (_function(call) for message in messages for call in _calls(message))
    return sorted({clean(found[0]) for found in named if found})


def _speaker(message: dict[str, Any]) -> _Speaker | None:
    role = _ROLES[message["role"]]
    if role == "tool":
        return None
    usual, original = NAME_OF_ROLE[role], message.get("name")
    if not isinstance(original, str) or not original:
        return _Speaker(role, Sender(name=usual, kind=_KIND_OF_ROLE[role]), None)
    name = normal_name(original, usual)
    kept = clean(original) if name != original else None
    return _Speaker(role, Sender(name=name, kind=_KIND_OF_ROLE[role]), kept)


def _addressees(speakers: list[_Speaker | None], role: str) -> list[str]:
    """Return for each place the next speaker of a role, else the last one, else the usual name."""
    named = [found.sender.name if found and found.role == role else None for found in speakers]
    last = next((name for name in reversed(named) if name), NAME_OF_ROLE[role])
    found = []
    for name in reversed(named):
        last = name or last
        found.append(last)
    return found[::-1]


class _Fold:
    """Goes through the messages of one conversation and appends their events."""

    def __init__(self, draft: Draft, named_results: bool, put_blob: PutBlob | None) -> None:
        self.draft = draft
        self.named_results = named_results
        self.put_blob = put_blob
        self._number = 0
        # Calls without an answer yet in their order, each with its message's number.
        self._open: list[tuple[int, ToolCall]] = []
        # What this message put into the blob store, to see that it comes back.
        self._blobs: dict[str, bytes] = {}

    def message(
        self, message: dict[str, Any], speaker: _Speaker | None, recipients: tuple[str, ...]
    ) -> list[Event]:
        """Append one message's events and return them, with what they do not say kept."""
        if speaker is None:
            events: list[Event] = [self._result(message)]
        else:
            events = self._said(message, speaker, recipients)
        get_blob = self._blobs.__getitem__
        told = message_told(events, named_results=self.named_results, get_blob=get_blob)
        rest = rest_of(told, message)
        if rest is not None:
            events[0] = self.draft.keep(events[0], message_rest=rest)
        self._number += 1
        self._blobs.clear()
        return events

    def _said(
        self, message: dict[str, Any], speaker: _Speaker, recipients: tuple[str, ...]
    ) -> list[Event]:
        extra = {"message": str(self._number)}
        if speaker.original is not None:
            extra["original_name"] = speaker.original
        calls = _calls(message)
        events: list[Event] = []
        content, refusal = message.get("content"), message.get("refusal")
        if content is None and isinstance(refusal, str) and not calls:
            said = {**extra, "field": "refusal"}
            events.append(self._turn(speaker, recipients, refusal, said))
        elif content or not calls:
            events.append(self._turn(speaker, recipients, content or "", extra))
        form = "tool_calls" if message.get("tool_calls") else "function"
        for call in calls:
            events.append(self._call(call, speaker, extra, form))
        return events

    def _turn(
        self, speaker: _Speaker, to: tuple[str, ...], content: Any, extra: dict[str, str]
    ) -> Event:
        if isinstance(content, str):
            found = parse(clean(content))
            parts, mentions, tags = found.parts, found.mentions, found.tags
        else:
            parts, mentions, tags, items = content_of(content, self._put if self.put_blob else None)
            extra = {**extra, "content_items": items}
        return self.draft.add(
            Turn,
            speaker.sender,
            extra=extra,
            recipients=to,
            mentions=mentions,
            tags=tags,
            parts=parts,
        )

    def _call(
        self, call: dict[str, Any], speaker: _Speaker, extra: dict[str, str], form: str
    ) -> Event:
        action, arguments = _function(call) or ("", None)
        call_id = call.get("id")
        event = self.draft.add(
            ToolCall,
            speaker.sender,
            extra=extra if form == "tool_calls" else {**extra, "form": form},
            action=clean(action),
            arguments=clean(arguments) if isinstance(arguments, str) else json_text(arguments),
            source_call_id=clean(call_id) if isinstance(call_id, str) else None,
        )
        told = call_from(event)
        if form == "function":
            # Only the function is written back: id and type were never there.
            call = {"id": told["id"], "type": told["type"], **call}
        rest = rest_of(told, call)
        if rest is not None:
            event = self.draft.keep(event, call_rest=rest)
        self._open.append((self._number, event))
        del self._open[:-_OPEN_CALLS_MAX]
        return event

    def _result(self, message: dict[str, Any]) -> Event:
        content, call_id = message.get("content"), message.get("tool_call_id")
        text = clean(content) if isinstance(content, str) else plain_text_of(content)
        call = self._take_call(
            clean(call_id) if isinstance(call_id, str) else None, message.get("name")
        )
        extra = {"message": str(self._number)}
        if message["role"] == "function":
            extra["form"] = "function"
        name = message.get("name")
        ok = not (text or "").startswith("Error")
        return self.draft.add(
            ToolResult,
            _TOOLS,
            extra=extra,
            call_id=call.event_id if call else None,
            action=clean(name) if isinstance(name, str) else call.action if call else None,
            ok=ok,
            result=text if ok else None,
            error=None if ok else text,
            source_call_id=clean(call_id) if isinstance(call_id, str) else None,
        )

    def _take_call(self, call_id: str | None, name: Any) -> ToolCall | None:
        """Find the open call that a result answers: by id in the latest message that has it.

        Ids repeat, so an answered call is closed; results without an id go by the action's name.
        """
        latest: int | None = None
        for at in range(len(self._open) - 1, -1, -1):
            number, call = self._open[at]
            if latest is not None and number != self._open[latest][0]:
                break
            if (call.source_call_id == call_id) if call_id is not None else (call.action == name):
                latest = at
        return None if latest is None else self._open.pop(latest)[1]

    def _put(self, data: bytes) -> str:
        assert self.put_blob is not None
        sha256 = self.put_blob(data)
        self._blobs[sha256] = data
        return sha256


def add_messages(
    draft: Draft,
    messages: list[dict[str, Any]],
    *,
    named_results: bool,
    put_blob: PutBlob | None = None,
) -> list[list[Event]]:
    """Append who takes part and then each message's events; return these, message by message."""
    speakers = [_speaker(message) for message in messages]
    agents, users = _addressees(speakers, "assistant"), _addressees(speakers, "user")
    for name, kind in _participants(speakers, agents, users):
        draft.add(ConversationChanged, change="joined", participant=name, participant_kind=kind)
    fold = _Fold(draft, named_results, put_blob)
    events = []
    for at, (message, speaker) in enumerate(zip(messages, speakers, strict=True)):
        to = users[at] if speaker and speaker.role == "assistant" else agents[at]
        events.append(fold.message(message, speaker, (to,)))
    return events


def _participants(
    speakers: list[_Speaker | None], agents: list[str], users: list[str]
) -> Iterator[tuple[str, SenderKind]]:
    pairs = [(found.sender.name, found.sender.kind) for found in speakers if found]
    pairs += [(name, _KIND_OF_ROLE["assistant"]) for name in agents]
    pairs += [(name, _KIND_OF_ROLE["user"]) for name in users]
    yield from dict.fromkeys(pairs)
