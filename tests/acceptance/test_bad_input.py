"""Each kind of bad input gets one clear sentence, the right exit code, and loses nothing."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from tests.acceptance.cli import madlog

from madlog.schemas import Part, Sender, Turn, encode, new_event_id
from madlog.topics.log import NewRecord
from madlog.wiring import opened

GOOD = ("append", "-c", "order-1", "-s", "ada", "-t", "shop", "hello")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    assert madlog(*GOOD, cwd=tmp_path).code == 0
    return tmp_path


def stored(folder: Path) -> int:
    return int(madlog("sql", "select count(*) as n from turns", "--json", cwd=folder).rows[0]["n"])


@pytest.mark.parametrize("url", ["http://example.org/log", "sqlite://x", "file://host/path", ""])
def test_a_wrong_address_is_refused_with_the_right_forms(url: str, tmp_path: Path) -> None:
    assert "folder" in madlog(*GOOD, "--log", url or " ", cwd=tmp_path).refused(2)


def test_a_kafka_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    soon = {"MADLOG_KAFKA_TIMEOUT_S": "1"}
    said = madlog("tail", "--log", "kafka://127.0.0.1:1", cwd=tmp_path, env=soon).refused(3)
    assert "127.0.0.1:1" in said


def test_a_log_that_is_not_there_is_not_made_by_a_reader(tmp_path: Path) -> None:
    madlog("tail", cwd=tmp_path).refused(3)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_topic_is_named(log: Path) -> None:
    assert "topics list" in madlog("tail", "mad.nonsense", cwd=log).refused(2)


def test_a_turn_of_ten_megabytes_is_refused_with_its_size_and_the_way(log: Path) -> None:
    line = json.dumps({"conversation_id": "order-1", "sender": "ada", "text": "x" * 10_000_000})
    ran = madlog("append", "-", cwd=log, stdin=line.encode() + b"\n")
    assert ran.code == 2
    assert "10,000,000" in ran.rows[0]["error"]
    assert "blob" in ran.rows[0]["error"]
    assert stored(log) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": "\xff"}', "UTF-8"),
        (b'{"text": ', "JSON"),
        (b'["a"]', "object"),
        (b'{"conversation_id": "c", "sender": "ada", "text": "a\\u0000b"}', "NUL"),
        (b'{"conversation_id": "c", "sender": "Ada!", "text": "a"}', "name"),
        (b'{"conversation_id": "c", "sender": "ada", "text": "a", "colour": 1}', "colour"),
        (b'{"conversation_id": "c", "text": "a"}', "sender"),
    ],
)
def test_a_bad_line_is_answered_and_the_others_go_on(log: Path, line: bytes, says: str) -> None:
    good = b'{"conversation_id": "order-1", "sender": "ada", "text": "two"}'
    ran = madlog("append", "-", cwd=log, stdin=line + b"\n" + good + b"\n")
    assert ran.code == 2
    assert says in ran.rows[0]["error"]
    assert "event_id" in ran.rows[1]
    assert stored(log) == 2


def test_a_conversation_id_of_ten_thousand_characters_is_refused(log: Path) -> None:
    said = madlog("append", "-c", "x" * 10_000, "-s", "ada", "hi", cwd=log).refused(2)
    assert "256" in said
    assert len(said) < 500


def put_raw(folder: Path, value: bytes) -> None:
    async def put() -> None:
        async with opened(str(folder / ".madlog")) as log:
            await log.log.append([NewRecord("mad.conversations", b"order-1", value)])

    asyncio.run(put())


def a_turn() -> Turn:
    return Turn(
        event_id=new_event_id(1_700_000_000_000_000, bytes(10)),
        conversation_id="order-1",
        sender=Sender(name="ada", kind="human"),
        occurred_at=1_700_000_000_000_000,
        parts=(Part(content_class="prose", text="three"),),
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"\xc3\x01" + bytes(8) + b"body", "0000000000000000"),
        (encode(a_turn())[:-4], "breaks off"),
        (b"no event at all", "no event"),
    ],
)
def test_bytes_that_are_no_event_are_named_and_skipped(log: Path, value: bytes, says: str) -> None:
    put_raw(log, value)
    ran = madlog("check", cwd=log)
    assert ran.code == 1
    assert says in ran.out
    assert "mad.conversations/" in ran.out
    assert stored(log) == 1
    assert madlog("worker", "--until-idle", cwd=log).code == 0
    assert len(madlog("dead-letters", "list", "--json", cwd=log).rows) == 1


def test_a_log_made_by_a_newer_program_is_not_touched(log: Path) -> None:
    database = apsw.Connection(str(log / ".madlog" / "log.sqlite"))
    database.execute("pragma user_version = 99")
    database.close()
    assert "newer" in madlog(*GOOD, cwd=log).refused(3)


def test_a_folder_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    madlog("check", "--log", ".", cwd=tmp_path).refused(3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.sqlite").write_bytes(b"not a database at all" * 100)
    madlog("check", "--log", "other", cwd=tmp_path).refused(3)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    madlog(*GOOD, "--log", "file", cwd=tmp_path).refused(3)


def test_a_read_only_folder_says_so(log: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere: run as another user to see this one")
    (log / ".madlog").chmod(0o500)
    try:
        madlog(*GOOD, cwd=log).refused(3)
    finally:
        (log / ".madlog").chmod(0o700)


@pytest.mark.parametrize("as_of", ["yesterday", "mad.conversations/x@1", "@nowhere", "a/0@1"])
def test_a_bad_as_of_is_refused(log: Path, as_of: str) -> None:
    madlog("sql", "select 1 from turns", "--as-of", as_of, cwd=log).refused(2)


@pytest.mark.parametrize(
    "query",
    [
        "delete from turns",
        "select 1; select 2",
        "copy (select 1) to 'x.csv'",
        "select * from read_text('/etc/hostname')",
        "select * from 'x.csv'",
        "selec 1",
        "select nonsense from turns",
        "set memory_limit = '1GB'",
        "attach 'x.db'",
    ],
)
def test_sql_that_is_not_one_select_over_the_views_is_refused(log: Path, query: str) -> None:
    madlog("sql", query, cwd=log).refused(2)


def test_a_file_of_another_format_names_its_lines_and_no_next_step(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n\nno JSON here\n")
    ran = madlog("import", "notes.md", "--format", "openai-chat", cwd=tmp_path)
    assert ran.code == 1
    assert "notes.md:1: " in ran.err
    assert "next:" not in ran.err


def test_an_unknown_benchmark_is_not_passed_over(tmp_path: Path) -> None:
    assert "group-commit" in madlog("bench", "nope", cwd=tmp_path).refused(2)


def test_an_unknown_question_offers_the_nearest(log: Path) -> None:
    assert "transcript" in madlog("ask", "transkript", cwd=log).refused(2)


def test_an_interrupted_writer_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    import signal

    lines = (
        json.dumps({"conversation_id": "c", "sender": "ada", "text": f"turn {n}"}) + "\n"
        for n in range(10**9)
    )
    writer = subprocess.Popen(
        [sys.executable, "-m", "madlog", "append", "-"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in its background has this signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert writer.stdin
    assert writer.stdout
    for _ in range(20):
        writer.stdin.write(next(lines))
    writer.stdin.flush()
    for _ in range(20):
        assert "event_id" in writer.stdout.readline()
    writer.send_signal(signal.SIGINT)
    writer.wait(timeout=30)  # before its input ends, or it might end for that
    _, err = writer.communicate(timeout=30)
    assert writer.returncode == 130
    assert err == "madlog: interrupted; everything that was acknowledged is kept\n"
    assert stored(tmp_path) == 20
