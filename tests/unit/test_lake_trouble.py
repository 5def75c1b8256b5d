"""The lake where something is odd: what was lost is made up for, nothing is read twice or not."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.unit.lake_scene import NOW, answers, archive, mixed, query_rows, turn

from madlog.analytics.errors import LakeDamaged, LakeUnavailable
from madlog.analytics.lake import Archiver, LakeSource, LakeStore, layout, read_manifest
from madlog.schemas import Schemas, encode
from madlog.topics import EventLog, LogEvent, Position, Record, Vector
from madlog.topics.memory import MemoryLog

COUNT = "SELECT count(*) AS n FROM turns"


@pytest.fixture
def memory() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def log(memory: MemoryLog) -> EventLog:
    return await EventLog.open(memory)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore(str(tmp_path / "lake"))


def turns(first: int, count: int = 1) -> list[Any]:
    """Return turns of one conversation, and so of one partition."""
    return [turn(7 * n) for n in range(first, first + count)]


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_range_whose_event_is_lost_is_archived_again(
    lost: int, memory: MemoryLog, log: EventLog, store: LakeStore
) -> None:
    for n in range(2):
        await log.append(turns(n))
        await archive(log, store)
    said = [
        event.record
        async for batch in log.read_topics(["mad.system"])
        for event in batch
        if event.fields["topic"] == "mad.conversations"
    ]
    memory.damage(Position(said[lost].topic, said[lost].partition, said[lost].offset))
    assert await query_rows(log, COUNT, store) == [{"n": 2}]
    archiver = await archive(log, store)
    assert archiver.archived.ranges == 1
    (ranges,) = [
        ranges
        for tp, ranges in (await read_manifest(log)).ranges.items()
        if tp.topic == "mad.conversations"
    ]
    assert [(one.offset, one.offset_end) for one in ranges] == [(0, 1), (1, 2)]
    assert await query_rows(log, COUNT, store) == [{"n": 2}]


async def test_queries_of_one_source_see_each_event_once_while_ranges_are_archived(
    memory: MemoryLog, log: EventLog, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append(turns(0, 3))
    await archive(log, store)
    await log.append(turns(3, 3))
    source = LakeSource(log, store)
    start = memory.start
    others = iter([True])

    async def meanwhile(topics: Collection[str]) -> Vector:
        if "mad.conversations" in topics and next(others, False):
            await archive(log, store)
            await source.tables(["Turn"], await log.log.end(["mad.conversations"]))
        return await start(topics)

    end = await log.log.end(["mad.conversations"])
    monkeypatch.setattr(memory, "start", meanwhile)
    tables = await source.tables(["Turn"], end)
    (table,) = tables.kinds.values()
    assert (table.rows.num_rows, len(tables.paths)) in ((3, 1), (0, 2))


async def test_archiving_until_idle_ends_though_others_go_on_writing(
    log: EventLog, store: LakeStore
) -> None:
    await log.append(turns(0))
    written: list[Any] = []

    def more(done: int) -> None:
        written.append(asyncio.ensure_future(log.append(turns(len(written) + 1))))

    archived = await Archiver(log, store).run(until_idle=True, progress=more)
    assert 0 < archived.ranges < 10
    await asyncio.gather(*written)


async def test_what_cannot_be_merged_keeps_nothing_from_being_archived(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    for n in range(7):
        await log.append(turns(n))
        await archive(log, store, NOW)
    damaged = next((tmp_path / "lake" / "mad.conversations").rglob("Turn*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    await log.append([*turns(7), *mixed(30)])
    with pytest.raises(LakeDamaged, match=damaged.name):
        await archive(log, LakeStore(store.url), NOW)
    manifest = await read_manifest(log)
    end = await log.log.end(["mad.conversations", "mad.outcomes"])
    assert all(manifest.archived_to(tp) == at for tp, at in end.items())


async def test_folders_that_look_like_columns_are_none(log: EventLog, tmp_path: Path) -> None:
    store = LakeStore(str(tmp_path / "topic=other" / "sender=me"))
    await log.append(mixed(12))
    await archive(log, store)
    assert await answers(log, store) == await answers(log)
    found = await LakeSource(log, store).find(mixed(1)[0].event_id)
    assert found is not None
    assert found.tp.topic == "mad.conversations"


async def test_files_from_before_a_field_of_a_part_came_are_read_and_merged(
    log: EventLog, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = layout._own

    def older(table: str) -> Any:
        fields = [one for one in layout._PART if one.name != "language"]
        return tuple(
            replace(column, type=pa.list_(pa.struct(fields))) if column.name == "parts" else column
            for column in now(table)
        )

    await log.append(turns(0))
    with monkeypatch.context() as before:
        before.setattr(layout, "_own", older)
        await archive(log, store)
    sql = (
        "SELECT text, parts->>'$[0].content_class' AS class, parts->'$[0].language' AS l FROM turns"
    )
    (row,) = await query_rows(log, sql, store)
    assert row == {"text": "please refund 0", "class": "prose", "l": "null"}
    for n in range(1, 8):
        await log.append(turns(n))
        archiver = await archive(log, store, NOW)
    assert archiver.archived.merged == 8
    assert len(await query_rows(log, sql, store)) == 8


async def test_looking_for_an_event_in_a_file_whose_bytes_changed_says_so(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(turns(0, 50))
    await archive(log, store)
    for path in (tmp_path / "lake").rglob("Turn*.parquet"):
        content = bytearray(path.read_bytes())
        footer = 8 + int.from_bytes(content[-8:-4], "little")
        content[4:-footer] = bytes(len(content) - 4 - footer)
        path.write_bytes(content)
    with pytest.raises(LakeDamaged, match="lake check"):
        await LakeSource(log, store).find(turn(7).event_id)


def test_folders_of_a_new_lake_are_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(LakeStore, "_sync", lambda self, path: synced.append(path))
    LakeStore(str(tmp_path / "lake")).write("topic/0/x.parquet", b"x")
    folders = [str(tmp_path / name) for name in (".", "lake", "lake/topic", "lake/topic/0")]
    assert {str(Path(path)) for path in synced} >= {str(Path(path)) for path in folders}


def test_a_store_whose_client_fails_in_its_own_way_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = LakeStore("memory://a-store-that-fails")

    def refused(*args: object, **named: object) -> None:
        raise RuntimeError("no credentials")

    for name in ("cat_file", "find", "makedirs"):
        monkeypatch.setattr(MemoryFileSystem, name, refused)
    for step in (store.lake_id, lambda: list(store.listed()), lambda: store.mark("x")):
        with pytest.raises(LakeUnavailable, match="no credentials"):
            step()


def test_what_the_columns_do_not_say_is_kept_as_it_was() -> None:
    schemas = Schemas()
    held = []
    for offset, event in enumerate([turn(0), turn(7, "bell\x07 and \x1b"), turn(14)]):
        record = Record("t", 0, offset, b"", encode(event), (), offset)
        held.append(LogEvent(record, *schemas.decode_fields(record.value)))
    held[2].fields["of_a_newer_madlog"] = 1
    for events, kept in ((held[:1], 0), (held, 2)):
        builder = layout.new_builder("Turn", schemas)
        for one in events:
            builder.add(one)
        with duckdb.connect(":memory:") as con:
            payloads = layout.packed(con, "Turn", builder.finish())["payload"].to_pylist()
        assert len([payload for payload in payloads if payload]) == kept
    assert '"of_a_newer_madlog":1' in payloads[-1]
