"""What can be asked of a cluster about consumer groups, and setting their positions."""

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.protocol.admin import DescribeGroupsRequest, ListGroupsRequest
from aiokafka.protocol.commit import OffsetCommitRequest

from madlog.topics._kafka_client import Cluster, raise_error
from madlog.topics._kafka_requests import UNSTABLE_OFFSET_COMMIT, StableOffsets
from madlog.topics.errors import GroupBusy, LogUnavailable
from madlog.topics.log import GroupState
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("committed", "group_states", "reset")

_UNSTABLE_S = 0.003
# A group of the newer protocol is told as dead to whoever asks by this one.
_STATES = {
    "Stable": "stable",
    "Empty": "empty",
    "PreparingRebalance": "rebalancing",
    "CompletingRebalance": "rebalancing",
    "Dead": "not told",
}
_MEMBERS_LIVE = (
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
)


async def committed(
    cluster: Cluster, group: str, tps: Collection[TopicPartition] | None = None
) -> Vector:
    """Return the positions that a group has committed in these partitions, by default in all."""
    if tps is None:
        tps = await _every_partition(cluster)
    named: dict[str, list[int]] = {}
    for tp in tps:
        named.setdefault(cluster.physical(tp.topic), []).append(tp.partition)
    unstable = False

    def check(response: Any) -> None:
        nonlocal unstable
        raise_error(response.error_code)
        codes = [one[4] for _, partitions, _ in response.topics for one in partitions]
        unstable = UNSTABLE_OFFSET_COMMIT in codes
        for code in codes:
            if code != UNSTABLE_OFFSET_COMMIT:
                raise_error(code)

    deadline = asyncio.get_running_loop().time() + cluster.timeout_s
    while True:
        request = StableOffsets(cluster.physical(group), list(named.items()))
        response = await cluster.ask_coordinator(group, request, check)
        if not unstable:
            break
        if asyncio.get_running_loop().time() > deadline:
            raise LogUnavailable(
                f"a transaction has held the positions of the consumer group {group} for "
                f"{cluster.timeout_s:g} s: it ends by its own time-out, so try again"
            )
        await asyncio.sleep(_UNSTABLE_S)
    found = {}
    for physical, partitions, _ in response.topics:
        name = cluster.logical(physical)
        for partition, offset, *_ in partitions:
            if name is not None and offset >= 0:
                found[TopicPartition(name, partition)] = offset
    return Vector(found)


async def _every_partition(cluster: Cluster) -> list[TopicPartition]:
    counts = await cluster.topics()
    return [TopicPartition(name, number) for name in counts for number in range(counts[name])]


async def group_states(cluster: Cluster) -> list[GroupState]:
    """Return every consumer group of this log."""
    names: set[str] = set()
    for node in cluster.nodes():

        async def ask(node: int = node) -> Any:
            response = await cluster.send(node, ListGroupsRequest())
            raise_error(response.error_code)
            return response

        response = await cluster.call("listing consumer groups", ask)
        for physical, protocol_type in response.groups:
            name = cluster.logical(physical)
            if name and protocol_type in ("", ConsumerProtocol.PROTOCOL_TYPE):
                names.add(name)
    tps = await _every_partition(cluster)
    return [await _state(cluster, name, tps) for name in sorted(names)]


async def _state(cluster: Cluster, group: str, tps: Collection[TopicPartition]) -> GroupState:
    def check(response: Any) -> None:
        for code, *_ in response.groups:
            if kafka_errors.for_code(code) is not kafka_errors.GroupIdNotFound:
                raise_error(code)

    request = DescribeGroupsRequest([cluster.physical(group)])
    response = await cluster.ask_coordinator(group, request, check)
    places = await committed(cluster, group, tps)
    topics = {tp.topic for tp in places}
    members: dict[TopicPartition, str] = {}
    word = ""
    for _, _, said, _, _, described, *_ in response.groups:
        word = _STATES.get(said, "")
        for member_id, _, _, metadata, assignment in described:
            if metadata:
                for physical in ConsumerProtocol.METADATA.decode(metadata).subscription:
                    topics.add(cluster.logical(physical) or physical)
            if assignment:
                for physical, partition in ConsumerProtocol.ASSIGNMENT.decode(
                    assignment
                ).partitions():
                    tp = TopicPartition(cluster.logical(physical) or physical, partition)
                    members[tp] = member_id
    return GroupState(group, tuple(sorted(topics)), places, dict(sorted(members.items())), word)


async def reset(cluster: Cluster, group: str, positions: Vector) -> None:
    """Set a group's committed positions; raises GroupBusy while members live."""
    topics: dict[str, list[tuple[int, int, str]]] = {}
    for tp, offset in positions.items():
        await cluster.check_partition(tp)
        topics.setdefault(cluster.physical(tp.topic), []).append((tp.partition, offset, ""))

    def check(response: Any) -> None:
        for _, partitions in response.topics:
            for _, code in partitions:
                if kafka_errors.for_code(code) in _MEMBERS_LIVE:
                    raise GroupBusy(
                        f"the consumer group {group} has live members: stop them before its "
                        "positions are reset"
                    )
                raise_error(code)

    request = OffsetCommitRequest(cluster.physical(group), -1, "", -1, list(topics.items()))
    await cluster.ask_coordinator(group, request, check)
