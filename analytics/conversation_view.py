"""One conversation as a person reads it: its events in order, with decisions and costs beside.

Reads the log itself, only the partition that the conversation is in, never a projection.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from madlog.schemas import MadlogError
from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import CATALOG, partition_for
from madlog.topics.log import OnDamage, log_damage

__all__ = ("ConversationView", "NoConversation", "conversation_view", "latest_conversation")

_TOPIC = "mad.conversations"
_TOPICS = ("mad.conversations", "mad.decisions", "mad.llm", "mad.outcomes")


class NoConversation(MadlogError, LookupError):
    """The log holds no conversation of this name."""


@dataclass
class ConversationView:
    """The events of one conversation: what was said and done, and what was recorded about it."""

    conversation_id: str
    said: list[LogEvent] = field(default_factory=list)
    decisions: list[LogEvent] = field(default_factory=list)
    calls: list[LogEvent] = field(default_factory=list)
    outcomes: list[LogEvent] = field(default_factory=list)

    @property
    def cost_usd(self) -> float | None:
        """What its language model calls cost together; None where no call says."""
        known = [call.fields["cost_usd"] for call in self.calls]
        known = [cost for cost in known if cost is not None]
        return sum(known) if known else None

    def lines(self) -> Iterator[tuple[str, str, str, LogEvent]]:
        """Yield (turn number or "", who, what, event) of each thing said or done."""
        number = 0
        for event in self.said:
            fields = event.fields
            who = fields["sender"]["name"]
            if event.kind == "ConversationChanged":
                yield "", who, f"{fields['change']} {fields['participant'] or ''}".rstrip(), event
            elif event.kind == "Turn":
                number += 1
                who += "".join(f" → {name}" for name in fields["recipients"])
                yield str(number), who, "".join(p["text"] or "" for p in fields["parts"]), event
            elif event.kind == "ToolCall":
                yield "", who, f"{fields['action']}({fields['arguments']})", event
            elif event.kind == "ToolResult":
                text = fields["result"] if fields["ok"] else fields["error"] or fields["result"]
                yield "", who, f"{'=' if fields['ok'] else '✗'} {text}", event

    def as_json(self) -> dict[str, Any]:
        """Return the whole view as one object."""
        return {
            "conversation_id": self.conversation_id,
            "events": [{"kind": event.kind, **event.fields} for event in self.said],
            "decisions": [event.fields for event in self.decisions],
            "llm_calls": [event.fields for event in self.calls],
            "outcomes": [event.fields for event in self.outcomes],
            "cost_usd": self.cost_usd,
        }


async def latest_conversation(
    log: EventLog, at: Vector | None = None, *, on_damage: OnDamage = log_damage
) -> str:
    """Return the conversation that was appended to last before `at`; raises NoConversation."""
    newest: tuple[int, str] | None = None
    if _TOPIC in await log.log.topics():
        end = (await log.log.end([_TOPIC])) if at is None else at.only([_TOPIC])
        low = await log.log.start([_TOPIC])
        for tp in end:
            # Offsets can have gaps, and what stands last can be damaged: look further back.
            reach, upto = 1, end[tp]
            found: tuple[int, str] | None = None
            while found is None and upto > low[tp]:
                since = max(low[tp], end[tp] - reach)
                span = log.read(Vector({tp: since}), Vector({tp: upto}), on_damage=on_damage)
                async for events in span:
                    for event in events:
                        found = (event.record.appended_at, str(event.fields["conversation_id"]))
                reach, upto = reach * 8, since
            if found is not None:
                newest = max(newest, found) if newest else found
    if newest is None:
        raise NoConversation(
            "the log holds no conversation there yet: `madlog append` or `madlog import` writes one"
        )
    return newest[1]


async def conversation_view(
    log: EventLog, conversation_id: str, *, on_damage: OnDamage = log_damage
) -> ConversationView:
    """Return a conversation, `latest` for the newest; raises NoConversation."""
    if conversation_id == "latest":
        conversation_id = await latest_conversation(log)
    view = ConversationView(conversation_id)
    lists = {
        "mad.conversations": view.said,
        "mad.decisions": view.decisions,
        "mad.llm": view.calls,
        "mad.outcomes": view.outcomes,
    }
    topics = await log.log.topics()
    for name in _TOPICS:
        if name not in topics:
            continue
        end = await log.log.end([name])
        if CATALOG[name].key == "conversation_id":
            tp = TopicPartition(name, partition_for(conversation_id.encode(), topics[name]))
            end = Vector({tp: end[tp]})
        async for batch in log.read(Vector(), end, on_damage=on_damage):
            lists[name].extend(
                event for event in batch if event.fields["conversation_id"] == conversation_id
            )
    if not view.said:
        raise NoConversation(
            f"the log holds no conversation {conversation_id[:80]!r}: "
            '`madlog sql "select conversation_id from conversations"` lists them'
        )
    return view
