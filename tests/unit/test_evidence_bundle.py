"""Bundles of a log in memory: what cannot be read, what was signed since, what is not the log's."""

import json
from pathlib import Path

import pytest
from tests.bench.fixtures import turn

from madlog.schemas import encode
from madlog.topics import EventLog
from madlog.topics.evidence import (
    BadBundle,
    EvidenceBroken,
    Keeper,
    SigningKey,
    Tiles,
    verifier,
    write_bundle,
)
from madlog.topics.evidence.merkle import leaf_hash
from madlog.topics.log import NewRecord
from madlog.topics.memory import MemoryLog
from madlog.topics.positions import TopicPartition
from madlog.topics.testing.clocks import ManualClock

KEY = SigningKey.new(bytes(range(32)), "example.com/log")
CONVERSATION = "order-000001"


async def log_of(turns: int) -> EventLog:
    log = await EventLog.open(MemoryLog(clock=ManualClock()))
    await log.append([turn(number, 20) for number in range(turns)])
    return log


def events(folder: Path) -> list[dict[str, object] | None]:
    text = (folder / "events.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


async def test_a_record_that_nobody_can_read_is_proven_as_its_bytes(tmp_path: Path) -> None:
    log = await log_of(60)
    key = CONVERSATION.encode()
    headers = (("kind", b"Turn"), ("conversation", key))
    registry_framed = b"\x00\x00\x00\x00\x07abc"
    await log.log.append([NewRecord("mad.conversations", key, registry_framed, headers)])
    with Tiles(tmp_path / "hashes") as tiles:
        await Keeper(log, tiles, KEY).run()
        made = await write_bundle(log, tiles, KEY, tmp_path / "out", CONVERSATION)
    assert made.of_conversation == 4
    assert events(tmp_path / "out").count(None) == 1
    assert f"{made.records - 1} events are what" in verifier.verify(tmp_path / "out")[3]


async def test_a_record_whose_bytes_break_off_or_go_on_is_proven_and_not_read(
    tmp_path: Path,
) -> None:
    log = await log_of(60)
    key = CONVERSATION.encode()
    whole = encode(turn(1))
    for value in (whole[:-3], whole + b"!", whole[:10] + b"\x03" + whole[10:], whole[:10]):
        headers = (("conversation", key),)
        await log.log.append([NewRecord("mad.conversations", key, value, headers)])
    with Tiles(tmp_path / "hashes") as tiles:
        await Keeper(log, tiles, KEY).run()
        made = await write_bundle(log, tiles, KEY, tmp_path / "out", CONVERSATION)
    assert made.of_conversation == 7
    assert events(tmp_path / "out").count(None) == 4
    assert verifier.verify(tmp_path / "out", str(KEY.verifier))


async def test_what_was_not_signed_yet_stays_out(tmp_path: Path) -> None:
    log = await log_of(60)
    with Tiles(tmp_path / "hashes") as tiles:
        await Keeper(log, tiles, KEY).run()
        await log.append([turn(number, 20) for number in range(60, 200)])
        await Keeper(log, tiles, None).grow()
        made = await write_bundle(log, tiles, KEY, tmp_path / "out", CONVERSATION)
    assert made.of_conversation == 3
    assert verifier.verify(tmp_path / "out", str(KEY.verifier))


async def test_hashes_of_other_records_make_no_bundle(tmp_path: Path) -> None:
    log = await log_of(60)
    tree = TopicPartition("mad.schemas", 0)
    with Tiles(tmp_path / "hashes") as tiles:
        tiles.extend(tree, tiles.tree(tree), [leaf_hash(b"x")], [0], 1)
        await Keeper(log, tiles, KEY).sign()
        with pytest.raises(EvidenceBroken, match="no bundle was written"):
            await write_bundle(log, tiles, KEY, tmp_path / "out", None)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["hashes"]


async def test_a_place_that_is_taken_or_not_there_is_said(tmp_path: Path) -> None:
    log = await log_of(1)
    (tmp_path / "file").write_text("mine")
    with Tiles(tmp_path / "hashes") as tiles:
        await Keeper(log, tiles, KEY).run()
        for out, words in (
            (tmp_path / "file", "there already"),
            (tmp_path / "file" / "x", "Not a"),
        ):
            with pytest.raises(BadBundle, match=words):
                await write_bundle(log, tiles, KEY, out, None)
        (tmp_path / "empty").mkdir()
        await write_bundle(log, tiles, KEY, tmp_path / "empty", None)
    assert (tmp_path / "file").read_text() == "mine"
    assert verifier.verify(tmp_path / "empty")
