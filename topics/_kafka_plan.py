"""What makes a cluster's topics those of the catalogue: what differs, and what must be refused.

A setting is only ever changed towards keeping more. What would drop records that are there, or
break the order of keys, is refused in a sentence, and with it the whole plan. Settings beyond ours
are their owner's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import errors as kafka_errors
from aiokafka.protocol.admin import DescribeConfigsRequest

from madlog.topics import catalog
from madlog.topics._kafka_client import EARLIEST, LATEST, Cluster
from madlog.topics._kafka_config_requests import TOPIC, IncrementalAlterConfigs
from madlog.topics._kafka_topics import (
    replicas,
    request_topics,
    send_to_controller,
    topic_settings,
    wait_for_topic,
)
from madlog.topics.catalog import Topic
from madlog.topics.errors import LogUnavailable, TopicMismatch
from madlog.topics.plan import Change, TopicPlan
from madlog.topics.positions import TopicPartition

__all__ = ("Standing", "apply", "differences", "not_promised", "plan")

_BROKERS_SAFE = 3


class Standing(NamedTuple):
    """A topic as the cluster has it: partitions, fewest replicas, our settings, any records."""

    partitions: int
    replicas: int
    settings: Mapping[str, str]
    holds_records: bool


def not_promised(brokers: int) -> tuple[str, ...]:
    """Return in words what a cluster of so many brokers does not promise."""
    power = (
        "a power cut of all brokers at once may take the last acknowledged turns: Kafka "
        "acknowledges before it syncs its disks"
    )
    if brokers >= _BROKERS_SAFE:
        return (power,)
    if brokers == _BROKERS_SAFE - 1:
        few = (
            "two brokers: while one of them is away a turn is acknowledged by the other alone, and "
            "if that one's disk is lost before the first has caught up, so are those turns; three "
            "brokers keep each acknowledged turn on two at least"
        )
    else:
        few = (
            "one broker: an acknowledged turn is on one machine only; if its disk is lost, so are "
            "the turns, and while it is away nothing can be appended or read; three brokers keep "
            "each acknowledged turn on two at least"
        )
    return few, power


async def plan(cluster: Cluster, topics: Sequence[Topic], record_bytes_max: int) -> TopicPlan:
    """Return what it takes to make these topics as the catalogue has them; changes nothing."""
    standing = await cluster.call("looking at topics", lambda: _standing(cluster, topics))
    brokers = len(cluster.nodes())
    changes: list[Change] = []
    for topic in topics:
        there = standing.get(topic.name)
        if there is None:
            count, acknowledged = replicas(brokers)
            wanted = (
                f"{topic.partitions} partitions on {count} of {brokers} brokers, acknowledged by "
                f"{acknowledged}, kept {topic.keeps}"
            )
            changes.append(Change(topic.name, "topic", None, wanted, "make"))
        else:
            physical = cluster.physical(topic.name)
            changes += differences(topic, physical, there, brokers, record_bytes_max)
    make = tuple(topic for topic in topics if topic.name not in standing)
    # A broker that is away for now takes nothing from topics that have their replicas.
    copies = min((there.replicas for there in standing.values()), default=0)
    promised = brokers if make else max(brokers, copies)
    return TopicPlan(tuple(changes), make, not_promised(promised), brokers)


def differences(
    topic: Topic, physical: str, there: Standing, brokers: int, record_bytes_max: int
) -> list[Change]:
    """Return what differs between a topic as it is and as it is to be."""
    changes: list[Change] = []
    if there.partitions != topic.partitions:
        changes.append(_partitions(topic, physical, there))
    copies = replicas(brokers)[0]
    if there.replicas < copies:
        advice = (
            f"give {physical} {copies} replicas with kafka-reassign-partitions.sh, then apply "
            f"again: until then its records are on {there.replicas} of {brokers} brokers"
        )
        now, wanted = str(there.replicas), str(copies)
        changes.append(Change(topic.name, "replication", now, wanted, "advise", advice))
    settings = topic_settings(topic, there.replicas, record_bytes_max)
    for what, value in settings.items():
        current = there.settings.get(what)
        if current is None or not _differs(what, current, value, there.replicas):
            continue
        refusal = _refusal(topic, what, current, value, there.holds_records)
        action = "refuse" if refusal else "set"
        note = refusal or _note(what, current, there.holds_records)
        changes.append(Change(topic.name, what, current, value, action, note))  # type: ignore[arg-type]
    return changes


def _partitions(topic: Topic, physical: str, there: Standing) -> Change:
    cure = (
        "begin a new log under another prefix and bring the conversations over with madlog export "
        "and import"
        if there.holds_records
        else f"it is empty, so remove it with kafka-topics.sh --delete --topic {physical} and "
        "apply again"
    )
    return Change(
        topic.name,
        "partitions",
        str(there.partitions),
        str(topic.partitions),
        "refuse",
        f"{topic.name} has {there.partitions} partitions, the catalogue says {topic.partitions}: "
        f"changing their number would break the order of its keys; {cure}",
    )


def _differs(what: str, now: str, wanted: str, copies: int) -> bool:
    if what == "max.message.bytes":
        return int(now) < int(wanted)  # larger takes all that we want to append
    if what == "min.insync.replicas":
        # More is safer, up to where nothing can be acknowledged any more.
        return int(now) < int(wanted) or int(now) > copies
    if what == "cleanup.policy":
        return _policies(now) != _policies(wanted)
    try:
        return float(now) != float(wanted)
    except ValueError:
        return now != wanted


def _policies(text: str) -> set[str]:
    return {part.strip() for part in text.split(",") if part.strip()}


def _refusal(topic: Topic, what: str, now: str, wanted: str, holds_records: bool) -> str:
    """Return why a setting must not be changed, in a sentence; empty when it may be."""
    if not holds_records:
        return ""
    if what == "retention.ms" and _shorter(now, wanted):
        harm = "drop records that are there"
    elif what == "cleanup.policy" and "compact" in _policies(wanted) - _policies(now):
        harm = "drop all but the last record of each key"
    elif (
        what == "cleanup.policy"
        and "delete" in _policies(wanted) - _policies(now)
        and topic.retention_s is not None
    ):
        harm = "drop records that are there"
    else:
        return ""
    return (
        f"{topic.name} has {what}={now}, the catalogue says {wanted}: setting it would {harm}; if "
        "that is meant, set it with kafka-configs.sh"
    )


def _shorter(now: str, wanted: str) -> bool:
    before, after = int(now), int(wanted)
    return after >= 0 and (before < 0 or after < before)


def _note(what: str, now: str, holds_records: bool) -> str:
    if not holds_records:
        return ""
    if what == "cleanup.policy" and "compact" in _policies(now):
        return "stops the compaction; what it has dropped since is gone"
    if what.startswith("retention."):
        return "keeps what is there now; what has been dropped since is gone"
    if what == "message.timestamp.type":
        return "for records appended from now on; earlier ones keep their writers' times"
    return ""


async def apply(cluster: Cluster, todo: TopicPlan, record_bytes_max: int) -> None:
    """Do what a plan says that refuses nothing; the cluster is asked first whether all can be."""
    settings: dict[str, dict[str, str]] = {}
    for change in todo.changes:
        if change.action == "set":
            settings.setdefault(cluster.physical(change.topic), {})[change.what] = change.wanted

    async def make(validate_only: bool) -> None:
        if todo.make:
            await request_topics(cluster, todo.make, record_bytes_max, validate_only=validate_only)

    async def alter(validate_only: bool) -> None:
        if settings:
            request = IncrementalAlterConfigs(settings, validate_only=validate_only)
            _check_altered(cluster, await send_to_controller(cluster, request))

    for validate_only in (True, False):
        await cluster.call("setting topics", lambda on=validate_only: alter(on))  # type: ignore[misc]
        await cluster.call("making topics", lambda on=validate_only: make(on))  # type: ignore[misc]
    for topic in todo.make:
        count = await wait_for_topic(cluster, topic)
        if count != topic.partitions:
            raise TopicMismatch(
                f"another program made {topic.name} just now with {count} partitions, not "
                f"{topic.partitions}: apply again, which says what to do"
            )


def _check_altered(cluster: Cluster, response: Any) -> None:
    for code, message, _, physical in response.responses:
        error = kafka_errors.for_code(code)
        if error is kafka_errors.NoError:
            continue
        if error.retriable:
            raise error(message)
        raise LogUnavailable(
            f"the Kafka cluster did not change the settings of {cluster.logical(physical)}: "
            f"{message or error.__name__}"
        )


async def _standing(cluster: Cluster, topics: Sequence[Topic]) -> dict[str, Standing]:
    """Ask what the cluster has of these topics: three kinds of requests, whatever their number."""
    metadata = await cluster.client.fetch_all_metadata()
    await cluster.client.force_metadata_update()  # leaders, where we ask for offsets
    found: dict[str, list[int]] = {}
    for topic in topics:
        parts = metadata._partitions.get(cluster.physical(topic.name))
        if parts:
            found[topic.name] = [len(part.replicas) for part in parts.values()]
    if not found:
        return {}
    settings = await _settings(cluster, list(found))
    tps = [TopicPartition(name, n) for name, copies in found.items() for n in range(len(copies))]
    low = await cluster.offsets(tps, EARLIEST)
    high = await cluster.offsets(tps, LATEST, isolation=0)
    full = {tp.topic for tp in tps if high[tp] > low[tp]}
    return {
        name: Standing(len(copies), min(copies), settings.get(name, {}), name in full)
        for name, copies in found.items()
    }


async def _settings(cluster: Cluster, names: Sequence[str]) -> dict[str, dict[str, str]]:
    # Topics of both kinds together have every setting that is ours.
    ours = [*topic_settings(catalog.state("any"), 1, 0)]
    request = DescribeConfigsRequest([(TOPIC, cluster.physical(name), ours) for name in names])
    response = await send_to_controller(cluster, request)
    settings: dict[str, dict[str, str]] = {}
    for code, message, _, physical, entries in response.resources:
        error = kafka_errors.for_code(code)
        name = cluster.logical(physical) or physical
        if error is not kafka_errors.NoError:
            if error.retriable:
                raise error(message)
            raise LogUnavailable(
                f"the Kafka cluster does not tell the settings of {name} "
                f"({message or error.__name__}): ask for the right to describe its configuration"
            )
        settings[name] = {key: value for key, value, *_ in entries if value is not None}
    return settings
