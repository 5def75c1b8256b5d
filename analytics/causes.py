"""What led to an event, and what came of it: the log's events as a tree of causes.

Reads the log itself: the event, and what the log holds of its conversation. An event names its
cause by id, so the tree does not depend on clocks; they only order what has one cause.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from madlog.analytics.conversation_view import conversation_view, events_of
from madlog.analytics.tool_text import told
from madlog.schemas import MadlogError
from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import CATALOG, kept_for_ever
from madlog.topics.log import OnDamage, log_damage

__all__ = ("CausalTree", "Cause", "NoEvent", "Row", "causal_tree", "what")

_EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_POSITION = re.compile(r"[A-Za-z0-9._-]+/[0-9]+@[0-9]+")
_TURN = re.compile(r"(?P<conversation>.+)#(?P<number>[0-9]{1,9})", re.DOTALL)
_TEXT_MAX = 300
_TIERS = {"dtr": "tree", "lppm": "process", "imperator": "language model"}


class NoEvent(MadlogError, LookupError):
    """The log holds no event of this id, at this position, or of this number."""


@dataclass(eq=False, slots=True)
class Cause:
    """An event, its cause where that is in the tree, and its effects in their order."""

    event: LogEvent
    number: int
    cause: "Cause | None" = None
    effects: list["Cause"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the drawn tree: its lane from 0, and the row of its cause."""

    node: Cause
    lane: int
    above: int | None


@dataclass(frozen=True, slots=True)
class CausalTree:
    """The event that was asked for, and the first cause of it that the log holds.

    `outside` is the id of a cause of `root` in another conversation, None where there is none.
    """

    conversation_id: str
    asked: Cause
    root: Cause
    outside: str | None

    def causes(self) -> list[Cause]:
        """Return what led to the event, the first cause first, itself last."""
        path, at = [self.asked], self.asked.cause
        while at is not None:
            path.append(at)
            at = at.cause
        return path[::-1]

    def rows(self, *, whole: bool = False) -> list[Row]:
        """Return the tree line by line: what led to the event, then all that came of it.

        `whole` draws what else came of its causes too. The longest line of effects stays in the
        lane of its cause and comes last, so that n events need at most log2(n) lanes more.
        """
        path = set() if whole else {id(node) for node in self.causes()[:-1]}
        size = _sizes(self.root)
        rows: list[Row] = []
        waiting: list[tuple[Cause, int, int | None]] = [(self.root, 0, None)]
        while waiting:
            node, lane, above = waiting.pop()
            here = len(rows)
            rows.append(Row(node, lane, above))
            effects = node.effects
            if id(node) in path:
                effects = [one for one in effects if id(one) in path or one is self.asked]
            if not effects:
                continue
            main = max(effects, key=lambda one: (size[id(one)], one.number))
            waiting.append((main, lane, here))
            waiting += [(one, lane + 1, here) for one in reversed(effects) if one is not main]
        return rows

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        """Return the tree as one object, its events in the order in which they are drawn."""
        return {
            "conversation_id": self.conversation_id,
            "event_id": self.asked.event.event_id,
            "causes": [node.event.event_id for node in self.causes()[:-1]],
            "cause_outside": self.outside,
            "events": [
                {
                    "event_id": row.node.event.event_id,
                    "causation_id": row.node.event.fields["causation_id"],
                    "kind": row.node.event.kind,
                    "sender": row.node.event.fields["sender"]["name"],
                    "what": what(row.node.event),
                    "position": str(row.node.event.position),
                }
                for row in self.rows(whole=whole)
            ],
        }


def _sizes(root: Cause) -> dict[int, int]:
    """Return how many events each node's part of the tree has."""
    order = [root]
    sizes: dict[int, int] = {}
    for node in order:
        order += node.effects
    for node in reversed(order):
        sizes[id(node)] = 1 + sum(sizes[id(one)] for one in node.effects)
    return sizes


def what(event: LogEvent, most: int = _TEXT_MAX) -> str:
    """Return in a line what an event says."""
    fields = event.fields
    if event.kind == "Turn":
        text = " ".join("".join(part["text"] or "" for part in fields["parts"]).split())
    elif event.kind == "ToolCall":
        text = f"{fields['action']}({told(fields['arguments'], most)})"
    elif event.kind == "ToolResult":
        answer = fields["result"] if fields["ok"] else fields["error"] or fields["result"]
        text = f"{'=' if fields['ok'] else '✗'} {told(answer, most)}"
    elif event.kind == "Decision":
        text = _decided(fields)
    elif event.kind == "LlmCall":
        cost = "cost unknown" if fields["cost_usd"] is None else f"${fields['cost_usd']:.4f}"
        text = f"language model {fields['model'] or 'of unknown name'}, {cost}"
    elif event.kind == "Outcome":
        text = f"{fields['result']}, judged by {fields['judged_by']}"
    else:
        named = ("change", "participant", "state", "process", "action", "command", "target", "name")
        text = " ".join(str(fields[name]) for name in named if fields.get(name))
    text = text or event.kind
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _decided(fields: dict[str, Any]) -> str:
    tier = _TIERS[fields["tier"]]
    if fields["tier"] == "imperator":
        why = f": {fields['escalation']}" if fields["escalation"] else ""
        text = f"up to the {tier}{why}"
    else:
        text = f"{tier}: {fields['route'].removeprefix('action:')}, {fields['confidence']:.0%} sure"
    return text if fields["mode"] == "live" else f"{text} ({fields['mode']})"


