"""OpenAI chat objects: {"messages": […], "tools": […], …}, as JSON lines or one JSON document.

What stands beside the messages (model, usage, metadata, …) is kept; usage becomes LlmCalls.
"""

from typing import Any

from madlog.analytics.exporting.rest import json_text
from madlog.analytics.importing._content import clean
from madlog.analytics.importing._draft import Draft
from madlog.analytics.importing._errors import BadLine
from madlog.analytics.importing._fields import metadata_of
from madlog.analytics.importing._format import SourceObject, canonical_sha256
from madlog.analytics.importing._messages import add_messages, check_messages
from madlog.schemas import SYNTHETIC_EPOCH_US, ConversationChanged, Event, LlmCall, Source

__all__ = ("OpenaiChat",)

_PARAMETERS = (
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "top_p",
)
# `created` is in seconds; what is not between 2000 and 2200 is some other number.
_CREATED = range(946_684_800, 7_258_118_400)


def _count(usage: Any, *names: str) -> int | None:
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
            return value
    return None


def _cost(usage: Any) -> float | None:
    value = usage.get("cost") if isinstance(usage, dict) else None
    return float(value) if isinstance(value, (int, float)) and type(value) is not bool else None


def _text(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _tool_names(value: dict[str, Any]) -> list[str] | None:
    """Return the names of the tools that the object declares, None when it declares none."""
    tools, functions = value.get("tools"), value.get("functions")
    if not isinstance(tools, list) and not isinstance(functions, list):
        return None
    names = []
    for tool in [*(tools or ()), *(functions or ())]:
        if not isinstance(tool, dict):
            continue
        inner = tool.get("function", tool.get("custom", tool))
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str):
            names.append(clean(name))
    return sorted(set(names))


class OpenaiChat:
    """The format of OpenAI chat completions and fine-tuning files."""

    name = "openai-chat"
    documents = True
    counts_equals = True

    def check(self, value: Any) -> dict[str, Any]:
        """Return the object if it is a chat; raises BadLine."""
        if not isinstance(value, dict) or "messages" not in value:
            raise BadLine('not an object with `messages`: write {"messages": […]}')
        check_messages(value["messages"], "messages")
        return value

    def conversation(self, value: dict[str, Any]) -> str:
        """Return the content's hash: such objects have no id of their own."""
        return canonical_sha256(value)

    def events(self, found: SourceObject) -> list[Event]:
        """Return the events of one chat."""
        chat = found.value
        created = chat.get("created")
        start = created if type(created) is int and created in _CREATED else None
        digest, _, ordinal = found.conversation.partition("/")
        draft = Draft(
            found.conversation,
            f"{self.name}-{digest[:16]}" + (f"-{ordinal}" if ordinal else ""),
            Source(format=self.name, sha256=found.file_sha256, line=found.line),
            SYNTHETIC_EPOCH_US if start is None else start * 1_000_000,
            1_000_000 if start is None else 1,
            synthetic=start is None,
        )
        metadata = metadata_of(chat, leave={"messages", "tools"}, actions=_tool_names(chat))
        if "tools" in chat:
            metadata["tool_definitions"] = json_text(chat["tools"])
        draft.add(ConversationChanged, change="created", metadata=metadata)
        messages = chat["messages"]
        events = add_messages(draft, messages, named_results=False, put_blob=found.put_blob)
        self._calls(draft, chat, events)
        return draft.events

    def _calls(self, draft: Draft, chat: dict[str, Any], events: list[list[Event]]) -> None:
        """Append an LlmCall for each answer whose usage the source has."""
        answers = [at for at, m in enumerate(chat["messages"]) if m["role"] == "assistant"]
        whole = isinstance(chat.get("usage"), dict)
        # The usage of the object is that of its last answer, unless that has its own.
        sent: list[str] = []
        done = 0
        for at in answers:
            message = chat["messages"][at]
            own = isinstance(message.get("usage"), dict)
            if not own and not (whole and at == answers[-1]):
                continue
            sent += [event.event_id for group in events[done:at] for event in group]
            done = at
            usage = message["usage"] if own else chat["usage"]
            draft.add(
                LlmCall,
                events[at][0].sender,
                after=events[at - 1][-1] if at else events[at][0],
                provider=_text(chat.get("provider")),
                model=_text(message.get("model", chat.get("model"))),
                parameters={name: json_text(chat[name]) for name in _PARAMETERS if name in chat},
                messages=tuple(sent),
                answer_id=events[at][0].event_id,
                tokens_in=_count(usage, "prompt_tokens", "input_tokens"),
                tokens_out=_count(usage, "completion_tokens", "output_tokens"),
                cost_usd=_cost(usage),
            )
