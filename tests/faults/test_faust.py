"""The Faust engine on a real broker: what the other engine makes, and nothing lost by Faust.

That workers which are killed repeat nothing to readers is in test_kafka_workers.py, for both.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from tests.faults.kafka_worker import Plan, started, until
from tests.faults.test_kafka_workers import add_turns, hold_counts
from tests.unit.counting import CONVERSATIONS, ORDERS, Counter, event_id, read, turn, turns

from madlog.analytics.digest import digest
from madlog.processors import Engine, Router, dead_letters
from madlog.processors._faust_tables import FaustTables
from madlog.processors.faust import FaustCluster, FaustEngine
from madlog.processors.live import Limits, LiveState, live
from madlog.schemas import LlmCall, Sender
from madlog.topics import EventLog, NewRecord
from madlog.topics.errors import GroupBusy
from madlog.topics.kafka import KafkaLog

TURNS = 300
TAKEOVER_S = 20


@asynccontextmanager
async def opened(bootstrap: str, prefix: str) -> AsyncIterator[EventLog]:
    log = await KafkaLog.open(f"kafka://{bootstrap}?prefix={prefix}")
    try:
        yield await EventLog.open(log)
    finally:
        await log.close()


def cluster(log: EventLog, folder: Path) -> FaustCluster:
    assert isinstance(log.log, KafkaLog)
    address = log.log.address
    return FaustCluster(address.bootstrap, address.prefix, folder, session_timeout_s=2.0)


def faust(log: EventLog, folder: Path, *processors: Counter) -> Engine:
    return FaustEngine(log, processors or [Router(ORDERS)], cluster(log, folder))


class Poisoned:
    """A fault for one event."""

    def __call__(self, name: str, attempt: int) -> None:
        if name == event_id(7):
            raise ValueError("cannot be counted")


async def fill_badly(bootstrap: str, prefix: str, log: EventLog) -> None:
    """Append turns of which one is poison, one is no event, and one came twice."""
    await log.ensure_topics([CONVERSATIONS])
    await log.append(turns(40))
    await log.log.append([NewRecord(CONVERSATIONS, b"c1", b"no event"), *twice(log)])
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=f"{prefix}-stranger"
    ) as producer:
        await producer.begin_transaction()
        record = log.to_record(turn(900, "c2"))
        await producer.send(f"{prefix}{CONVERSATIONS}", record.value, record.key)
        await producer.flush()
        await producer.abort_transaction()
    await log.append([turn(number, f"c{number % 8}") for number in range(41, 61)])


def twice(log: EventLog) -> list[NewRecord]:
    """Return a turn's record twice, as an engine that was killed leaves it."""
    record = log.to_record(turn(500, "c3"))
    headers = (*record.headers, ("source", b"another/mad.ingress/0@5/0"))
    return [record._replace(headers=headers)] * 2


