"""Workers killed with -9 in the middle of their work: each turn is decided exactly once.

Run as a program, this file is the worker: it says after each batch how many events it has done.
"""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from madlog.processors import Agent, Engine, Options, Registry, Report, Router, dead_letters
from madlog.schemas import ConversationChanged, Event, Sender, Turn
from madlog.schemas.text import parse
from madlog.topics import EventLog, LogEvent
from madlog.topics.embedded import EmbeddedLog

AGENTS = ("orders", "payments")
REGISTRY = Registry([Agent(name, actions=frozenset({"get_order"})) for name in AGENTS])
MARIA = Sender(name="maria", kind="human")
CONVERSATIONS = 12
TURNS_EACH = 250
KILLS = 6
TEXTS = ("HRU?", "EXECUTE: get_order 4711", "Where is my parcel?", "#ack")


async def open_log(folder: Path) -> EventLog:
    # A short lease, so that a killed worker's partitions are free again soon.
    return await EventLog.open(await EmbeddedLog.open(folder, session_timeout_s=0.6))


async def work(folder: Path) -> None:
    log = await open_log(folder)
    engine = Engine(log, [Router(REGISTRY)], options=Options(batch_records_max=10))

    def progress(report: Report) -> None:
        print(report.events, flush=True)

    await engine.run(until_idle=True, progress=progress)
    await log.close()


def traffic() -> list[Event]:
    events: list[Event] = []

    def envelope(conversation: str) -> dict[str, object]:
        number = len(events) + 1
        return {
            "event_id": f"01890000-0000-7000-8000-{number:012x}",
            "conversation_id": conversation,
            "sender": MARIA,
            "occurred_at": number,
        }

    for count in range(TURNS_EACH):
        for conversation in (f"case-{number}" for number in range(CONVERSATIONS)):
            if count == 0:
                changed = {"change": "created", "title": "a case"}
                events.append(
                    ConversationChanged.model_validate({**envelope(conversation), **changed})
                )
            said = {"recipients": AGENTS, "parts": parse(TEXTS[count % len(TEXTS)]).parts}
            events.append(Turn.model_validate({**envelope(conversation), **said}))
    return events


def start(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_in_mid_work(folder: Path, chance: random.Random) -> bool:
    """Start two workers, kill both at different instants; tells whether they were at work."""
    workers = [start(folder), start(folder)]
    at_work = True
    for worker in workers:
        assert worker.stdout is not None
        for _ in range(chance.randint(3, 9)):
            at_work = bool(worker.stdout.readline()) and at_work
        worker.kill()
    for worker in workers:
        worker.communicate()
        at_work = at_work and worker.returncode == -9
    return at_work


async def read(log: EventLog, topic: str) -> list[LogEvent]:
    return [event async for events in log.read_topics([topic]) for event in events]


async def lag(log: EventLog) -> int:
    end = await log.log.end(["mad.conversations"])
    committed = await log.log.committed("router")
    return sum(end[tp] - committed.get(tp, 0) for tp in end)


async def test_a_killed_worker_leaves_each_turn_decided_exactly_once(tmp_path: Path) -> None:
    log = await open_log(tmp_path)
    events = traffic()
    for at in range(0, len(events), 500):
        await log.append(events[at : at + 500])
    chance = random.Random(4)
    done = 0
    while done < KILLS:
        before = await lag(log)
        assert before > 0, "the work ended before enough workers were killed in it"
        killed = await asyncio.to_thread(kill_in_mid_work, tmp_path, chance)
        left = await lag(log)
        assert left < before
        done += 2 * (killed and left > 0)
    last = start(tmp_path)
    await asyncio.to_thread(last.communicate)
    assert last.returncode == 0
    assert await lag(log) == 0
    turns = {event.event_id for event in events if isinstance(event, Turn)}
    expected = {(turn_id, name): 1 for turn_id in turns for name in AGENTS}
    decisions = await read(log, "mad.decisions")
    assert Counter((d.fields["turn_id"], d.fields["recipient"]) for d in decisions) == expected
    deliveries = [event for name in AGENTS for event in await read(log, f"mad.inbox.{name}")]
    assert Counter((d.fields["turn_id"], d.fields["recipient"]) for d in deliveries) == expected
    # The state went from worker to worker whole: each saw how many turns there were before.
    seen = Counter(
        (d.fields["conversation_id"], d.fields["recipient"], d.fields["features"]["turns_before"])
        for d in decisions
    )
    assert set(seen.values()) == {1}
    assert {count for _, _, count in seen} == set(range(TURNS_EACH))
    assert await dead_letters(log) == []
    await log.close()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
