"""The connection to a Kafka cluster: requests by aiokafka's client, retried until a deadline.

Names outside this module are the catalogue's; a cluster's own are those with the log's prefix.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaClient
from aiokafka import TopicPartition as KafkaPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.util import create_task

from madlog.topics._kafka_refusal import refusal
from madlog.topics.errors import LogError, LogUnavailable, UnknownTopic
from madlog.topics.kafka_address import KafkaAddress
from madlog.topics.positions import TopicPartition

__all__ = ("EARLIEST", "LATEST", "READ_COMMITTED", "Cluster", "Fetched", "raise_error")

LATEST = -1
EARLIEST = -2
READ_COMMITTED = 1
_BACKOFF_S = 0.1
_REFUSAL_S_MAX = 3.0
_REQUEST_S_MIN = 4.0
_PARTITION_BYTES = 1 << 20
_FETCH_BYTES = 8 << 20

# What goes wrong is told by our own errors; without a handler these would reach a person's screen.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

_T = TypeVar("_T")
_AGAIN = (KafkaError, OSError, asyncio.TimeoutError)
_STALE = (
    kafka_errors.NotLeaderForPartitionError,
    kafka_errors.LeaderNotAvailableError,
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.ReplicaNotAvailableError,
)
_DENIED = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
    kafka_errors.AuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IncompatibleBrokerVersion,
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One partition's part of a fetch: raw record batches, and where the partition stands."""

    at: int
    stable_end: int
    end: int
    start: int
    aborted: list[tuple[int, int]]
    data: bytes
    error: type[KafkaError]


def raise_error(code: int) -> None:
    """Raise the error of a Kafka error code, if it is one."""
    error = kafka_errors.for_code(code)
    if error is not kafka_errors.NoError:
        raise error()


