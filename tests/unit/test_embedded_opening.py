"""Opening an embedded log: each thing that cannot be one gets a sentence of its own."""

import sqlite3
from pathlib import Path

import pytest

from madlog.topics._embedded_storage import network_file_system
from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import LogUnavailable
from madlog.topics.log import NewRecord
from madlog.topics.positions import Vector

TOPIC = "mad.conversations"


async def make(folder: Path) -> None:
    log = await EmbeddedLog.open(folder)
    await log.create_topic(CATALOG[TOPIC])
    await log.append([NewRecord(TOPIC, b"key", b"value")])
    await log.close()


async def refusal(folder: Path, *, create: bool = True, read_only: bool = False) -> str:
    with pytest.raises(LogUnavailable) as refused:
        await EmbeddedLog.open(folder, create=create, read_only=read_only)
    return str(refused.value)


async def test_a_folder_without_a_log_is_refused_unless_one_may_be_made(tmp_path: Path) -> None:
    assert "there is no log in" in await refusal(tmp_path / "new", create=False)
    assert not (tmp_path / "new").exists()
    assert "there is no log in" in await refusal(tmp_path / "new", read_only=True)
    await make(tmp_path / "new")


async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is a file, not a folder" in await refusal(tmp_path / "file")


@pytest.mark.parametrize("content", [b"not a database" * 100, b"x"])
async def test_a_file_of_something_else_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.sqlite").write_bytes(content)
    assert "is not a log of madlog" in await refusal(tmp_path)
    assert (tmp_path / "log.sqlite").read_bytes() == content


async def test_the_database_of_another_program_is_no_log(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "log.sqlite")
    other.execute("CREATE TABLE theirs(x)")
    other.close()
    before = (tmp_path / "log.sqlite").read_bytes()
    assert "is not a log of madlog" in await refusal(tmp_path)
    assert (tmp_path / "log.sqlite").read_bytes() == before


async def test_a_log_of_a_newer_program_says_to_upgrade(tmp_path: Path) -> None:
    await make(tmp_path)
    other = sqlite3.connect(tmp_path / "log.sqlite")
    other.execute("PRAGMA user_version=3")
    other.close()
    assert "upgrade madlog" in await refusal(tmp_path)


async def test_a_damaged_first_page_says_to_restore_a_backup(tmp_path: Path) -> None:
    await make(tmp_path)
    file = tmp_path / "log.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes(3996) + whole[4096:])
    assert "restore a backup" in await refusal(tmp_path)


async def test_a_log_open_for_reading_is_read_and_not_written(tmp_path: Path) -> None:
    await make(tmp_path)
    log = await EmbeddedLog.open(tmp_path, read_only=True)
    found = [r async for rs in log.read(Vector(), await log.end([TOPIC])) for r in rs]
    assert [record.value for record in found] == [b"value"]
    with pytest.raises(LogUnavailable, match="for reading only"):
        await log.append([NewRecord(TOPIC, b"key", b"more")])
    with pytest.raises(LogUnavailable, match="for reading only"):
        await log.join("group", [TOPIC])
    await log.close()


async def test_a_closed_log_refuses_and_says_so(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path)
    await log.create_topic(CATALOG[TOPIC])
    await log.close()
    await log.close()
    with pytest.raises(LogUnavailable, match="is closed"):
        await log.append([NewRecord(TOPIC, b"key", b"value")])
    with pytest.raises(LogUnavailable, match="is closed"):
        await log.end([TOPIC])


async def test_two_that_make_a_log_at_once_share_it(tmp_path: Path) -> None:
    one = await EmbeddedLog.open(tmp_path)
    two = await EmbeddedLog.open(tmp_path)
    await one.create_topic(CATALOG[TOPIC])
    [first] = await two.append([NewRecord(TOPIC, b"key", b"a")])
    [second] = await one.append([NewRecord(TOPIC, b"key", b"b")])
    [third] = await two.append([NewRecord(TOPIC, b"key", b"c")])
    assert [r.position.offset for r in (first, second, third)] == [0, 1, 2]
    assert [damage async for damage in one.check()] == []
    await one.close()
    await two.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/log", None),
        ("/mnt/share/log", "nfs4"),
        ("/mnt/share2/log", None),
        ("/mnt/with space/log", "cifs"),
        ("/mnt/share/local/log", None),
        ("/mnt/ssh", "fuse.sshfs"),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(path: str, kind: str | None) -> None:
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/share nfs4 rw 0 0\n"
        "//server/y /mnt/with\\040space cifs rw 0 0\n/dev/sdb /mnt/share/local ext4 rw 0 0\n"
        "me@host: /mnt/ssh fuse.sshfs rw 0 0\n"
    )
    assert network_file_system(Path(path), mounts) == kind
