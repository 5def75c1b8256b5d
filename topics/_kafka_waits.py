"""Open transactions that hold readers up: found, and named with their producer and age (G9).

Readers stop at the last stable offset, so a producer that died in mid-transaction, or one that
hangs, keeps them waiting until its transaction is ended. DescribeProducers (KIP-664) tells whose.
"""

import logging
from typing import Any, NamedTuple

from madlog.topics._kafka_client import Cluster, raise_error
from madlog.topics._kafka_requests import DescribeProducers
from madlog.topics.clock import Clock
from madlog.topics.positions import TopicPartition

__all__ = ("OpenTransaction", "Waits", "open_transactions")

# How long readers are held up before it is said; an engine's transactions take milliseconds.
_HANGS_S = 10.0


class OpenTransaction(NamedTuple):
    """A transaction that has not ended: where it began, whose it is, when it last wrote (µs)."""

    tp: TopicPartition
    offset: int
    producer_id: int
    producer_epoch: int
    last_at_us: int

    def age_s(self, now_us: int) -> float:
        """Return how long ago its last record was appended, in seconds."""
        return max(0.0, (now_us - self.last_at_us) / 1e6)

    def describe(self, now_us: int) -> str:
        """Say it in a sentence."""
        return (
            f"{self.tp} is held at @{self.offset} by an open transaction of producer "
            f"{self.producer_id} (epoch {self.producer_epoch}), quiet for "
            f"{self.age_s(now_us):.0f} s: readers wait there until it ends, at the latest by the "
            "producer's transaction time-out"
        )


async def open_transactions(cluster: Cluster, tps: list[TopicPartition]) -> list[OpenTransaction]:
    """Return the transactions under way in partitions; raises LogUnavailable."""

    async def ask() -> list[OpenTransaction]:
        found: list[OpenTransaction] = []
        for node, topics in cluster.by_leader(dict.fromkeys(tps)).items():
            wanted = [(name, [tp.partition for tp, _ in places]) for name, places in topics.items()]
            response: Any = await cluster.send(node, DescribeProducers(wanted))
            for name, partitions, _ in response.topics:
                for partition, code, _, producers, _ in partitions:
                    raise_error(code)
                    tp = TopicPartition(cluster.logical(name) or name, partition)
                    found += [
                        OpenTransaction(tp, began, pid, epoch, at * 1000)
                        for pid, epoch, _, at, _, began, _ in producers
                        if began >= 0
                    ]
        return sorted(found, key=lambda one: (one.tp, one.offset))

    return await cluster.call("asking for open transactions", ask)


class Waits:
    """Notices where readers stand still before an open transaction, and says so once for each."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._since: dict[TopicPartition, tuple[int, int]] = {}
        self._said: set[tuple[TopicPartition, int]] = set()

    async def look(self, tp: TopicPartition, at: int, stable_end: int, end: int) -> None:
        """Take up that a reader at `at` got nothing; name what it waits for when that is long."""
        if stable_end >= end or at < stable_end:
            self._since.pop(tp, None)
            return
        now = self._clock.monotonic_ns()
        place, since = self._since.setdefault(tp, (stable_end, now))
        if place != stable_end:
            self._since[tp] = stable_end, now
        elif (now - since) / 1e9 > _HANGS_S and (tp, stable_end) not in self._said:
            self._said.add((tp, stable_end))
            for one in await open_transactions(self._cluster, [tp]):
                logging.getLogger("madlog").warning(one.describe(self._clock.now_us()))
