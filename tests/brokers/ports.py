"""Loopback ports that stay a test's own while its broker is down."""

import errno
import random
import socket
import sys

__all__ = ("ReservedPort", "reserve")

# Below the ports that Linux and macOS hand to outgoing connections: there a client that calls
# a dead broker again and again can be given the broker's own port, and connect to itself.
FIRST, LAST = 20_000, 32_000


class ReservedPort:
    """A loopback port that nobody else gets until it is released."""

    def __init__(self, port: int, holder: socket.socket | None) -> None:
        self.port = port
        self._holder = holder

    def release(self) -> None:
        """Let others have the port."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None


def reserve(port: int | None = None) -> ReservedPort:
    """Reserve this port, or a free one; raises OSError when it is taken."""
    for _ in range(200):
        wanted = port or random.SystemRandom().randrange(FIRST, LAST)
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", wanted))
        except OSError as error:
            holder.close()
            if port is not None or error.errno != errno.EADDRINUSE:
                raise
            continue
        if sys.platform != "linux":
            holder.close()
            return ReservedPort(wanted, None)
        # Bound, not listening, and shared from here on: Linux lets the broker listen beside it
        # (Java asks to share too), while a plain bind by anybody else fails.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return ReservedPort(wanted, holder)
    raise OSError(errno.EADDRINUSE, f"no free loopback port between {FIRST} and {LAST}")
