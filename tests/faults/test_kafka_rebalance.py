"""A rebalance does not stop the partitions that stay with a member, however long it takes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from tests.faults.kafka_worker import PATIENCE_S, until
from tests.faults.proxy import Proxy, proxied
from tests.unit.counting import CONVERSATIONS, turns

from madlog.topics import Commit, EventLog, Membership, TopicPartition, Vector
from madlog.topics.kafka import KafkaLog

JOIN_GROUP, SYNC_GROUP, INIT_PRODUCER_ID = 11, 14, 22
GROUP = "readers"
PARTITIONS = 4
# Long, so that a member whose answer is held back is waited for.
SESSION_S = 9.0
TURNS = 64


@asynccontextmanager
async def opened(bootstrap: str, prefix: str) -> AsyncIterator[EventLog]:
    log = await KafkaLog.open(f"kafka://{bootstrap}?prefix={prefix}", session_timeout_s=SESSION_S)
    try:
        yield await EventLog.open(log)
    finally:
        await log.close()


class Reader:
    """A member that takes what it is given and commits it; `seen` is the turns by partition."""

    def __init__(self, log: EventLog, member: Membership) -> None:
        self.log = log
        self.member = member
        self.seen: dict[TopicPartition, list[int]] = {}

    @classmethod
    async def join(cls, log: EventLog) -> "Reader":
        return cls(log, await log.log.join(GROUP, [CONVERSATIONS]))

    @property
    def owned(self) -> frozenset[TopicPartition]:
        return self.member.assignment

    async def step(self) -> None:
        """Poll once; what came is committed in a transaction, which must succeed."""
        records = await self.member.poll(timeout_s=0.02)
        if records:
            last = records[-1].position
            places = Vector({last.topic_partition: last.offset + 1})
            await self.log.log.transact([], Commit(self.member, places))
            self.seen.setdefault(last.topic_partition, []).extend(one.offset for one in records)


async def shared(readers: Collection[Reader]) -> None:
    """Let readers go on until they share the partitions."""

    async def share() -> bool:
        for reader in readers:
            await reader.step()
        counts = [len(reader.owned) for reader in readers]
        return min(counts) > 0 and sum(counts) == PARTITIONS

    await until(share, "the readers share the partitions")


async def read_up_to(end: Vector, *readers: Reader) -> None:
    """Let readers go on until partitions are read to their ends."""

    async def read() -> bool:
        for reader in readers:
            await reader.step()
        return all(
            any(reader.seen.get(tp, [-1])[-1] == at - 1 for reader in readers)
            for tp, at in end.items()
        )

    await until(read, f"{end} is read")


def each_once(readers: Collection[Reader], end: Vector) -> int:
    """Hold the readers to have seen each turn once, in order; returns how many there were."""
    seen = Counter((tp, at) for one in readers for tp, ats in one.seen.items() for at in ats)
    assert seen == {(tp, at): 1 for tp, until in end.items() for at in range(until)}
    for reader in readers:
        assert all(ats == sorted(ats) for ats in reader.seen.values())
    return len(seen)


async def more_requests(proxy: Proxy, api_key: int, before: int) -> None:
    async def sent() -> bool:
        return proxy.requests.count(api_key) > before

    await until(sent, f"a request {api_key} was sent")


async def test_partitions_that_stay_are_read_while_a_leader_settles_who_gets_which(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    async with (
        proxied(kafka_bootstrap) as (proxy, address),
        opened(address, kafka_prefix) as log,
        opened(kafka_bootstrap, kafka_prefix) as other,
    ):
        every = turns(3 * TURNS, conversations=16)
        await log.append(every[:TURNS])
        first = await Reader.join(log)
        await shared([first])
        proxy.hold(SYNC_GROUP, first=1)
        joining = asyncio.create_task(Reader.join(other))
        (frame,) = await proxy.held()
        # Everybody waits for the first, which leads: nobody has any partition by the new order.
        await other.append(every[TURNS : 2 * TURNS])
        end = await other.log.end([CONVERSATIONS])
        await read_up_to(end, first)
        assert not joining.done()
        assert not frame.answered.is_set()
        meanwhile = sum(map(len, first.seen.values()))
        before = first.owned
        await proxy.release()
        second = await joining
        await shared([first, second])
        assert len(first.owned) == PARTITIONS // 2
        assert first.owned < before
        await other.append(every[2 * TURNS :])
        await read_up_to(await other.log.end([CONVERSATIONS]), first, second)
        count = each_once([first, second], await other.log.end([CONVERSATIONS]))
        print(f"{count} turns read once each, {meanwhile} of them before the rebalance was over")


async def test_partitions_that_stay_are_read_while_a_member_does_not_answer(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    async with (
        proxied(kafka_bootstrap) as (watching, watched),
        proxied(kafka_bootstrap) as (proxy, address),
        opened(watched, kafka_prefix) as log,
        opened(address, kafka_prefix) as slow,
        opened(kafka_bootstrap, kafka_prefix) as other,
    ):
        every = turns(3 * TURNS, conversations=16)
        await other.append(every[:TURNS])
        first, second = await Reader.join(log), await Reader.join(slow)
        await shared([first, second])
        await read_up_to(await other.log.end([CONVERSATIONS]), first, second)
        before, joined = first.owned, watching.requests.count(JOIN_GROUP)
        proxy.hold(JOIN_GROUP, first=1)
        joining = asyncio.create_task(Reader.join(other))
        (frame,) = await proxy.held()
        await more_requests(watching, JOIN_GROUP, joined)
        # The group waits for the second; the first has said that it is there, and has no answer.
        await other.append(every[TURNS : 2 * TURNS])
        end = await other.log.end([CONVERSATIONS])
        await read_up_to(Vector({tp: end[tp] for tp in before}), first)
        assert not joining.done()
        assert not frame.answered.is_set()
        meanwhile = sum(at >= 0 for tp in before for at in first.seen[tp])
        await proxy.release()
        async with asyncio.timeout(PATIENCE_S):
            while not joining.done():
                await first.step()
                await second.step()
        third = await joining
        readers = [first, second, third]
        await shared(readers)
        await other.append(every[2 * TURNS :])
        await read_up_to(await other.log.end([CONVERSATIONS]), *readers)
        count = each_once(readers, await other.log.end([CONVERSATIONS]))
        print(
            f"{count} turns read once each, {meanwhile} by the first before the rebalance was over"
        )


async def test_partitions_that_stay_are_read_while_others_are_taken_up(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    async with (
        proxied(kafka_bootstrap) as (proxy, address),
        opened(address, kafka_prefix) as log,
        opened(kafka_bootstrap, kafka_prefix) as other,
    ):
        every = turns(3 * TURNS, conversations=16)
        await other.append(every[:TURNS])
        first, second = await Reader.join(log), await Reader.join(other)
        await shared([first, second])
        await read_up_to(await other.log.end([CONVERSATIONS]), first, second)
        before = first.owned
        proxy.hold(INIT_PRODUCER_ID, first=1)
        holding = asyncio.create_task(proxy.held())
        await second.member.leave()

        async def is_held() -> bool:
            await first.step()
            return holding.done()

        await until(is_held, "the producer of another partition is asked for")
        (frame,) = await holding
        await other.append(every[TURNS : 2 * TURNS])
        end = await other.log.end([CONVERSATIONS])
        await read_up_to(Vector({tp: end[tp] for tp in before}), first)
        assert first.owned == before
        assert not frame.answered.is_set()
        await proxy.release()
        await shared([first])
        await other.append(every[2 * TURNS :])
        end = await other.log.end([CONVERSATIONS])
        await read_up_to(end, first)
        print(f"{each_once([first, second], end)} turns read once each")
