"""Requests that a network delays beyond their sender's patience, and then delivers all the same.

A worker that is not answered throws its producer away and starts anew; its late request then
meets what came after it. Counts must be exact through our API, whatever the raw topic holds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from tests.faults.proxy import (
    END_TXN,
    OFFSET_COMMIT,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Side,
    proxied,
)
from tests.unit.counting import CONVERSATIONS, Counter, counted, turns

from madlog.processors import Engine
from madlog.schemas import Schemas
from madlog.topics import (
    Commit,
    EventLog,
    Fenced,
    Log,
    Membership,
    NewRecord,
    OutcomeUnknown,
    Record,
    Vector,
)
from madlog.topics.kafka import KafkaLog

OUTCOMES = "mad.outcomes"
PATIENCE_S = 60.0
# How long the worker waits for an answer: the held request is delayed for longer than that.
TIMEOUT_S = 2.0
SESSION_S = 2.0
DELAY_S = 30.0
BATCH = 24
COPIER = "copier"


@asynccontextmanager
async def opened(bootstrap: str, prefix: str, **parameters: str) -> AsyncIterator[EventLog]:
    query = "".join(f"&{name}={value}" for name, value in parameters.items())
    log = await KafkaLog.open(
        f"kafka://{bootstrap}?prefix={prefix}{query}",
        timeout_s=TIMEOUT_S,
        session_timeout_s=SESSION_S,
    )
    try:
        yield await EventLog.open(log)
    finally:
        await log.close()


@asynccontextmanager
async def working(log: EventLog) -> AsyncIterator["asyncio.Task[Any]"]:
    """Count turns on a log while the block runs."""
    stop = asyncio.Event()
    task = asyncio.create_task(Engine(log, [Counter()]).run(stop=stop))
    try:
        yield task
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, OutcomeUnknown):
            await task


def expected(count: int) -> list[str]:
    """Return what the counter says of the first turns, each once and each number once."""
    numbers: dict[str, int] = {}
    said = []
    for turn in turns(count):
        numbers[turn.conversation_id] = numbers.get(turn.conversation_id, 0) + 1
        said.append(f"{turn.conversation_id} {numbers[turn.conversation_id]}")
    return sorted(said)


async def all_counted(log: EventLog, count: int, *workers: "asyncio.Task[Any]") -> None:
    """Wait until the turns so far are counted, and hold the counts to be exact."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await counted(log)) < count:
            for worker in workers:
                assert not worker.done(), worker.exception()
            await asyncio.sleep(0.05)
    assert found == expected(count)


async def all_committed(log: EventLog, worker: "asyncio.Task[Any]") -> None:
    """Wait until the position is written too: at least once, it comes after outputs and state."""
    async with asyncio.timeout(PATIENCE_S):
        while await log.log.committed(Counter.name) != await filled(log.log):
            assert not worker.done(), worker.exception()
            await asyncio.sleep(0.05)


async def raw_count(bootstrap: str, topic: str, *, committed: bool = True) -> int:
    """Count the records of a topic as a stock client sees them."""
    level = "read_committed" if committed else "read_uncommitted"
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=level, auto_offset_reset="earliest"
    ) as consumer:
        tps = [KafkaPartition(topic, number) for number in range(4)]
        consumer.assign(tps)
        end = await consumer.end_offsets(tps)
        count = 0
        async with asyncio.timeout(PATIENCE_S):
            while any([await consumer.position(tp) < end[tp] for tp in tps]):
                count += sum(map(len, (await consumer.getmany(timeout_ms=100)).values()))
    return count


@pytest.mark.parametrize(
    ("api_key", "side"),
    [
        (END_TXN, "request"),
        (END_TXN, "response"),
        (TXN_OFFSET_COMMIT, "request"),
        (PRODUCE, "request"),
    ],
    ids=["commit", "commit's answer", "position", "records"],
)
async def test_a_transaction_delayed_beyond_its_worker_leaves_counts_exact(
    kafka_bootstrap: str, kafka_prefix: str, api_key: int, side: Side
) -> None:
    await delayed_transaction(kafka_bootstrap, kafka_prefix, api_key, side)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("api_key", [END_TXN, TXN_OFFSET_COMMIT, PRODUCE])
async def test_a_transaction_delayed_for_30_s_leaves_counts_exact(
    kafka_bootstrap: str, kafka_prefix: str, api_key: int
) -> None:
    await delayed_transaction(kafka_bootstrap, kafka_prefix, api_key, "request", DELAY_S)


async def delayed_transaction(
    bootstrap: str, prefix: str, api_key: int, side: Side, delay_s: float = 0
) -> None:
    async with (
        proxied(bootstrap) as (proxy, address),
        opened(bootstrap, prefix) as straight,
        opened(address, prefix) as delayed,
        working(delayed) as worker,
    ):
        every = turns(3 * BATCH)
        await straight.append(every[:BATCH])
        await all_counted(straight, BATCH, worker)
        proxy.hold(api_key, first=1, side=side)
        await straight.append(every[BATCH : 2 * BATCH])
        (frame,) = await proxy.held()
        # The worker gives its producer up and does the batch again, past the request on its way.
        await all_counted(straight, 2 * BATCH, worker)
        assert not frame.answered.is_set()
        await asyncio.sleep(delay_s)
        await proxy.release()
        await straight.append(every[2 * BATCH :])
        await all_counted(straight, 3 * BATCH, worker)
        assert isinstance(straight.log, KafkaLog)
        assert await straight.log.open_transactions() == []
    committed = await raw_count(bootstrap, f"{prefix}{OUTCOMES}")
    written = await raw_count(bootstrap, f"{prefix}{OUTCOMES}", committed=False)
    print(f"{3 * BATCH} turns: {committed} counts committed, {written} written; {frame.answer!r}")
    assert committed == 3 * BATCH
    if side == "response":
        assert written == committed, "the commit had been made"
    elif api_key != PRODUCE:
        assert written > committed, "what was given up had been written"


