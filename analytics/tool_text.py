"""JSON that tools take and give, as a person reads it: names and values."""

import json
from typing import Any

__all__ = ("parsed", "told")


def parsed(text: str | None) -> Any:
    """Return what a text is as JSON, None where it is none."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def told(text: str | None, most: int | None = None, *, value: Any = None) -> str:
    """Return `name=value, …` of a JSON object, other text as it is; at most so many characters.

    `value` takes the place of what the text says, where part of it is to be left out.
    """
    value = parsed(text) if value is None else value
    if isinstance(value, dict):
        text = ", ".join(f"{name}={_plain(one)}" for name, one in value.items())
    text = text or ""
    if most is None:
        return text
    text = " ".join(text.split())
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} … {more:,} characters more"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
