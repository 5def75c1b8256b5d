"""A damaged file: each flipped byte is named by its record, and stops nothing else being read."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from tests.faults.writer import TOPIC, open_log

from madlog.topics.catalog import CATALOG
from madlog.topics.log import Damage, NewRecord, Record
from madlog.topics.positions import Position, Vector

RECORDS = 1000
SAMPLE = 500
PAGE = 4096
LEAF, INTERIOR = 13, 5


def sample_record(number: int) -> NewRecord:
    value = f"value of {number:05d}: ".encode() + b"*" * 60
    headers = (("kind", f"kind-{number:05d}".encode()), ("sender", b"someone"))
    return NewRecord(TOPIC, f"conversation-{number:05d}".encode(), value, headers)


async def make_log(folder: Path) -> list[Record]:
    """Make a log, close it so that all of it is in one file, and return its records."""
    log = await open_log(folder)
    await log.create_topic(CATALOG[TOPIC])
    await log.append([sample_record(number) for number in range(RECORDS)])
    found: list[Record] = []
    async for records in log.read(Vector(), await log.end([TOPIC])):
        found += records
    await log.close()
    assert not (folder / "log.sqlite-wal").exists(), "a closed log is one file"
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    folder = tmp_path_factory.mktemp("made")
    return folder, asyncio.run(make_log(folder))


@pytest.fixture
def folder(made: tuple[Path, list[Record]], tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made[0], copy)
    return copy


async def inspect(folder: Path) -> tuple[list[Damage], list[Damage], list[Record]]:
    """Return what check names, what a reader is told, and what the reader gets."""
    log = await open_log(folder)
    named = [damage async for damage in log.check()]
    told: list[Damage] = []
    found: list[Record] = []
    async for records in log.read(Vector(), await log.end([TOPIC]), on_damage=told.append):
        found += records
    await log.close()
    return named, told, found


@contextmanager
def flipped(file: Path, at: int) -> Iterator[None]:
    """Flip one bit of the file while the block runs."""
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    yield
    file.write_bytes(whole)


def covered(damages: list[Damage]) -> set[Position]:
    return {
        Position(damage.topic, damage.partition, offset)
        for damage in damages
        for offset in range(damage.offset, damage.offset_end)
    }


def bytes_of(data: bytes, record: Record) -> Iterator[int]:
    """Yield where in the file each byte of the record's key, value and headers stands."""
    start = data.index(record.value)
    assert data.count(record.value) == 1
    pieces = [record.key, record.value]
    for name, content in record.headers:
        pieces += [name.encode(), content]
    for piece in pieces:
        # All of a record stands together: its key before its value, its headers after it.
        at = data.index(piece, start - len(record.key))
        assert at < start + len(record.value) + 100
        yield from range(at, at + len(piece))


async def test_each_flipped_byte_of_a_record_is_named_and_all_others_are_read(
    made: tuple[Path, list[Record]], folder: Path
) -> None:
    _, records = made
    sample = next(r for r in records if r.key == sample_record(SAMPLE).key)
    others = [record for record in records if record is not sample]
    file = folder / "log.sqlite"
    places = sorted(set(bytes_of(file.read_bytes(), sample)))
    for at in places:
        with flipped(file, at):
            named, told, found = await inspect(folder)
        assert covered(named) == {sample.position}, f"byte {at}: check named {named}"
        assert covered(told) == {sample.position}, f"byte {at}: the reader was told {told}"
        assert found == others, f"byte {at}"
    print(f"{len(places)} flipped bytes, each named as {sample.position}, all others read")
    assert len(places) >= 60


async def test_a_log_whose_byte_is_flipped_back_has_no_damage(
    made: tuple[Path, list[Record]], folder: Path
) -> None:
    with flipped(folder / "log.sqlite", PAGE + 200):
        pass
    assert await inspect(folder) == ([], [], made[1])


def table_pages(file: Path, partition: int, kind: int) -> list[int]:
    """Return the numbers of the b-tree pages of that kind in a partition's table."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    root = connection.execute(
        "SELECT rootpage FROM sqlite_schema WHERE sql LIKE ?", (f"%/* {TOPIC}/{partition} of%",)
    ).get
    connection.close()
    data = file.read_bytes()
    found, waiting = [], [int(root)]
    while waiting:
        number = waiting.pop()
        page = data[(number - 1) * PAGE : number * PAGE]
        found += [number] if page[0] == kind else []
        if page[0] == INTERIOR:
            cells = int.from_bytes(page[3:5], "big")
            waiting.append(int.from_bytes(page[8:12], "big"))
            for cell in range(cells):
                at = int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell], "big")
                waiting.append(int.from_bytes(page[at : at + 4], "big"))
    return sorted(found)


def zero(file: Path, page: int) -> None:
    data = bytearray(file.read_bytes())
    data[(page - 1) * PAGE : (page - 1) * PAGE + 100] = bytes(100)
    file.write_bytes(data)


async def check_page(folder: Path, records: list[Record], page: int) -> int:
    """Hold what is named and served against the whole; return how many are missing."""
    file = folder / "log.sqlite"
    whole = file.read_bytes()
    zero(file, page)
    named, told, found = await inspect(folder)
    file.write_bytes(whole)
    missing = {record.position for record in records} - {record.position for record in found}
    assert set(found) <= set(records), f"page {page}: a record that was never written"
    assert missing, f"page {page}"
    assert missing <= covered(named), f"page {page}: check named {named}"
    assert missing <= covered(told), f"page {page}: the reader was told {told}"
    assert covered(told).isdisjoint(record.position for record in found), f"page {page}"
    assert page in {damage.page for damage in named}, f"page {page}: check named {named}"
    assert {position.partition for position in missing} == {1}, "other partitions are whole"
    return len(missing)


async def test_a_zeroed_leaf_page_is_named_with_its_range_and_the_rest_is_served(
    made: tuple[Path, list[Record]], folder: Path
) -> None:
    leaves = table_pages(folder / "log.sqlite", 1, LEAF)
    assert len(leaves) > 3
    for page in (leaves[0], leaves[len(leaves) // 2], leaves[-1]):
        missing = await check_page(folder, made[1], page)
        print(f"page {page}, one of {len(leaves)} leaves: {missing} records missing")
        assert missing < 60, "one page holds fewer"


async def test_a_zeroed_interior_page_is_named_with_its_range_and_the_rest_is_served(
    made: tuple[Path, list[Record]], folder: Path
) -> None:
    pages = table_pages(folder / "log.sqlite", 1, INTERIOR)
    assert pages
    for page in pages:
        missing = await check_page(folder, made[1], page)
        print(f"interior page {page}: {missing} of {len(made[1])} records missing")


async def test_a_record_cut_out_of_the_file_is_named_by_its_offset(
    made: tuple[Path, list[Record]], folder: Path
) -> None:
    cut = Position(TOPIC, 2, 100)
    connection = apsw.Connection(str(folder / "log.sqlite"))
    name = connection.execute(
        "SELECT name FROM sqlite_schema WHERE sql LIKE ?", (f"%/* {TOPIC}/2 of%",)
    ).get
    connection.execute(f"DELETE FROM {name} WHERE offset = ?", (cut.offset,))
    connection.close()
    named, told, found = await inspect(folder)
    assert cut in covered(named)
    assert covered(told) == {cut}
    assert found == [record for record in made[1] if record.position != cut]
