"""Times of process steps: said when they are up, once, and not where the step was answered."""

from typing import Any

from madlog.processors.conducting.timers import Timers
from madlog.schemas import ProcessStep, Sender, derived_event_id, new_event_id
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog
from madlog.topics.testing.clocks import ManualClock

INSTANCE = new_event_id(1, b"an instance")
STEP = new_event_id(2, b"its first step")


def moved(state: str, **fields: Any) -> ProcessStep:
    envelope: dict[str, Any] = {
        "event_id": derived_event_id(STEP, state, 0),
        "conversation_id": "c",
        "sender": Sender(name="conductor", kind="system"),
        "occurred_at": 0,
    }
    instance = {"instance_id": INSTANCE, "mad": "orders", "process": "p", "state": state}
    return ProcessStep(**{**envelope, **instance, **fields})


async def opened() -> tuple[EventLog, ManualClock]:
    clock = ManualClock()
    log = await EventLog.open(MemoryLog(clock=clock))
    await log.append([moved("step", event_id=STEP, deadline=clock.now_us() + 5)])
    return log, clock


async def fired(log: EventLog) -> list[str]:
    found = []
    async for events in log.read_topics(["mad.conversations"]):
        found += [event.fields["about_id"] for event in events if event.kind == "TimerFired"]
    return found


async def test_a_step_whose_time_is_up_is_said_once_whoever_looks() -> None:
    log, clock = await opened()
    timers = Timers(log)
    assert await timers.run() == 0
    clock.advance(5e-6)
    assert await timers.run() == 1
    assert await timers.run() == 0
    await Timers(log).run()
    assert await fired(log) == [STEP]


async def test_a_step_that_was_answered_has_no_time_any_more() -> None:
    log, clock = await opened()
    await log.append([moved("done")])
    clock.advance(10e-6)
    assert await Timers(log).run() == 0


async def test_a_blocked_step_still_waits_for_its_time() -> None:
    log, clock = await opened()
    await log.append([moved("blocked")])
    clock.advance(10e-6)
    assert await Timers(log).run() == 1


async def test_a_log_without_processes_has_no_times() -> None:
    assert await Timers(await EventLog.open(MemoryLog())).run() == 0
