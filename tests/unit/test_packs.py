"""Old records in packs: read as before from anywhere, found by time, damage named, copied whole."""

import asyncio
import os
import shutil
from bisect import bisect_left
from pathlib import Path

import apsw
import fsspec
import pytest
from tests.unit.packs_scene import PLACE, TOPIC, fill, made, move, read, record

from madlog.topics import _embedded_storage
from madlog.topics._embedded_packs import PackFolder
from madlog.topics.catalog import inbox
from madlog.topics.cold import Pack
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import LogUnavailable, UnsupportedByBackend
from madlog.topics.log import Damage, NewRecord
from madlog.topics.positions import TopicPartition, Vector

# A block and a part of one: a block has 33 records of 8,000 bytes.
COUNT = 60
BLOCK = 33


def user_version(folder: Path) -> int:
    connection = apsw.Connection(str(folder / "log.sqlite"))
    version = connection.pragma("user_version")
    connection.close()
    return int(version)


async def test_what_was_moved_is_read_as_before_from_anywhere(tmp_path: Path) -> None:
    log = await made(tmp_path, COUNT)
    before, damages = await read(log, []), list[Damage]()
    await move(log, 10)
    packs = await move(log, 58)
    assert [(one.offset, one.offset_end) for one in await log.packs()] == [(0, 10), (10, 58)]
    assert packs[0].place == f"lake/cold/{TOPIC}/0/10-58.{packs[0].sha256[:16]}.pack"
    await fill(log, range(COUNT, COUNT + 5))
    assert (await read(log, damages))[:COUNT] == before
    for start in (0, 9, 10, 10 + BLOCK, 57, 58, 59):
        assert (await read(log, damages, start, 7))[: COUNT - start] == before[start:]
    assert await log.start([TOPIC]) == Vector({PLACE: 0})
    assert damages == []
    assert [damage async for damage in log.check()] == []
    await log.close()


async def test_a_time_is_found_in_packs_and_after_them(tmp_path: Path) -> None:
    log = await made(tmp_path, COUNT)
    times = [one.appended_at for one in await read(log, [])]
    await move(log, 50)
    for time in sorted({*times, times[-1] + 1, 0}):
        first = bisect_left(times, time)
        assert await log.at_time([TOPIC], time) == Vector({PLACE: first})
    await log.close()


async def test_the_newest_record_and_what_is_too_little_stay(tmp_path: Path) -> None:
    log = await made(tmp_path, 10)
    assert await move(log, 1 << 62, size_min=1 << 20) == []
    assert user_version(tmp_path) == 1
    [pack] = await move(log, 1 << 62)
    assert (pack.offset_end, pack.records) == (9, 9)
    assert await move(log, 1 << 62) == []
    await log.close()


async def test_a_dry_run_says_what_a_run_does_and_writes_nothing(tmp_path: Path) -> None:
    log = await made(tmp_path, 50)
    to, into = Vector({PLACE: 30}), f"{log.url}/lake/cold"
    said = [one async for one in log.move_cold(to, into, dry_run=True, bytes_min=0)]
    assert not (tmp_path / "lake").exists()
    assert user_version(tmp_path) == 1
    assert [one._replace(place="") for one in await move(log, 30)] == said
    await log.close()


async def test_the_format_is_newer_from_the_first_move_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await made(tmp_path, 20)
    await log.close()
    log = await EmbeddedLog.open(tmp_path)  # as a log of format 1 that was there before
    assert user_version(tmp_path) == 1
    await move(log, 10)
    await log.close()
    assert user_version(tmp_path) == 2
    monkeypatch.setattr(_embedded_storage, "FORMAT_NEWEST", 1)
    with pytest.raises(LogUnavailable, match="has format 2, made by a newer madlog"):
        await EmbeddedLog.open(tmp_path)


async def test_only_what_is_kept_for_ever_is_moved(tmp_path: Path) -> None:
    log = await made(tmp_path, 2)
    await log.create_topic(inbox("tester"))
    moving = log.move_cold(Vector({TopicPartition("mad.inbox.tester", 0): 1}), str(tmp_path))
    with pytest.raises(UnsupportedByBackend, match="kept for a time"):
        await anext(moving)
    await log.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def exchange(path: Path) -> None:
    other = next(one for one in path.parent.iterdir() if one != path)
    shutil.copy(other, path)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (Path.unlink, "is not there"),
        (cut, "is cut off"),
        (alter, "does not match its checksum"),
        (exchange, "the pack"),
    ],
)
async def test_a_pack_that_is_not_whole_is_named_and_stops_nothing_else(
    harm: object, says: str, tmp_path: Path
) -> None:
    log = await made(tmp_path, COUNT)
    before = await read(log, [])
    await move(log, 5)
    [pack] = await move(log, 55)
    assert callable(harm)
    harm(tmp_path / pack.place)
    damages: list[Damage] = []
    found = await read(log, damages)
    assert {PLACE} == {TopicPartition(*damage[:2]) for damage in damages}
    missing = [n for damage in damages for n in range(damage.offset, damage.offset_end)]
    assert all(5 <= n < 55 for n in missing)
    assert found == [one for one in before if one.offset not in missing]
    assert says in damages[0].reason
    assert harm != Path.unlink or [one[2:4] for one in damages] == [(5, 55)]
    checked = [damage async for damage in log.check()]
    assert [n for one in checked for n in range(one.offset, one.offset_end)] == missing
    with pytest.raises(LogUnavailable, match=r"check"):
        await log.backup(tmp_path / "copy")
    await log.close()


