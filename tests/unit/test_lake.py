"""The lake and SQL over it: the answers of the log, each event once, whatever was archived when."""

import asyncio
import errno
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from tests.unit.lake_scene import NOW, answers, archive, mixed, query_rows, turn

from madlog.analytics.as_of import find_event
from madlog.analytics.errors import LakeDamaged, LakeUnavailable
from madlog.analytics.lake import (
    Archiver,
    ArchiverOptions,
    LakeSource,
    LakeStore,
    layout,
    read_manifest,
)
from madlog.analytics.sql import connect, query
from madlog.cli._lake import Archiving
from madlog.schemas import RangeArchived
from madlog.topics import EventLog, NewRecord, TopicPartition, Vector
from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.log import OnDamage
from madlog.topics.memory import MemoryLog
from madlog.topics.testing.clocks import ManualClock

ALL = """SELECT topic, partition, "offset" FROM events WHERE kind <> 'RangeArchived' ORDER BY ALL"""


@pytest.fixture
async def log() -> EventLog:
    return await EventLog.open(MemoryLog())


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore(str(tmp_path / "lake"))


def parquet(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "lake").rglob("*.parquet"))


async def test_views_over_the_lake_are_those_over_the_log(log: EventLog, store: LakeStore) -> None:
    await log.append(mixed(60))
    before = await answers(log)
    await archive(log, store, ArchiverOptions(records_max=10))
    assert await answers(log, store) == before
    await log.append(mixed(20, first=60))
    assert await answers(log, store) == await answers(log)


