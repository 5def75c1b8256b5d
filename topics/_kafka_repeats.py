"""Dropping what was appended twice, as a reader of one partition does it (G6).

Two headers tell: `idempotency`, a client's key and content, and `source`, the place of the input
and the number of the output that an engine made of it. A key that came within the last WINDOW
offsets is a repeat. An output is one when its source is not after the last that was seen of the
same source partition, since an engine makes its outputs in order; those marks are few and kept.
So a reader that starts in the middle looks back WINDOW offsets first, and what it drops does not
depend on where it started.
"""

import hashlib
from collections import deque
from typing import NamedTuple

from madlog.topics.log import SOURCE, Headers, Idempotency

__all__ = ("IDEMPOTENCY", "WINDOW", "Repeats", "Seen", "idempotency_header")

IDEMPOTENCY = "idempotency"
WINDOW = 20_000


def idempotency_header(once: Idempotency) -> tuple[str, bytes]:
    """Return the header of a client's key: HASH(scope, key)-HASH(content), readable text."""
    name = hashlib.sha256(f"{len(once.scope)}:{once.scope}{once.key}".encode()).hexdigest()[:32]
    return IDEMPOTENCY, f"{name}-{once.content.hex()[:32]}".encode()


class Seen(NamedTuple):
    """A client's key as it stands in a partition: its content's part of the header, its place."""

    content: bytes
    offset: int


class Repeats:
    """What was seen of one partition up to an offset."""

    __slots__ = ("_keys", "_marks", "_order")

    def __init__(self) -> None:
        self._keys: dict[bytes, int] = {}
        self._order: deque[tuple[bytes, int]] = deque()
        self._marks: dict[bytes, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def seen(self, offset: int, headers: Headers) -> bool:
        """Take up a record's headers; tell whether it repeats what was seen before."""
        repeated = False
        for name, value in headers:
            if name == SOURCE:
                repeated |= self._mark(value)
            elif name == IDEMPOTENCY:
                repeated |= self._key(offset, value)
        return repeated

    def _key(self, offset: int, value: bytes) -> bool:
        before = self._keys.get(value)
        self._keys[value] = offset
        self._order.append((value, offset))
        while self._order and self._order[0][1] < offset - WINDOW:
            old, at = self._order.popleft()
            if self._keys.get(old) == at:
                del self._keys[old]
        return before is not None and before >= offset - WINDOW

    def _mark(self, value: bytes) -> bool:
        # processor/topic/partition@offset/index
        partition, _, place = value.rpartition(b"@")
        at, _, index = place.partition(b"/")
        try:
            mark = int(at), int(index)
        except ValueError:
            return False  # another program's header of the same name
        before = self._marks.get(partition)
        if before is not None and mark <= before:
            return True
        self._marks[partition] = mark
        return False
