"""Consumer groups: how far each is in each partition, who works there, and setting that anew."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from madlog.processors.errors import UnknownGroup
from madlog.topics import Damage, EventLog, Log, PositionExpired, TopicPartition, Vector
from madlog.topics.catalog import state
from madlog.topics.errors import GroupBusy, InvalidPosition
from madlog.topics.log import GroupState

__all__ = ("Lag", "Move", "consequences", "group_rows", "group_state", "lags", "plan_reset")

# What lies between two offsets is counted up to this many: on Kafka some hold no record.
_COUNTED_MAX = 2_000
_COUNTED_FOR_RESET_MAX = 20_000


class Lag(NamedTuple):
    """Records between two positions; not `exact` is the distance of offsets, which is no less."""

    records: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Move:
    """One partition of a reset: `records` are read again, or skipped, or none."""

    tp: TopicPartition
    now: int | None
    to: int
    records: int
    exact: bool
    effect: str


async def lags(
    log: Log,
    since: Mapping[TopicPartition, int],
    until: Mapping[TopicPartition, int],
    counted_max: int = _COUNTED_MAX,
) -> dict[TopicPartition, Lag]:
    """Return what lies between two positions of each partition, counted where that is little.

    On Kafka the end of a transaction takes an offset, so only reading tells whether any record is
    left. A damaged record counts: it is dead-lettered, so it is work.
    """
    found: dict[TopicPartition, Lag] = {}
    near: dict[TopicPartition, int] = {}
    for tp, end in until.items():
        distance = max(0, end - since[tp])
        found[tp] = Lag(distance, distance == 0)
        if 0 < distance <= counted_max:
            near[tp] = 0

    def on_damage(damage: Damage) -> None:
        tp = TopicPartition(damage.topic, damage.partition)
        if tp in near:
            near[tp] += damage.offset_end - damage.offset

    if near:
        start = Vector({tp: since[tp] for tp in near})
        end_at = Vector({tp: until[tp] for tp in near})
        async for records in log.read(start, end_at, on_damage=on_damage):
            near[TopicPartition(records[0].topic, records[0].partition)] += len(records)
    return {**found, **{tp: Lag(count, True) for tp, count in near.items()}}


async def group_rows(log: EventLog) -> list[dict[str, Any]]:
    """Return a row for each partition of each group: committed, end, lag, member, state."""
    present = await log.log.topics()
    rows = []
    for group in await log.log.groups():
        topics = [name for name in group.topics if name in present]
        start, end = await log.log.start(topics), await log.log.end(topics)
        # What has expired since is no work any more.
        done = {tp: max(group.committed.get(tp, 0), start[tp]) for tp in end}
        behind = await lags(log.log, done, end)
        for tp in sorted(end):
            rows.append(
                {
                    "group": group.group,
                    "state": group.state or ("stable" if group.members else "empty"),
                    "topic": tp.topic,
                    "partition": tp.partition,
                    "committed": group.committed.get(tp),
                    "end": end[tp],
                    "lag": behind[tp].records,
                    "exact": behind[tp].exact,
                    "member": group.members.get(tp),
                }
            )
    return sorted(rows, key=lambda row: (row["group"], row["topic"], row["partition"]))


async def group_state(log: EventLog, name: str) -> GroupState:
    """Return a group as the log knows it; raises UnknownGroup."""
    for group in await log.log.groups():
        if group.group == name:
            return group
    raise UnknownGroup(
        f"no group {name[:80]!r} has read this log: `madlog groups` lists those that have"
    )


async def plan_reset(log: EventLog, group: GroupState, to: Vector) -> list[Move]:
    """Return what setting a group's positions comes to; changes nothing.

    Raises GroupBusy while members live, PositionExpired and InvalidPosition for what is not kept.
    """
    if group.members:
        members = ", ".join(sorted(set(group.members.values())))
        raise GroupBusy(
            f"the consumer group {group.group} has live members ({members}): stop them before its "
            "positions are reset"
        )
    topics = {tp.topic for tp in to}
    other = sorted(topics - set(group.topics))
    if other:
        raise InvalidPosition(
            f"the consumer group {group.group} does not read {other[0]}: it reads "
            f"{', '.join(group.topics) or 'nothing'}"
        )
    start, end = await log.log.start(topics), await log.log.end(topics)
    for tp, offset in sorted(to.items()):
        _check_kept(tp, offset, start, end)
    now = {tp: max(group.committed.get(tp, 0), start[tp]) for tp in to}
    low = {tp: min(now[tp], to[tp]) for tp in to}
    high = {tp: max(now[tp], to[tp]) for tp in to}
    between = await lags(log.log, low, high, _COUNTED_FOR_RESET_MAX)
    moves = []
    for tp in sorted(to):
        effect = "read again" if to[tp] < now[tp] else "skipped" if to[tp] > now[tp] else "none"
        moves.append(Move(tp, group.committed.get(tp), to[tp], *between[tp], effect))
    return moves


def _check_kept(tp: TopicPartition, offset: int, start: Vector, end: Vector) -> None:
    if tp not in end:
        raise InvalidPosition(f"there is no {tp}: `madlog topics list` shows how many there are")
    if offset < start[tp]:
        raise PositionExpired(
            f"{tp}@{offset} is not kept any more: the oldest that can be read is {tp}@{start[tp]}"
        )
    if offset > end[tp]:
        raise InvalidPosition(f"{tp}@{offset} is not there yet: {tp} ends at {tp}@{end[tp]}")


def consequences(group: str, moves: Collection[Move], topics: Collection[str]) -> list[str]:
    """Return in words what a reset makes the group's members do.

    A processor's state says how far it has folded its input, in one transaction with its outputs;
    so it passes over what it reads again (processors.lane).
    """
    changelog = state(group).name
    of_ours = changelog in topics
    effects = {move.effect for move in moves if move.records}
    said = []
    if "read again" in effects and of_ours:
        said.append(
            f"{group} keeps in {changelog} how far it has worked: what it reads again up to there "
            "it passes over, so that nothing is decided or sent twice, and nothing anew either"
        )
    elif "read again" in effects:
        said.append(
            f"the members of {group} will see what is read again as if it were new, and do what "
            "they do with it a second time unless they drop repeats themselves"
        )
    if "skipped" in effects and of_ours:
        said.append(
            f"{group} will not process what is skipped, and once it has processed an event after "
            "it, going back does not make up for it"
        )
    elif "skipped" in effects:
        said.append(f"the members of {group} will not see what is skipped")
    return said
