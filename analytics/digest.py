"""What a topic holds, in one number that is equal on every backend holding the same events.

A topic's digest is the SHA-256 over the sorted list of (key, rank within the key, SHA-256 of the
canonical decoded event); the rank is 0 where the topic's key is not the conversation. Each entry
is written as: length of the key (4 bytes, big-endian), key, rank (8 bytes), hash (32 bytes).
Offsets, headers and events about positions do not count.
"""

import hashlib
from collections.abc import Collection
from typing import NamedTuple

from madlog.analytics.as_of import event_topics
from madlog.schemas import canonical
from madlog.topics import EventLog, LogEvent, UnknownTopic, Vector
from madlog.topics.catalog import topic as catalogued
from madlog.topics.log import OnDamage, log_damage

__all__ = ("TopicDigest", "digest", "event_hash")

_HASH_BYTES = 32
_ABOUT_POSITIONS = frozenset({"CheckpointSigned", "RangeArchived"})
# Where the failed record stood and how it was framed differs between backends; its bytes do not.
_FRAMING = {"DeadLetter": frozenset({"idempotency_key", "offset", "record_headers"})}

# Fields that hold an event's wire bytes: hashed as they are without a schema registry.
_FRAMED = {"DeadLetter": "record_value", "Delivery": "turn"}


class TopicDigest(NamedTuple):
    """A topic's digest in hex, and how many events went into it."""

    digest: str
    events: int


def event_hash(event: LogEvent) -> bytes:
    """Return the SHA-256 of the canonical decoded event."""
    fields = event.fields
    without = _FRAMING.get(event.kind)
    if without:
        fields = {name: value for name, value in fields.items() if name not in without}
    return hashlib.sha256(canonical({"kind": event.kind, **fields})).digest()


class _Folding:
    """A topic's hashes by key: 32 bytes an event, in the order of their rank."""

    def __init__(self, topic: str) -> None:
        self.by_key: dict[bytes, bytearray] = {}
        self.events = 0
        try:
            self.ranked = catalogued(topic).key == "conversation_id"
        except UnknownTopic:
            self.ranked = False  # a newer program's topic: no order is promised

    def add(self, event: LogEvent) -> None:
        key = event.record.key
        hashes = self.by_key.get(key)
        if hashes is None:
            hashes = self.by_key[key] = bytearray()
        hashes += event_hash(event)
        self.events += 1

    def result(self) -> TopicDigest:
        total = hashlib.sha256()
        for key in sorted(self.by_key):
            hashes = self.by_key[key]
            each = [hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES)]
            if not self.ranked:
                each.sort()
            head = len(key).to_bytes(4, "big") + key
            for rank, one in enumerate(each):
                total.update(head + (rank if self.ranked else 0).to_bytes(8, "big") + one)
        return TopicDigest(total.hexdigest(), self.events)


async def digest(
    log: EventLog,
    topics: Collection[str] | None = None,
    at: Vector | None = None,
    *,
    on_damage: OnDamage = log_damage,
) -> dict[str, TopicDigest]:
    """Return the digest of each topic (default: all that hold events), up to `at` or the end."""
    present = await event_topics(log)
    missing = sorted(set(topics or ()) - set(present))
    if missing:
        raise UnknownTopic(
            f"this log holds no events of a topic {missing[0][:80]!r}: "
            "`madlog topics list` shows its topics"
        )
    names = present if topics is None else sorted(set(topics))
    end = await log.log.end(names) if at is None else at
    found: dict[str, TopicDigest] = {}
    for name in names:
        folding = _Folding(name)
        async for batch in log.read_topics([name], end=end, on_damage=on_damage):
            for event in batch:
                framed = _FRAMED.get(event.kind)
                if framed is not None:
                    event.fields[framed] = await log.single_object(event.fields[framed])
                if event.kind not in _ABOUT_POSITIONS:
                    folding.add(event)
        found[name] = folding.result()
    return found
