"""Replay, first strength: rebuild. Folds everything from offset zero and compares digests.

The live projections are snapshots beside the log, brought up to date by folding the log's tail
into them, and the states of processors in their changelogs. What is rebuilt from zero, up to the
same positions, must have the same digest; if not, the first difference is named.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from madlog.analytics.projections import PROJECTIONS, Projection, State, state_digest
from madlog.analytics.replay_report import (
    Compared,
    Difference,
    Meter,
    OnProgress,
    Progress,
    RebuildReport,
    first_difference,
)
from madlog.analytics.snapshots import Snapshot, load, store
from madlog.topics import Damage, EventLog, Position, Vector
from madlog.topics.log import OnDamage, log_damage

if TYPE_CHECKING:
    from madlog.processors.step import Processor

__all__ = (
    "Compared",
    "Difference",
    "OnProgress",
    "Progress",
    "RebuildReport",
    "first_difference",
    "rebuild",
    "refresh",
)

_RECORDS = 2000


async def _fold(
    log: EventLog,
    folding: Sequence[tuple[Projection, State]],
    start: Vector,
    end: Vector,
    on_damage: OnDamage,
    meter: Meter | None = None,
) -> None:
    """Fold the log from start to end into states, reading each topic once."""
    by_topic: dict[str, list[tuple[Projection, State]]] = {}
    for projection, state in folding:
        for name in projection.topics:
            by_topic.setdefault(name, []).append((projection, state))
    upto = end.only(by_topic)
    async for events in log.read(
        start.only(by_topic), upto, records_max=_RECORDS, on_damage=on_damage
    ):
        if not events:
            continue
        for projection, state in by_topic[events[0].record.topic]:
            projection.fold(state, events)
        if meter is not None:
            meter.batch(len(events), str(events[-1].position))


async def _end(log: EventLog, projections: Collection[Projection]) -> Vector:
    wanted = {name for projection in projections for name in projection.topics}
    return await log.log.end(sorted(wanted & set(await log.log.topics())))


def _ahead(snapshot: Snapshot, end: Vector) -> Position | None:
    """Return the first place where a snapshot is past the log's end."""
    for tp in sorted(snapshot.positions):
        if snapshot.positions[tp] > end.get(tp, 0):
            return Position(*tp, snapshot.positions[tp])
    return None


def _by_positions(
    snapshots: Mapping[str, Snapshot], projections: Collection[Projection]
) -> Iterator[tuple[Vector, list[tuple[Projection, State]]]]:
    groups: dict[Vector, list[tuple[Projection, State]]] = {}
    for projection in projections:
        held = snapshots.get(projection.name)
        if held is not None:
            groups.setdefault(held.positions, []).append((projection, held.state))
    yield from groups.items()


async def refresh(
    log: EventLog,
    folder: Path,
    *,
    at: Vector | None = None,
    projections: Sequence[Projection] = PROJECTIONS,
    on_damage: OnDamage = log_damage,
) -> dict[str, Snapshot]:
    """Bring the snapshots in `folder` up to `at`, by default the log's end, and return them.

    A snapshot that is missing, damaged or past that place is folded anew from zero.
    """
    end = await _end(log, projections) if at is None else at
    held: dict[str, Snapshot] = {}
    for projection in projections:
        snapshot, _ = load(folder, projection)
        if snapshot is None or _ahead(snapshot, end):
            snapshot = Snapshot(projection.name, Vector(), "", {})
        held[projection.name] = snapshot
    for start, folding in _by_positions(held, projections):
        await _fold(log, folding, start, end, on_damage)
    return {
        projection.name: store(
            folder, projection, end.only(projection.topics), held[projection.name].state
        )
        for projection in projections
    }


