"""What is asked of a cluster ends at its limit, whatever fails underneath."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from madlog.topics._kafka_client import Cluster
from madlog.topics.errors import LogUnavailable
from madlog.topics.kafka_address import KafkaAddress


async def test_a_call_ends_at_its_limit_though_what_fails_takes_the_cancellation_for_its_own(
    kafka_url: str,
) -> None:
    cluster = Cluster(KafkaAddress.parse(kafka_url), 0.2)
    await cluster.open()

    stopped = asyncio.Event()

    async def stop_and_fail() -> None:
        # As a producer that could not start is stopped: whatever goes wrong then is not told.
        try:
            await stopped.wait()
        except asyncio.CancelledError:
            stopped.set()
        raise KafkaConnectionError

    try:
        async with asyncio.timeout(10):
            with pytest.raises(LogUnavailable, match=r"within 0\.2 s \(trying: no broker"):
                await cluster.call("trying", stop_and_fail)
    finally:
        await cluster.close()
