"""Conversations out of the log: which, in which order, in which form."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from madlog.analytics.exporting import (
    ExportError,
    ExportProgress,
    ExportReport,
    UnknownConversation,
    UnknownExport,
    _read,
    export,
)
from madlog.analytics.importing import import_file
from madlog.schemas import (
    ConversationChanged,
    Event,
    Part,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

ANN = Sender(name="ann", kind="human")
BOT = Sender(name="bot", kind="mad")


class _Said:
    """Makes live events with ids that count up."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, kind: type[Event], sender: Sender, chat: str, **fields: Any) -> Event:
        self.number += 1
        at = 1_700_000_000_000_000 + self.number * 1000
        random = self.number.to_bytes(10, "big")
        return kind(
            event_id=new_event_id(at, random),
            conversation_id=chat,
            sender=sender,
            occurred_at=at,
            **fields,
        )


def _prose(text: str) -> dict[str, Any]:
    return {"parts": (Part(content_class="prose", text=text),)}


async def _log(*events: Event) -> EventLog:
    log = await EventLog.open(MemoryLog())
    for event in events:
        await log.append([event])
    return log


def _live(said: _Said, chat: str) -> list[Event]:
    call = said(ToolCall, BOT, chat, action="look", arguments="{}")
    image = Part(content_class="fixed", sha256="a" * 64, size=3, media_type="image/png")
    return [
        said(ConversationChanged, ANN, chat, change="created", title="Help"),
        said(Turn, ANN, chat, recipients=("bot",), tags=("now",), **_prose("Hi")),
        said(Turn, BOT, chat, recipients=("ann",), **_prose("Looking")),
        call,
        said(ToolResult, BOT, chat, call_id=call.event_id, ok=False, error="gone\x1b[2J"),
        said(Turn, BOT, chat, recipients=("ann",), parts=(image,)),
        said(ConversationChanged, ANN, chat, change="left", participant="ann"),
    ]


async def _exported(log: EventLog, fmt: str, **options: Any) -> tuple[str, ExportReport]:
    out = io.StringIO()
    report = await export(log, fmt, out, **options)
    return out.getvalue(), report


async def test_a_live_conversation_becomes_chat_messages() -> None:
    text, report = await _exported(await _log(*_live(_Said(), "c")), "openai")
    chat = json.loads(text)
    assert report == ExportReport(1, 7, 0)
    assert chat["metadata"] == {"conversation_id": "c", "title": "Help"}
    user, said, answered, image = chat["messages"]
    assert user == {"role": "user", "name": "ann", "content": "Hi"}
    assert (said["content"], said["name"]) == ("Looking", "bot")
    assert said["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert answered["tool_call_id"] == said["tool_calls"][0]["id"]
    assert image["content"][0]["image_url"] == {"url": f"sha256:{'a' * 64}"}


async def test_a_transcript_reads_like_one() -> None:
    text, _ = await _exported(await _log(*_live(_Said(), "c")), "transcript")
    assert text == (
        "== c · Help\n"
        "\n[1] ann → bot  2023-11-14 22:13:20Z  #now\n    Hi\n"
        "\n[2] bot → ann  2023-11-14 22:13:20Z\n    Looking\n"
        "\n    bot calls look\n      {}\n"
        "    FAILED  2023-11-14 22:13:20Z\n      gone\\x1b[2J\n"
        "\n[3] bot → ann  2023-11-14 22:13:20Z\n"
        f"    [image/png sha256:{'a' * 64}, 3 bytes]\n"
        "-- ann left  2023-11-14 22:13:20Z\n"
        "\n"
    )


async def test_conversations_come_in_first_seen_order_however_they_interleave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_read, "_EVENTS_HELD_MAX", 15)
    said = _Said()
    chats = [_live(said, f"c{number}") for number in range(9)]
    mixed = [event for events in zip(*chats, strict=True) for event in events]
    seen: list[ExportProgress] = []
    text, report = await _exported(await _log(*mixed), "transcript", progress=seen.append)
    heads = [line for line in text.split("\n") if line.startswith("== ")]
    assert heads == [f"== c{number} · Help" for number in range(9)]
    assert text.count("Looking") == 9
    assert report == ExportReport(9, 63, 0)
    assert seen[-1] == ExportProgress(9, 9)


async def test_one_conversation_or_the_latest_can_be_asked_for() -> None:
    said = _Said()
    log = await _log(*_live(said, "one"), *_live(said, "two"))
    assert (await _exported(log, "transcript", conversation="one"))[0].startswith("== one")
    assert (await _exported(log, "transcript", conversation="latest"))[0].startswith("== two")


@pytest.mark.parametrize("conversation", ["none", "latest"])
async def test_an_unknown_conversation_is_named(conversation: str) -> None:
    with pytest.raises(UnknownConversation, match=conversation):
        await _exported(await _log(), "transcript", conversation=conversation)


async def test_an_unknown_form_is_named() -> None:
    with pytest.raises(UnknownExport, match="openai, openai-chat, tau-bench, transcript"):
        await _exported(await _log(), "nonsense")


async def test_an_empty_log_exports_nothing() -> None:
    assert await _exported(await _log(), "openai-chat") == ("", ExportReport(0, 0, 0))


async def test_only_runs_come_out_as_runs(tmp_path: Path) -> None:
    log = await _log(*_live(_Said(), "c"))
    traj = [{"role": "user", "content": "Hi"}]
    run = {"task_id": 1, "trial": 2, "reward": 0.0, "info": None, "traj": traj}
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(run))
    await import_file(log, path, "tau-bench")
    text, report = await _exported(log, "tau-bench")
    assert json.loads(text) == run
    assert report.skipped == 1
    with pytest.raises(ExportError, match="export it as openai-chat"):
        await _exported(log, "tau-bench", conversation="c")


async def test_a_run_can_be_exported_as_a_chat(tmp_path: Path) -> None:
    traj = [{"role": "user", "content": None}, {"role": "assistant", "content": "Hi"}]
    run = {"task_id": 1, "trial": 2, "reward": 0.0, "info": None, "traj": traj}
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(run))
    log = await _log()
    await import_file(log, path, "tau-bench")
    text, _ = await _exported(log, "openai-chat")
    assert json.loads(text)["messages"] == traj