async def rebuild(
    log: EventLog,
    folder: Path,
    *,
    projections: Sequence[Projection] = PROJECTIONS,
    processors: Sequence["Processor"] = (),
    until: Vector | None = None,
    progress: OnProgress | None = None,
    on_damage: OnDamage = log_damage,
) -> RebuildReport:
    """Fold everything from zero and compare with the live projections at the same positions.

    Where all agree the snapshots in `folder` are brought up to date, and made where there were
    none; where one differs they stay as they are, as evidence. With `until` all is folded up to
    there alone: what is live is compared where it is not past that place, and nothing is stored.
    """
    end = await _end(log, projections)
    if until is not None:
        # What the vector does not name is not read, as everywhere.
        end = Vector({tp: min(at, until.get(tp, 0)) for tp, at in end.items()})
    report = RebuildReport(end)
    named: set[str] = set()

    def damaged(damage: Damage) -> None:
        if str(damage) not in named:
            named.add(str(damage))
            report.damaged.append(str(damage))
            on_damage(damage)

    live, notes = _live(folder, projections, end, report, until is not None)
    for start, folding in _by_positions(live, projections):
        await _fold(log, folding, start, end, damaged)
    meter = Meter(log.log.clock, progress)
    low = await log.log.start(sorted({tp.topic for tp in end}))
    meter.total = sum(end[tp] - low.get(tp, 0) for tp in end)
    fresh: dict[str, State] = {projection.name: {} for projection in projections}
    folding = [(projection, fresh[projection.name]) for projection in projections]
    await _fold(log, folding, Vector(), end, damaged, meter)
    for projection in projections:
        _compare(report, projection, live, fresh, notes, end)
    for processor in processors:
        from madlog.analytics.processor_replay import rebuild_state

        await rebuild_state(log, processor, report, meter, damaged, until)
    report.events, report.seconds = meter.events, meter.seconds
    if report.difference is None and until is None:
        _keep(report, folder, projections, fresh)
    return report


def _keep(
    report: RebuildReport,
    folder: Path,
    projections: Sequence[Projection],
    fresh: Mapping[str, State],
) -> None:
    """Store what was rebuilt as the live projections; says so where that cannot be done."""
    for number, projection in enumerate(projections):
        compared = report.projections[number]
        try:
            store(folder, projection, compared.positions, fresh[projection.name])
        except OSError as error:
            why = f"it cannot be stored in {folder}: {error.strerror or error}"
            note = f"{compared.note}; {why}" if compared.note else why
            report.projections[number] = replace(compared, note=note)


def _live(
    folder: Path,
    projections: Sequence[Projection],
    end: Vector,
    report: RebuildReport,
    cut: bool,
) -> tuple[dict[str, Snapshot], dict[str, str]]:
    """Return the snapshots that can be compared, and what to say about the others."""
    live: dict[str, Snapshot] = {}
    notes: dict[str, str] = {}
    for projection in projections:
        snapshot, why = load(folder, projection)
        if snapshot is None:
            notes[projection.name] = (
                f"{why}: it was thrown away" if why else "there was no live projection yet"
            )
            continue
        past = _ahead(snapshot, end)
        if past is None:
            live[projection.name] = snapshot
            continue
        if cut:
            notes[projection.name] = f"the live projection is at {past}, past the place asked for"
            continue
        notes[projection.name] = f"the live projection is at {past}, past the end of the log"
        if report.difference is None:
            tp = past.topic_partition
            here = str(Position(*tp, end.get(tp, 0)))
            report.difference = Difference(projection.name, "position", str(past), here)
    return live, notes


def _compare(
    report: RebuildReport,
    projection: Projection,
    live: Mapping[str, Snapshot],
    fresh: Mapping[str, State],
    notes: Mapping[str, str],
    end: Vector,
) -> None:
    held = live.get(projection.name)
    state = fresh[projection.name]
    compared = Compared(
        projection.name,
        state_digest(state),
        None if held is None else state_digest(held.state),
        end.only(projection.topics),
        notes.get(projection.name, ""),
    )
    report.projections.append(compared)
    if compared.equal is False and held is not None and report.difference is None:
        report.difference = first_difference(projection.name, held.state, state)
