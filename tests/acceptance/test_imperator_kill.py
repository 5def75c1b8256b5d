"""Workers that ask a language model, killed with -9 in mid-work: each decision is answered once.

Run as a program, this file is the worker; what was asked is kept in a file, so that what was paid
twice can be counted.
"""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.unit.counting import read, run
from tests.unit.imperator_scene import AGENTS, turn_of

from madlog.processors import Router
from madlog.processors.imperator import Answer, Asked, Escalations, Limits, ScriptedImperator
from madlog.topics import EventLog
from madlog.topics.embedded import EmbeddedLog

ROOT = Path(__file__).resolve().parents[2]
TURNS = 240
KILLS = 4
AT_ONCE = 4


def scripted(folder: Path, worker: str) -> ScriptedImperator:
    """An Imperator of one worker: it calls itself by name, so that no two answers are equal."""

    def decide(asked: Asked) -> Answer:
        with (folder / "asked.txt").open("a") as file:
            file.write(asked.decision_id + "\n")
        if asked.turn_id.endswith(("0", "5")):
            return Answer.acts("refund", {"by": worker}, model=worker)
        return Answer.says(f"Done, says {worker}.", model=worker)

    return ScriptedImperator(decide)


class Hanging:
    """Answers so many, says so, and never answers again: then calls are under way."""

    def __init__(self, script: ScriptedImperator, answers: int) -> None:
        self._script = script
        self._left = answers

    async def decide(self, asked: Asked) -> Answer:
        answer = await self._script.decide(asked)
        self._left -= 1
        if self._left < 0:
            print("hangs", flush=True)
            await asyncio.Event().wait()
        return answer


async def work(folder: Path, worker: str, answers: int) -> None:
    log = await EventLog.open(await EmbeddedLog.open(folder / "log"))
    limits = Limits(at_once=AT_ONCE)
    imperator = Hanging(scripted(folder, worker), answers)
    job = Escalations(log, AGENTS, {"orders": imperator}, limits=limits)
    await job.run()
    await log.close()


def start(folder: Path, worker: str, answers: int = 10**9) -> "subprocess.Popen[str]":
    module = "tests.acceptance.test_imperator_kill"
    command = [sys.executable, "-m", module, str(folder), worker, str(answers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def kill_in_mid_work(folder: Path, number: int, chance: random.Random) -> None:
    """Start two workers, in the last round one, and kill them while calls are under way."""
    names = "ab" if number < KILLS - 1 else "a"
    workers = [start(folder, f"worker-{number}-{one}", chance.randint(4, 12)) for one in names]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "hangs\n"
        worker.kill()
    for worker in workers:
        worker.communicate()
        assert worker.returncode == -9


async def answered(log: EventLog) -> int:
    return len(await read(log, "mad.llm"))


async def test_a_killed_worker_leaves_each_decision_answered_exactly_once(tmp_path: Path) -> None:
    log = await EventLog.open(await EmbeddedLog.open(tmp_path / "log"))
    texts = ("What is it?", "HRU?", "EXECUTE: get_order 17")
    await log.append([turn_of(n, texts[n % 3], f"c{n % 40}") for n in range(1, TURNS + 1)])
    await run(log, Router(AGENTS, audit_rate=0.5))
    decisions = [event.fields for event in await read(log, "mad.decisions")]
    up = {one["event_id"]: one for one in decisions if one["tier"] == "imperator"}
    audited = {one["event_id"]: one for one in decisions if one["audited"]}
    assert len(up) > TURNS / 4
    assert len(audited) > TURNS / 8
    chance, before = random.Random(11), 0
    for number in range(KILLS):
        await asyncio.to_thread(kill_in_mid_work, tmp_path, number, chance)
        assert before < await answered(log) < len(up) + len(audited)
        before = await answered(log)
    last = start(tmp_path, "worker-last")
    await asyncio.to_thread(last.communicate)
    assert last.returncode == 0
    calls = [event.fields for event in await read(log, "mad.llm")]
    by_decision = {one["causation_id"]: one for one in calls}
    assert len(calls) == len(by_decision)
    assert by_decision.keys() == up.keys() | audited.keys()
    told = [
        event.fields
        for event in await read(log, "mad.conversations")
        if event.fields["sender"]["name"] == "orders"
    ]
    by_id = {one["event_id"]: one for one in told}
    assert len(told) == len(by_id) == len(up)
    assert Counter(one["causation_id"] for one in told) == {
        one["turn_id"]: 1 for one in up.values()
    }
    for decision_id in up:
        call = by_decision[decision_id]
        # The call on the log is the one whose answer stands beside it.
        did = by_id[call["answer_id"]]
        text = did["arguments"] if "arguments" in did else did["parts"][0]["text"]
        assert call["model"] in text
    judged = [event.fields for event in await read(log, "mad.outcomes")]
    assert Counter(one["about_id"] for one in judged) == dict.fromkeys(audited, 1)
    asked = Counter((tmp_path / "asked.txt").read_text().split())
    assert asked.keys() == by_decision.keys()
    # A worker that was killed had so many calls under way at most; two at once may ask the same.
    alone = [one["model"] for one in calls if one["model"].startswith(f"worker-{KILLS - 1}")]
    assert alone
    assert sum(asked.values()) - len(asked) <= len(asked) - len(alone) + AT_ONCE
    await log.close()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
