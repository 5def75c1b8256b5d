"""Guards to try on the record: a SQL predicate, or a Python function.

A guard is asked about each tool call, and sees nothing that came after it. What it raises ends the
run: a guard that failed in silence would look as if it let everything through.
"""

import asyncio
import importlib
import importlib.util
import inspect
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Protocol

from madlog.analytics.what_if.acts import Act, Acts, Past
from madlog.analytics.what_if.errors import BadGuard, GuardFailed, GuardTooSlow

__all__ = ("Guard", "PythonGuard", "load_guard")

_FUNCTION = re.compile(r"(?P<place>[A-Za-z_][\w.]*|.+\.py):(?P<name>[A-Za-z_]\w*)")
_BYTES_MAX = 1 << 20
_HEARD_EVERY = 500
# How long a function may think about one act.
_SECONDS_MAX = 10.0


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
        """Return the event_ids of the calls that it blocks, with why.

        Raises GuardFailed, GuardTooSlow.
        """
        found = {}
        with _alarm():
            for number, (act, past) in enumerate(acts.moments()):
                if number % _HEARD_EVERY == 0:
                    await asyncio.sleep(0)  # where Ctrl-C is heard
                answer = self._asked(act, past)
                if answer:
                    found[act.event_id] = answer if isinstance(answer, str) else "blocked"
        return found

    def _asked(self, act: Act, past: Past) -> bool | str | None:
        try:
            with _limited():
                answer = self.function(act, past)
        except _TooLong:
            raise GuardTooSlow(
                f"the guard {self.named} was at {act}, event {act.event_id}, for {_SECONDS_MAX:g} "
                "s and has not answered: it goes on for ever, or does too much for each call"
            ) from None
        # An exit is an error here too: it would end the command as if that had been asked for.
        except (Exception, SystemExit) as error:
            raise GuardFailed(
                f"the guard {self.named} raised {type(error).__name__}: {str(error)[:200]} at "
                f"{act} of {act.agent}, event {act.event_id} in {act.conversation_id}: correct "
                "it and run it again; nothing was changed"
            ) from error
        if inspect.iscoroutine(answer):
            answer.close()
            raise GuardFailed(f"the guard {self.named} is async: write it as a plain def")
        if not isinstance(answer, bool | str | None):
            raise GuardFailed(
                f"the guard {self.named} answered {str(answer)[:60]!r} at {act}, event "
                f"{act.event_id}: answer True or a reason to block, False or None to let it run"
            )
        return answer


class _TooLong(BaseException):
    """Not an Exception, lest the guard itself catches it."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise _TooLong


def _by_signals() -> bool:
    """Whether a function can be stopped: signals are the main thread's."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def _alarm() -> Iterator[None]:
    """Let an alarm stop what runs too long, and put back what alarms did before."""
    if not _by_signals():
        yield
        return
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _limited() -> Iterator[None]:
    if not _by_signals():
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def load_guard(given: str) -> Guard:
    """Return the guard that a text names; raises BadGuard.

    FILE.py:FUNCTION or MODULE:FUNCTION is a function, FILE.sql a file of a predicate, and any other
    text is a predicate itself.
    """
    match = _FUNCTION.fullmatch(given.strip())
    if match is not None:
        return _function(given.strip(), match["place"], match["name"])
    if not given.strip():
        raise BadGuard("the guard is empty: write what is true where a call is blocked")
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
    except (Exception, SystemExit) as error:
        raise BadGuard(
            f"the guard's {place} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    return module
