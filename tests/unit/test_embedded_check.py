"""What `check` names besides a flipped byte, and what a backup holds."""

import zlib
from pathlib import Path

import apsw
import pytest

from madlog.topics import _embedded_check, _embedded_check_ahead
from madlog.topics._embedded_check_ahead import Ahead
from madlog.topics._embedded_storage import Opening, connect, wire
from madlog.topics.catalog import CATALOG, inbox, partition_for, state
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import LogUnavailable, UnsupportedByBackend
from madlog.topics.log import Damage, NewRecord
from madlog.topics.positions import Vector

TOPIC = "mad.conversations"
KEYS = [f"conversation-{i}".encode() for i in range(8)]


async def make(folder: Path) -> EmbeddedLog:
    log = await EmbeddedLog.open(folder)
    for topic in (CATALOG[TOPIC], state("tester"), inbox("tester")):
        await log.create_topic(topic)
        await log.append([NewRecord(topic.name, key, b"v" * 50) for key in KEYS * 5])
    return log


def change(folder: Path, sql: str, bindings: tuple[object, ...] = ()) -> None:
    connection = apsw.Connection(str(folder / "log.sqlite"))
    connection.execute(sql, bindings)
    connection.close()


async def damages(folder: Path) -> list[Damage]:
    log = await EmbeddedLog.open(folder)
    found = [damage async for damage in log.check()]
    await log.close()
    return found


async def test_a_whole_log_has_no_damage_also_after_compaction_and_expiry(tmp_path: Path) -> None:
    log = await make(tmp_path)
    assert await log.compact("mad.state.tester") == 32
    where = partition_for(KEYS[0], 4)
    assert await log.expire("mad.inbox.tester", where, 3) == 3
    looked: list[int] = []
    assert [damage async for damage in log.check(looked.append)] == []
    assert looked[-1] == 40 + 8 + 37
    await log.close()


async def test_what_is_kept_for_ever_neither_expires_nor_is_compacted(tmp_path: Path) -> None:
    log = await make(tmp_path)
    with pytest.raises(UnsupportedByBackend, match="does not expire"):
        await log.expire(TOPIC, 0, 1)
    with pytest.raises(UnsupportedByBackend, match="not a compacted topic"):
        await log.compact(TOPIC)
    await log.close()


async def test_a_record_in_the_wrong_partition_for_its_key_is_named(tmp_path: Path) -> None:
    log = await make(tmp_path)
    wrong = (partition_for(b"stray", 4) + 1) % 4
    [receipt] = await log.append([NewRecord(TOPIC, b"stray", b"v", partition=wrong)])
    [damage] = [damage async for damage in log.check()]
    assert damage[:3] == receipt.position
    assert "its key belongs in partition" in damage.reason
    await log.close()


async def test_a_record_replaced_with_a_good_checksum_breaks_the_chain(tmp_path: Path) -> None:
    await (await make(tmp_path)).close()
    forged = zlib.crc32(wire(0, 7, b"k", b"", b"forged"))
    change(
        tmp_path,
        "UPDATE r1 SET key=?, value=?, headers=?, appended_at=7, crc=? WHERE offset=0",
        (b"k", b"forged", b"", forged),
    )
    assert any("chain of hashes differs" in damage.reason for damage in await damages(tmp_path))


async def test_a_second_process_finds_nothing_else_and_may_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await make(tmp_path)
    change(tmp_path, "UPDATE r2 SET value=x'00' WHERE offset=3")
    change(tmp_path, "UPDATE partitions SET count=count+1 WHERE id=3")
    monkeypatch.setattr(_embedded_check_ahead, "_WORTH", 1)
    connection = connect(Opening(tmp_path / "log.sqlite", read_only=True))
    rows = _embedded_check._rows(connection)
    connection.close()
    with Ahead(Opening(tmp_path / "log.sqlite", read_only=True), rows) as ahead:
        with ahead._changed:
            assert ahead._changed.wait_for(lambda: ahead._ended, 60)
        found = {row.id: ahead.written(row) for row, _ in rows}
        assert [number for number, one in found.items() if one is None][:1] == [2]
        for row, _ in rows:
            one = found[row.id]
            if one is not None:
                assert one.offset == row.next_offset
                assert one.head == row.head or row.compacted
        await log.append([NewRecord(TOPIC, KEYS[0], b"since")])
    killed = Killed(Opening(tmp_path / "log.sqlite"), rows)
    monkeypatch.undo()
    alone = [damage async for damage in log.check()]
    assert len(alone) == 2
    # What it says is taken up, also where records were appended since; what it does not say is
    # looked at.
    for known in (ahead, killed):
        monkeypatch.setattr(_embedded_check, "Ahead", lambda *_, known=known: known)
        looked: list[int] = []
        assert [damage async for damage in log.check(looked.append)] == alone
        assert looked[-1] == 121
    await log.close()


class Killed(Ahead):
    """A second process that is gone before it said anything."""

    def __enter__(self) -> "Killed":
        assert self._process is not None
        self._process.kill()
        return self


async def test_a_partition_that_says_it_ends_too_early_is_named(tmp_path: Path) -> None:
    await (await make(tmp_path)).close()
    change(tmp_path, "UPDATE partitions SET next_offset=next_offset-1 WHERE id=1")
    found = await damages(tmp_path)
    assert any("there are records up to" in damage.reason for damage in found)


@pytest.mark.parametrize("table", ["topics", "partitions"])
async def test_records_are_served_when_the_page_that_names_them_is_lost(
    tmp_path: Path, table: str
) -> None:
    await (await make(tmp_path)).close()
    file = tmp_path / "log.sqlite"
    connection = apsw.Connection(str(file))
    page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name=?", (table,)).get
    connection.close()
    data = bytearray(file.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    file.write_bytes(data)
    log = await EmbeddedLog.open(tmp_path)
    found = [r async for rs in log.read(Vector(), await log.end([TOPIC])) for r in rs]
    assert len(found) == 40
    assert page in {damage.page async for damage in log.check()}
    await log.close()


async def test_a_backup_holds_the_log_and_its_blobs_and_opens(tmp_path: Path) -> None:
    log = await make(tmp_path / "log")
    (tmp_path / "log" / "blobs").mkdir()
    (tmp_path / "log" / "blobs" / "content").write_bytes(b"content")
    steps: list[tuple[int, int]] = []
    await log.backup(tmp_path / "copy", lambda done, of: steps.append((done, of)))
    await log.append([NewRecord(TOPIC, KEYS[0], b"after the backup")])
    assert steps[-1][0] == steps[-1][1]
    with pytest.raises(LogUnavailable, match="is not empty"):
        await log.backup(tmp_path / "copy")
    await log.close()
    copy = await EmbeddedLog.open(tmp_path / "copy", create=False)
    found = [r async for rs in copy.read(Vector(), await copy.end([TOPIC])) for r in rs]
    assert len(found) == 40
    assert [damage async for damage in copy.check()] == []
    await copy.close()
    assert (tmp_path / "copy" / "blobs" / "content").read_bytes() == b"content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "log"]


async def test_a_backup_of_a_damaged_log_gets_no_name(tmp_path: Path) -> None:
    log = await make(tmp_path / "log")
    change(tmp_path / "log", "UPDATE r1 SET value=x'00' WHERE offset=0")
    with pytest.raises(LogUnavailable, match="is damaged"):
        await log.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    await log.close()
