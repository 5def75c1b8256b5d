"""Asks a broker whether it serves: one Metadata exchange of Kafka's protocol over a socket."""

import socket
import struct
from dataclasses import dataclass

__all__ = ("Answer", "ask")

METADATA, VERSION = 3, 1
NO_TOPICS = struct.pack(">i", 0)


@dataclass(frozen=True)
class Answer:
    """What one broker says about its cluster."""

    brokers: frozenset[int]
    controller: int


def ask(host: str, port: int, timeout_s: float = 1.0) -> Answer | None:
    """Return a plaintext listener's answer, None when there is none in time."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            request = struct.pack(">hhih", METADATA, VERSION, 1, -1) + NO_TOPICS
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                (size,) = struct.unpack(">i", stream.read(4))
                return _parsed(stream.read(min(size, 1 << 20)))
    except (OSError, struct.error):
        return None


def _parsed(body: bytes) -> Answer:
    at = 4
    (count,) = struct.unpack_from(">i", body, at)
    at += 4
    brokers = set()
    for _ in range(count):
        (node,) = struct.unpack_from(">i", body, at)
        brokers.add(node)
        (host_size,) = struct.unpack_from(">h", body, at + 4)
        at += 6 + host_size + 4
        (rack_size,) = struct.unpack_from(">h", body, at)
        at += 2 + max(rack_size, 0)
    (controller,) = struct.unpack_from(">i", body, at)
    return Answer(frozenset(brokers), controller)
