"""Moving into packs, cut short anywhere: each record is there once, and moving goes on after."""

import asyncio
import errno
import os
import shutil
from pathlib import Path

import pytest
from tests.faults.packs_mover import move_until, stepping
from tests.faults.writer import start
from tests.unit.packs_scene import PLACE, TOPIC, made, move, read, record

from madlog.topics import _embedded_moving
from madlog.topics._embedded_packs import PackFolder
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import LogUnavailable
from madlog.topics.log import Commit, Damage, Record
from madlog.topics.positions import Vector

COUNT = 40


async def whole(folder: Path, before: list[Record]) -> int:
    """Assert that a log is as it was, move on, and assert it again; return what was left."""
    log = await EmbeddedLog.open(folder)
    damages: list[Damage] = []
    assert await read(log, damages) == before
    left = sum(one.records for one in await move(log, 1 << 62))
    assert await read(log, damages) == before
    assert [damage async for damage in log.check()] == damages == []
    assert sum(one.records for one in await log.packs()) == COUNT - 1
    await log.close()
    return left


async def test_a_crash_at_any_step_leaves_each_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_embedded_moving, "_PACK_RECORDS", 30)  # two packs
    log = await made(tmp_path / "log", COUNT)
    before = await read(log, [])
    steps: list[str] = []

    def copied(name: str) -> None:
        # What a killed process leaves: all that it had written, synced or not.
        steps.append(name)
        shutil.copytree(tmp_path / "log", tmp_path / str(len(steps)))

    with stepping(copied):
        await move(log, 1 << 62)
    copied("done")
    await log.close()
    left = [await whole(tmp_path / str(n), before) for n in range(1, len(steps) + 1)]

    def one(folders: int) -> list[str]:
        synced = ["sync folder"] * folders
        return ["write", "half written", "sync", "rename", *synced, "name", "not committed"]

    # A pack and its name are on the disk before the rows that it holds are removed; the first pack
    # is below a folder that was not there either.
    assert steps == [*one(5), *one(4), "done"]
    assert left == [COUNT - 1] * len(one(5)) + [COUNT - 31] * len(one(4)) + [0]


@pytest.mark.parametrize("last", ["half written", "not committed"])
async def test_a_mover_that_is_killed_loses_nothing(last: str, tmp_path: Path) -> None:
    log = await made(tmp_path, COUNT)
    before = await read(log, [])
    await log.close()
    process = start(move_until, tmp_path, last)
    await asyncio.to_thread(process.join)
    assert process.exitcode == -9
    assert await whole(tmp_path, before) == COUNT - 1


async def test_a_full_disk_in_mid_pack_moves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_embedded_moving, "_PACK_RECORDS", 10)
    log = await made(tmp_path, COUNT)
    before = await read(log, [])

    def full(name: str) -> None:
        if name == "half written" and len(list(tmp_path.rglob("*.pack"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        stepping(full),
        pytest.raises(LogUnavailable, match=r"No space left on device.*make room"),
    ):
        await move(log, 1 << 62)
    assert len(await log.packs()) == 2
    assert not list(tmp_path.rglob("*.partial"))
    await log.close()
    assert await whole(tmp_path, before) == COUNT - 21


async def test_a_pack_that_comes_back_other_than_it_was_written_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await made(tmp_path, COUNT)
    before = await read(log, [])
    good = PackFolder.read
    monkeypatch.setattr(PackFolder, "read", lambda *to: good(*to)[:-1] + b"\0")
    with pytest.raises(LogUnavailable, match="other bytes came back"):
        await move(log, 1 << 62)
    monkeypatch.undo()
    remove_packs(tmp_path)

    def lose(name: str) -> None:
        if name == "name":
            remove_packs(tmp_path)

    with stepping(lose), pytest.raises(LogUnavailable, match="is gone since it was written"):
        await move(log, 1 << 62)
    assert await log.packs() == []
    await log.close()
    assert await whole(tmp_path, before) == COUNT - 1


def remove_packs(folder: Path) -> None:
    for path in folder.rglob("*.pack"):
        path.unlink()


async def test_writers_readers_and_members_go_on_while_records_move(tmp_path: Path) -> None:
    log, other = await made(tmp_path, COUNT), await EmbeddedLog.open(tmp_path)
    damages: list[Damage] = []
    total = COUNT + 30
    seen: list[int] = []
    polled: list[int] = []

    async def write() -> None:
        for number in range(COUNT, total):
            await log.append([record(number)])

    async def follow() -> None:
        stream = other.subscribe(Vector({PLACE: 0}), records_max=3, on_damage=damages.append)
        while len(seen) < total:
            seen.extend([one.offset for one in await anext(stream)])

    async def poll() -> None:
        member = await other.join("slow", [TOPIC])
        while len(polled) < total:
            found = await member.poll(records_max=5, on_damage=damages.append)
            polled.extend([one.offset for one in found])
            if found:
                position = Vector({PLACE: found[-1].offset + 1})
                await other.transact([], Commit(member, position))
        await member.leave()

    async def keep_moving() -> None:
        while len(seen) < total or len(polled) < total:
            await move(log, 1 << 62)
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(write(), follow(), poll(), keep_moving())
    assert seen == polled == list(range(total))
    assert damages == []
    assert len(await read(log, damages)) == total
    await other.close()
    await log.close()
