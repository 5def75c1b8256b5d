"""The fields of a foreign object beside its messages, as a conversation's metadata."""

import re
from typing import Any

from madlog.analytics.exporting.rest import json_text

__all__ = ("metadata_of",)

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_OURS = frozenset({"tools", "tool_definitions", "other_fields"})


def metadata_of(
    value: dict[str, Any], leave: set[str], actions: list[str] | None
) -> dict[str, str]:
    """Return metadata as JSON text by field; fields whose names will not do go together.

    `tools` is the conversation's action registry, the names of the actions.
    """
    metadata: dict[str, str] = {}
    other: dict[str, Any] = {}
    for name, item in value.items():
        if name in leave:
            continue
        if name in _OURS or not _PLAIN.fullmatch(name):
            other[name] = item
        else:
            metadata[name] = json_text(item)
    if other:
        metadata["other_fields"] = json_text(other)
    if actions is not None:
        metadata["tools"] = json_text(actions)
    return metadata
