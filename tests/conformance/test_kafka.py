"""The log on Kafka keeps every guarantee, on a real broker that is looked into past the log."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from hypothesis import Phase, settings
from tests.brokers.cluster import Cluster

from madlog.topics._kafka_groups import KafkaMembership
from madlog.topics.kafka import KafkaLog
from madlog.topics.log import Log, Membership, Record
from madlog.topics.positions import Position, TopicPartition
from madlog.topics.testing import LogMachine, LogTests, ManualClock
from madlog.topics.testing.harness import FOR_EVER, Opened
from madlog.topics.testing.log_machine import MACHINE_SETTINGS

# A member's session in these tests: as short as a takeover can be waited for twenty times.
SESSION_S = 2.0


class TestKafka(LogTests):
    bootstrap: str
    frozen: Cluster
    gapless = False
    poll_s = 0.3

    async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return await self._open(self._address())

    async def make_small_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return await self._open(self._address(), queue_bytes_max=10_000)

    async def reopen(self, log: Log) -> Log:
        await log.close()
        return await self._open(log.url)

    def _address(self) -> str:
        return f"kafka://{self.bootstrap}?prefix=t{uuid.uuid4().hex[:8]}-"

    async def _open(self, url: str, **options: Any) -> Log:
        return await KafkaLog.open(url, session_timeout_s=SESSION_S, timeout_s=5, **options)

    async def raw_records(self, log: Log, topic: str) -> list[Record]:
        assert isinstance(log, KafkaLog)
        physical = log.address.prefix + topic
        async with AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        ) as consumer:
            tps = [KafkaPartition(physical, n) for n in range((await log.topics())[topic])]
            consumer.assign(tps)
            end = await consumer.end_offsets(tps)
            records = []
            async with asyncio.timeout(self.patience_s):
                while any([await consumer.position(tp) < end[tp] for tp in tps]):
                    for tp, found in (await consumer.getmany(timeout_ms=200)).items():
                        records += [
                            Record(
                                topic,
                                tp.partition,
                                one.offset,
                                one.key or b"",
                                one.value or b"",
                                tuple(one.headers),
                                one.timestamp * 1000,
                            )
                            for one in found
                        ]
        return records

    async def damage(self, log: Log, position: Position) -> None:
        assert isinstance(log, KafkaLog)
        [raw] = [r for r in await self.raw_records(log, position.topic) if r.position == position]
        folder = await self._data_folder()
        if not folder.is_dir():
            self.cannot("reach the broker's files: they are another machine's")
        name = f"{log.address.prefix}{position.topic}-{position.partition}"
        [segment] = (folder / name).glob("*.log")
        content = segment.read_bytes()
        at = content.index(raw.value)
        with segment.open("r+b") as file:
            file.seek(at + len(raw.value) - 1)
            file.write(bytes([content[at + len(raw.value) - 1] ^ 1]))

    async def _data_folder(self) -> Path:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            [node] = (await admin.describe_cluster())["brokers"]
            wanted = ConfigResource(
                ConfigResourceType.BROKER, str(node["node_id"]), {"log.dirs": ""}
            )
            [answer] = await admin.describe_configs([wanted])
            return Path(answer.resources[0][4][0][1])
        finally:
            await admin.close()

    async def expire(self, log: Log, tp: TopicPartition, before_offset: int) -> None:
        assert isinstance(log, KafkaLog)
        await log.expire(tp.topic, tp.partition, before_offset)

    async def kill(self, member: Membership) -> None:
        assert isinstance(member, KafkaMembership)
        member.stop_heartbeat()

    @pytest.fixture(autouse=True)
    def _frozen(self, request: pytest.FixtureRequest) -> None:
        """Give the test that lets writes fail a broker that no other test uses, to freeze."""
        if request.node.name.startswith("test_g12_"):
            self.frozen = request.getfixturevalue("kafka_cluster")()
            self.bootstrap = self.frozen.bootstrap

    @contextmanager
    def failing_writes(self, log: Log) -> Iterator[None]:
        """Freeze the broker: it answers nothing."""
        self.frozen.pause(1)
        yield
        self.frozen.resume(1)

    @asynccontextmanager
    async def opened(self, tmp_path: Path, *, small: bool = False) -> AsyncIterator[Opened]:
        async with super().opened(tmp_path, small=small) as opened:
            yield opened
            assert isinstance(opened.log, KafkaLog)
            prefix, topics = opened.log.address.prefix, list(await opened.log.topics())
        # A broker with thousands of topics is slow to tell of them.
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.delete_topics([prefix + name for name in topics])
        await admin.close()

    async def pass_time(self, opened: Opened, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 1.0) if seconds <= 1 else 0.005)

    async def moment(self, opened: Opened) -> int:
        # The broker's times are whole milliseconds of this machine's clock.
        moment_ms = time.time_ns() // 1_000_000 + 2
        await asyncio.sleep(0.005)
        return moment_ms * 1000

    async def settle(self, members: Sequence[Membership]) -> None:
        every = {TopicPartition(FOR_EVER.name, number) for number in range(FOR_EVER.partitions)}
        async with asyncio.timeout(self.patience_s):
            while True:
                for member in members:
                    await member.poll(timeout_s=0.05)
                owned = [tp for member in members for tp in member.assignment]
                shared_out = len(owned) == len(set(owned)) and set(owned) == every
                if shared_out and all(member.assignment for member in members):
                    return


class KafkaMachine(LogMachine):
    suite = TestKafka


TestKafkaAgainstAList = KafkaMachine.TestCase
# Each step is a round trip: fewer runs than in memory. Explaining and shrinking would take minutes;
# a failure prints the run that it came from.
TestKafkaAgainstAList.settings = settings(
    MACHINE_SETTINGS,
    max_examples=4,
    stateful_step_count=15,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture(scope="module", autouse=True)
def _broker_of_the_run(kafka_bootstrap: str) -> None:
    TestKafka.bootstrap = kafka_bootstrap
