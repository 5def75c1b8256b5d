"""Damages a copy of a log for the demo: one byte of one record, as a disk may."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madlog.config import Settings
    from madlog.topics import Record
    from madlog.topics.log import Damage

__all__ = ("flip_one_byte",)

_TOPIC = "mad.conversations"


async def flip_one_byte(copy: Path, settings: "Settings") -> int:
    """Flip one byte of somebody's words about a refund in a log's file; returns where.

    Bytes that a page holds from before, and that no record has any more, are left as they were.
    """
    file = copy / "log.sqlite"
    records = [one for one in (await _read(copy, settings))[0] if b"refund" in one.value]
    for record in records[len(records) // 2 :]:
        for place in _places(file, record.value):
            _flip(file, place)
            _, damages = await _read(copy, settings)
            damaged = {(one.partition, one.offset) for one in damages}
            if (record.partition, record.offset) in damaged:
                return place
            _flip(file, place)
    raise LookupError(f"{file} holds no record of words about a refund in one piece")


async def _read(copy: Path, settings: "Settings") -> "tuple[list[Record], list[Damage]]":
    from madlog.topics import Vector
    from madlog.wiring import opened

    found: list[Record] = []
    damages: list[Damage] = []
    async with opened(str(copy), settings, create=False) as log:
        end = await log.log.end([_TOPIC])
        async for records in log.log.read(Vector(), end, on_damage=damages.append):
            found += records
    return found, damages


def _places(file: Path, value: bytes) -> "Iterator[int]":
    data = file.read_bytes()
    at = data.find(value)
    while at >= 0:
        yield at + value.index(b"refund")
        at = data.find(value, at + 1)


def _flip(file: Path, place: int) -> None:
    with file.open("r+b") as bytes_of:
        bytes_of.seek(place)
        (byte,) = bytes_of.read(1)
        bytes_of.seek(place)
        bytes_of.write(bytes([byte ^ 1]))