async def test_the_lake_is_seen_as_of_any_position(log: EventLog, store: LakeStore) -> None:
    await log.append(mixed(40))
    await archive(log, store)
    end = await log.log.end(["mad.conversations", "mad.outcomes", "mad.schemas"])
    for share in (0, 1, 2):
        at = Vector({tp: to * share // 3 for tp, to in end.items()})
        assert await answers(log, store, at) == await answers(log, None, at)


async def test_a_file_holds_one_kind_of_one_range_sorted_by_conversation(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append([turn(n) for n in range(50)])
    await archive(log, store)
    for path in parquet(tmp_path):
        name = path.name.split(".")
        assert path.parent.parent.name in CATALOG
        rows = pq.read_table(path).to_pylist()
        assert [(row["conversation_id"], row["offset"]) for row in rows] == sorted(
            (row["conversation_id"], row["offset"]) for row in rows
        )
        # By it a look-up of one conversation reads a page and no whole row group.
        assert pq.read_metadata(path).row_group(0).column(0).has_offset_index
        first, end = map(int, name[1].split("-"))
        assert all(first <= row["offset"] < end for row in rows)
        assert {row["partition"] for row in rows} == {int(path.parent.name)}
        if name[0] == "Turn":
            assert all(row["text"].startswith("please refund") for row in rows)
            # The text stands once: the parts say how much of it is theirs.
            assert all(row["parts"][0]["chars"] == len(row["text"]) for row in rows)
            assert all(row["payload"] is None for row in rows)


async def test_what_is_archived_again_is_nothing(log: EventLog, store: LakeStore) -> None:
    await log.append(mixed(30))
    first = await archive(log, store)
    assert first.archived.events >= 30
    again = await archive(log, store)
    assert (again.archived.ranges, again.archived.files) == (0, 0)
    # Nor after somebody set the group's positions back: the manifest says where to go on.
    group = next(one for one in await log.log.groups() if one.group == "archiver")
    await log.log.reset("archiver", Vector(dict.fromkeys(group.committed, 0)))
    again = await archive(log, store)
    assert again.archived.ranges == 0
    assert await answers(log, store) == await answers(log)


async def test_every_event_is_seen_once_while_others_write_and_archive(
    tmp_path: Path, store: LakeStore
) -> None:
    log = await EventLog.open(await EmbeddedLog.open(tmp_path / "log"))
    options = ArchiverOptions(records_min=5, age_s=0.0, records_max=20)
    stop = asyncio.Event()
    archivers = [
        asyncio.create_task(Archiver(log, store, options).run(stop=stop, every_s=0.01))
        for _ in range(2)
    ]
    written = 0
    source = LakeSource(log, store)
    while written < 400 or len(list(await read_manifest(log))) < 8:
        await log.append([turn(n) for n in range(written, written + 40)])
        written += 40
        table = (await query(log, "SELECT event_id FROM turns", source=source)).table
        assert (table.num_rows, len(set(table["event_id"].to_pylist()))) == (written, written)
    stop.set()
    await asyncio.gather(*archivers)
    manifest = await read_manifest(log)
    for ranges in manifest.ranges.values():
        ends = [one.offset_end for one in ranges]
        assert [one.offset for one in ranges] == [0, *ends[:-1]]
    assert await answers(log, store) == await answers(log)
    await log.close()


async def test_files_that_no_event_names_count_for_nobody_and_are_swept(
    tmp_path: Path, store: LakeStore
) -> None:
    clock = ManualClock()
    log = await EventLog.open(MemoryLog(clock=clock))
    await log.append(mixed(30))

    class Crashes(LakeStore):
        def write(self, path: str, content: bytes) -> None:
            super().write(path, content)
            if path.endswith(".parquet"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await archive(log, Crashes(store.url))
    orphans = parquet(tmp_path)
    assert len(orphans) == 1
    assert not list(await read_manifest(log))
    assert await answers(log, store) == await answers(log)
    # The same content has the same name, so it is found in place; another's is not touched.
    stray = orphans[0].with_name("Turn.stray.parquet")
    orphans[0].rename(stray)
    archiver = await archive(log, store)
    assert stray.exists()
    clock.set_wall(int((stray.stat().st_mtime + 7200) * 1e6))
    assert await archiver.sweep() == 1
    assert not stray.exists()
    assert await answers(log, store) == await answers(log)


async def test_a_lake_that_is_not_this_logs_is_refused(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(10))
    await archive(log, store)
    other = await EventLog.open(MemoryLog())
    await other.append(mixed(10))
    with pytest.raises(LakeUnavailable, match="another log"):
        await archive(other, store)
    with pytest.raises(LakeUnavailable, match="MADLOG_LAKE"):
        await answers(log, LakeStore(str(tmp_path / "elsewhere")))
    with pytest.raises(LakeUnavailable, match="fsspec"):
        LakeStore("nonsense://x")


async def test_a_lake_of_a_newer_madlog_is_refused(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(10))
    await archive(log, store)
    mark = tmp_path / "lake" / "madlog-lake.json"
    good = mark.read_text()
    mark.write_text(good.replace('"form": 1', '"form": 99'))
    with pytest.raises(LakeUnavailable, match="upgrade"):
        await answers(log, store)
    mark.write_text("{")
    with pytest.raises(LakeDamaged, match="not what marks a lake"):
        await answers(log, store)
    mark.write_text(good)
    (event,) = [
        event
        async for batch in log.read_topics(["mad.system"])
        for event in batch
        if event.fields["topic"] == "mad.schemas"
    ]
    newer = {**event.fields, "form": 99, "idempotency_key": "newer"}
    await log.append([RangeArchived.model_validate(newer)])
    with pytest.raises(LakeUnavailable, match="newer madlog"):
        await answers(log, store)


def missing(path: Path, other: Path) -> None:
    path.unlink()


def truncated(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def foreign(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def of_its_size(path: Path, other: Path) -> None:
    content = other.read_bytes()
    size = path.stat().st_size
    path.write_bytes((bytes(size) + content)[-size:])


@pytest.mark.parametrize("harm", [missing, truncated, foreign, of_its_size])
async def test_a_file_that_is_not_what_was_archived_is_named_and_mended(
    harm: Any, log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(40))
    before = await answers(log)
    await archive(log, store)
    turns = [path for path in parquet(tmp_path) if path.name.startswith("Turn")]
    harm(turns[0], turns[1])
    with pytest.raises(LakeDamaged) as caught:
        await answers(log, LakeStore(store.url))
    assert turns[0].name in str(caught.value)
    assert caught.value.exit_code == 3
    archiver = Archiver(log, LakeStore(store.url))
    (found,) = await archiver.check()
    assert turns[0].name in found.path
    assert await archiver.repair() == 1
    assert await archiver.check() == []
    assert await answers(log, LakeStore(store.url)) == before


async def test_files_beside_those_that_were_archived_are_ignored(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(20))
    await archive(log, store)
    path = parquet(tmp_path)[0]
    path.with_name(path.name.replace(".parquet", "x.parquet")).write_bytes(path.read_bytes())
    path.with_name("junk.parquet").write_bytes(b"junk")
    assert await answers(log, store) == await answers(log)


async def test_small_ranges_become_one_and_a_reader_in_mid_query_keeps_its_files(
    tmp_path: Path, store: LakeStore
) -> None:
    clock = ManualClock()
    log = await EventLog.open(MemoryLog(clock=clock))
    await log.append([turn(0)])
    for n in range(1, 8):
        await archive(log, store, NOW)
        await log.append([turn(n * 7)])  # all of one conversation, so of one partition
    reader = LakeSource(log, store)
    end = await log.log.end(["mad.conversations"])
    tables = await reader.tables(["Turn"], end)
    archiver = await archive(log, store, NOW)
    manifest = await read_manifest(log)
    tp = next(tp for tp in manifest.ranges if tp.topic == "mad.conversations")
    assert archiver.archived.merged == 8
    assert len(manifest.ranges[tp]) == 1
    assert await answers(log, store) == await answers(log)
    # Replaced files go after the grace time only.
    assert await archiver.sweep() == 0
    assert all(Path(path).exists() for path in tables.paths)
    clock.advance(3_601)
    assert await archiver.sweep() == 8
    assert await answers(log, LakeStore(store.url)) == await answers(log)


async def test_files_from_before_a_column_came_are_read_beside_newer_ones(
    log: EventLog, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append([turn(n) for n in range(20)])
    now = layout._own
    with monkeypatch.context() as before:

        def older(table: str) -> Any:
            return tuple(column for column in now(table) if column.name != "traffic")

        before.setattr(layout, "_own", older)
        await archive(log, store)
    await log.append([turn(n) for n in range(20, 30)])
    await archive(log, store)
    sql = "SELECT traffic, count(*) AS turns FROM turns GROUP BY 1 ORDER BY 1"
    assert await query_rows(log, sql, store) == [
        {"traffic": "live", "turns": 10},
        {"traffic": None, "turns": 20},
    ]
    assert len(await query_rows(log, "FROM events WHERE kind = 'Turn'", store)) == 30


async def test_a_lake_may_be_anywhere_that_fsspec_reaches(log: EventLog) -> None:
    store = LakeStore("memory://test-lake-anywhere")
    await log.append(mixed(40))
    await archive(log, store)
    await log.append(mixed(10, first=40))
    assert await answers(log, store) == await answers(log)


async def test_what_cannot_be_read_is_named_and_what_may_be_later_waits(
    log: EventLog, store: LakeStore
) -> None:
    await log.append([turn(0)])
    broken = log.to_record(turn(7)).value[:20]
    await log.log.append([NewRecord("mad.conversations", b"c0", broken)])
    await log.append([turn(14)])
    damages: list[Any] = []
    await Archiver(log, store, on_damage=damages.append).run(until_idle=True)
    assert [damage.offset for damage in damages] == [1]
    damages.clear()
    on_damage: OnDamage = damages.append
    source = LakeSource(log, store, on_damage=on_damage)
    assert (await query(log, "FROM turns", source=source)).table.num_rows == 2
    assert [damage.offset for damage in damages] == [1]
    # A record whose schema nobody has registered yet, and what is behind it, stay in the log.
    unknown = b"\xc3\x01" + bytes(8) + b"x"
    await log.log.append([NewRecord("mad.conversations", b"c0", unknown)])
    await log.append([turn(21)])
    archiver = await archive(log, store)
    (tp,) = [tp for tp in (await read_manifest(log)).ranges if tp.topic == "mad.conversations"]
    assert (await read_manifest(log)).archived_to(tp) == 3
    assert archiver.archived.ranges == 0
    assert await query_rows(log, ALL, store) == await query_rows(log, ALL)


async def test_old_ranges_are_said_again_before_they_are_forgotten(store: LakeStore) -> None:
    clock = ManualClock()
    log = await EventLog.open(MemoryLog(clock=clock))
    await log.append(mixed(20))
    await archive(log, store)
    before = {one.event_id: one.files for one in await read_manifest(log)}
    clock.advance(200 * 86_400)
    await archive(log, store)
    after = list(await read_manifest(log))
    assert not before.keys() & {one.event_id for one in after}
    assert sorted(map(str, before.values())) == sorted(str(one.files) for one in after)
    archiver = Archiver(log, store)
    clock.advance(86_400)
    await archiver.sweep()
    assert await answers(log, LakeStore(store.url)) == await answers(log)


async def test_only_the_lakes_own_files_can_be_opened(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(10))
    await archive(log, store)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (f"FROM read_csv('{secret}')", f"FROM '{secret}'", f"FROM glob('{tmp_path}/*')"):
        with pytest.raises(Exception, match="cannot be run"):
            await query(log, f"SELECT * {sql}, turns", source=LakeSource(log, store))


async def test_a_partition_of_few_records_waits_for_its_time(store: LakeStore) -> None:
    clock = ManualClock()
    log = await EventLog.open(MemoryLog(clock=clock))
    await log.append([turn(0)])
    archiver = Archiver(log, store, ArchiverOptions(records_min=10, age_s=60))
    stop = asyncio.Event()
    running = asyncio.create_task(archiver.run(stop=stop, every_s=0.001))
    while len(archiver._since) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)  # until it has seen that turns wait, and their schemas
    assert archiver.archived.ranges == 0
    clock.advance(61)
    while not archiver.archived.ranges:  # noqa: ASYNC110
        await asyncio.sleep(0)
    stop.set()
    await running
    tp = TopicPartition("mad.conversations", 0)
    assert sum(one.rows for one in await read_manifest(log) if one.tp.topic == tp.topic) == 1


async def test_an_event_is_found_in_the_lake_and_behind_it(log: EventLog, store: LakeStore) -> None:
    await log.append([turn(n) for n in range(20)])
    await archive(log, store)
    await log.append([turn(n) for n in range(20, 30)])
    source = LakeSource(log, store)
    for number in (3, 25):
        found = await source.find(turn(number).event_id)
        assert found == await find_event(
            log, turn(number).event_id, [(Vector(), await log.log.end(["mad.conversations"]))]
        )
        assert found is not None
    assert await source.find(turn(99).event_id) is None


def damaged_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(8, len(content) - 4_000, 3):
        content[at] ^= 0xFF
    path.write_bytes(content)


async def test_bytes_that_changed_inside_a_file_are_named(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append([turn(n, "please refund " * 200) for n in range(200)])
    await archive(log, store)
    (path, *_) = [path for path in parquet(tmp_path) if path.name.startswith("Turn")]
    damaged_inside(path)
    with pytest.raises(LakeDamaged, match=path.name):
        await query(log, "SELECT text, event_id FROM turns", source=LakeSource(log, store))


async def test_a_connection_has_all_views_and_no_more(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(30))
    await archive(log, store)
    await log.append(mixed(6, first=30))
    con = await connect(log, source=LakeSource(log, store))
    assert con.sql("SELECT count(*) FROM turns").fetchall() == [(18,)]
    assert con.sql("SELECT count(*) FROM events WHERE kind = 'TimerFired'").fetchall() == [(6,)]
    with pytest.raises(duckdb.PermissionException):
        con.execute(f"SELECT * FROM read_text('{tmp_path}/lake/madlog-lake.json')")
    con.close()


async def test_a_lake_that_is_gone_is_made_again_from_the_log(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(30))
    await archive(log, store)
    shutil.rmtree(tmp_path / "lake")
    with pytest.raises(LakeUnavailable, match="lake repair"):
        await answers(log, LakeStore(store.url))
    archiver = Archiver(log, LakeStore(store.url))
    assert await archiver.repair() == len(list(await read_manifest(log)))
    assert await archiver.check() == []
    assert await answers(log, LakeStore(store.url)) == await answers(log)


async def test_a_full_disk_loses_nothing_and_leaves_nothing_half_written(
    log: EventLog, store: LakeStore, tmp_path: Path
) -> None:
    await log.append(mixed(30))

    class Full(LakeStore):
        def _put(self, path: str, content: bytes) -> None:
            if ".parquet" in path:
                Path(path).write_bytes(content[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
            super()._put(path, content)

    with pytest.raises(LakeUnavailable, match="No space left"):
        await archive(log, Full(store.url))
    assert sorted(path.name for path in (tmp_path / "lake").rglob("*.*")) == [
        "mad.conversations",
        "madlog-lake.json",
    ]
    await archive(log, store)
    assert await answers(log, store) == await answers(log)


async def test_a_worker_goes_on_without_a_lake_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fails:
        tries = 0

        async def run(self) -> None:
            self.tries += 1
            raise LakeUnavailable("the disk is full")

    fails: Any = Fails()
    monkeypatch.setattr("madlog.cli._lake._AGAIN_S", 0.0)
    archiving = asyncio.create_task(Archiving(fails).go_on())
    while fails.tries < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    archiving.cancel()
    assert capsys.readouterr().err == "madlog: the disk is full\n"
