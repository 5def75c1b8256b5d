"""An import that is repeated long after: beyond what readers and writers of keys look back at."""

import json
from pathlib import Path

import pytest
from tests.unit.counting import turns

from madlog.analytics.importing import import_file
from madlog.topics import EventLog
from madlog.topics.kafka import KafkaLog


async def test_an_import_is_recognised_however_much_was_appended_since(
    tmp_path: Path, kafka_url: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("madlog.topics._kafka_keys.WINDOW", 50)
    monkeypatch.setattr("madlog.topics._kafka_recall._SPAN", 30)
    runs = tmp_path / "runs.jsonl"
    said = [
        {"role": role, "content": f"{role} {n}"}
        for n in range(20)
        for role in ("user", "assistant")
    ]
    runs.write_text(json.dumps({"messages": said}) + "\n")
    reports = []
    for _ in range(2):
        log = await EventLog.open(await KafkaLog.open(f"{kafka_url}?prefix={kafka_prefix}"))
        try:
            reports.append(await import_file(log, runs, "openai-chat"))
            await log.append(turns(2_000, conversations=64))
        finally:
            await log.close()
    assert (reports[0].repeated, reports[0].appended) == (0, reports[0].events)
    assert (reports[1].repeated, reports[1].appended) == (reports[0].events, 0)
