"""Workers on Kafka that are killed or frozen in the middle of a transaction: counts stay exact.

Each turn is decided and delivered exactly once as our API reads it, and as a stock client does
that reads what is committed.
"""

import asyncio
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka import errors as kafka_errors
from tests.faults.kafka_worker import PATIENCE_S, EngineName, Plan, Worker, started, until
from tests.faults.proxy import (
    END_TXN,
    OFFSET_COMMIT,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Frame,
    Proxy,
    Side,
    proxied,
)
from tests.unit.counting import CONVERSATIONS, read, turn

from madlog.processors import dead_letters
from madlog.schemas import Schemas
from madlog.topics import EventLog
from madlog.topics.kafka import KafkaLog

SEED = 5
DECISIONS, INBOX = "mad.decisions", "mad.inbox.orders"
TEXTS = ("HRU?", "EXECUTE: get_order 4711", "Where is my parcel?", "#ack")
KEYS = 12
BATCH = 10
TURNS_EACH = 200
ADDED_AT_ONCE = 500
# Where a worker stands still before it is killed, because a request is lost or its answer; None:
# at any instant.
Point = tuple[int, Side] | None
POINTS_OPEN: tuple[Point, ...] = (
    (END_TXN, "request"),
    (TXN_OFFSET_COMMIT, "response"),
    (PRODUCE, "response"),
)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[EventLog]:
    log = await KafkaLog.open(url)
    try:
        yield await EventLog.open(log)
    finally:
        await log.close()


async def add_turns(log: EventLog, first: int, count: int) -> None:
    for at in range(first, first + count, ADDED_AT_ONCE):
        numbers = range(at, min(at + ADDED_AT_ONCE, first + count))
        await log.append(
            [turn(number, f"c{number % KEYS}", TEXTS[number % len(TEXTS)]) for number in numbers]
        )


async def open_transactions(log: EventLog) -> int:
    assert isinstance(log.log, KafkaLog)
    return len(await log.log.open_transactions())


async def is_open(log: EventLog) -> bool:
    return await open_transactions(log) > 0


async def left_to_do(log: EventLog) -> int:
    end = await log.log.end([CONVERSATIONS])
    committed = await log.log.committed("router")
    return sum(end[tp] - committed.get(tp, 0) for tp in end)


