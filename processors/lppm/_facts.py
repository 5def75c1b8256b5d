"""Facts: what of a conversation so far a guard may ask for and a prediction may rest on."""

from collections.abc import Sequence
from typing import Any

from madlog.processors.lppm.cases import Act

__all__ = ("DONE", "FAILED", "HEARD", "OK", "facts")

HEARD = "heard"  # a human spoke last
OK = "ok"  # the newest action's answer was good
FAILED = "failed"
DONE = "done "  # begins the fact that an action was answered well
_FLAG_MAX = 24
_FLAGS_MAX = 40


def facts(past: Sequence[Act]) -> frozenset[str]:
    """Return the facts of a conversation so far."""
    found = {f"{DONE}{act.action}" for act in past if act.action and act.answer and act.answer.ok}
    if past and past[-1].human:
        found.add(HEARD)
    newest = next((act for act in reversed(past) if act.action), None)
    if newest is not None and newest.answer is not None:
        found.add(OK if newest.answer.ok else FAILED)
        found.update(_flags(newest))
    return frozenset(found)


def _flags(act: Act) -> list[str]:
    found: list[str] = []
    for path, values in act.paths.items():
        if len(found) == _FLAGS_MAX:
            break
        if len(values) == 1 and (told := _told(values[0])) is not None:
            found.append(f"{path} = {told}")
    return found


def _told(value: Any) -> str | None:
    """Return a value that is a flag as text; data, such as names with digits, is none."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return ("empty", "one")[len(value)] if len(value) < 2 else "many"
    if isinstance(value, str) and len(value) <= _FLAG_MAX and not any(map(str.isdigit, value)):
        return value or "empty"
    return None
