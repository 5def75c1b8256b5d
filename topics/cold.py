"""Moving the oldest records of a log out of its own file: what a backend may be able to do."""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol, runtime_checkable

from madlog.topics.log import OnDamage, log_damage
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("COLD_BYTES_MIN", "ColdStorage", "Pack")

# A smaller range stays where it is: a file more is worth less than what it would save.
COLD_BYTES_MIN = 256 << 10


class Pack(NamedTuple):
    """A file with offsets [offset, offset_end) of a partition, byte for byte as appended.

    `bytes` are those of keys, values and headers, `size` those of the file at `place`, "" where
    nothing was written.
    """

    tp: TopicPartition
    offset: int
    offset_end: int
    bytes: int
    size: int
    sha256: str
    place: str

    @property
    def records(self) -> int:
        """How many records it holds."""
        return self.offset_end - self.offset


@runtime_checkable
class ColdStorage(Protocol):
    """Ability: keep old records in packs, and read them as if nothing had been moved."""

    async def packs(self) -> list[Pack]:
        """Return every pack of this log."""

    def move_cold(
        self,
        upto: Vector,
        into: str,
        *,
        dry_run: bool = False,
        bytes_min: int = COLD_BYTES_MIN,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[Pack]:
        """Move records below `upto` into packs under the folder or URL `into`; yield each.

        With `dry_run` nothing is written. What is damaged is told, and stays with what follows it.
        Raises LogUnavailable, NotWritten, UnsupportedByBackend.
        """
