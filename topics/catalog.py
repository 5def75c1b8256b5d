"""Every topic: its name, key, what it holds, retention; and which partition a key goes to.

The partition count and the partitioner (murmur2, as Kafka's own producer) are the same on every
backend. Clients built on librdkafka must set `partitioner=murmur2_random`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from madlog.schemas import Event, Sender
from madlog.topics.errors import UnknownTopic

__all__ = (
    "CATALOG",
    "Topic",
    "inbox",
    "kept_for_ever",
    "key_for",
    "key_in",
    "murmur2",
    "partition_for",
    "state",
    "topic",
    "topic_for",
)

_DAY_S = 86_400
_DYNAMIC = re.compile(r"mad\.(inbox|state)\.[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `retention_s` None is for ever; `compacted` keeps each key's last record."""

    name: str
    key: str
    holds: tuple[str, ...]
    partitions: int = 4
    retention_s: int | None = None
    compacted: bool = False

    @property
    def keeps(self) -> Literal["for ever", "for a time", "last of each key"]:
        """How long its records are kept, in words."""
        if self.compacted:
            return "last of each key"
        return "for ever" if self.retention_s is None else "for a time"


CATALOG: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(
            "mad.conversations",
            "conversation_id",
            ("Turn", "ConversationChanged", "ToolCall", "ToolResult", "TimerFired"),
        ),
        Topic("mad.decisions", "conversation_id", ("Decision",)),
        Topic("mad.llm", "conversation_id", ("LlmCall",)),
        Topic("mad.processes", "conversation_id", ("ProcessStep",)),
        Topic("mad.outcomes", "mad", ("Outcome",)),
        Topic("mad.models", "component", ("ModelPublished",), partitions=1),
        Topic("mad.schemas", "subject_name", ("SchemaRegistered",), partitions=1),
        Topic("mad.control", "target", ("Control",), partitions=1),
        Topic("mad.audit", "sender", ("AuditEntry",)),
        Topic(
            "mad.system",
            "sender",
            ("CheckpointSigned", "RangeArchived"),
            retention_s=365 * _DAY_S,
        ),
        Topic("mad.dead-letters", "topic", ("DeadLetter",)),
    )
}

_KINDS = {kind: topic for topic in CATALOG.values() for kind in topic.holds}


@lru_cache(maxsize=4096)
def inbox(name: str) -> Topic:
    """Return the topic of deliveries to one MAD or eMAD role."""
    return Topic(f"mad.inbox.{name}", "conversation_id", ("Delivery",), retention_s=7 * _DAY_S)


def state(processor: str, partitions: int = 4) -> Topic:
    """Return the changelog topic of a processor's state; its partition is its input's."""
    return Topic(f"mad.state.{processor}", "the state's key", (), partitions, None, True)


def topic(name: str) -> Topic:
    """Return the topic of that name; raises UnknownTopic."""
    if name in CATALOG:
        return CATALOG[name]
    match = _DYNAMIC.fullmatch(name)
    if not match:
        raise UnknownTopic(
            f"{name[:80]!r} is not a topic: `madlog topics list` shows the names there are"
        )
    tail = name.split(".", 2)[2]
    return inbox(tail) if match[1] == "inbox" else state(tail)


def topic_for(event: Event) -> Topic:
    """Return the topic that an event belongs in."""
    if event.kind == "Delivery":
        return inbox(str(event.recipient))  # type: ignore[attr-defined]
    return _KINDS[event.kind]


def key_for(event: Event) -> str:
    """Return the key under which an event is appended to its topic."""
    return key_in(event, topic_for(event))


def key_in(event: Event, place: Topic) -> str:
    """Return the key of an event in a topic that holds its kind."""
    value = getattr(event, place.key)
    return str(value.name if isinstance(value, Sender) else value)


def murmur2(data: bytes) -> int:
    """Return Kafka's murmur2 of `data`, 32 bits unsigned (org.apache.kafka.common.utils.Utils)."""
    mask = 0xFFFFFFFF
    m, length = 0x5BD1E995, len(data)
    h = 0x9747B28C ^ length
    for i in range(0, length - 3, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = data[length & ~3 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of a key, as Kafka's default partitioner computes it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def kept_for_ever(topics: Iterable[Topic]) -> list[str]:
    """Return the names of the topics that replay needs."""
    return [topic.name for topic in topics if topic.keeps == "for ever"]
