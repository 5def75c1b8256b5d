"""Event ids: UUIDv7 layout, drawn for new events, computed for derived and imported ones.

A computed id depends only on what the event was made from, never on a clock, a model or a
backend, so that doing the same work twice gives the same ids and repeats can be dropped.
"""

import hashlib

__all__ = (
    "SYNTHETIC_EPOCH_US",
    "content_id_and_time",
    "derived_event_id",
    "event_id_ms",
    "imported_event_id",
    "new_event_id",
)

# Sources without times get this epoch plus an index, so that two imports are equal.
# 2020-01-01T00:00:00Z in microseconds since 1970.
SYNTHETIC_EPOCH_US = 1_577_836_800_000_000


def _uuid7(ms: int, tail: bytes) -> str:
    """Lay out 48 bits of milliseconds and 74 bits of `tail` as RFC 9562 section 5.7 says."""
    value = (ms & ((1 << 48) - 1)) << 80 | int.from_bytes(tail[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _digest(*parts: str) -> bytes:
    # Length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
    pieces: list[bytes] = []
    for part in parts:
        data = part.encode()
        pieces += (len(data).to_bytes(8, "big"), data)
    return hashlib.sha256(b"".join(pieces)).digest()


def new_event_id(occurred_at_us: int, random: bytes) -> str:
    """Return the id of a new event from its time (µs) and 10 or more random bytes."""
    return _uuid7(occurred_at_us // 1000, random)


def derived_event_id(input_event_id: str, processor: str, index: int) -> str:
    """Return the id of output number `index` that `processor` makes from one input event."""
    text = _uuid7(0, _digest(input_event_id, processor, str(index)))
    return input_event_id[:13] + text[13:]  # the first 13 characters are the milliseconds


def imported_event_id(fmt: str, source_conversation: str, index: int, occurred_at_us: int) -> str:
    """Return the id of event number `index` of a conversation of a foreign log."""
    return _uuid7(occurred_at_us // 1000, _digest(fmt, source_conversation, str(index)))


def content_id_and_time(*content: str) -> tuple[str, int]:
    """Return (event id, occurred_at in µs), both computed from `content` alone."""
    digest = _digest(*content)
    occurred_at_us = SYNTHETIC_EPOCH_US + int.from_bytes(digest[10:14], "big") * 1000
    return _uuid7(occurred_at_us // 1000, digest), occurred_at_us


def event_id_ms(event_id: str) -> int:
    """Return the milliseconds since 1970 that an id carries."""
    return int(event_id[:8] + event_id[9:13], 16)