class Cluster:
    """A Kafka cluster as one log sees it; every call gives up after `timeout_s`."""

    def __init__(self, address: KafkaAddress, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        # Less than a call has, so that what a broker that hangs was asked is asked of another.
        self.request_timeout_s = min(2 * timeout_s, max(_REQUEST_S_MIN, timeout_s / 3))
        self._prefix = address.prefix
        self._client: AIOKafkaClient | None = None
        self._coordinators: dict[str, int] = {}

    @property
    def client(self) -> AIOKafkaClient:
        """The client underneath; raises LogUnavailable once closed."""
        if self._client is None:
            raise LogUnavailable(f"the log at {self.address.url} is closed: open it again")
        return self._client

    def physical(self, name: str) -> str:
        """Return what the cluster calls a topic or group of this log."""
        return self._prefix + name

    def logical(self, name: str) -> str | None:
        """Return what this log calls a topic or group of the cluster, None if it is another's."""
        return name[len(self._prefix) :] if name.startswith(self._prefix) else None

    def new_client(self, request_timeout_s: float) -> AIOKafkaClient:
        """Return a client of its own, not connected yet."""
        return AIOKafkaClient(
            request_timeout_ms=int(request_timeout_s * 1000),
            retry_backoff_ms=int(_BACKOFF_S * 1000),
            **self.address.client_arguments(),
        )

    async def open(self) -> None:
        """Connect; raises LogUnavailable."""
        self._client = self.new_client(self.request_timeout_s)
        try:
            await self.bootstrap(self._client)
        except BaseException:
            await self.close()
            raise

    async def bootstrap(self, client: AIOKafkaClient) -> None:
        """Connect a client; raises LogUnavailable."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await client.bootstrap()
        except _AGAIN as error:
            why = await refusal(self.address, min(self.timeout_s, _REFUSAL_S_MAX))
            raise LogUnavailable(
                f"we could not connect to the Kafka cluster at {self.address.url}: {why}"
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def call(
        self, what: str, work: Callable[[], Awaitable[_T]], timeout_s: float | None = None
    ) -> _T:
        """Do a thing that may be repeated until it succeeds; raises LogUnavailable."""
        last: BaseException = TimeoutError()
        try:
            async with asyncio.timeout(timeout_s or self.timeout_s) as limit:
                # The limit cancels once: what was just failing may have taken that for its own.
                while not limit.expired():
                    try:
                        return await work()
                    except (LogError, *_DENIED):
                        raise
                    except _AGAIN as error:
                        last = error
                    await self._refresh()
                    await asyncio.sleep(_BACKOFF_S)
                raise TimeoutError
        except _DENIED as error:
            raise self._unavailable(what, error) from error
        except TimeoutError as error:
            raise self._unavailable(what, last) from error

    async def _refresh(self) -> None:
        # Not wait_for, which drops a cancellation that comes as its future is done.
        with contextlib.suppress(*_AGAIN):
            async with asyncio.timeout(self.timeout_s):
                await self.client.force_metadata_update()

    def _unavailable(self, what: str, error: BaseException) -> LogUnavailable:
        if isinstance(error, TimeoutError):
            why = "no answer"
        elif isinstance(error, kafka_errors.KafkaConnectionError):
            why = "no broker takes a connection"
        else:
            why = str(error).strip() or type(error).__name__
        return LogUnavailable(
            f"the Kafka cluster at {self.address.url} did not serve us within "
            f"{self.timeout_s:g} s ({what}: {why}): see that it runs, and that the address and "
            "the security settings are right"
        )

    async def send(self, node: int, request: Any, channel: Hashable = "asking") -> Any:
        """Send a request to a node and return its response."""
        return await self.client.send(node, request, group=channel)

    def hang_up(self, channel: Hashable) -> None:
        """Close the connections of a channel."""
        if self._client is None:
            return
        connections = self._client._conns
        for key in [key for key in connections if key[1] == channel]:
            connections.pop(key).close()

    async def topics(self) -> dict[str, int]:
        """Return the partition count of each topic of this log."""
        found = await self.call("listing topics", self.client.fetch_all_metadata)
        counts = {}
        for physical in found.topics(exclude_internal_topics=True):
            name = self.logical(physical)
            if name is not None and name.startswith("mad."):
                counts[name] = len(found.partitions_for_topic(physical) or ())
        return dict(sorted(counts.items()))

    async def partitions(self, topics: Collection[str]) -> list[TopicPartition]:
        """Return the partitions of topics; raises UnknownTopic."""
        return [
            TopicPartition(name, number)
            for name in topics
            for number in range(await self.partition_count(name))
        ]

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has; raises UnknownTopic."""
        physical = self.physical(topic)
        found = self.client.cluster.partitions_for_topic(physical)
        if not found:
            await self.call("asking for topics", self._update)
            found = self.client.cluster.partitions_for_topic(physical)
        if not found:
            raise UnknownTopic(f"the log holds no topic {topic[:80]!r}: create it first")
        return len(found)

    async def check_partition(self, tp: TopicPartition) -> None:
        """Raise UnknownTopic unless the partition is there."""
        count = await self.partition_count(tp.topic)
        if not 0 <= tp.partition < count:
            raise UnknownTopic(f"there is no {tp}: {tp.topic} has {count} partitions")

    async def _update(self) -> None:
        if not await self.client.force_metadata_update():
            raise kafka_errors.NodeNotReadyError("no broker answers")

    def leader(self, tp: TopicPartition) -> int:
        """Return the node that leads a partition; raises a KafkaError that is worth a retry."""
        node = self.client.cluster.leader_for_partition(
            KafkaPartition(self.physical(tp.topic), tp.partition)
        )
        if node is None or node == -1:
            raise kafka_errors.LeaderNotAvailableError(str(tp))
        return int(node)

    def by_leader(
        self, values: Mapping[TopicPartition, Any]
    ) -> dict[int, dict[str, list[tuple[TopicPartition, Any]]]]:
        """Group values of partitions by the node that leads them and by topic."""
        nodes: dict[int, dict[str, list[tuple[TopicPartition, Any]]]] = {}
        for tp, value in values.items():
            topics = nodes.setdefault(self.leader(tp), defaultdict(list))
            topics[self.physical(tp.topic)].append((tp, value))
        return nodes

    async def offsets(
        self, tps: Collection[TopicPartition], time_ms: int, isolation: int = READ_COMMITTED
    ) -> dict[TopicPartition, int]:
        """Return each partition's offset at a time, LATEST or EARLIEST; -1 where there is none."""

        async def ask() -> dict[TopicPartition, int]:
            found: dict[TopicPartition, int] = {}
            for node, topics in self.by_leader(dict.fromkeys(tps, time_ms)).items():
                wanted = [
                    (name, [(tp.partition, at) for tp, at in places])
                    for name, places in topics.items()
                ]
                response = await self.send(node, OffsetRequest(-1, isolation, wanted))
                for name, partitions in response.topics:
                    for partition, code, _, offset in partitions:
                        raise_error(code)
                        found[TopicPartition(self.logical(name) or name, partition)] = offset
            return found

        return await self.call("asking for offsets", ask)

    async def fetch(
        self,
        positions: Mapping[TopicPartition, int],
        *,
        max_wait_ms: int,
        channel: Hashable,
    ) -> dict[TopicPartition, Fetched]:
        """Fetch from positions of partitions, waiting for news at most max_wait_ms.

        Raises KafkaError, OSError or TimeoutError where trying again can help.
        """
        found: dict[TopicPartition, Fetched] = {}
        nodes = self.by_leader(positions)
        # With several leaders none is waited for: news of one must not wait for another's silence.
        wait_ms = max_wait_ms if len(nodes) == 1 else min(max_wait_ms, 50)
        requests = []
        for node, topics in nodes.items():
            wanted = [
                (name, [(tp.partition, at, _PARTITION_BYTES) for tp, at in places])
                for name, places in topics.items()
            ]
            request = FetchRequest(wait_ms, 1, _FETCH_BYTES, READ_COMMITTED, wanted)
            requests.append(self.send(node, request, channel))
        for response in await asyncio.gather(*requests):
            for name, partitions in response.topics:
                for partition, code, end, stable, start, aborted, _, data in partitions:
                    tp = TopicPartition(self.logical(name) or name, partition)
                    error = kafka_errors.for_code(code)
                    if issubclass(error, _STALE):
                        self.client.force_metadata_update()
                    found[tp] = Fetched(
                        positions[tp], stable, end, start, aborted or [], data or b"", error
                    )
        return found

    async def coordinator(self, group: str) -> int:
        """Return the node that coordinates a group."""
        node = self._coordinators.get(group)
        if node is None:
            node = await self.client.coordinator_lookup(
                CoordinationType.GROUP, self.physical(group)
            )
            self._coordinators[group] = node
        return node

    async def ask_coordinator(self, group: str, request: Any, check: Callable[[Any], None]) -> Any:
        """Send a request to a group's coordinator; `check` raises the errors of the response."""

        async def ask() -> Any:
            try:
                node = await self.coordinator(group)
                response = await self.send(node, request, ConnectionGroup.COORDINATION)
                check(response)
            except KafkaError:
                self._coordinators.pop(group, None)
                raise
            return response

        return await self.call(f"asking about the group {group}", ask)

    def nodes(self) -> list[int]:
        """Return the nodes of the cluster."""
        return sorted(broker.nodeId for broker in self.client.cluster.brokers())

    def background(self, work: Any) -> "asyncio.Task[Any]":
        """Start work that goes on by itself."""
        task: asyncio.Task[Any] = create_task(work)
        return task
