"""Who waits for records of a log, and how they are told: within a process at once."""

import asyncio
import threading
from collections.abc import Callable

__all__ = ("Wakeups", "wakeups_of")

# Other processes cannot call us: their commits are seen by asking SQLite this often.
_POLL_S = 0.015


class Wakeups:
    """The waiters of one log file in this process; `version` grows with each commit seen."""

    def __init__(self) -> None:
        self.version = 0
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def notify(self) -> None:
        """Wake all that wait; called from any thread."""
        with self._lock:
            self.version += 1
            waiting, self._waiting = self._waiting, {}
        for future, loop in waiting.items():
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:  # its loop is closed, so nobody waits any more
                continue

    async def wait(self, seen: int, timeout_s: float, changed: Callable[[], bool]) -> bool:
        """Wait until `version` is past `seen` or `changed` says so; False after timeout_s."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self.version != seen:
                return True
            future: asyncio.Future[None] = loop.create_future()
            with self._lock:
                if self.version != seen:
                    return True
                self._waiting[future] = loop
            left = deadline - loop.time()
            try:
                await asyncio.wait((future,), timeout=max(0.0, min(left, _POLL_S)))
            finally:
                with self._lock:
                    self._waiting.pop(future, None)
            if future.done() or self.version != seen:
                return True
            if changed():
                self.notify()
                return True
            if loop.time() >= deadline:
                return False


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_BY_FILE: dict[str, Wakeups] = {}


def wakeups_of(path: str) -> Wakeups:
    """Return the one Wakeups of a file, given by its real path, in this process."""
    return _BY_FILE.setdefault(path, Wakeups())
