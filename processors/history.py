"""What a router remembers of each conversation: who takes part, and the counters of its past."""

import json
from collections.abc import Mapping
from typing import Any, Final

from madlog.processors.dtr.features import NO_HISTORY
from madlog.processors.step import State

__all__ = (
    "NO_CONVERSATION",
    "conversation_of",
    "fold_call",
    "fold_change",
    "fold_result",
    "history_of",
    "is_imported",
)

NO_CONVERSATION: Final[Mapping[str, Any]] = {
    "participants": {},
    "imported": False,
    "tools": None,
    "seen_actions": [],
}
_ACTION_MAX = 64


def is_imported(fields: Mapping[str, Any]) -> bool:
    """Tell whether an event was brought in from a foreign log."""
    return fields["time_source"] != "observed" or fields["source"] is not None


def conversation_of(state: State, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return who takes part in an event's conversation and what was seen there."""
    found: Mapping[str, Any] = state.get("c/" + fields["conversation_id"], NO_CONVERSATION)
    return found


def history_of(state: State, fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the counters of an event's conversation, and the key that they stand under."""
    key = "h/" + fields["conversation_id"]
    return key, state.get(key, NO_HISTORY)


def fold_change(state: State, fields: Mapping[str, Any]) -> None:
    """Fold who came, who left, and which tools a conversation has."""
    key = "c/" + fields["conversation_id"]
    old = state.get(key, NO_CONVERSATION)
    new = {**old, "imported": old["imported"] or is_imported(fields)}
    name, kind = fields["participant"], fields["participant_kind"]
    if name is not None and fields["change"] == "left":
        new["participants"] = {
            who: what for who, what in old["participants"].items() if who != name
        }
    elif name is not None and kind is not None:
        new["participants"] = {**old["participants"], name: kind}
    tools = fields["metadata"].get("tools")
    if fields["change"] == "created" and tools is not None:
        new["tools"] = _names(tools)
    if new != old:
        state[key] = new


def fold_result(state: State, fields: Mapping[str, Any]) -> None:
    """Fold whether a tool's answer was good."""
    key, history = history_of(state, fields)
    state[key] = {**history, "tool_ok": int(fields["ok"])}


def _names(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    return sorted({item for item in value if isinstance(item, str)}) if type(value) is list else []


def fold_call(state: State, fields: Mapping[str, Any]) -> None:
    """Fold a tool call."""
    key, history = history_of(state, fields)
    # A category name has no blanks and is short; a foreign action may be neither.
    action = "_".join(fields["action"].split())[:_ACTION_MAX] or "none"
    state[key] = {**history, "calls": history["calls"] + 1, "action": action}
    key = "c/" + fields["conversation_id"]
    old = state.get(key, NO_CONVERSATION)
    if old["tools"] is None and fields["action"] not in old["seen_actions"]:
        state[key] = {**old, "seen_actions": [*old["seen_actions"], fields["action"]]}
