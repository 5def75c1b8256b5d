"""Finds the turn, or the tool's result, that a Decision is on: a command's text orders."""

from madlog.processors.acting.proposal import Proposal, proposed
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.log import SOURCE, Damage
from madlog.topics.positions import TopicPartition

__all__ = ("find_turn", "proposal_of")

_TOPIC = "mad.conversations"


async def proposal_of(log: EventLog, decision: LogEvent) -> Proposal:
    """Return what a Decision wants to run."""
    turn = await _turn_of(log, decision)
    return proposed(decision.fields, None if turn is None else turn.fields)


async def _turn_of(log: EventLog, decision: LogEvent) -> LogEvent | None:
    turn_id = decision.fields["turn_id"]
    place = _named_place(decision)
    if place is not None:
        # On a log that was copied the place is that of the log it came from.
        found = await _look(log, turn_id, place[0], place[1], place[1] + 1)
        if found is not None:
            return found
    return await find_turn(log, decision.fields["conversation_id"], turn_id)


async def find_turn(log: EventLog, conversation_id: str, turn_id: str) -> LogEvent | None:
    """Return a turn, looked for in all that its partition holds; None where it is not there."""
    partitions = (await log.log.topics()).get(_TOPIC)
    if partitions is None:
        return None
    tp = TopicPartition(_TOPIC, partition_for(conversation_id.encode(), partitions))
    end = (await log.log.end([_TOPIC]))[tp]
    return await _look(log, turn_id, tp, 0, end)


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
    log: EventLog, turn_id: str, tp: TopicPartition, first: int, end: int
) -> LogEvent | None:
    there = await log.log.end([_TOPIC])
    if first >= min(end, there.get(tp, 0)):
        return None
    until = Vector({tp: min(end, there[tp])})
    batches = log.read(Vector({tp: first}), until, on_damage=_pass_over)
    async for events in batches:
        for event in events:
            if event.event_id == turn_id:
                return event
    return None


def _pass_over(_: Damage) -> None:
    """Say nothing: who reads the topic for its facts names the damage."""
