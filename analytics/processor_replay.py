"""Rebuilds a processor's state from its input and compares it with its changelog.

The changelog says up to which offset of its input the state is folded; stepping a fresh state
over the input up to there must give the same values, since a step is pure. Records that became
dead letters changed no state and are left out here too; where a letter was processed later, on
the state as it then was, the partition cannot be compared, and the report says so.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from madlog.analytics.projections import state_digest
from madlog.analytics.replay_report import Compared, Meter, RebuildReport, first_difference
from madlog.processors.dead_letters import dead_letters
from madlog.processors.state import PartitionState
from madlog.processors.step import Processor
from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import state as state_topic
from madlog.topics.log import OnDamage

__all__ = ("rebuild_state",)


@dataclass
class _Letters:
    """The dead letters of one partition of a processor's input."""

    offsets: set[int] = field(default_factory=set)
    settled: bool = False


async def rebuild_state(
    log: EventLog,
    processor: Processor,
    report: RebuildReport,
    meter: Meter,
    on_damage: OnDamage,
    until: Vector | None = None,
) -> None:
    """Rebuild a processor's state, partition by partition, and add what was found to the report.

    A partition whose state is past `until` is not compared there.
    """
    name = state_topic(processor.name).name
    topics = await log.log.topics()
    digests: dict[str, Any] = {}
    lives: dict[str, Any] = {}
    positions: dict[TopicPartition, int] = {}
    retried: list[str] = []
    past: list[str] = []
    shared = await _shared(log, processor, topics, on_damage)
    letters = await _letters(log, processor)
    for topic in processor.inputs:
        for partition in range(topics.get(topic, 0) if name in topics else 0):
            source = TopicPartition(topic, partition)
            live = await _live(log, processor, source, on_damage)
            if live.position < 0:
                continue
            if until is not None and live.position > until.get(source, 0):
                past.append(str(source))
                continue
            dead = letters.get(source, _Letters())
            if dead.settled:
                retried.append(str(source))
                continue
            fresh = PartitionState(source)
            meter.total += live.position
            upto = Vector({source: live.position})
            await _step_all(log, processor, fresh, shared, dead, upto, meter, on_damage)
            positions[source] = live.position
            was, now = live.values(), fresh.values()
            lives[str(source)] = state_digest(was)
            digests[str(source)] = state_digest(now)
            if lives[str(source)] != digests[str(source)] and report.difference is None:
                report.difference = first_difference(name, {str(source): was}, {str(source): now})
    note = "" if lives else "there was no live projection yet"
    if past:
        note = f"not compared, because its state is past the place asked for: {', '.join(past)}"
    if retried:
        note = f"not compared, because dead letters of it were retried: {', '.join(retried)}"
    live_digest = state_digest(lives) if lives else None
    report.projections.append(
        Compared(name, state_digest(digests), live_digest, Vector(positions), note)
    )


async def _letters(log: EventLog, processor: Processor) -> dict[TopicPartition, _Letters]:
    found: dict[TopicPartition, _Letters] = {}
    for letter in await dead_letters(log):
        if letter.fields["processor"] == processor.name:
            there = found.setdefault(letter.topic_partition, _Letters())
            there.offsets.add(letter.fields["offset"])
            there.settled = there.settled or letter.settled
    return found


async def _shared(
    log: EventLog, processor: Processor, topics: Collection[str], on_damage: OnDamage
) -> dict[str, Any]:
    shared: dict[str, Any] = {}
    names = [name for name in processor.shared if name in topics]
    async for events in log.read_topics(names, on_damage=on_damage):
        for event in events:
            try:
                processor.share(shared, event)
            except Exception:  # a rejected model was dead-lettered then too
                continue
    return shared


async def _live(
    log: EventLog, processor: Processor, source: TopicPartition, on_damage: OnDamage
) -> PartitionState:
    """Fold the changelog of one input partition."""
    changelog = TopicPartition(state_topic(processor.name).name, source.partition)
    # As the engine writes it: several inputs' keys are kept apart by their topic.
    live = PartitionState(changelog, f"{source.topic}/" if len(processor.inputs) > 1 else "")
    end = await log.log.end([changelog.topic])
    upto = Vector({changelog: end[changelog]})
    async for records in log.log.read(Vector(), upto, on_damage=on_damage):
        live.fold(records)
    return live


async def _step_all(
    log: EventLog,
    processor: Processor,
    fresh: PartitionState,
    shared: dict[str, Any],
    dead: _Letters,
    upto: Vector,
    meter: Meter,
    on_damage: OnDamage,
) -> None:
    async for events in log.read(Vector(), upto, on_damage=on_damage):
        for event in events:
            if event.record.offset not in dead.offsets:
                _step(processor, fresh, shared, event)
        if events:
            fresh.accept(events[-1].record.offset)
            meter.batch(len(events), str(events[-1].position))


def _step(
    processor: Processor, fresh: PartitionState, shared: dict[str, Any], event: LogEvent
) -> None:
    overlay = fresh.overlay(shared)
    try:
        processor.step(overlay, event)
    except Exception:  # a failed step changes no state
        return
    fresh.keep(overlay)
