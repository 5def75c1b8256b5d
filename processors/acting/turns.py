"""Finds the turns, or the tools' results, that Decisions are on: a command's text orders."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from madlog.processors.acting.proposal import Proposal, proposed
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.log import SOURCE, Damage
from madlog.topics.positions import TopicPartition

__all__ = ("proposals_of",)

_TOPIC = "mad.conversations"


async def proposals_of(log: EventLog, decisions: Sequence[LogEvent]) -> dict[str, Proposal]:
    """Return what Decisions want to run, by their ids."""
    if not decisions:
        return {}
    partitions = (await log.log.topics()).get(_TOPIC)
    turns = {} if partitions is None else await _turns(log, decisions, partitions)
    made = {}
    for decision in decisions:
        turn = turns.get(decision.fields["turn_id"])
        made[decision.event_id] = proposed(decision.fields, None if turn is None else turn.fields)
    return made


async def _turns(
    log: EventLog, decisions: Sequence[LogEvent], partitions: int
) -> dict[str, LogEvent]:
    end = await log.log.end([_TOPIC])
    found: dict[str, LogEvent] = {}
    missing: dict[TopicPartition, set[str]] = defaultdict(set)
    for decision in decisions:
        turn_id, place = decision.fields["turn_id"], _named_place(decision)
        if place is not None and place[1] < end.get(place[0], 0):
            found |= await _look(log, {turn_id}, place[0], place[1], place[1] + 1)
        if turn_id not in found:
            # Not made by an engine, or on a log that was copied, whose places are others.
            key = str(decision.fields["conversation_id"]).encode()
            missing[TopicPartition(_TOPIC, partition_for(key, partitions))].add(turn_id)
    for tp, turn_ids in missing.items():
        # One reading for all of them, because it reads the whole partition.
        found |= await _look(log, turn_ids, tp, 0, end.get(tp, 0))
    return found


def _named_place(decision: LogEvent) -> tuple[TopicPartition, int] | None:
    """Return where a Decision's `source` header says that its turn stands."""
    source = (decision.header(SOURCE) or b"").decode()
    _, _, rest = source.partition("/")
    place, _, offset = rest.partition("@")
    topic, _, partition = place.rpartition("/")
    number = offset.partition("/")[0]
    if topic != _TOPIC or not partition.isdecimal() or not number.isdecimal():
        return None
    return TopicPartition(topic, int(partition)), int(number)


async def _look(
    log: EventLog, turn_ids: Collection[str], tp: TopicPartition, first: int, end: int
) -> dict[str, LogEvent]:
    found: dict[str, LogEvent] = {}
    if first >= end:
        return found
    batches = log.read(Vector({tp: first}), Vector({tp: end}), on_damage=_pass_over)
    async for events in batches:
        for event in events:
            if event.event_id in turn_ids:
                found.setdefault(event.event_id, event)
        if len(found) == len(turn_ids):
            break
    return found


def _pass_over(_: Damage) -> None:
    """Say nothing: who reads the topic for its facts names the damage."""
