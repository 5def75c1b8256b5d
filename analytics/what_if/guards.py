"""Guards to try on the record: a SQL predicate, or a Python function.

A guard is asked about each tool call, and sees nothing that came after it. What it raises ends the
run: a guard that failed in silence would look as if it let everything through.
"""

import asyncio
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from madlog.analytics.what_if.acts import Act, Acts, Past
from madlog.analytics.what_if.errors import BadGuard, GuardFailed

__all__ = ("Guard", "PythonGuard", "load_guard")

_FUNCTION = re.compile(r"(?P<place>[A-Za-z_][\w.]*|.+\.py):(?P<name>[A-Za-z_]\w*)")
_BYTES_MAX = 1 << 20
_HEARD_EVERY = 500


class Guard(Protocol):
    """What says which acts it would have blocked."""

    @property
    def named(self) -> str:
        """The guard as it was given, for people."""

    async def blocked(self, acts: Acts) -> Mapping[str, str]:
        """Return the event_ids of the calls that it blocks, with why; raises GuardFailed."""


@dataclass(frozen=True)
class PythonGuard:
    """A function of (act, past): a true value blocks, and a text says why."""

    named: str
    function: Callable[[Act, Past], Any]

    async def blocked(self, acts: Acts) -> Mapping[str, str]:
        """Return the event_ids of the calls that it blocks, with why; raises GuardFailed."""
        found = {}
        for number, (act, past) in enumerate(acts.moments()):
            if number % _HEARD_EVERY == 0:
                await asyncio.sleep(0)  # where Ctrl-C is heard
            try:
                answer = self.function(act, past)
            except Exception as error:
                raise GuardFailed(
                    f"the guard {self.named} raised {type(error).__name__}: {str(error)[:200]} at "
                    f"{act} of {act.agent}, event {act.event_id} in {act.conversation_id}: correct "
                    "it and run it again; nothing was changed"
                ) from error
            if not isinstance(answer, bool | str | None):
                raise GuardFailed(
                    f"the guard {self.named} answered {str(answer)[:60]!r} at {act}, event "
                    f"{act.event_id}: answer True or a reason to block, False or None to let it run"
                )
            if answer:
                found[act.event_id] = answer if isinstance(answer, str) else "blocked"
        return found


def load_guard(given: str) -> Guard:
    """Return the guard that a text names; raises BadGuard.

    FILE.py:FUNCTION or MODULE:FUNCTION is a function, FILE.sql a file of a predicate, and any other
    text is a predicate itself.
    """
    match = _FUNCTION.fullmatch(given.strip())
    if match is not None:
        return _function(given.strip(), match["place"], match["name"])
    # Not above: DuckDB takes memory that replays without such a guard do not need.
    from madlog.analytics.what_if.sql_guard import SqlGuard

    if given.strip().endswith(".sql"):
        return SqlGuard(given.strip(), _text(Path(given.strip())))
    return SqlGuard(" ".join(given.split()), given)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_BYTES_MAX).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadGuard(f"the guard in {path} cannot be read: {why}") from error


def _function(named: str, place: str, name: str) -> PythonGuard:
    module = _module(named, place)
    function = getattr(module, name, None)
    if not callable(function):
        there = ", ".join(_functions(module)) or "none"
        raise BadGuard(
            f"{place} has no function {name!r}: those that it has are {there}; a guard is "
            "def guard(act, past)"
        )
    return PythonGuard(named, function)


def _functions(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    )


def _module(named: str, place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        if not Path(place).is_file():
            raise BadGuard(f"there is no file {place}, which the guard {named} names")
        spec = importlib.util.spec_from_file_location("madlog_guard", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except BadGuard:
        raise
    except Exception as error:
        raise BadGuard(
            f"the guard's {place} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    return module
