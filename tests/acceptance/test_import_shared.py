"""The recorded τ-bench runs: in, counted, and out again field for field."""

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from madlog.analytics.exporting import export
from madlog.analytics.importing import import_file
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RUNS = DATA / "tau_bench_airline_gpt4o.jsonl.gz"


@pytest.fixture
def runs() -> Path:
    if not RUNS.exists():
        pytest.skip(f"{RUNS} is absent: lay the shared data beside the clone to run this test")
    return RUNS


def _by_place(run: dict[str, Any]) -> tuple[int, int]:
    return run["task_id"], run["trial"]


async def test_every_recorded_run_comes_back_field_for_field(runs: Path) -> None:
    log = await EventLog.open(MemoryLog())
    report = await import_file(log, runs, "tau-bench")
    assert (report.conversations, report.bad_lines, report.repeated) == (200, 0, 0)
    out = io.StringIO()
    await export(log, "tau-bench", out)
    back = sorted((json.loads(line) for line in out.getvalue().split("\n")[:-1]), key=_by_place)
    with gzip.open(runs) as file:
        recorded = sorted((json.loads(line) for line in file), key=_by_place)
    assert len(back) == 200
    for found, wanted in zip(back, recorded, strict=True):
        assert json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


async def test_the_recorded_runs_are_counted_as_their_readme_says(runs: Path) -> None:
    log = await EventLog.open(MemoryLog())
    await import_file(log, runs, "tau-bench")
    counts: Counter[Any] = Counter()
    async for events in log.read_topics(("mad.conversations", "mad.outcomes")):
        for event in events:
            fields = event.fields
            counts[event.kind] += 1
            counts["kept beside"] += "message_rest" in fields["extra"]
            counts["failed"] += event.kind == "ToolResult" and not fields["ok"]
            counts["unmatched"] += event.kind == "ToolResult" and fields["call_id"] is None
            counts[fields.get("result") if event.kind == "Outcome" else ""] += 1
    assert (counts["ToolCall"], counts["ToolResult"], counts["failed"]) == (1164, 1164, 73)
    assert (counts["success"], counts["failure"]) == (84, 116)
    assert (counts["unmatched"], counts["kept beside"]) == (0, 0)
    assert counts["Turn"] == 200 + 1490 + 1290 + 90
    assert (await import_file(log, runs, "tau-bench")).appended == 0
