"""What events cannot say of a foreign object is kept beside them as JSON text: its rest."""

import json
from typing import Any

__all__ = ("json_text", "rest_of", "with_rest")


def json_text(value: Any) -> str:
    """Return JSON text with sorted keys that UTF-8 can hold, lone surrogates escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    # As text, because Python holds 1, 1.0 and True equal and JSON does not.
    return type(one) is type(other) and json_text(one) == json_text(other)


def rest_of(told: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """Return what turns `told` into `wanted` as JSON text, None when they are equal."""
    put = {
        name: value
        for name, value in wanted.items()
        if name not in told or not _same(told[name], value)
    }
    drop = sorted(told.keys() - wanted.keys())
    rest = ({"set": put} if put else {}) | ({"drop": drop} if drop else {})
    return json_text(rest) if rest else None


def with_rest(told: dict[str, Any], rest: str | None) -> dict[str, Any]:
    """Return `told` with its rest put back."""
    if rest is None:
        return told
    change = json.loads(rest)
    dropped = set(change.get("drop", ()))
    kept: dict[str, Any] = {name: value for name, value in told.items() if name not in dropped}
    kept.update(change.get("set", {}))
    return kept