async def test_bad_input_is_dead_lettered_as_by_the_other_engine_and_stops_nothing(
    kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> None:
    digests, letters = [], []
    for name in ("transactional", "faust"):
        prefix = f"{kafka_prefix}-{name}-"
        async with opened(kafka_bootstrap, prefix) as log:
            await fill_badly(kafka_bootstrap, prefix, log)
            counter = Counter(Poisoned())
            engine = Engine(log, [counter]) if name != "faust" else faust(log, tmp_path, counter)
            report = await engine.run(until_idle=True)
            assert (report.idle, report.dead_letters) == (True, 2)
            letters.append(
                {(one.event_id, one.fields["error_type"]) for one in await dead_letters(log)}
            )
            digests.append(await digest(log, ["mad.outcomes"]))
            about = [event.fields["causation_id"] for event in await read(log, "mad.outcomes")]
            assert len(about) == 60
    assert letters[0] == letters[1]
    assert {kind for _, kind in letters[1]} == {"ValueError", "Undecodable"}
    assert digests[0] == digests[1]


async def test_one_engine_goes_on_where_the_other_stopped_and_a_position_ahead_loses_nothing(
    kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> None:
    async with opened(kafka_bootstrap, kafka_prefix) as log:
        every = turns(2 * TURNS)
        await log.append(every[:TURNS])
        await Engine(log, [Router(ORDERS)]).run(until_idle=True)
        await log.append(every[TURNS:-8])
        # As Faust's own commit may be after a rebalance: what is not done yet counts as done.
        end = await log.log.end([CONVERSATIONS])
        await log.log.reset("router", end)
        await log.append(every[-8:])
        report = await faust(log, tmp_path).run(until_idle=True)
        assert report.idle
        await Engine(log, [Router(ORDERS)]).run(until_idle=True)
        decided = sorted(
            (event.fields["conversation_id"], event.fields["features"]["turns_before"])
            for event in await read(log, "mad.decisions")
        )
        of_each = [sum(name == f"c{key}" for name, _ in decided) for key in range(8)]
        assert sum(of_each) == 2 * TURNS
        assert decided == [(f"c{key}", at) for key in range(8) for at in range(of_each[key])]


async def test_the_engines_refuse_each_other_while_they_are_at_work(
    kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> None:
    async with opened(kafka_bootstrap, kafka_prefix) as log:
        await log.append(turns(8))
        for first, second in (
            (faust(log, tmp_path), Engine(log, [Router(ORDERS)])),
            (Engine(log, [Router(ORDERS)]), faust(log, tmp_path)),
        ):
            stop = asyncio.Event()
            working = asyncio.create_task(first.run(stop=stop))
            await until(lambda: has_members(log), "the first engine is a member of its group")
            with pytest.raises(GroupBusy, match="one log is worked on by one engine at a time"):
                await second.run(until_idle=True)
            stop.set()
            await working


async def has_members(log: EventLog) -> bool:
    return any(group.members for group in await log.log.groups())


async def test_another_worker_takes_over_within_20_s_of_a_kill(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    plan = Plan(
        f"kafka://{kafka_bootstrap}?prefix={kafka_prefix}",
        "router",
        session_timeout_s=6.0,
        engine="faust",
    )
    async with opened(kafka_bootstrap, kafka_prefix) as log:
        await log.append(turns(TURNS))
        async with started(plan, plan) as workers:
            await until(lambda: is_shared(log), "two workers share the work")
            await until(lambda: decided(log, TURNS), "all is decided")
            workers[0].kill()
            await workers[0].end()
            killed = asyncio.get_running_loop().time()
            async with asyncio.timeout(TAKEOVER_S):
                more = [
                    turn(number, f"c{number % 8}") for number in range(TURNS + 1, 2 * TURNS + 1)
                ]
                await log.append(more)
                await until(lambda: decided(log, 2 * TURNS), "the other has decided the rest")
            took_s = asyncio.get_running_loop().time() - killed
            print(f"the other had decided all {took_s:.1f} s after the kill")


async def test_a_worker_frozen_for_longer_than_its_session_repeats_nothing_to_readers(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    plan = Plan(f"kafka://{kafka_bootstrap}?prefix={kafka_prefix}", "router", 10, engine="faust")
    async with opened(kafka_bootstrap, kafka_prefix) as log, started(plan) as (zombie,):
        await add_turns(log, 1, TURNS)
        await zombie.says("worked", 3)
        zombie.freeze()
        done = zombie.events
        async with started(plan) as (heir,):
            await until(lambda: decided(log, TURNS), "another worker has done all")
            assert zombie.events == done < TURNS
            zombie.go_on()
            await until(lambda: is_shared(log), "the worker has come back into its group")
            await add_turns(log, TURNS + 1, TURNS)
            await until(lambda: decided(log, 2 * TURNS), "both have done all")
            for worker in (zombie, heir):
                assert worker.told[-1].what == "worked", worker.told[-1]
            await hold_counts(log, kafka_bootstrap, kafka_prefix, 2 * TURNS, repeats=True)


async def is_shared(log: EventLog) -> bool:
    owners = [group.members for group in await log.log.groups() if group.group == "router"]
    return bool(owners) and len(owners[0]) == 4 and len(set(owners[0].values())) == 2


async def decided(log: EventLog, count: int) -> bool:
    found = [event.fields["turn_id"] for event in await read(log, "mad.decisions")]
    assert len(found) == len(set(found)), "a turn was decided twice"
    return len(found) == count


async def test_tables_and_what_came_since_are_what_the_log_says(
    kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> None:
    async with opened(kafka_bootstrap, kafka_prefix) as log:
        await log.append([*turns(TURNS), *calls(20)])
        await Engine(log, [Router(ORDERS)]).run(until_idle=True)
        said: list[str] = []
        limits = Limits(usd=0.05)
        await kept_tables(log, tmp_path, limits, said)
        # Again, as another worker that brings them back from their changelog.
        await log.append([*turns(2 * TURNS)[TURNS:], *calls(30)[20:]])
        await kept_tables(log, tmp_path / "another", limits, said)
        await log.append(turns(2 * TURNS + 9)[2 * TURNS :])
        straight = LiveState()
        async for events in log.read_topics(["mad.conversations", "mad.decisions", "mad.llm"]):
            straight.fold(events)
        assert (await live(log, 0)).cells == straight.cells
        assert [text for text in said if "orders" in text and "limit of usd" in text]


def calls(count: int) -> list[LlmCall]:
    return [
        LlmCall(
            event_id=event_id(10_000 + number),
            conversation_id=f"c{number % 8}",
            sender=Sender(name="orders", kind="mad"),
            occurred_at=number,
            tokens_in=100,
            tokens_out=None if number % 5 else 7,
            cost_usd=0.01,
        )
        for number in range(count)
    ]


async def kept_tables(log: EventLog, folder: Path, limits: Limits, said: list[str]) -> None:
    """Keep tables until they hold all that the log does."""
    tables = FaustTables(log, cluster(log, folder), window_s=3600, limits=limits, say=said.append)
    await tables.start()
    try:
        end = await log.log.end(["mad.conversations", "mad.decisions", "mad.llm"])

        async def caught_up() -> bool:
            at = tables.positions()
            # The end of a transaction takes an offset and is no record.
            return bool(said) and all(at.get(tp, 0) >= end[tp] - 1 for tp in end)

        await until(caught_up, "the tables are folded to the end and who spends too much is told")
    finally:
        await tables.stop()
