"""What of a record is hashed: its key, its value, and the headers that readers go by.

A leaf's data is the version 1 as a byte, then key and value, then name and value of each covered
header in the order of their names; each of these pieces has its length before it, 4 bytes, highest
first. Offset and append time are the backend's own, and other headers (durations, trace context)
say nothing that a reader acts on: a log that moves to another backend keeps its hashes.
"""

from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from struct import Struct

from madlog.topics.log import SOURCE, Headers, Record

__all__ = ("COVERED_HEADERS", "leaf_data", "record_hash")

# By `source`, readers drop what was made twice; the others repeat what the value says.
COVERED_HEADERS = ("conversation", "kind", "sender", SOURCE)

_COVERED = frozenset(COVERED_HEADERS)
_size = Struct(">I").pack
_name = itemgetter(0)


@lru_cache(maxsize=8192)
def _covered(headers: Headers) -> bytes:
    pieces: list[bytes] = []
    for name, value in sorted(headers, key=_name):
        if name in _COVERED:
            encoded = name.encode()
            pieces += (_size(len(encoded)), encoded, _size(len(value)), value)
    return b"".join(pieces)


def leaf_data(key: bytes, value: bytes, headers: Headers) -> bytes:
    """Return the bytes of a record that its leaf is the hash of."""
    return b"".join((b"\x01", _size(len(key)), key, _size(len(value)), value, _covered(headers)))


def record_hash(record: Record) -> bytes:
    """Return the hash of a record's leaf."""
    _, _, _, key, value, headers, _ = record
    return sha256(
        b"".join((b"\x00\x01", _size(len(key)), key, _size(len(value)), value, _covered(headers)))
    ).digest()
