"""madlog: the event-sourced message log that agents talk through."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from madlog.mads.ecosystem import Ecosystem

__version__ = "0.1.0"
__all__ = ("__version__", "open")


def open(url: str = ".madlog", *, create: bool = True) -> "AbstractAsyncContextManager[Ecosystem]":
    """Open a log for `async with`: conversations, reading, subscribing.

    Raises LogUnavailable when there is none and create is off, or it cannot be used.
    """
    from madlog.wiring import open_ecosystem  # so that `import madlog` stays cheap

    return open_ecosystem(url, create=create)