async def raw_values(bootstrap: str, topic: str) -> list[bytes]:
    """Return the values of a topic's committed records as a stock client sees them."""
    values: list[bytes] = []
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    ) as consumer:
        tps = [KafkaPartition(topic, at) for at in consumer.partitions_for_topic(topic) or ()]
        end = await consumer.end_offsets(tps)
        async with asyncio.timeout(PATIENCE_S):
            while any([await consumer.position(tp) < end[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    values += [record.value for record in records]
    return values


async def hold_counts(
    log: EventLog, bootstrap: str, prefix: str, count: int, *, repeats: bool = False
) -> str:
    """Hold counts to be exact through our API and a stock client; `repeats` allows it the latter.

    Returns the counts in words.
    """
    expected = {turn(number).event_id: 1 for number in range(1, count + 1)}
    schemas = Schemas()
    words = [f"{count} turns"]
    for topic in (DECISIONS, INBOX):
        found = await read(log, topic)
        assert Counter(event.fields["turn_id"] for event in found) == expected
        raw = [
            schemas.decode_fields(value)[1]["turn_id"]
            for value in await raw_values(bootstrap, f"{prefix}{topic}")
        ]
        assert set(raw) == set(expected)
        assert repeats or len(raw) == count
        words.append(f"{topic} {len(found)} by our API, {len(raw)} committed in the topic")
    # The state went from worker to worker whole: each saw how many turns there were before.
    seen = Counter(
        (event.fields["conversation_id"], event.fields["features"]["turns_before"])
        for event in await read(log, DECISIONS)
    )
    of_key = Counter(f"c{number % KEYS}" for number in range(1, count + 1))
    assert seen == {(key, before): 1 for key in of_key for before in range(of_key[key])}
    assert await dead_letters(log) == []
    assert await open_transactions(log) == 0
    return ", ".join(words)


async def work_is_shared(log: EventLog) -> bool:
    """Tell whether two workers share the partitions."""
    owners = [group.members for group in await log.log.groups() if group.group == "router"]
    return bool(owners) and len(owners[0]) == 4 and len(set(owners[0].values())) == 2


@dataclass
class Kills:
    """Workers killed on a log, and what came of it."""

    log: EventLog
    proxy: Proxy
    straight: str
    through: str
    repeats: bool = False
    engine: EngineName = "transactional"
    turns: int = 0
    done: int = 0
    at_work: int = 0
    surely_open: int = 0
    left_open: int = 0

    async def two(self, point: Point, more_turns: int) -> None:
        """Let two workers share the work, give them more, and kill both while they are at it."""
        chance = random.Random(f"{SEED} {self.turns}")
        url = self.through if point else self.straight
        plan = Plan(url, "router", BATCH, engine=self.engine)
        async with started(plan, plan) as workers, asyncio.TaskGroup() as tasks:
            await until(lambda: work_is_shared(self.log), "two workers share the work")
            tasks.create_task(add_turns(self.log, self.turns + 1, more_turns))
            for worker in workers:
                await worker.says("worked", chance.randint(1, 4))
            if point is not None:
                self.proxy.drop(point[0], first=1, side=point[1])
                await self.proxy.held()
            if point in POINTS_OPEN and not self.repeats:
                await until(lambda: is_open(self.log), "a transaction is open")
                self.surely_open += 1
            for worker in chance.sample(workers, 2):
                await asyncio.sleep(chance.random() * 0.02)
                worker.kill()
            ends = [await worker.end() for worker in workers]
        failed = [end.text for end in ends if end.what == "failed"]
        assert not failed, failed[0]
        assert [worker.exit_code for worker in workers] == [-9, -9]
        self.turns += more_turns
        self.done += sum(end.events for end in ends)
        # What they did last they may not have told; committed positions wait for a successor.
        self.at_work += 2 * (self.turns - self.done > 2 * BATCH)
        self.left_open += await open_transactions(self.log)
        await self.proxy.release()


async def killed_at_work(
    bootstrap: str,
    prefix: str,
    points: Sequence[Point],
    kills: int,
    turns: int,
    engine: EngineName = "transactional",
    **parameters: str,
) -> Kills:
    """Kill workers, two at a time, let another do what is left, and hold counts to be exact."""
    query = "&".join(f"{name}={value}" for name, value in {"prefix": prefix, **parameters}.items())
    straight = f"kafka://{bootstrap}?{query}"
    rounds = kills // 2
    async with opened(straight) as log, proxied(bootstrap) as (proxy, address):
        await log.ensure_topics([CONVERSATIONS])
        through = f"kafka://{address}?{query}"
        made = Kills(log, proxy, straight, through, bool(parameters), engine)
        for number in range(rounds):
            await made.two(points[number % len(points)], turns // rounds)
        async with started(Plan(straight, "router", until_idle=True, engine=engine)) as (last,):
            assert (await last.end()).what == "ended"
        assert await left_to_do(log) == 0
        counts = await hold_counts(log, bootstrap, prefix, made.turns, repeats=made.repeats)
    print(
        f"{counts}; {made.at_work} kills at work, {made.left_open} transactions left open by them"
    )
    assert made.at_work == kills
    return made


async def test_workers_killed_in_mid_transaction_decide_each_turn_exactly_once(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    points = (*POINTS_OPEN, (END_TXN, "response"), None)
    made = await killed_at_work(kafka_bootstrap, kafka_prefix, points, kills=10, turns=2000)
    assert made.surely_open >= len(POINTS_OPEN)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_workers_killed_a_hundred_times_decide_each_turn_exactly_once(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    points = (*POINTS_OPEN, None, (END_TXN, "response"), None)
    made = await killed_at_work(kafka_bootstrap, kafka_prefix, points, kills=100, turns=20_000)
    assert made.surely_open >= 50 * len(POINTS_OPEN) // len(points)


# Faust commits once in a while, when all may be done: no point at which its workers are at work.
@pytest.mark.parametrize(
    ("engine", "first"),
    [("transactional", (OFFSET_COMMIT, "request")), ("faust", (PRODUCE, "request"))],
    ids=["transactional", "faust"],
)
async def test_at_least_once_killed_workers_repeat_nothing_to_readers(
    kafka_bootstrap: str, kafka_prefix: str, engine: EngineName, first: Point
) -> None:
    points: list[Point] = [first, (PRODUCE, "response"), None]
    await killed_at_work(
        kafka_bootstrap, kafka_prefix, points, kills=6, turns=900, engine=engine, transactions="off"
    )


def refused(frame: Frame) -> bool:
    """Tell whether a coordinator refused the end of a transaction because of its epoch."""
    assert frame.answer is not None
    _, code = struct.unpack(">ih", frame.answer)
    return kafka_errors.for_code(code) in (
        kafka_errors.InvalidProducerEpoch,
        kafka_errors.ProducerFenced,
    )


@pytest.mark.parametrize(
    "point",
    [(END_TXN, "request"), (TXN_OFFSET_COMMIT, "response"), None],
    ids=["commit on its way", "before its commit", "any instant"],
)
async def test_a_worker_frozen_for_longer_than_its_session_is_fenced_and_goes_on(
    kafka_bootstrap: str, kafka_prefix: str, point: Point
) -> None:
    query = f"?prefix={kafka_prefix}"
    straight = f"kafka://{kafka_bootstrap}{query}"
    async with (
        opened(straight) as log,
        proxied(kafka_bootstrap) as (proxy, address),
        started(Plan(f"kafka://{address}{query}", "router", BATCH)) as workers,
    ):
        zombie = workers[0]
        await log.ensure_topics([CONVERSATIONS])
        if point is not None:
            proxy.hold(point[0], first=1, after=3, side=point[1])
        await add_turns(log, 1, TURNS_EACH)
        if point is None:
            await zombie.says("worked", 3)
        else:
            await proxy.held()
            await until(lambda: is_open(log), "a transaction is open")
        zombie.freeze()
        done = zombie.events
        async with started(Plan(straight, "router", BATCH)) as heirs:
            await add_turns(log, TURNS_EACH + 1, TURNS_EACH)
            await until(lambda: all_is_done(log), "another worker has done all")
            assert zombie.events == done < TURNS_EACH
            assert heirs[0].events >= 2 * TURNS_EACH - done - BATCH
            if point is not None:
                await thaw_fenced(proxy, zombie, point)
            zombie.go_on()
            await until(lambda: work_is_shared(log), "the worker has come back into its group")
            await add_turns(log, 2 * TURNS_EACH + 1, TURNS_EACH)
            await until(lambda: all_is_done(log), "both have done all")
            for worker in (zombie, *heirs):
                assert worker.told[-1].what == "worked", worker.told[-1]
            counts = await hold_counts(log, kafka_bootstrap, kafka_prefix, 3 * TURNS_EACH)
            print(f"{counts}; {done} by the worker before it froze, {zombie.events - done} after")
            assert zombie.events > done


async def thaw_fenced(proxy: Proxy, zombie: Worker, point: tuple[int, Side]) -> None:
    """Let a frozen worker's commit reach the coordinator, which must refuse it."""
    if point == (END_TXN, "request"):
        (frame,) = await proxy.release()
        zombie.go_on()
    else:
        await proxy.release()
        proxy.hold(END_TXN, first=1, side="response")
        zombie.go_on()
        (frame,) = await proxy.held()
        await proxy.release()
    assert refused(frame), frame.answer


async def all_is_done(log: EventLog) -> bool:
    return await left_to_do(log) == 0