async def causal_tree(log: EventLog, named: str, *, on_damage: OnDamage = log_damage) -> CausalTree:
    """Return the tree around an event: its id, its position, or CONVERSATION#NUMBER of a turn.

    Raises NoEvent, NoConversation, UnknownTopic.
    """
    event_id, conversation = await _find(log, named.strip(), on_damage)
    topics = sorted(kept_for_ever(CATALOG.values()))
    events = events_of(log, conversation, topics, on_damage=on_damage)
    nodes = _linked([event async for event in events])
    asked = nodes.get(event_id)
    if asked is None:
        raise NoEvent(f"{named[:80]} is about a topic that is not kept for ever: it has no tree")
    root = asked
    while root.cause is not None:
        root = root.cause
    return CausalTree(conversation, asked, root, root.event.fields["causation_id"])


def _linked(events: list[LogEvent]) -> dict[str, Cause]:
    """Link events by their causes; an event that stands twice counts once."""
    by_place: dict[TopicPartition, int] = {}
    order = []
    for event in events:
        # Within a topic the log's order counts, whatever clocks said.
        tp = event.record.position.topic_partition
        by_place[tp] = max(by_place.get(tp, 0), event.fields["occurred_at"])
        order.append((by_place[tp], event.record.position, event))
    nodes: dict[str, Cause] = {}
    for number, (_, _, event) in enumerate(sorted(order, key=lambda one: one[:2])):
        nodes.setdefault(event.event_id, Cause(event, number))
    for node in nodes.values():
        node.cause = nodes.get(node.event.fields["causation_id"] or "")
    _cut_circles(nodes.values())
    for node in nodes.values():
        if node.cause is not None:
            node.cause.effects.append(node)
    return nodes


def _cut_circles(nodes: Iterable[Cause]) -> None:
    """Take away the cause of an event that came of its own effect, as no honest log says."""
    walked: dict[int, int] = {}
    for walk, node in enumerate(nodes):
        at: Cause | None = node
        while at is not None and id(at) not in walked:
            walked[id(at)] = walk
            at = at.cause
        if at is not None and walked[id(at)] == walk:
            at.cause = None


async def _find(log: EventLog, named: str, on_damage: OnDamage) -> tuple[str, str]:
    """Return (event_id, conversation_id) of the event that is named."""
    if _EVENT_ID.fullmatch(named):
        return await _by_id(log, named, on_damage)
    if _POSITION.fullmatch(named):
        return await _at(log, named, on_damage)
    turn = _TURN.fullmatch(named)
    if turn:
        return await _turn(log, turn["conversation"], int(turn["number"]), on_damage)
    raise NoEvent(
        f"{named[:80]!r} is no event_id, no position TOPIC/PARTITION@OFFSET and no turn "
        "CONVERSATION#NUMBER: `madlog search` and `madlog show` say where turns stand"
    )


async def _by_id(log: EventLog, event_id: str, on_damage: OnDamage) -> tuple[str, str]:
    names = set(kept_for_ever(CATALOG.values())) & set(await log.log.topics())
    wanted = event_id.encode()
    async for records in log.log.read(
        Vector(), await log.log.end(sorted(names)), on_damage=on_damage
    ):
        naming = [record for record in records if wanted in record.value]
        for event in await log.decode_all(naming, on_damage):
            if event.event_id == event_id:
                return event_id, event.fields["conversation_id"]
    raise NoEvent(f"the log holds no event {event_id}")


async def _at(log: EventLog, named: str, on_damage: OnDamage) -> tuple[str, str]:
    from madlog.analytics.as_of import as_of

    [(tp, offset)] = (await as_of(log, named)).items()
    found = log.read(Vector({tp: offset}), Vector({tp: offset + 1}), on_damage=on_damage)
    async for events in found:
        for event in events:
            return event.event_id, event.fields["conversation_id"]
    raise NoEvent(f"there is no event that can be read at {named}")


async def _turn(
    log: EventLog, conversation: str, number: int, on_damage: OnDamage
) -> tuple[str, str]:
    view = await conversation_view(log, conversation, on_damage=on_damage)
    turns: Iterator[LogEvent] = (event for event in view.said if event.kind == "Turn")
    count = 0
    for count, event in enumerate(turns, 1):
        if count == number:
            return event.event_id, view.conversation_id
    raise NoEvent(f"{view.conversation_id} has {count} turns, and no turn {number}")
