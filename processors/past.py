"""A conversation's recent events in a processor's state: what a learned process decides from.

One key an event, `e/CONVERSATION/NUMBER`, written once, so that a long conversation costs no more
per event than a short one; `n/CONVERSATION` counts them. Only what an act is made of is kept, and
no more of a text than is ever looked at.
"""

from collections.abc import Mapping
from typing import Any

from madlog.processors.lppm.cases import PAST_MAX, Act, cases_of
from madlog.processors.step import State
from madlog.topics import LogEvent

__all__ = ("forget", "past_of", "remember")

# An act is one event, its answer another.
_EVENTS_MAX = 2 * PAST_MAX
_TEXT_MAX = 16_384
_KINDS = frozenset(("Turn", "ToolCall", "ToolResult"))


def remember(state: State, event: LogEvent) -> None:
    """Keep an event of a conversation, and let go of one that is too far back to matter."""
    if event.kind not in _KINDS:
        return
    name = event.fields["conversation_id"]
    number = state.get("n/" + name, 0)
    state[f"e/{name}/{number}"] = [event.kind, _kept(event.kind, event.fields)]
    state["n/" + name] = number + 1
    old = f"e/{name}/{number - _EVENTS_MAX}"
    if number >= _EVENTS_MAX and old in state:
        del state[old]


def past_of(state: State, conversation_id: str) -> tuple[Act, ...]:
    """Return the last acts of a conversation, oldest first."""
    number = state.get("n/" + conversation_id, 0)
    kept = []
    for one in range(max(0, number - _EVENTS_MAX), number):
        kind, fields = state[f"e/{conversation_id}/{one}"]
        kept.append((kind, {**fields, "conversation_id": conversation_id}))
    if not kept:
        return ()
    (case,) = cases_of(kept)
    return case.acts[-PAST_MAX:]


def forget(state: State, conversation_id: str) -> None:
    """Let go of a conversation that is over."""
    number = state.get("n/" + conversation_id, 0)
    for one in range(max(0, number - _EVENTS_MAX), number):
        del state[f"e/{conversation_id}/{one}"]
    if number:
        del state["n/" + conversation_id]


def _kept(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: fields[name] for name in ("event_id", "occurred_at", "time_source")}
    kept["sender"] = {name: fields["sender"][name] for name in ("name", "kind")}
    if kind == "Turn":
        text = "".join(part["text"] or "" for part in fields["parts"])
        kept["parts"] = [{"text": text[:_TEXT_MAX]}]
    elif kind == "ToolCall":
        kept["action"] = fields["action"]
        kept["arguments"] = fields["arguments"][:_TEXT_MAX]
        kept["preconditions"] = list(fields["preconditions"])
    else:
        kept["call_id"], kept["ok"] = fields["call_id"], fields["ok"]
        name = "result" if fields["ok"] else "error"
        text = fields[name]
        kept[name] = None if text is None else text[:_TEXT_MAX]
    return kept