@pytest.mark.parametrize(
    ("api_key", "side", "after"),
    [(PRODUCE, "response", 0), (PRODUCE, "request", 0), (PRODUCE, "request", 1)],
    ids=["outputs' answer", "outputs", "state"],
)
async def test_at_least_once_a_delayed_append_of_a_worker_leaves_counts_exact(
    kafka_bootstrap: str, kafka_prefix: str, api_key: int, side: Side, after: int
) -> None:
    async with (
        proxied(kafka_bootstrap) as (proxy, address),
        opened(kafka_bootstrap, kafka_prefix, transactions="off") as straight,
        opened(address, kafka_prefix, transactions="off") as delayed,
        working(delayed) as worker,
    ):
        every = turns(3 * BATCH)
        await straight.append(every[:BATCH])
        await all_counted(straight, BATCH, worker)
        await all_committed(straight, worker)
        proxy.hold(api_key, first=1, after=after, side=side)
        await straight.append(every[BATCH : 2 * BATCH])
        await proxy.held()
        await all_counted(straight, 2 * BATCH, worker)
        await proxy.release()
        await straight.append(every[2 * BATCH :])
        await all_counted(straight, 3 * BATCH, worker)
    raw = await raw_count(kafka_bootstrap, f"{kafka_prefix}{OUTCOMES}")
    print(f"{3 * BATCH} turns: {raw} counts in the topic, {raw - 3 * BATCH} of them repeats")
    assert raw > 3 * BATCH


async def test_at_least_once_a_position_delayed_beyond_its_member_repeats_nothing_to_readers(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    await delayed_position(kafka_bootstrap, kafka_prefix)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_at_least_once_a_position_delayed_for_30_s_repeats_nothing_to_readers(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    await delayed_position(kafka_bootstrap, kafka_prefix, DELAY_S)


async def delayed_position(bootstrap: str, prefix: str, delay_s: float = 0) -> None:
    async with (
        proxied(bootstrap) as (proxy, address),
        opened(bootstrap, prefix, transactions="off") as straight,
        opened(address, prefix, transactions="off") as delayed,
    ):
        await straight.ensure_topics([CONVERSATIONS, OUTCOMES])
        every = turns(2 * BATCH)
        await straight.append(every[:BATCH])
        first = await delayed.log.join(COPIER, [CONVERSATIONS])
        proxy.hold(OFFSET_COMMIT, first=1)
        with pytest.raises(OutcomeUnknown):
            await copy_batch(delayed.log, first)
        (frame,) = await proxy.held()
        # Another member comes, and does again what the first did without being confirmed.
        await first.leave()
        second = await straight.log.join(COPIER, [CONVERSATIONS])
        await copy_all(straight.log, second)
        assert not frame.answered.is_set()
        await asyncio.sleep(delay_s)
        await proxy.release()
        await straight.append(every[BATCH:])
        await copy_all(straight.log, second)
        copies = [record.value async for record in records(straight.log, OUTCOMES)]
        assert sorted(copies) == sorted(turn.event_id.encode() for turn in every)
        assert await straight.log.committed(COPIER) == await filled(straight.log)
    raw = await raw_count(bootstrap, f"{prefix}{OUTCOMES}")
    print(
        f"{2 * BATCH} turns: {raw} copies in the topic, {raw - 2 * BATCH} of them repeats; "
        f"late answer {frame.answer!r}"
    )
    assert raw > 2 * BATCH


async def records(log: Log, topic: str) -> AsyncIterator[Record]:
    async for batch in log.read(Vector(), await log.end([topic])):
        for record in batch:
            yield record


async def filled(log: Log) -> Vector:
    """Return where the input's partitions end that hold anything: the others get no position."""
    end = await log.end([CONVERSATIONS])
    return Vector({tp: at for tp, at in end.items() if at})


async def copy_batch(log: Log, member: Membership) -> bool:
    """Copy what a poll returns, as an engine does: outputs with their source, then the place."""
    batch = await member.poll(timeout_s=0.5)
    if batch:
        last = batch[-1].position
        copies = [
            NewRecord(
                OUTCOMES,
                record.key,
                Schemas().decode_fields(record.value)[1]["event_id"].encode(),
                (("source", f"{COPIER}/{record.position}/0".encode()),),
            )
            for record in batch
        ]
        places = Vector({last.topic_partition: last.offset + 1})
        await log.transact(copies, Commit(member, places))
    return bool(batch)


async def copy_all(log: Log, member: Membership) -> None:
    """Copy until the group has consumed its input."""
    end = await filled(log)
    async with asyncio.timeout(PATIENCE_S):
        while await log.committed(COPIER) != end:
            with suppress(Fenced, OutcomeUnknown):
                await copy_batch(log, member)
