"""Three brokers of which one dies or restarts under load: nothing is lost, repeated or reordered.

Turns come at a rate of their own (open loop), so that a gap without acknowledgements is made up for
after it, and is seen.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.brokers.cluster import Cluster
from tests.brokers.jars import BrokerUnavailable
from tests.brokers.source import without_broker
from tests.faults.kafka_load import Load
from tests.faults.writer import TOPIC

pytestmark = pytest.mark.xdist_group("three brokers")

RATE = 2000
KEYS = 64
READERS = ("from the first record on",)


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with Cluster(tmp_path_factory.mktemp("kafka"), nodes=3) as cluster:
            yield cluster
    except BrokerUnavailable as error:
        without_broker(error)


async def states(bootstrap: str, topic: str) -> list[tuple[int, int]]:
    """Return of each partition the node that leads it and the number of replicas in sync."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return [(part["leader"], len(part["isr"])) for part in described["partitions"]]


async def in_sync(brokers: Cluster, topic: str) -> list[int]:
    """Wait until all replicas are in sync, and return the leader of each partition."""
    async with asyncio.timeout(60):
        while True:
            found = await states(brokers.bootstrap, topic)
            if all(count == 3 and leader > 0 for leader, count in found):
                return [leader for leader, _ in found]
            await asyncio.sleep(0.1)


@asynccontextmanager
async def under_load(brokers: Cluster, prefix: str) -> AsyncIterator[Load]:
    """Write at the rate and read while the block runs, then judge and print."""
    load = Load(brokers.bootstrap, prefix, secrets.randbits(32))
    log = await load.open()
    loop = asyncio.get_running_loop()
    try:
        async with load.reading(*READERS):
            async with load.writing([log], keys=KEYS, rate=RATE):
                await load.more(RATE)
                began, first = loop.time(), load.acked
                yield load
                rate = (load.acked - first) / (loop.time() - began)
            print(f"{rate:,.0f} turns/s acknowledged of {RATE:,} offered; {await load.judge()}")
    finally:
        await log.close()


async def kill_leader(brokers: Cluster, prefix: str, rounds: int = 1) -> None:
    async with under_load(brokers, prefix) as load:
        for _ in range(rounds):
            leaders = await in_sync(brokers, prefix + TOPIC)
            load.longest_gap_s()
            brokers.kill(leaders[0])
            await load.more(4 * RATE)
            gap_s = load.longest_gap_s()
            brokers.start_node(leaders[0])
            await asyncio.to_thread(brokers.wait_ready)
            await in_sync(brokers, prefix + TOPIC)
            print(
                f"node {leaders[0]}, leader of {leaders.count(leaders[0])} of {len(leaders)} "
                f"partitions, killed: {gap_s:.2f} s without an acknowledgement, "
                f"{load.longest_gap_s():.2f} s while it came back"
            )


async def test_a_killed_leader_costs_a_gap_and_no_record(
    brokers: Cluster, kafka_prefix: str
) -> None:
    await kill_leader(brokers, kafka_prefix)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_10_killed_leaders_cost_gaps_and_no_record(
    brokers: Cluster, kafka_prefix: str
) -> None:
    await kill_leader(brokers, kafka_prefix, rounds=10)


async def test_a_rolling_restart_costs_no_record(brokers: Cluster, kafka_prefix: str) -> None:
    async with under_load(brokers, kafka_prefix) as load:
        for node in brokers.nodes:
            load.longest_gap_s()
            await asyncio.to_thread(brokers.stop, node)
            brokers.start_node(node)
            await asyncio.to_thread(brokers.wait_ready)
            await in_sync(brokers, kafka_prefix + TOPIC)
            print(f"node {node} restarted: {load.longest_gap_s():.2f} s without acknowledgement")
