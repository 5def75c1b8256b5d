"""The newest conversations that are lived here, as decisions are asked and judged about them.

Imported ones are left out: nothing live is decided in them. Memory is bounded by a number of
conversations; those that something waits for are never dropped.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from madlog.processors.lppm.cases import PAST_MAX
from madlog.processors.retrospect.conversation import Conversation, Trigger
from madlog.processors.router import is_imported
from madlog.schemas import ToolCall, Turn
from madlog.topics import LogEvent

__all__ = ("CONVERSATIONS_MAX", "VOID", "LiveConversations", "Place")

CONVERSATIONS_MAX = 50_000
# In the `extra` of the result of a call that was announced and did not run.
VOID: Final = "void"
_KINDS = frozenset(("Turn", "ToolCall", "ToolResult", "ConversationChanged"))
_ACTS = frozenset((Turn.kind, ToolCall.kind))
# An act is an event and its answer.
_LOOK_BACK = 2 * PAST_MAX


class Place(NamedTuple):
    """Where an agent had to decide: the event, the past and what was done, and who asked.

    `answered`: the agent itself has said or done something that names the event as its cause.
    """

    event: LogEvent
    trigger: Trigger
    asker: str | None
    answered: bool


class LiveConversations:
    """A fold over mad.conversations and mad.processes; topics may come in any order."""

    def __init__(self, conversations_max: int = CONVERSATIONS_MAX) -> None:
        self._max = conversations_max
        self._events: OrderedDict[str, list[LogEvent]] = OrderedDict()
        self._steps: dict[str, list[Mapping[str, Any]]] = {}

    def fold(self, event: LogEvent) -> None:
        """Take up one event."""
        name = event.fields["conversation_id"]
        if event.kind == "ProcessStep":
            self._steps.setdefault(name, []).append(event.fields)
        elif event.kind in _KINDS and not is_imported(event.fields):
            self._events.setdefault(name, []).append(event)
            self._events.move_to_end(name)

    def trim(self, waiting: Iterable[str]) -> None:
        """Drop the conversations that were touched longest ago, but for those named."""
        over = len(self._events) - self._max
        if over <= 0:
            return
        kept = set(waiting)
        for name in [name for name in self._events if name not in kept][:over]:
            del self._events[name]
            self._steps.pop(name, None)

    def place(self, conversation_id: str, event_id: str, agent: str) -> Place | None:
        """Return where an agent had to decide, None where the event is not known here."""
        events = self._events.get(conversation_id, [])
        found = (n for n in reversed(range(len(events))) if events[n].event_id == event_id)
        number = next(found, None)
        if number is None:
            return None
        before, after = events[max(0, number - _LOOK_BACK) : number + 1], events[number + 1 :]
        void = {one.fields["call_id"] for one in after if VOID in one.fields["extra"]}
        mine = [
            one
            for one in after
            if one.kind in _ACTS
            and one.fields["sender"]["name"] == agent
            and one.event_id not in void
        ]
        did = next((one for one in mine if _about(one, event_id)), None)
        then = (*before, *(() if did is None else (did,)))
        trigger = Conversation(conversation_id, then).trigger(len(before) - 1, agent)
        answered = any(one.fields["causation_id"] == event_id for one in mine)
        return Place(events[number], trigger, _asker(before, agent), answered)

    def steps(self, conversation_id: str, agent: str, until_us: int) -> list[Mapping[str, Any]]:
        """Return the moves so far of the process that an agent has open in a conversation."""
        by_instance: dict[str, list[Mapping[str, Any]]] = {}
        for step in self._steps.get(conversation_id, ()):
            if step["mad"] == agent and step["occurred_at"] <= until_us:
                by_instance.setdefault(step["instance_id"], []).append(step)
        last = list(by_instance.values())[-1:]
        return [] if not last or last[0][-1]["state"] == "completed" else last[0]


def _about(act: LogEvent, event_id: str) -> bool:
    """Tell whether an act is about an event: by its cause, or by what it had seen of a call."""
    fields = act.fields
    if act.kind == ToolCall.kind and fields["seen"] == event_id:
        return True
    return fields["causation_id"] in (event_id, None)


def _asker(events: list[LogEvent], agent: str) -> str | None:
    """Return who the agent owes an answer: the sender of the newest turn to it."""
    for event in reversed(events):
        fields = event.fields
        if event.kind == "Turn" and agent in fields["recipients"]:
            return str(fields["sender"]["name"])
    return None
