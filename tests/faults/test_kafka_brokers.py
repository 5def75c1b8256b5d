"""One broker that dies, hangs or has no disk left: what was acknowledged is there, once, in order.

Writers here follow the rule for retries and go on by themselves; so do readers.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from tests.brokers.cluster import Cluster
from tests.brokers.jars import BrokerUnavailable
from tests.brokers.source import without_broker
from tests.faults.kafka_load import Load

from madlog.topics.kafka import KafkaLog

pytestmark = pytest.mark.xdist_group("one broker")

NODE = 1
# One log waits longer than a restart takes, the other gives up and is left in doubt.
PATIENT_S, IMPATIENT_S = 30.0, 1.0
KEYS = 8
READERS = ("from the first record on", "beside it")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
            yield cluster
    except BrokerUnavailable as error:
        without_broker(error)


@asynccontextmanager
async def opened(load: Load, *timeouts_s: float) -> AsyncIterator[list[KafkaLog]]:
    """Open a log for each time-out."""
    logs = [await load.open(timeout_s=timeout_s) for timeout_s in timeouts_s]
    try:
        yield logs
    finally:
        for log in logs:
            await log.close()


async def start_again(broker: Cluster) -> None:
    broker.start_node(NODE)
    await asyncio.to_thread(broker.wait_ready)


async def kill_often(broker: Cluster, prefix: str, kills: int) -> None:
    load = Load(broker.bootstrap, prefix, secrets.randbits(32))
    async with (
        opened(load, PATIENT_S, IMPATIENT_S) as logs,
        load.reading(*READERS),
    ):
        async with load.writing(logs, keys=KEYS):
            for _ in range(kills):
                await load.more(load.rng.randint(50, 400))
                broker.kill(NODE)
                await start_again(broker)
            await load.more(50)
        print(f"{kills} kills of the broker, seed {load.seed}: {await load.judge()}")


async def test_kills_of_the_broker_in_mid_produce_lose_repeat_and_reorder_nothing(
    broker: Cluster, kafka_prefix: str
) -> None:
    await kill_often(broker, kafka_prefix, kills=3)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_no_kill_of_30_of_the_broker_loses_repeats_or_reorders_a_record(
    broker: Cluster, kafka_prefix: str
) -> None:
    await kill_often(broker, kafka_prefix, kills=30)
