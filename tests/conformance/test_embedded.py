"""The embedded log keeps every guarantee, with its own file looked into behind its back."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from zlib import crc32

import apsw
from hypothesis import settings

from madlog.topics._embedded_cold import packs_of
from madlog.topics._embedded_groups import EmbeddedMembership
from madlog.topics._embedded_packs import Block, pack_block, records_of, unpacked
from madlog.topics._embedded_storage import FILE_NAME, decode_headers
from madlog.topics.catalog import topic
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.log import Log, Membership, Record
from madlog.topics.positions import Position, TopicPartition, Vector
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


class PackedLog(EmbeddedLog):
    """A log that moves all that can be moved into packs whenever somebody begins to read."""

    async def _move(self) -> None:
        names = [name for name in await self.topics() if topic(name).keeps == "for ever"]
        ends = await super().end(names)
        async for _ in self.move_cold(ends, f"{self.url}/cold", bytes_min=0):
            pass

    async def end(self, topics: Collection[str]) -> Vector:
        await self._move()
        return await super().end(topics)

    async def at_time(self, topics: Collection[str], time_us: int) -> Vector:
        await self._move()
        return await super().at_time(topics, time_us)

    async def join(self, group: str, topics: Sequence[str]) -> Membership:
        await self._move()
        return await super().join(group, topics)


class TestEmbeddedInPacks(TestEmbedded):
    """The same guarantees where all but each partition's newest record is in packs."""

    async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return await PackedLog.open(tmp_path / "log", clock=clock)

    async def reopen(self, log: Log) -> Log:
        await log.close()
        return await PackedLog.open(Path(log.url), clock=log.clock, create=False)

    async def raw_records(self, log: Log, topic: str) -> list[Record]:
        records = await super().raw_records(log, topic)
        for tp, block in blocks(log):
            if tp.topic == topic:
                for one in records_of(unpacked(Path(log.url), block)):
                    offset, at, key, headers, value = one[:5]
                    headers_read = decode_headers(headers)
                    records.append(Record(*tp, offset, key, value, headers_read, at))
        return sorted(records, key=lambda record: record.position)

    async def damage(self, log: Log, position: Position) -> None:
        held = [
            block
            for tp, block in blocks(log)
            if tp == position.topic_partition and block.first <= position.offset < block.end
        ]
        if not held:
            await super().damage(log, position)
            return
        rows = []
        for one in records_of(unpacked(Path(log.url), held[0])):
            altered = one.offset == position.offset
            data = one.data[:-1] + bytes([one.data[-1] ^ altered])
            rows.append((len(one.value), data, one.crc))
        packed, _ = pack_block(rows)  # as it would be had the record been damaged before
        (Path(log.url) / held[0].place).write_bytes(packed)
        connection = connection_to(log)
        connection.execute(
            "UPDATE pack_blocks SET size=?, crc=? WHERE first=? AND partition_id=?",
            (
                len(packed),
                crc32(packed),
                held[0].first,
                partition_id(connection, position.topic, position.partition),
            ),
        )
        connection.close()


def blocks(log: Log) -> list[tuple[TopicPartition, Block]]:
    """Return the blocks of a log's packs, each of which has one here."""
    connection = connection_to(log)
    found = []
    for pack in packs_of(connection):
        number = partition_id(connection, *pack.tp)
        columns = "first, end, at, size, raw_size, crc, first_appended_at, last_appended_at"
        row = connection.execute(
            f"SELECT {columns} FROM pack_blocks WHERE partition_id=? AND first=?",
            (number, pack.offset),
        ).fetchone()
        block = Block(*cast(tuple[int, int, int, int, int, int, int, int], row))
        found.append((pack.tp, block._replace(place=pack.place)))
        assert found[-1][1].end == pack.offset_end
    connection.close()
    return found


class EmbeddedMachine(LogMachine):
    suite = TestEmbedded


TestEmbeddedAgainstAList = EmbeddedMachine.TestCase
# Each step waits for the disk: fewer runs than in memory, where all of them are made.
TestEmbeddedAgainstAList.settings = settings(MACHINE_SETTINGS, max_examples=8)


class PackedMachine(LogMachine):
    suite = TestEmbeddedInPacks


TestPackedAgainstAList = PackedMachine.TestCase
TestPackedAgainstAList.settings = settings(MACHINE_SETTINGS, max_examples=4)
