"""Positions in the log: one place, or a vector of one place a partition."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from madlog.topics.errors import InvalidPosition

__all__ = ("Position", "TopicPartition", "Vector")

_TEXT = re.compile(r"([A-Za-z0-9._-]{1,249})/([0-9]{1,9})@([0-9]{1,18})")


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Position(NamedTuple):
    """The place of one record."""

    topic: str
    partition: int
    offset: int

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition that this place is in."""
        return TopicPartition(self.topic, self.partition)

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"


class Vector(Mapping[TopicPartition, int]):
    """For each partition the offset of the next record to read; immutable.

    As text: `mad.conversations/0@123,mad.conversations/1@99`, sorted.
    """

    __slots__ = ("_offsets",)

    def __init__(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        self._offsets = {TopicPartition(*tp): at for tp, at in (offsets or {}).items()}

    @classmethod
    def parse(cls, text: str) -> "Vector":
        """Read the text form; raises InvalidPosition."""
        offsets: dict[TopicPartition, int] = {}
        for piece in (piece.strip() for piece in text.split(",") if piece.strip()):
            match = _TEXT.fullmatch(piece)
            if not match:
                raise InvalidPosition(
                    f"{piece[:80]!r} is not a position: write TOPIC/PARTITION@OFFSET, "
                    "several joined by commas"
                )
            offsets[TopicPartition(match[1], int(match[2]))] = int(match[3])
        return cls(offsets)

    def __getitem__(self, key: TopicPartition) -> int:
        return self._offsets[key]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __str__(self) -> str:
        return ",".join(f"{tp}@{self._offsets[tp]}" for tp in sorted(self._offsets))

    def __repr__(self) -> str:
        return f"Vector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self._offsets == other._offsets

    def __hash__(self) -> int:
        return hash(frozenset(self._offsets.items()))

    def with_offsets(self, offsets: Mapping[TopicPartition, int]) -> "Vector":
        """Return this vector with `offsets` put in place."""
        return Vector({**self._offsets, **offsets})

    def only(self, topics: Iterable[str]) -> "Vector":
        """Return the part of this vector that is about `topics`."""
        wanted = set(topics)
        return Vector({tp: at for tp, at in self._offsets.items() if tp.topic in wanted})