async def test_a_record_exchanged_in_a_pack_with_good_checksums_breaks_its_chain(
    tmp_path: Path,
) -> None:
    folders = (tmp_path / "one", tmp_path / "other")
    logs = [await made(folders[0], 30), await made(folders[1], 0)]
    await logs[1].append([record(99), *(record(n) for n in range(1, 30))])
    [[one], [other]] = [await move(log, 20) for log in logs]
    await logs[1].close()
    shutil.copy(folders[1] / other.place, folders[0] / one.place)
    connection = apsw.Connection(str(folders[0] / "log.sqlite"))
    connection.execute("ATTACH ? AS other", (str(folders[1] / "log.sqlite"),))
    for column in ("size", "raw_size", "crc"):
        sql = f"UPDATE pack_blocks SET {column}=(SELECT {column} FROM other.pack_blocks)"
        connection.execute(sql)
    connection.close()
    found = [damage async for damage in logs[0].check()]
    assert any("is not the one that was written" in damage.reason for damage in found)
    assert found[0][:4] == (TOPIC, 0, 0, 20)
    await logs[0].close()


def lose_page(folder: Path, table: str) -> int:
    """Write zeroes over the first leaf page of a table of a closed log; return its number."""
    connection = apsw.Connection(str(folder / "log.sqlite"))
    page = connection.execute(
        "SELECT pageno FROM dbstat WHERE name=? AND pagetype='leaf' ORDER BY pageno LIMIT 1",
        (table,),
    ).get
    connection.close()
    assert isinstance(page, int)
    with (folder / "log.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    return page


async def test_a_damaged_page_is_not_blamed_for_a_pack(tmp_path: Path) -> None:
    log = await made(tmp_path, COUNT)
    [pack] = await move(log, 20)
    await log.close()
    (tmp_path / pack.place).unlink()
    page = lose_page(tmp_path, "r1")
    log = await EmbeddedLog.open(tmp_path)
    found = [(damage.offset, damage.page) async for damage in log.check()]
    assert found[0] == (0, None)
    assert {number for _, number in found[1:]} == {page}
    await log.close()


@pytest.mark.parametrize("table", ["packs", "pack_blocks"])
async def test_where_the_page_that_names_packs_is_lost_the_rest_is_served(
    table: str, tmp_path: Path
) -> None:
    log = await made(tmp_path, COUNT)
    before = await read(log, [])
    await move(log, 20)
    await log.close()
    lose_page(tmp_path, table)
    log = await EmbeddedLog.open(tmp_path)
    damages: list[Damage] = []
    assert await read(log, damages) == before[20:]
    assert [damage[2:4] for damage in damages] == [(0, 20)]
    checked = [damage[2:4] async for damage in log.check()]
    assert (0, 20) in checked
    with pytest.raises(LogUnavailable, match=r"madlog check|the backup into .* failed"):
        await log.backup(tmp_path / "copy")
    await log.close()


async def test_a_damaged_record_stays_and_is_named_with_what_comes_after_it(
    tmp_path: Path,
) -> None:
    log = await made(tmp_path, 40)
    connection = apsw.Connection(str(tmp_path / "log.sqlite"))
    connection.execute("UPDATE r1 SET value=x'00' WHERE offset=25")
    connection.close()
    damages: list[Damage] = []
    into = f"{log.url}/lake/cold"
    moving = log.move_cold(Vector({PLACE: 40}), into, bytes_min=0, on_damage=damages.append)
    packs = [one async for one in moving]
    assert [one.offset_end for one in packs] == [25]
    assert [damage[:4] for damage in damages] == [(TOPIC, 0, 25, 26)]
    await log.close()


async def test_a_backup_needs_nothing_but_itself(tmp_path: Path) -> None:
    log = await made(tmp_path / "log", 60)
    before = await read(log, [])
    await move(log, 20)
    await move(log, 50, str(tmp_path / "far"))
    await log.backup(tmp_path / "copy")
    await log.close()
    shutil.rmtree(tmp_path / "log")
    shutil.rmtree(tmp_path / "far")
    copy = await EmbeddedLog.open(tmp_path / "copy")
    assert await read(copy, []) == before
    assert [damage async for damage in copy.check()] == []
    await copy.backup(tmp_path / "again")
    assert {one.place.split("/")[0] for one in await copy.packs()} == {"cold"}
    await copy.close()


async def test_packs_at_a_url_are_read_from_there_and_said_to_be_away(tmp_path: Path) -> None:
    log = await made(tmp_path, 20)
    before = await read(log, [])
    [pack] = await move(log, 10, "memory://packs/cold")
    assert pack.place.startswith("memory://")
    assert await read(log, []) == before
    connection = apsw.Connection(str(tmp_path / "log.sqlite"))
    connection.execute("UPDATE packs SET place=replace(place, 'memory', 'nowhere')")
    connection.close()
    with pytest.raises(LogUnavailable, match="older records cannot be read from nowhere://"):
        await read(log, [])
    assert [one.offset for one in await read(log, [], 10)] == list(range(10, 20))
    assert [one[2:4] async for one in log.check()] == [(0, 10)]
    fsspec.filesystem("memory").rm("/packs", recursive=True)
    await log.close()


async def test_a_folder_of_packs_that_is_away_is_no_damage(tmp_path: Path) -> None:
    log = await made(tmp_path / "log", 20)
    await move(log, 10, str(tmp_path / "disk" / "cold"))
    (tmp_path / "disk" / "cold").rename(tmp_path / "elsewhere")
    with pytest.raises(LogUnavailable, match="which is not there: mount it"):
        await read(log, [])
    await log.close()


async def test_two_that_move_at_once_move_each_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await made(tmp_path, 60)
    before = await read(log, [])
    other = await EmbeddedLog.open(tmp_path)
    first: list[Pack] = []
    moving = log.move_cold(Vector({PLACE: 50}), f"{log.url}/lake/cold", bytes_min=0)

    def slow(folder: PackFolder, name: str, content: bytes) -> None:
        # The other is done with the same records when this one has written its pack.
        monkeypatch.undo()
        folder.write(name, content)
        done = asyncio.run_coroutine_threadsafe(move(other, 40), loop).result()
        first.extend(done)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(PackFolder, "write", slow)
    second = [one async for one in moving]
    assert [(one.offset, one.offset_end) for one in (*first, *second)] == [(0, 40), (40, 50)]
    assert await read(log, []) == before
    assert [damage async for damage in log.check()] == []
    await other.close()
    await log.close()


async def test_free_pages_are_used_again_and_given_back_when_nobody_has_the_log(
    tmp_path: Path,
) -> None:
    log = await made(tmp_path, COUNT)
    before = await read(log, [])
    await move(log, 55)
    await log.close()
    size = (tmp_path / "log.sqlite").stat().st_size
    log = await EmbeddedLog.open(tmp_path, clock=log.clock)
    await fill(log, range(COUNT, COUNT + 20))
    assert await EmbeddedLog.give_back(tmp_path) is None
    await log.close()
    assert (tmp_path / "log.sqlite").stat().st_size == size
    freed = await EmbeddedLog.give_back(tmp_path)
    assert freed == size - (tmp_path / "log.sqlite").stat().st_size > size / 3
    assert await EmbeddedLog.give_back(tmp_path) == 0
    log = await EmbeddedLog.open(tmp_path)
    assert (await read(log, []))[:COUNT] == before
    assert [damage async for damage in log.check()] == []
    await log.append([NewRecord(TOPIC, b"key", b"after")])
    await log.close()


@pytest.mark.parametrize("where", ["log/lake/cold", "elsewhere/cold"])
async def test_what_a_crash_left_is_swept_an_hour_later_and_no_pack_that_a_log_may_name(
    where: str, tmp_path: Path
) -> None:
    log, into = await made(tmp_path / "log", 30), str(tmp_path / where)
    [pack] = await move(log, 10, into)
    folder = tmp_path / where / TOPIC / "0"
    partial = folder / "10-20.0123456789abcdef.pack.0123.partial"
    whole = folder / "10-20.0123456789abcdef.pack"
    named = tmp_path / "log" / pack.place
    now_s = log.clock.now_us() / 1e6
    for path, age_s in ((partial, 3_000), (whole, 3_000), (named, 9_000)):
        path.touch()
        os.utime(path, (now_s - age_s, now_s - age_s))
    await move(log, 15, into)
    assert partial.exists()
    for path in (partial, whole):
        os.utime(path, (now_s - 4_000, now_s - 4_000))
    # The same folder under another name: what is named stays named.
    (tmp_path / "link").symlink_to(tmp_path / where)
    await move(log, 20, str(tmp_path / "link"))
    assert not partial.exists()
    # Another log, a copy of this one, may have its packs outside the log's folder.
    assert whole.exists() == (where == "elsewhere/cold")
    assert [damage async for damage in log.check()] == []
    await log.close()
