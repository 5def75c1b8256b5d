"""All that differs in a few conversations: they are decided once more, each by itself.

A replay of millions of turns keeps no list of what differs where; of the few conversations that are
shown each line must be right.
"""

from collections.abc import Iterator, Sequence

from madlog.analytics.what_if.deciding import Again, Decided
from madlog.analytics.what_if.excerpt import Difference, events_of
from madlog.analytics.what_if.recorded import RecordedDecisions, Verdicts
from madlog.analytics.what_if.snapshot import Progressed
from madlog.analytics.what_if.tally import route_of
from madlog.processors.retrospect import Conversation
from madlog.processors.router import is_imported
from madlog.topics import EventLog, LogEvent
from madlog.topics.log import OnDamage

__all__ = ("decided_otherwise",)


async def decided_otherwise(
    log: EventLog, again: Again, names: Sequence[str], now: Progressed, on_damage: OnDamage
) -> dict[str, list[Difference]]:
    """Return the decisions of some conversations that come out otherwise, in their order."""
    end, since = now.where.end, now.where.start
    events = await events_of(log, "mad.conversations", end, names, on_damage)
    decisions = await events_of(log, "mad.decisions", now.read_to, names, on_damage)
    recorded = RecordedDecisions(Verdicts())
    for made in decisions.values():
        for event in made:
            recorded.fold(event.kind, event.fields)
    found: dict[str, list[Difference]] = {}
    for name, said in events.items():
        counted = {
            event.event_id: place
            for place, event in enumerate(said)
            if event.record.offset >= since.get(event.position.topic_partition, 0)
        }
        unlike = [
            one
            for one in _decided(again, name, said, recorded)
            if one.differs and one.made.turn_id in counted
        ]
        unlike.sort(key=lambda one: counted[one.made.turn_id])
        found[name] = [_difference(one) for one in unlike]
    return found


def _decided(
    again: Again, name: str, said: Sequence[LogEvent], recorded: RecordedDecisions
) -> Iterator[Decided]:
    state: dict[str, object] = {}
    for event in said:
        yield from again.live(state, event, recorded)
    first = next((n for n, event in enumerate(said) if is_imported(event.fields)), None)
    if first is not None:
        yield from again.past(Conversation(name, tuple(said[first:])), recorded)


def _difference(one: Decided) -> Difference:
    was, made = one.was, one.made
    record = "" if was is None else route_of(was.tier, was.route, was.arguments)
    return Difference(made.turn_id, record, route_of(made.tier, made.route, made.arguments))
