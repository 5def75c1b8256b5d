"""A log whose old records are in packs."""

from collections.abc import Sequence
from pathlib import Path

from madlog.topics.catalog import CATALOG
from madlog.topics.cold import Pack
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.log import Damage, NewRecord, Record
from madlog.topics.positions import TopicPartition, Vector
from madlog.topics.testing import ManualClock

__all__ = ("PLACE", "TOPIC", "fill", "made", "move", "read", "record")

TOPIC = "mad.models"  # one partition, so that offsets are those of appending
PLACE = TopicPartition(TOPIC, 0)


def record(number: int, size: int = 8_000) -> NewRecord:
    value = f"{number} ".encode() * (size // len(f"{number} "))
    return NewRecord(TOPIC, f"key-{number % 7}".encode(), value, (("n", b"%d" % number),))


async def fill(log: EmbeddedLog, numbers: Sequence[int]) -> None:
    """Append records, a few of them each second."""
    for some in range(0, len(numbers), 4):
        assert isinstance(log.clock, ManualClock)
        log.clock.advance(1)
        await log.append([record(number) for number in numbers[some : some + 4]])


async def made(folder: Path, count: int = 60) -> EmbeddedLog:
    """Return a log with so many records."""
    log = await EmbeddedLog.open(folder, clock=ManualClock())
    await log.create_topic(CATALOG[TOPIC])
    await fill(log, range(count))
    return log


async def move(log: EmbeddedLog, to: int, into: str | None = None, size_min: int = 0) -> list[Pack]:
    """Move what is below an offset."""
    place = into or f"{log.url}/lake/cold"
    return [one async for one in log.move_cold(Vector({PLACE: to}), place, bytes_min=size_min)]


async def read(
    log: EmbeddedLog, damages: list[Damage], start: int = 0, records_max: int = 1000
) -> list[Record]:
    """Return the records from an offset on."""
    lists = log.read(
        Vector({PLACE: start}),
        await log.end([TOPIC]),
        records_max=records_max,
        on_damage=damages.append,
    )
    return [one async for some in lists for one in some]
