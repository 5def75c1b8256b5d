"""The import runner: repeats, parts, bad lines, redaction before writing, nothing lost."""

import asyncio
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from madlog.analytics.exporting import export
from madlog.analytics.importing import (
    ImportProgress,
    ImportReport,
    UnknownFormat,
    UnreadableFile,
    import_file,
)
from madlog.topics import EventLog, NewRecord, NotWritten, Receipt
from madlog.topics.memory import MemoryLog

TOPICS = ("mad.conversations", "mad.outcomes", "mad.llm")


def _run(task: int, text: str = "Hi") -> dict[str, Any]:
    traj = [{"role": "user", "content": text}, {"role": "assistant", "content": "Hello"}]
    return {"task_id": task, "trial": 0, "reward": 1.0, "info": {}, "traj": traj}


def _written(path: Path, *objects: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in objects), encoding="utf-8")
    return path


async def _log() -> EventLog:
    return await EventLog.open(MemoryLog())


async def _held(log: EventLog) -> list[str]:
    return [event.event_id async for events in log.read_topics(TOPICS) for event in events]


async def _texts(log: EventLog) -> str:
    return repr([event.fields async for events in log.read_topics(TOPICS) for event in events])


async def test_an_import_reports_what_it_did(tmp_path: Path) -> None:
    log, path = await _log(), _written(tmp_path / "a.jsonl", _run(0), _run(1))
    seen: list[ImportProgress] = []
    report = await import_file(log, path, "tau-bench", progress=seen.append)
    assert (report.lines, report.conversations, report.events) == (2, 2, 12)
    assert (report.repeated, report.appended, report.bad_lines) == (0, 12, 0)
    assert len(await _held(log)) == 12
    assert [found.phase for found in seen] == ["hashing", "importing", "importing"]
    assert seen[-1].bytes_done == seen[-1].bytes_total == 2 * path.stat().st_size


async def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    log, path = await _log(), _written(tmp_path / "a.jsonl", _run(0), _run(1))
    await import_file(log, path, "tau-bench")
    held = await _held(log)
    report = await import_file(log, path, "tau-bench")
    assert (report.events, report.repeated, report.appended) == (12, 12, 0)
    assert await _held(log) == held


async def test_the_same_conversations_in_another_file_add_nothing(tmp_path: Path) -> None:
    log = await _log()
    await import_file(log, _written(tmp_path / "a", _run(0), _run(1)), "tau-bench")
    other = tmp_path / "b.gz"
    lines = "\n".join(json.dumps(run, indent=None, sort_keys=True) for run in (_run(1), _run(0)))
    other.write_bytes(gzip.compress(lines.encode()))
    report = await import_file(log, other, "tau-bench")
    assert (report.conversations, report.appended) == (2, 0)


class _Stopping(MemoryLog):
    """A log that takes some appends of events and then no more."""

    appends_left = 1_000_000

    async def append(self, records: Sequence[NewRecord]) -> list[Receipt]:
        if records[0].topic != "mad.schemas":
            self.appends_left -= 1
            if self.appends_left < 0:
                raise NotWritten("the disk is full: make room and try again")
        return await super().append(records)


async def test_an_import_that_stopped_is_finished_by_the_next(tmp_path: Path) -> None:
    path = _written(tmp_path / "a", *(_run(task) for task in range(300)))
    whole = await _log()
    await import_file(whole, path, "tau-bench")
    stopping = _Stopping()
    stopping.appends_left = 2
    log = await EventLog.open(stopping)
    with pytest.raises(NotWritten):
        await import_file(log, path, "tau-bench")
    assert len(await _held(log)) == 1000
    stopping.appends_left = 100
    report = await import_file(log, path, "tau-bench")
    assert (report.events, report.repeated) == (1800, 1000)
    assert await _held(log) == await _held(whole)


