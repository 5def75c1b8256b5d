"""The turn of difference: a conversation's lines around it, the record beside what would have been.

═ stands where both are the same, ≠ where they are not.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.log import OnDamage

__all__ = ("SAME", "UNLIKE", "Difference", "Excerpt", "Line", "events_of", "excerpts")

SAME, UNLIKE = "═", "≠"
_BEFORE, _AFTER = 4, 1
_TEXT_MAX = 240


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs about one event: the record, and what would have been."""

    event_id: str
    record: str
    what_if: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a transcript; `record` and `what_if` are empty where nothing was decided."""

    mark: str
    who: str
    what: str
    record: str
    what_if: str


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The lines of one conversation around its first difference."""

    conversation_id: str
    differs: int
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return {
            "conversation_id": self.conversation_id,
            "differs": self.differs,
            "lines": [
                {
                    "mark": line.mark,
                    "who": line.who,
                    "what": line.what,
                    "record": line.record,
                    "what_if": line.what_if,
                }
                for line in self.lines
            ],
        }


async def excerpts(
    log: EventLog,
    end: Vector,
    differing: Mapping[str, Sequence[Difference]],
    counts: Mapping[str, int],
    on_damage: OnDamage,
) -> list[Excerpt]:
    """Return an excerpt of each conversation, around the first of what is told of it to differ."""
    events = await events_of(log, "mad.conversations", end, differing.keys(), on_damage)
    return [
        Excerpt(name, counts[name], tuple(_lines(events.get(name, []), differences)))
        for name, differences in differing.items()
    ]


async def events_of(
    log: EventLog, topic: str, end: Vector, names: Collection[str], on_damage: OnDamage
) -> dict[str, list[LogEvent]]:
    """Read the events of some conversations from a topic whose key is the conversation."""
    partitions = (await log.log.topics()).get(topic, 0)
    keys = {name.encode() for name in names} if partitions else set()
    tps = {TopicPartition(topic, partition_for(key, partitions)) for key in keys}
    upto = Vector({tp: end[tp] for tp in tps if tp in end})
    found: dict[str, list[LogEvent]] = {}
    async for records in log.log.read(Vector(), upto, on_damage=on_damage):
        wanted = [record for record in records if record.key in keys]
        for event in await log.decode_all(wanted, on_damage):
            found.setdefault(event.fields["conversation_id"], []).append(event)
    return found


def _lines(events: Sequence[LogEvent], differences: Sequence[Difference]) -> Iterable[Line]:
    by_event: dict[str, Difference] = {}
    for one in differences:
        # What is for several agents can differ for each.
        also = by_event.get(one.event_id)
        by_event[one.event_id] = one if also is None else _both(also, one)
    shown = [event for event in events if event.kind in ("Turn", "ToolCall", "ToolResult")]
    places = {event.event_id: place for place, event in enumerate(shown)}
    at = places.get(differences[0].event_id, 0) if differences else 0
    for event in shown[max(0, at - _BEFORE) : at + 1 + _AFTER]:
        unlike = by_event.get(event.event_id)
        if event.kind == "ToolResult" and event.fields["call_id"] in by_event:
            unlike = Difference(event.event_id, "answered", "never called")
        who, what = _said(event)
        if unlike is None:
            yield Line(SAME, who, what, "", "")
        else:
            yield Line(UNLIKE, who, what, unlike.record, unlike.what_if)


def _both(one: Difference, other: Difference) -> Difference:
    return Difference(
        one.event_id, f"{one.record}; {other.record}", f"{one.what_if}; {other.what_if}"
    )


def _said(event: LogEvent) -> tuple[str, str]:
    fields = event.fields
    who = fields["sender"]["name"]
    if event.kind == "Turn":
        who += "".join(f" → {name}" for name in fields["recipients"])
        text = "".join(part["text"] or "" for part in fields["parts"])
    elif event.kind == "ToolCall":
        text = f"{fields['action']}({fields['arguments']})"
    else:
        told = fields["result"] if fields["ok"] else fields["error"] or fields["result"]
        text = f"{'=' if fields['ok'] else '✗'} {told}"
    text = " ".join(text.split())
    return who, text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 2] + " …"
