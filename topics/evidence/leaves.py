"""What of a record is hashed: its key, its value, and the headers that readers go by.

A leaf's data is the version 1 as a byte, then key and value, then name and value of each covered
header in the order in which they stand; each of these pieces has its length before it, 4 bytes,
highest first. Offset and append time are the backend's own, and other headers (durations, trace
context) say nothing that a reader acts on: a log that moves to another backend keeps its hashes.
"""

from hashlib import sha256
from struct import Struct

from madlog.topics.log import SOURCE, Headers, Record

__all__ = ("COVERED_HEADERS", "leaf_data", "record_hash")

# By `source`, readers drop what was made twice; the others repeat what the value says.
COVERED_HEADERS = ("conversation", "kind", "sender", SOURCE)

_size = Struct(">I").pack
_NAMED = {name: _size(len(name)) + name.encode() for name in COVERED_HEADERS}


def leaf_data(key: bytes, value: bytes, headers: Headers) -> bytes:
    """Return the bytes of a record that its leaf is the hash of."""
    return _joined(b"\x01", key, value, headers)


def record_hash(record: Record) -> bytes:
    """Return the hash of a record's leaf."""
    _, _, _, key, value, headers, _ = record
    return sha256(_joined(b"\x00\x01", key, value, headers)).digest()  # 00: a leaf (RFC 6962)


def _joined(start: bytes, key: bytes, value: bytes, headers: Headers) -> bytes:
    pieces = [start, _size(len(key)), key, _size(len(value)), value]
    for name, content in headers:
        named = _NAMED.get(name)
        if named is not None:
            pieces += (named, _size(len(content)), content)
    return b"".join(pieces)
