"""Tampering with a real log, chain and checksums made right again: the evidence says where."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bench.fixtures import turn
from tests.faults.forger import Stored, forge

from madlog.schemas import EVENT_KINDS
from madlog.topics import EventLog
from madlog.topics.evidence import (
    EvidenceBroken,
    Finding,
    Keeper,
    SigningKey,
    Tiles,
    Verdict,
    check_evidence,
    publish,
    read_published,
)
from madlog.topics.log import Checkable, Damage
from madlog.topics.positions import TopicPartition
from madlog.wiring import open_event_log

KEY = SigningKey.new(bytes(range(32)), "example.com/log")
TURNS = 400
# The fixtures' conversations leave none of the four partitions empty.
TREE = TopicPartition("mad.conversations", 1)


async def grown(folder: Path, first: int = 0, turns: int = TURNS) -> EventLog:
    log = await open_event_log(str(folder))
    await log.append([turn(number) for number in range(first, first + turns)])
    return log


async def signed(folder: Path, first: int = 0, turns: int = TURNS) -> int:
    """Make a log, or let it grow, and sign it; returns how many records TREE has."""
    log = await grown(folder, first, turns)
    with Tiles(folder / "evidence.sqlite") as tiles:
        kept = await Keeper(log, tiles, KEY).run()
        assert kept.signed
        assert not kept.broken
        size = tiles.tree(TREE).size
    await log.close()
    return size


async def checked(folder: Path, *against: Path, tiles: bool = True) -> Verdict:
    """Check a log that its own checksums find no fault with."""
    log = await open_event_log(str(folder), create=False)
    assert isinstance(log.log, Checkable)
    assert [damage async for damage in log.log.check()] == []
    published = [one for file in against for one in read_published(file, [KEY.verifier])]
    file = folder / "evidence.sqlite"
    try:
        if not tiles:
            return await check_evidence(log, None, [KEY.verifier], published)
        with Tiles(file, read_only=True) as hashes:
            return await check_evidence(log, hashes, [KEY.verifier], published)
    finally:
        await log.close()


def places(findings: list[Finding]) -> list[tuple[str, int, int]]:
    assert {finding.damage.topic for finding in findings} <= {TREE.topic}
    assert {finding.damage.partition for finding in findings} <= {TREE.partition}
    return [(one.kind, one.damage.offset, one.damage.offset_end) for one in findings]


def altered(records: list[Stored], at: int) -> list[Stored]:
    value = records[at].value.replace(b"Monday", b"Friday")
    assert value != records[at].value
    return [*records[:at], records[at]._replace(value=value), *records[at + 1 :]]


def moved(records: list[Stored], start: int, to: int) -> list[Stored]:
    others = records[:start] + records[start + 1 :]
    return [*others[:to], records[start], *others[to:]]


CASES: dict[str, tuple[Callable[[list[Stored]], list[Stored]], list[tuple[str, int, int]]]] = {
    "nothing": (lambda records: records, []),
    "a value": (lambda records: altered(records, 40), [("altered", 40, 41)]),
    "the first": (lambda records: altered(records, 0), [("altered", 0, 1)]),
    "two values": (
        lambda records: altered(altered(records, 7), 50),
        [("altered", 7, 8), ("altered", 50, 51)],
    ),
    "a row of values": (
        lambda records: altered(altered(altered(records, 8), 7), 9),
        [("altered", 7, 10)],
    ),
    "a key": (
        lambda records: [records[0]._replace(key=records[3].key), *records[1:]],
        [("altered", 0, 1)],
    ),
    "the header that readers drop repeats by": (
        lambda records: [
            *records[:5],
            records[5]._replace(headers=records[5].headers + b"\x06\0\x01\0\0\0sourcex"),
            *records[6:],
        ],
        [("altered", 5, 6)],
    ),
    "a record put in": (
        lambda records: [*records[:20], altered(records, 3)[3], *records[20:]],
        [("inserted", 20, 21)],
    ),
    "a record repeated": (
        lambda records: [*records[:20], records[19], *records[20:]],
        [("inserted", 20, 21)],
    ),
    "a record gone": (
        lambda records: records[:30] + records[31:],
        [("deleted", 30, 31)],
    ),
    "a row of records gone": (
        lambda records: records[:30] + records[45:],
        [("deleted", 30, 45)],
    ),
    "two swapped": (
        lambda records: moved(records, 10, 11),
        [("reordered", 10, 11)],
    ),
    "one moved far": (
        lambda records: moved(records, 60, 5),
        [("reordered", 5, 6)],
    ),
    "one gone and others altered": (
        lambda records: altered(records[:30] + records[31:], 50),
        [("deleted", 30, 31), ("altered", 50, 51)],
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    asyncio.run(signed(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "log"))


@pytest.mark.parametrize("case", CASES)
async def test_what_was_done_is_named_with_its_place(folder: Path, case: str) -> None:
    change, expected = CASES[case]
    forge(folder, TREE, change)
    verdict = await checked(folder)
    assert places(verdict.findings) == expected
    assert verdict.checkpoints == verdict.trees == 5


async def test_a_log_that_was_cut_off_is_found(folder: Path) -> None:
    forge(folder, TREE, lambda records: records[:-7])
    size = await _size(folder) - 7
    verdict = await checked(folder)
    assert places(verdict.findings) == [("truncated", size, size)]
    assert "7 records" in str(verdict.findings[0])


async def test_nothing_is_signed_of_a_log_that_ends_before_what_was_hashed(folder: Path) -> None:
    forge(folder, TREE, lambda records: records[:-7])
    log = await open_event_log(str(folder), create=False)
    with Tiles(folder / "evidence.sqlite") as tiles:
        kept = await Keeper(log, tiles, KEY).run()
    await log.close()
    assert kept.signed == []
    assert len(kept.broken) == 1
    assert kept.broken[0].startswith(f"{TREE} ends at @")


async def test_nothing_is_hashed_after_records_that_are_others_now(folder: Path) -> None:
    forge(folder, TREE, lambda records: altered(records, len(records) - 1))
    size = await _size(folder)
    log = await grown(folder, TURNS, 100)
    with Tiles(folder / "evidence.sqlite") as tiles:
        kept = await Keeper(log, tiles, KEY).run()
        assert tiles.tree(TREE).size == size
    await log.close()
    assert TREE not in {TopicPartition(one.topic, one.partition) for one in kept.signed}
    assert len(kept.signed) == 3, "the other partitions of the topic"
    assert kept.broken[0].startswith(f"{TREE} holds another record at @{size - 1}")


async def test_what_was_appended_after_the_last_checkpoint_is_no_difference(folder: Path) -> None:
    await (await grown(folder, TURNS, 100)).close()
    verdict = await checked(folder)
    assert verdict.findings == []
    assert verdict.records == TURNS + 100 + len(EVENT_KINDS)
    forge(folder, TREE, lambda records: altered(records, 12))
    assert places((await checked(folder)).findings) == [("altered", 12, 13)]


async def test_without_the_hashes_checkpoints_say_between_which_of_them(folder: Path) -> None:
    first = await _size(folder)
    second = await signed(folder, TURNS, 200)
    await signed(folder, TURNS + 200, 200)
    forge(folder, TREE, lambda records: altered(records, first + 3))
    verdict = await checked(folder, tiles=False)
    assert places(verdict.findings) == [("altered", first, second)]


async def test_hashes_that_were_made_anew_of_forged_records_are_not_those_signed(
    folder: Path,
) -> None:
    forge(folder, TREE, lambda records: altered(records, 40))
    (folder / "evidence.sqlite").unlink()
    log = await open_event_log(str(folder), create=False)
    with Tiles(folder / "evidence.sqlite") as tiles:
        kept = await Keeper(log, tiles, KEY).run()
    await log.close()
    # Nor are they signed again: the checkpoint on the log says what they were.
    assert [one.topic for one in kept.signed] == []
    assert len(kept.broken) == 1
    assert str(TREE) in kept.broken[0]
    verdict = await checked(folder)
    assert [one.kind for one in verdict.findings] == ["hashes", "altered"]
    assert verdict.findings[1].damage[:3] == (*TREE, 0)


async def test_an_older_copy_of_everything_is_found_by_what_was_published(
    folder: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(folder, tmp_path / "older")
    size = await _size(folder)
    now = await signed(folder, TURNS, 200)
    published = tmp_path / "published.txt"
    with Tiles(folder / "evidence.sqlite") as tiles:
        publish(tiles, KEY.verifier, str(published))
    assert (await checked(folder, published)).findings == []
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
    assert (await checked(folder)).findings == [], "it is whole, and older"
    found = (await checked(folder, published)).findings
    of_tree = [one for one in found if one.damage[:2] == tuple(TREE)]
    assert [(one.kind, one.damage.offset) for one in of_tree] == [("rolled-back", size)]
    assert f"{size} records, and {now} were signed" in str(of_tree[0])
    assert str(published) in str(of_tree[0])
    # And it does not take the place of what was published.
    before = published.read_text()
    with (
        Tiles(folder / "evidence.sqlite") as tiles,
        pytest.raises(EvidenceBroken, match="does not go on"),
    ):
        publish(tiles, KEY.verifier, str(published))
    assert published.read_text() == before


async def test_what_grew_again_after_an_older_copy_is_found_by_what_was_published(
    folder: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(folder, tmp_path / "older")
    first, second = await _size(folder), await signed(folder, TURNS, 200)
    published = tmp_path / "published.txt"
    with Tiles(folder / "evidence.sqlite") as tiles:
        publish(tiles, KEY.verifier, str(published))
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
    await signed(folder, 5_000, 300)  # a forger who has the key too
    assert (await checked(folder)).findings == []
    found = (await checked(folder, published)).findings
    kinds = {one.kind for one in found if one.damage[:2] == tuple(TREE)}
    assert kinds == {"hashes", "altered"}
    place = next(one.damage for one in found if one.kind == "altered" and one.damage[:2] == TREE)
    assert place[2:4] == (first, second)


async def _size(folder: Path) -> int:
    with Tiles(folder / "evidence.sqlite", read_only=True) as tiles:
        return tiles.tree(TREE).size


async def test_damage_is_left_to_be_named_as_damage(folder: Path) -> None:
    file = folder / "log.sqlite"
    data = file.read_bytes()
    at = data.index(turn(250).event_id.encode())
    file.write_bytes(data[:at] + b"X" + data[at + 1 :])
    log = await open_event_log(str(folder), create=False)
    assert isinstance(log.log, Checkable)
    damages: list[Damage] = [damage async for damage in log.log.check()]
    with Tiles(folder / "evidence.sqlite") as tiles:
        verdict = await check_evidence(log, tiles, [KEY.verifier])
        assert len(damages) == 1
        assert verdict.findings == []
        # Trees go on to grow up to it, and no further.
        await log.append([turn(number) for number in range(TURNS, TURNS + 40)])
        told: list[Damage] = []
        await Keeper(log, tiles, KEY).run(on_damage=told.append)
        assert told == []
        (folder / "evidence.sqlite").unlink()
    with Tiles(folder / "evidence.sqlite") as tiles:
        kept = await Keeper(log, tiles, KEY).run(on_damage=told.append)
        assert set(told) == set(damages)
        tree = tiles.tree(TopicPartition(damages[0].topic, damages[0].partition))
        assert tree.size == tree.next_offset == damages[0].offset
        assert "records are missing" in " ".join(kept.broken)
    await log.close()


async def test_a_restored_log_goes_on_under_another_key(folder: Path, tmp_path: Path) -> None:
    backup = shutil.copytree(folder, tmp_path / "backup")
    await signed(folder, TURNS, 200)
    hashes = shutil.copy(folder / "evidence.sqlite", tmp_path)
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    shutil.copy(hashes, folder)
    log = await grown(folder, 9_000, 10)
    with Tiles(folder / "evidence.sqlite") as tiles:
        assert (await Keeper(log, tiles, KEY).run()).broken
    (folder / "evidence.sqlite").unlink()
    new = SigningKey.new(bytes(reversed(range(32))), "example.com/restored")
    with Tiles(folder / "evidence.sqlite") as tiles:
        kept = await Keeper(log, tiles, new).run()
        assert len(kept.signed) == 5
        assert kept.broken == []
        both = await check_evidence(log, tiles, [KEY.verifier, new.verifier])
        assert (both.findings, both.checkpoints) == ([], 10)
        one = await check_evidence(log, tiles, [new.verifier])
        assert {finding.kind for finding in one.findings} == {"checkpoint"}
        assert str(KEY.verifier).split("+")[0] in str(one.findings[0])
    await log.close()


async def test_a_beginning_that_is_gone_is_found(folder: Path) -> None:
    forge(folder, TREE, lambda records: records[12:], first=12)
    verdict = await checked(folder)
    assert places(verdict.findings) == [("deleted", 0, 12)]
    verdict = await checked(folder, tiles=False)
    assert places(verdict.findings) == [("deleted", 0, 12)]
