"""Three brokers of which one dies or restarts under load: nothing is lost, repeated or reordered.

Turns come at a rate of their own (open loop), so that a gap without acknowledgements is made up for
after it, and is seen.
"""

import asyncio
import re
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
FROZEN_S = 10
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


def controller(brokers: Cluster) -> int:
    """Return the node that leads the cluster itself."""
    said = brokers.tool(
        "org.apache.kafka.tools.MetadataQuorumCommand",
        *("--bootstrap-server", brokers.bootstrap, "describe", "--status"),
    )
    found = re.search(r"LeaderId:\s+(\d+)", said)
    assert found is not None, said
    return int(found[1])


async def in_sync(brokers: Cluster, topic: str) -> list[int]:
    """Wait until all replicas are in sync, and return the leader of each partition."""
    async with asyncio.timeout(60):
        while True:
            found = await states(brokers.bootstrap, topic)
            if all(count == 3 and leader > 0 for leader, count in found):
                return [leader for leader, _ in found]
            await asyncio.sleep(0.1)


@asynccontextmanager
async def under_load(brokers: Cluster, prefix: str, rate: int) -> AsyncIterator[Load]:
    """Write at a rate and read while the block runs, then judge and print."""
    load = Load(brokers.bootstrap, prefix, secrets.randbits(32))
    log = await load.open()
    loop = asyncio.get_running_loop()
    try:
        async with load.reading(*READERS):
            async with load.writing([log], keys=KEYS, rate=rate):
                await load.more(rate)
                began, first = loop.time(), load.acked
                yield load
                managed = (load.acked - first) / (loop.time() - began)
            print(f"{managed:,.0f} turns/s acknowledged of {rate:,} offered; {await load.judge()}")
    finally:
        await log.close()


async def come_back(brokers: Cluster, node: int, prefix: str) -> None:
    brokers.start_node(node)
    await asyncio.to_thread(brokers.wait_ready)
    await in_sync(brokers, prefix + TOPIC)


async def kill_leader(brokers: Cluster, prefix: str, rounds: int = 1) -> None:
    async with under_load(brokers, prefix, RATE) as load:
        for _ in range(rounds):
            leaders = await in_sync(brokers, prefix + TOPIC)
            # Kafka takes longer when it elects a controller first. It costs seconds to ask.
            of_all = rounds > 1 and await asyncio.to_thread(controller, brokers) == leaders[0]
            load.longest_gap_s()
            brokers.kill(leaders[0])
            await load.more(3 * RATE)
            gap_s = load.longest_gap_s()
            await come_back(brokers, leaders[0], prefix)
            print(
                f"node {leaders[0]}, leader of {leaders.count(leaders[0])} of {len(leaders)} "
                f"partitions{' and controller' if of_all else ''}, killed: "
                f"{gap_s:.2f} s without an acknowledgement, "
                f"{load.longest_gap_s():.2f} s while it came back"
            )


async def restart_all(brokers: Cluster, prefix: str, rate: int, rounds: int = 1) -> None:
    async with under_load(brokers, prefix, rate) as load:
        for node in brokers.nodes * rounds:
            load.longest_gap_s()
            await asyncio.to_thread(brokers.stop, node)
            await come_back(brokers, node, prefix)
            print(f"node {node} restarted: {load.longest_gap_s():.2f} s without acknowledgement")


async def test_a_killed_leader_costs_a_gap_and_no_record(
    brokers: Cluster, kafka_prefix: str
) -> None:
    await kill_leader(brokers, kafka_prefix)


@pytest.mark.soak
async def test_a_rolling_restart_costs_no_record(brokers: Cluster, kafka_prefix: str) -> None:
    # Fewer turns than else: three starts of a JVM beside 2,000 a second take half a minute.
    await restart_all(brokers, kafka_prefix, RATE // 4)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_10_killed_leaders_cost_gaps_and_no_record(
    brokers: Cluster, kafka_prefix: str
) -> None:
    await kill_leader(brokers, kafka_prefix, rounds=10)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_3_rolling_restarts_cost_no_record(brokers: Cluster, kafka_prefix: str) -> None:
    await restart_all(brokers, kafka_prefix, RATE, rounds=3)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_5_frozen_leaders_cost_gaps_and_no_record(
    brokers: Cluster, kafka_prefix: str
) -> None:
    # Its connections stay open: only time tells that it does not answer. It wakes up as a leader
    # of old, with requests that its successors have answered.
    async with under_load(brokers, kafka_prefix, RATE) as load:
        for _ in range(5):
            leaders = await in_sync(brokers, kafka_prefix + TOPIC)
            load.longest_gap_s()
            brokers.pause(leaders[0])
            await load.more(RATE * FROZEN_S)
            gap_s = load.longest_gap_s()
            brokers.resume(leaders[0])
            await load.more(RATE)
            print(
                f"node {leaders[0]} frozen: {gap_s:.2f} s without an acknowledgement, "
                f"{load.longest_gap_s():.2f} s when it went on"
            )
