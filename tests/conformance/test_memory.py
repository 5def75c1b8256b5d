"""The log in memory keeps the guarantees that memory can keep."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from madlog.topics.errors import NotWritten
from madlog.topics.log import Log, Record
from madlog.topics.memory import MemoryLog
from madlog.topics.positions import Position, TopicPartition
from madlog.topics.testing import LogMachine, LogTests, ManualClock


def memory(log: Log) -> MemoryLog:
    assert isinstance(log, MemoryLog)
    return log


class TestMemory(LogTests):
    async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return MemoryLog(clock)

    async def make_small_log(self, tmp_path: Path, clock: ManualClock) -> Log:
        return MemoryLog(clock, bytes_max=10_000)

    async def reopen(self, log: Log) -> Log:
        await log.close()
        return memory(log).reopened()

    async def raw_records(self, log: Log, topic: str) -> list[Record]:
        return memory(log).stored(topic)

    async def damage(self, log: Log, position: Position) -> None:
        memory(log).damage(position)

    async def expire(self, log: Log, tp: TopicPartition, before_offset: int) -> None:
        await memory(log).expire(tp.topic, tp.partition, before_offset)

    @contextmanager
    def failing_writes(self, log: Log) -> Iterator[None]:
        def fail() -> None:
            raise NotWritten("the storage failed, as the test asked")

        memory(log).fault = fail
        yield
        memory(log).fault = None


class MemoryMachine(LogMachine):
    suite = TestMemory


TestMemoryAgainstAList = MemoryMachine.TestCase
