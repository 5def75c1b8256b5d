"""An import whose process is killed is finished by importing again, with nothing twice."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from madlog.analytics.importing import import_file
from madlog.schemas import canonical
from madlog.topics import EventLog, SystemClock
from madlog.topics.embedded import EmbeddedLog

TOPICS = ("mad.conversations", "mad.outcomes")
RUNS = 400
EVENTS_A_RUN = 6

# Says how many events are durable after each append. It waits for its end before the last ones,
# so that it is killed in the middle however slow the machine is.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from madlog.analytics.importing import import_file
from madlog.topics import EventLog, SystemClock
from madlog.topics.embedded import EmbeddedLog

async def main():
    inner = await EmbeddedLog.open(Path(sys.argv[1]), clock=SystemClock())
    log = await EventLog.open(inner)
    append, done, appends_left = log.append, 0, int(sys.argv[3]) + 1

    async def told(events):
        nonlocal done, appends_left
        appends_left -= 1
        if appends_left < 0:
            await asyncio.Event().wait()
        receipts = await append(events)
        done += len(receipts)
        print(done, flush=True)
        return receipts

    log.append = told
    await import_file(log, Path(sys.argv[2]), "tau-bench")
    await log.close()
    print("finished", flush=True)

asyncio.run(main())
"""


def _file(path: Path) -> Path:
    lines = []
    for task in range(RUNS):
        traj = [
            {"role": "user", "content": f"Task {task}"},
            {"role": "assistant", "content": "Done " * 50},
        ]
        run = {"task_id": task, "trial": 0, "reward": 0.0, "info": {}, "traj": traj}
        lines.append(json.dumps(run) + "\n")
    path.write_text("".join(lines))
    return path


async def _open(folder: Path) -> EventLog:
    return await EventLog.open(await EmbeddedLog.open(folder, clock=SystemClock()))


async def _content(log: EventLog) -> tuple[int, int, str]:
    """Return (events, distinct events, a hash of what they say, in any order)."""
    found = [
        (event.event_id, canonical(event.fields))
        async for events in log.read_topics(TOPICS)
        for event in events
    ]
    sha = hashlib.sha256(b"\n".join(content for _, content in sorted(found)))
    return len(found), len({event_id for event_id, _ in found}), sha.hexdigest()


def _import_and_kill(folder: Path, path: Path, batches: int) -> int:
    """Kill an importing process after some batches; return the events that it was promised."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(path), str(batches)]
    acknowledged = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(batches):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    assert process.returncode == -signal.SIGKILL
    return int(rest[-1]) if rest else acknowledged


@pytest.mark.parametrize("batches_before", [1, 3])
async def test_a_killed_import_is_finished_by_the_next(tmp_path: Path, batches_before: int) -> None:
    path = _file(tmp_path / "runs.jsonl")
    whole = await _open(tmp_path / "whole")
    await import_file(whole, path, "tau-bench")
    wanted = await _content(whole)
    await whole.close()
    assert wanted[:2] == (RUNS * EVENTS_A_RUN, RUNS * EVENTS_A_RUN)

    acknowledged = _import_and_kill(tmp_path / "log", path, batches_before)
    log = await _open(tmp_path / "log")
    held = (await _content(log))[0]
    assert acknowledged <= held < RUNS * EVENTS_A_RUN
    report = await import_file(log, path, "tau-bench")
    assert (report.repeated, report.appended) == (held, RUNS * EVENTS_A_RUN - held)
    assert await _content(log) == wanted
    assert (await import_file(log, path, "tau-bench")).appended == 0
    await log.close()
