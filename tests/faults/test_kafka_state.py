"""The state of a killed worker, taken over by another from its changelog on Kafka."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from tests.faults.kafka_worker import Plan, Worker, started, until
from tests.faults.proxy import PRODUCE, proxied
from tests.unit.counting import CONVERSATIONS, counted, turn, turns

from madlog.processors.state import PartitionState
from madlog.topics import EventLog, NewRecord, TopicPartition, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.kafka import KafkaLog

STATE = "mad.state.counter"
PARTITIONS = 4
WORKED_ON = 2000
BATCH = 50
SESSION_S = 6.0
TAKEOVER_S_MAX = 10.0
_AT_ONCE = 20_000


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[EventLog]:
    log = await KafkaLog.open(url)
    try:
        yield await EventLog.open(log)
    finally:
        await log.close()


def key_of(number: int) -> str:
    return f"c{number}"


async def fill_state(log: EventLog, keys: int) -> None:
    """Write the state of a counter that has counted one turn of each key."""
    await log.ensure_topics([STATE, CONVERSATIONS])
    for at in range(0, keys, _AT_ONCE):
        names = [key_of(number).encode() for number in range(at, min(at + _AT_ONCE, keys))]
        await log.log.append(
            [
                NewRecord(STATE, name, b"1", partition=partition_for(name, PARTITIONS))
                for name in names
            ]
        )


async def folded_state(log: EventLog) -> dict[str, int]:
    """Return what a worker that starts now would find in the changelog, positions apart."""
    found: dict[str, int] = {}
    for number in range(PARTITIONS):
        tp = TopicPartition(STATE, number)
        held = PartitionState(tp)
        end = await log.log.end([STATE])
        async for records in log.log.read(Vector(), Vector({tp: end[tp]})):
            held.fold(records)
        found |= held.values()
    return found


async def add_turns(log: EventLog, first: int, keys: Iterable[int]) -> None:
    """Append a turn of each key; `first` is the first turn's number."""
    events = [turn(first + at, key_of(number)) for at, number in enumerate(keys)]
    for at in range(0, len(events), 500):
        await log.append(events[at : at + 500])


async def is_done(log: EventLog) -> bool:
    end = await log.log.end([CONVERSATIONS])
    committed = await log.log.committed("counter")
    return all(committed.get(tp, 0) == at for tp, at in end.items())


async def taken_over(url: str, keys: int, *, session_s: float) -> tuple[float, float]:
    """Kill a worker that holds the state of so many keys, and let another go on with it.

    Holds all that is counted to be exact. Returns how long after the kill the other had worked on
    every partition, and how long of that it rebuilt the state.
    """
    worked_on = range(0, keys, keys // WORKED_ON)
    plan = Plan(url, "counter", BATCH, session_timeout_s=session_s)
    async with opened(url) as log, started(plan) as (killed,):
        await fill_state(log, keys)
        await add_turns(log, 1, worked_on)
        await killed.says("worked", WORKED_ON // BATCH // 2)
        killed.kill()
        at = time.monotonic()
        done = (await killed.end()).events
        async with started(plan) as (heir,):
            await until(lambda: is_done(log), "another worker has done the rest")
            took_s = time.monotonic() - at
            rebuilt_s = rebuilding_s(heir)
            await add_turns(log, WORKED_ON + 1, worked_on)
            await until(lambda: is_done(log), "it has done more")
        expected = [f"{key_of(number)} {count}" for number in worked_on for count in (2, 3)]
        assert await counted(log) == sorted(expected)
        state = dict.fromkeys(map(key_of, range(keys)), 1)
        state |= dict.fromkeys(map(key_of, worked_on), 3)
        assert await folded_state(log) == state
        print(
            f"{keys} keys, {done} turns before the kill, {WORKED_ON - done} after it: "
            f"{len(expected)} counts, {len(state)} keys exact; taken over in {took_s:.1f} s with a "
            f"session of {session_s:g} s, {rebuilt_s:.1f} s of it rebuilding"
        )
        return took_s, rebuilt_s


def rebuilding_s(worker: Worker) -> float:
    """Return how long a worker was rebuilding its state before it first worked on partitions."""
    spent = 0.0
    began = None
    for told in worker.told:
        if told.what == "recovering":
            began = told.at if began is None else began
        elif began is not None:
            spent += told.at - began
            began = None
    return spent


async def test_a_killed_workers_state_is_taken_over_whole(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    url = f"kafka://{kafka_bootstrap}?prefix={kafka_prefix}"
    await taken_over(url, 20_000, session_s=1.0)


async def test_at_least_once_a_late_state_of_a_frozen_worker_is_passed_over(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    query = f"?prefix={kafka_prefix}&transactions=off"
    straight = f"kafka://{kafka_bootstrap}{query}"
    every, share = turns(600), 200
    async with (
        opened(straight) as log,
        proxied(kafka_bootstrap) as (proxy, address),
        started(Plan(f"kafka://{address}{query}", "counter", 10)) as (frozen,),
    ):
        await log.append(every[:share])
        await frozen.says("worked", 3)
        # Outputs go through, the state that they belong to is on its way.
        proxy.hold(PRODUCE, first=1, after=1)
        await proxy.held()
        frozen.freeze()
        async with started(Plan(straight, "counter", 10)) as (heir,):
            await log.append(every[share : 2 * share])
            await until(lambda: is_done(log), "another worker has done all")
            before = await log.log.end([STATE])
            await proxy.release()
            late = sum((await log.log.end([STATE])).values()) - sum(before.values())
            assert late > 1, "the late state is in the changelog"
            await log.append(every[2 * share :])
            await until(lambda: is_done(log), "it has done more")
            heir.kill()
            await heir.end()
        last = turns(share + len(every))[len(every) :]
        async with started(Plan(straight, "counter", 10)):
            await log.append(last)
            await until(lambda: is_done(log), "a third has done the rest")
        frozen.kill()
        numbers: Counter[str] = Counter()
        expected = []
        for one in (*every, *last):
            numbers[one.conversation_id] += 1
            expected.append(f"{one.conversation_id} {numbers[one.conversation_id]}")
        assert await counted(log) == sorted(expected)
        print(f"{len(expected)} counts exact, {late} late changes of state passed over")


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_million_keys_are_taken_over_in_time(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    url = f"kafka://{kafka_bootstrap}?prefix={kafka_prefix}"
    took_s, _ = await taken_over(url, 1_000_000, session_s=SESSION_S)
    assert took_s <= TAKEOVER_S_MAX
