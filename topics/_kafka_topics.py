"""Topics as Kafka is to have them: the settings that keep what the catalogue promises."""

from collections.abc import Sequence
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteRecordsRequest

from madlog.topics import catalog
from madlog.topics._kafka_client import Cluster, raise_error
from madlog.topics._kafka_config_requests import LogDirs
from madlog.topics.catalog import Topic
from madlog.topics.errors import LogUnavailable, TopicMismatch, UnknownTopic
from madlog.topics.positions import TopicPartition

__all__ = (
    "create_topic",
    "delete_records",
    "disk_bytes",
    "replicas",
    "request_topics",
    "send_to_controller",
    "topic_settings",
    "wait_for_topic",
)

_REPLICAS = 3
# Headers, key and framing of a record, over its value's limit.
_RECORD_OVERHEAD = 128 << 10


def replicas(brokers: int) -> tuple[int, int]:
    """Return how many replicas a topic gets on so many brokers, and how many must acknowledge."""
    count = max(1, min(_REPLICAS, brokers))
    return count, max(1, count - 1)


def topic_settings(topic: Topic, brokers: int, record_bytes_max: int) -> dict[str, str]:
    """Return the settings of a topic on a cluster of so many brokers."""
    settings = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": "-1" if topic.retention_s is None else str(topic.retention_s * 1000),
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(replicas(brokers)[1]),
        "max.message.bytes": str(max(2 << 20, record_bytes_max + _RECORD_OVERHEAD)),
    }
    if topic.compacted:
        # A state's changelog is read whole at a takeover: let it shrink soon.
        settings |= {"segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.2"}
    return settings


async def create_topic(cluster: Cluster, topic: Topic, record_bytes_max: int) -> None:
    """Make a topic; nothing happens if it is there. Raises TopicMismatch, UnknownTopic."""
    catalog.topic(topic.name)
    there = (await cluster.topics()).get(topic.name)
    if there is None:
        await cluster.call("creating a topic", lambda: _create(cluster, topic, record_bytes_max))
        there = await wait_for_topic(cluster, topic)
    if there != topic.partitions:
        raise TopicMismatch(
            f"{topic.name} has {there} partitions, not {topic.partitions}: "
            "give the number that it has"
        )


async def _create(cluster: Cluster, topic: Topic, record_bytes_max: int) -> None:
    await request_topics(cluster, [topic], record_bytes_max)


async def request_topics(
    cluster: Cluster,
    topics: Sequence[Topic],
    record_bytes_max: int,
    *,
    validate_only: bool = False,
) -> None:
    """Ask for topics at once, or whether they would be made; those that are there are left."""
    brokers = len(cluster.nodes())
    wanted: list[Any] = [
        (
            cluster.physical(topic.name),
            topic.partitions,
            replicas(brokers)[0],
            [],
            list(topic_settings(topic, brokers, record_bytes_max).items()),
        )
        for topic in topics
    ]
    request = CreateTopicsRequest(wanted, int(cluster.timeout_s * 1000), validate_only)
    response = await send_to_controller(cluster, request)
    for physical, code, message in response.topic_errors:
        error = kafka_errors.for_code(code)
        if error is kafka_errors.NoError or error is kafka_errors.TopicAlreadyExistsError:
            continue
        if error.retriable:
            raise error(message)
        raise LogUnavailable(
            f"the Kafka cluster did not make the topic {cluster.logical(physical)}: "
            f"{message or error.__name__}"
        )


async def send_to_controller(cluster: Cluster, request: Any) -> Any:
    """Send a request to the cluster's controller."""
    controller = cluster.client.cluster.controller
    if controller is None:
        raise kafka_errors.NodeNotReadyError("the controller is not known yet")
    return await cluster.send(controller.nodeId, request)


async def wait_for_topic(cluster: Cluster, topic: Topic) -> int:
    """Wait until every partition has a leader, as any member of the cluster will see it soon."""

    async def look() -> int:
        await cluster.client.force_metadata_update()
        try:
            count = await cluster.partition_count(topic.name)
        except UnknownTopic as error:
            # Another process made it at the same time: the controller knows, not yet the brokers.
            raise kafka_errors.UnknownTopicOrPartitionError from error
        for number in range(count):
            cluster.leader(TopicPartition(topic.name, number))
        await cluster.offsets([TopicPartition(topic.name, n) for n in range(count)], -1)
        return count

    return await cluster.call("waiting for a new topic", look)


async def delete_records(cluster: Cluster, tp: TopicPartition, before_offset: int) -> None:
    """Drop the records of a partition below an offset."""

    async def ask() -> None:
        node = cluster.leader(tp)
        topics = [(cluster.physical(tp.topic), [(tp.partition, before_offset)])]
        request = DeleteRecordsRequest(topics, int(cluster.timeout_s * 1000))
        response = await cluster.send(node, request)
        for _, partitions, *_ in response.topics:
            for _, _, code, *_ in partitions:
                raise_error(code)

    await cluster.call("dropping old records", ask)


async def disk_bytes(cluster: Cluster, tps: Sequence[TopicPartition]) -> int | None:
    """Return what partitions take on the disks of all brokers; None when they do not tell."""
    wanted: dict[str, list[int]] = {}
    for tp in tps:
        wanted.setdefault(cluster.physical(tp.topic), []).append(tp.partition)
    found: set[tuple[str, int]] = set()
    total = 0
    for node in cluster.nodes():

        async def ask(node: int = node) -> Any:
            return await cluster.send(node, LogDirs(wanted))

        response = await cluster.call("asking for sizes on disk", ask)
        for code, _, topics in response.results:
            if kafka_errors.for_code(code) is not kafka_errors.NoError:
                return None  # a disk that is away, or one that we may not ask about
            for physical, partitions in topics:
                for partition, size, _, being_moved in partitions:
                    if not being_moved:
                        found.add((physical, partition))
                        total += size
    return total if len(found) == len(tps) else None
