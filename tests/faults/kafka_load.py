"""Load on a Kafka log whose brokers fail: writers that follow the rule for retries, and readers.

What a writer is refused or left in doubt about it sends again under the same idempotency key, until
it is acknowledged. A sender tells once only: what it was refused must never be in the log.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.faults.history import BATCH_MAX, Ack, History, Sent, anomalies
from tests.faults.writer import TOPIC, new_record

from madlog.topics.catalog import CATALOG
from madlog.topics.errors import LogError, LogUnavailable, NotWritten, OutcomeUnknown
from madlog.topics.kafka import KafkaLog
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("PATIENCE_S", "Load", "resident_mib", "until")

PATIENCE_S = 90.0
# How many turns of a key are sent at once when a fault has made them wait.
CATCH_UP_MAX = 64
_LOOK_S = 0.01
_AGAIN_S = 0.02
_WORDS_MAX = 40


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; `what` says it where that takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if holds():
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise AssertionError(f"for {PATIENCE_S:g} s it was not so that {what}") from None


def resident_mib() -> float:
    """Return how much memory this process holds; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


class Load:
    """Writers, senders and readers of one topic, and the history that they leave."""

    def __init__(self, bootstrap: str, prefix: str, seed: int) -> None:
        self.url = f"kafka://{bootstrap}?prefix={prefix}"
        self.seed = seed
        self.rng = random.Random(seed)
        self.history = History(gaps=True, in_flight_max=max(BATCH_MAX, CATCH_UP_MAX))
        # How often writers and senders were told what: acknowledged, refused, unknown.
        self.told: Counter[str] = Counter()
        self.words: dict[str, str] = {}
        self.copies = 0
        self._following: dict[str, int] = defaultdict(int)
        # How far each reader has come.
        self._places: dict[str, dict[TopicPartition, int]] = defaultdict(dict)
        self._senders = 0
        self._acked_at: float | None = None
        self._gap_s = 0.0
        self._stop = asyncio.Event()

    @property
    def acked(self) -> int:
        """How many records were acknowledged so far."""
        return len(self.history.acks)

    async def open(self, **options: Any) -> KafkaLog:
        """Open the log, and make its topic if it is the first."""
        log = await KafkaLog.open(self.url, **options)
        await log.create_topic(CATALOG[TOPIC])
        return log

    async def more(self, count: int) -> None:
        """Wait until so many records more are acknowledged."""
        wanted = self.acked + count
        await until(lambda: self.acked >= wanted, f"{count} records more are acknowledged")

    def longest_gap_s(self) -> float:
        """Return the longest time without an acknowledgement, and begin to measure anew."""
        gap, self._gap_s = self._gap_s, 0.0
        return gap

    @asynccontextmanager
    async def writing(
        self, logs: Sequence[KafkaLog], *, keys: int, rate: float = 0
    ) -> AsyncIterator[None]:
        """Write while the block runs, one task a key; then wait for what is still to be told.

        With a rate so many turns a second come, of all keys together, whether the log keeps up or
        not (open loop); else a writer sends when it was told of the batch before.
        """
        self._stop.clear()
        self._acked_at, self._gap_s = None, 0.0
        async with asyncio.TaskGroup() as tasks:
            writers = []
            for number in range(keys):
                log, key = logs[number % len(logs)], f"w{number}"
                work = self._offer(log, key, rate / keys) if rate else self._write(log, key)
                writers.append(tasks.create_task(work))
            yield
            self._stop.set()
            await until(lambda: all(task.done() for task in writers), "all writers were told")

    async def _write(self, log: KafkaLog, key: str) -> None:
        while not self._stop.is_set():
            await self._until_acked(log, key, self.rng.randint(1, BATCH_MAX))

    async def _offer(self, log: KafkaLog, key: str, rate: float) -> None:
        loop = asyncio.get_running_loop()
        # Not all at once: a key's first turn comes somewhere in its first period.
        began, offered = loop.time() + self.rng.random() / rate, 0
        while True:
            due = max(0, int((loop.time() - began) * rate) + 1)
            if due > offered:
                count = min(due - offered, CATCH_UP_MAX)
                await self._until_acked(log, key, count)
                offered += count
            elif self._stop.is_set():
                return
            else:
                await asyncio.sleep(began + offered / rate - loop.time())

    async def _until_acked(self, log: KafkaLog, key: str, count: int) -> None:
        first = self._following[key]
        while True:
            if await self._send(log, key, range(first, first + count)) == "acknowledged":
                break
            await asyncio.sleep(_AGAIN_S)
        self._following[key] = first + count

    async def send_once(self, log: KafkaLog, *, senders: int, each: int) -> Counter[str]:
        """Let senders append at the same time and not repeat it; return what they were told."""
        first = self._senders
        self._senders += senders
        keys = [f"once-{number}" for number in range(first, self._senders)]
        return Counter(await asyncio.gather(*(self._send(log, key, range(each)) for key in keys)))

    async def _send(self, log: KafkaLog, key: str, numbers: range) -> str:
        """Append once, take down what came of it, and return that in a word."""
        sent = [Sent(key, number) for number in numbers]
        try:
            receipts = await log.append([new_record(key, number) for number in numbers])
        except OutcomeUnknown as error:
            self.history.unknown += sent
            return self._told("unknown", error)
        except (NotWritten, LogUnavailable) as error:
            self.history.refused += sent
            return self._told("refused", error)
        now = asyncio.get_running_loop().time()
        if self._acked_at is not None:
            self._gap_s = max(self._gap_s, now - self._acked_at)
        self._acked_at = now
        for number, receipt in zip(numbers, receipts, strict=True):
            self.history.acks.append(Ack(receipt.position, key, number))
        return self._told("acknowledged")

    def _told(self, what: str, error: LogError | None = None) -> str:
        self.told[what] += 1
        if error is not None and len(self.words) < _WORDS_MAX:
            self.words[str(error)] = type(error).__name__
        return what

    @asynccontextmanager
    async def reading(self, *names: str, **options: Any) -> AsyncIterator[None]:
        """Subscribe from the topic's start under each name, with a log of its own, and go on."""
        logs = [await self.open(**options) for _ in names]
        tasks = []
        for name, log in zip(names, logs, strict=True):
            tasks.append(asyncio.create_task(self._collect(name, log)))
        try:
            yield
            for name, task in zip(names, tasks, strict=True):
                assert not task.done(), f"the reader {name} stopped: {task.exception()!r}"
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError, LogError):
                    await task
            for log in logs:
                await log.close()

    async def _collect(self, name: str, log: KafkaLog) -> None:
        seen = self.history.readers.setdefault(name, [])
        async for records in log.subscribe(await log.start([TOPIC])):
            seen.extend(records)
            last = records[-1].position
            self._places[name][last.topic_partition] = last.offset

    async def judge(self) -> str:
        """Hold what was told and seen against the whole log; return the counts in a sentence."""
        history = self.history
        log = await self.open()
        try:
            end = await log.end([TOPIC])
            history.log = [one async for batch in log.read(Vector(), end) for one in batch]
        finally:
            await log.close()
        self.copies = sum(end.values()) - len(history.log)
        last = {record.position.topic_partition: record.offset for record in history.log}
        for name in history.readers:
            place = self._places[name]
            await until(lambda place=place: place == last, f"{name} has come to the end")  # type: ignore[misc]
        found = anomalies(history)
        assert found[:20] == [], f"seed {self.seed}: {len(found)} anomalies"
        for name, seen in history.readers.items():
            assert len(seen) == len(history.log), f"the reader {name} saw not all"
        told = ", ".join(f"{count} {what}" for what, count in sorted(self.told.items()))
        return (
            f"appends: {told}; {self.acked} records acknowledged, {len(history.log)} in the log, "
            f"{self.copies} second copies dropped, {len(history.readers)} readers saw all: "
            "0 lost, 0 repeated, 0 reordered"
        )