async def test_an_interrupted_import_keeps_what_was_under_way(tmp_path: Path) -> None:
    path = _written(tmp_path / "a", *(_run(task) for task in range(300)))
    log = await _log()
    task: asyncio.Task[ImportReport] | None = None

    def cancel(progress: ImportProgress) -> None:
        if progress.events >= 600 and task is not None:
            task.cancel()

    task = asyncio.create_task(import_file(log, path, "tau-bench", progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await _held(log)) == 500
    assert (await import_file(log, path, "tau-bench")).appended == 1300


async def test_bad_lines_are_named_and_nothing_else_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a"
    good = [json.dumps(_run(task)).encode() for task in range(3)]
    path.write_bytes(
        b"\n".join(
            [good[0], b"{", b'{"a": "\xff"}', good[1], b'{"task_id": 1}', b"", good[2], b"[]"]
        )
    )
    log = await _log()
    report = await import_file(log, path, "tau-bench")
    assert (report.conversations, report.lines, report.bad_lines) == (3, 7, 4)
    assert [number for number, _ in report.bad] == [2, 3, 5, 8]
    assert all(reason for _, reason in report.bad)
    assert len(await _held(log)) == 18


async def test_a_message_that_is_too_large_costs_its_line_only(tmp_path: Path) -> None:
    runs = [_run(0), _run(1, "x" * 10_000_000), _run(2)]
    log = await _log()
    report = await import_file(log, _written(tmp_path / "a", *runs), "tau-bench")
    assert report.conversations == 2
    [(number, reason)] = report.bad
    assert number == 2
    assert "message 1 is too large" in reason


async def test_text_at_the_limit_is_taken(tmp_path: Path) -> None:
    log, path = await _log(), _written(tmp_path / "a", _run(0, "x" * (2**20 - 2048)))
    assert (await import_file(log, path, "tau-bench")).bad == []


async def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    log, path = await _log(), _written(tmp_path / "a", _run(0), [])
    report = await import_file(log, path, "tau-bench", dry_run=True)
    assert (report.conversations, report.bad_lines, report.appended) == (1, 1, 0)
    assert await log.log.topics() == {}


async def test_a_dry_run_stores_no_blob(tmp_path: Path) -> None:
    def put(data: bytes) -> str:
        raise AssertionError("a dry run writes nothing")

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    chat = {"messages": [{"role": "user", "content": [image]}]}
    path = _written(tmp_path / "a", chat)
    report = await import_file(await _log(), path, "openai-chat", dry_run=True, put_blob=put)
    assert report.conversations == 1


async def test_redaction_comes_before_anything_is_written(tmp_path: Path) -> None:
    secret = "mail ann@mail.example or use sk-abcdefghijklmnop1234"
    run = _run(0, secret) | {"info": {"note": secret}}
    log, path = await _log(), _written(tmp_path / "a", run)
    report = await import_file(log, path, "tau-bench", redact=True)
    assert report.redacted == {"e-mail": 2, "secret": 2}
    texts = await _texts(log)
    assert "[REDACTED:e-mail]" in texts
    assert "ann@" not in texts
    assert "sk-abc" not in texts
    assert (await import_file(log, path, "tau-bench", redact=True)).appended == 0


async def test_equal_chats_are_told_apart_by_their_ordinal(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    log, path = await _log(), _written(tmp_path / "a", chat, chat, chat)
    report = await import_file(log, path, "openai-chat")
    assert (report.conversations, report.repeated) == (3, 0)
    assert (await import_file(log, path, "openai-chat")).appended == 0
    out = io.StringIO()
    await export(log, "openai-chat", out)
    assert out.getvalue() == (json.dumps(chat) + "\n") * 3


@pytest.mark.parametrize("indent", [None, 2])
async def test_a_single_document_gives_the_chats_in_it(tmp_path: Path, indent: int | None) -> None:
    chats = [{"messages": [{"role": "user", "content": str(n)}]} for n in range(3)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(chats, indent=indent))
    log = await _log()
    report = await import_file(log, path, "openai-chat")
    assert (report.lines, report.conversations) == (3, 3)
    path.write_text(json.dumps(chats[0], indent=indent))
    assert (await import_file(log, path, "openai-chat")).appended == 0


async def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        await import_file(await _log(), tmp_path / "absent", "tau-bench")
    with pytest.raises(UnknownFormat, match="openai-chat, tau-bench"):
        await import_file(await _log(), tmp_path / "absent", "nonsense")


async def test_an_empty_file_is_no_problem(tmp_path: Path) -> None:
    report = await import_file(await _log(), _written(tmp_path / "a"), "openai-chat")
    assert (report.lines, report.bad_lines) == (0, 0)
