"""The embedded log keeps every guarantee, with its own file looked into behind its back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import apsw
from hypothesis import settings

from madlog.topics._embedded_groups import EmbeddedMembership
from madlog.topics._embedded_storage import FILE_NAME, decode_headers
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.log import Log, Membership, Record
from madlog.topics.positions import Position, TopicPartition
from madlog.topics.testing import LogMachine, LogTests, ManualClock
from madlog.topics.testing.log_machine import MACHINE_SETTINGS


def connection_to(log: Log) -> apsw.Connection:
    return apsw.Connection(str(Path(log.url) / FILE_NAME))


def partition_id(connection: apsw.Connection, topic: str, partition: int) -> int:
    found = connection.execute(
        "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic_id "
        "WHERE t.name=? AND p.partition=?",
        (topic, partition),
    ).get
    return cast(int, found)


class TestEmbedded(LogTests):
    async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return await EmbeddedLog.open(tmp_path / "log", clock=clock)

    async def make_small_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return await EmbeddedLog.open(tmp_path / "log", clock=clock, queue_bytes_max=10_000)

    async def reopen(self, log: Log) -> Log:
        await log.close()
        return await EmbeddedLog.open(Path(log.url), clock=log.clock, create=False)

    async def raw_records(self, log: Log, topic: str) -> list[Record]:
        connection = connection_to(log)
        records = []
        for partition in range((await log.topics())[topic]):
            table = partition_id(connection, topic, partition)
            for offset, key, value, headers, at in connection.execute(
                f"SELECT offset, key, value, headers, appended_at FROM r{table} ORDER BY offset"
            ):
                headers = decode_headers(headers)
                records.append(Record(topic, partition, offset, key, value, headers, at))
        connection.close()
        return records

    async def damage(self, log: Log, position: Position) -> None:
        connection = connection_to(log)
        table = partition_id(connection, position.topic, position.partition)
        value = bytearray(
            cast(
                bytes,
                connection.execute(
                    f"SELECT value FROM r{table} WHERE offset=?", (position.offset,)
                ).get,
            )
        )
        value[-1] ^= 1
        connection.execute(
            f"UPDATE r{table} SET value=? WHERE offset=?", (bytes(value), position.offset)
        )
        connection.close()

    async def expire(self, log: Log, tp: TopicPartition, before_offset: int) -> None:
        assert isinstance(log, EmbeddedLog)
        await log.expire(tp.topic, tp.partition, before_offset)

    async def kill(self, member: Membership) -> None:
        assert isinstance(member, EmbeddedMembership)
        member.stop_heartbeat()

    @contextmanager
    def failing_writes(self, log: Log) -> Iterator[None]:
        connection = connection_to(log)
        connection.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON partitions "
            "BEGIN SELECT RAISE(ABORT, 'the storage failed, as the test asked'); END"
        )
        yield
        connection.execute("DROP TRIGGER refuse")
        connection.close()


class EmbeddedMachine(LogMachine):
    suite = TestEmbedded


TestEmbeddedAgainstAList = EmbeddedMachine.TestCase
# Each step waits for the disk: fewer runs than in memory, where all of them are made.
TestEmbeddedAgainstAList.settings = settings(MACHINE_SETTINGS, max_examples=8)
