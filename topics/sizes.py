"""How much a topic holds, how fast it grows, and how large it will be at that rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from madlog.topics.log import Damage, Log

__all__ = ("Growth", "OnDisk", "Size", "growth", "measure")

_DAY_S = 86_400
_FORECAST_DAYS = 30
# A rate that was measured over less says nothing about a month.
_SPAN_S_MIN = 3600


@runtime_checkable
class OnDisk(Protocol):
    """Ability: tell what a topic takes on disk."""

    async def disk_bytes(self, topic: str) -> int | None:
        """Return what a topic takes on the disks of all that keep it, None when it is not told."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a topic holds: bytes are those of keys and values, times are of appending, in µs."""

    records: int = 0
    bytes: int = 0
    oldest_at: int | None = None
    newest_at: int | None = None
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Growth:
    """What came a day since the oldest record that is kept, and what follows if it goes on.

    `bytes_level` is where the size levels off when what comes in is as much as what is dropped.
    """

    span_s: float
    records_a_day: float
    bytes_a_day: float
    bytes_in_30_days: int
    bytes_level: int | None


async def measure(log: Log, topic: str, progress: Callable[[int], None] | None = None) -> Size:
    """Read a topic as it stands and count; raises UnknownTopic."""
    records = size = damaged = 0
    oldest: int | None = None
    newest: int | None = None

    def on_damage(damage: Damage) -> None:
        nonlocal damaged
        damaged += damage.offset_end - damage.offset

    async for batch in log.read(
        await log.start([topic]), await log.end([topic]), on_damage=on_damage
    ):
        records += len(batch)
        size += sum([len(record.value) + len(record.key) for record in batch])
        # Append times do not fall within a partition.
        first, last = batch[0].appended_at, batch[-1].appended_at
        oldest = first if oldest is None else min(oldest, first)
        newest = last if newest is None else max(newest, last)
        if progress is not None:
            progress(records)
    return Size(records, size, oldest, newest, damaged)


def growth(size: Size, now_us: int, retention_s: int | None) -> Growth | None:
    """Return the growth from the oldest record until now; None with too little history."""
    if size.oldest_at is None:
        return None
    span_s = (now_us - size.oldest_at) / 1e6
    if span_s < _SPAN_S_MIN:
        return None
    days = span_s / _DAY_S
    bytes_a_day = size.bytes / days
    forecast = size.bytes + bytes_a_day * _FORECAST_DAYS
    level: int | None = None
    if retention_s is not None:
        level = round(bytes_a_day * retention_s / _DAY_S)
        forecast = min(forecast, max(level, size.bytes))
    return Growth(span_s, size.records / days, bytes_a_day, round(forecast), level)
