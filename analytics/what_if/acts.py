"""Tool calls as guards see them: each with what was known at that moment, and the past before it.

Calls of all conversations stand in one order, equal on every backend: by the time at which they
happened, which never falls within a conversation, then by conversation, then as they were written.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from madlog.analytics.replay_report import Meter
from madlog.processors.acting.proposal import object_of
from madlog.processors.acting.rules import OnceKey, key_of
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.log import OnDamage, Record

__all__ = ("Act", "Acts", "Past", "read_acts")

_KINDS = (b"ToolCall", b"ToolResult")
_TOPIC = "mad.conversations"


@dataclass(frozen=True, slots=True)
class Act:
    """One tool call; `arguments` is None where they are no JSON object.

    `ok`, `result` and `error` are None until its tool has answered: of the act that a guard is
    asked about nobody knows them yet. `number` and `answered` are places in the order of all calls
    and answers.
    """

    number: int
    event_id: str
    conversation_id: str
    agent: str
    action: str
    arguments: Mapping[str, Any] | None
    text: str
    occurred_at: int
    caused_by: str | None = None
    answered: int | None = None
    ok: bool | None = None
    result: str | None = None
    error: str | None = None

    @property
    def asked(self) -> "Act":
        """The act before its tool has answered."""
        return replace(self, answered=None, ok=None, result=None, error=None)

    def __str__(self) -> str:
        return f"{self.action}({self.text[:120]})"


class Past:
    """What happened before the act that a guard is asked about; read-only."""

    def __init__(self) -> None:
        self._acts: list[Act] = []
        self._places: dict[str, int] = {}
        self._same: dict[tuple[str, tuple[str, ...]], dict[OnceKey, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._acts)

    def __iter__(self) -> Iterator[Act]:
        """Go through the earlier acts, the newest first."""
        return reversed(self._acts)

    def of(self, conversation_id: str) -> Iterator[Act]:
        """Go through the earlier acts of one conversation, the newest first."""
        return (act for act in self if act.conversation_id == conversation_id)

    def same(self, act: Act, *names: str) -> tuple[Act, ...]:
        """Return the earlier calls of the same action with the same values of these arguments.

        None where the act is not given one of them.
        """
        index = self._same.get((act.action, names))
        if index is None:
            index = self._same[act.action, names] = {}
            for place, other in enumerate(self._acts):
                self._put(index, names, place, other, act.action)
        key = None if act.arguments is None else key_of(act.action, names, act.arguments)
        return () if key is None else tuple(self._acts[place] for place in index.get(key, ()))

    def _put(
        self,
        index: dict[OnceKey, list[int]],
        names: tuple[str, ...],
        place: int,
        act: Act,
        action: str,
    ) -> None:
        if act.action == action and act.arguments is not None:
            key = key_of(action, names, act.arguments)
            if key is not None:
                index.setdefault(key, []).append(place)

    def _add(self, act: Act) -> None:
        place = len(self._acts)
        self._acts.append(act.asked)
        self._places[act.event_id] = place
        for (action, names), index in self._same.items():
            self._put(index, names, place, act, action)

    def _answer(self, act: Act) -> None:
        self._acts[self._places[act.event_id]] = act


class Acts:
    """The tool calls of a log in their order.

    Guards are asked about those that are `counted`, whose `positions` are held.
    """

    def __init__(self, acts: Iterable[Act], positions: Mapping[str, str]) -> None:
        self.all = tuple(acts)
        self.positions = positions
        self.counted = positions.keys()

    def moments(self) -> Iterator[tuple[Act, Past]]:
        """Yield each counted act as it was asked for, with the past as it was then."""
        past = Past()
        answers = sorted(
            (act for act in self.all if act.answered is not None),
            key=lambda act: act.answered or 0,
        )
        next_answer = 0
        for act in self.all:
            while next_answer < len(answers) and (answers[next_answer].answered or 0) < act.number:
                past._answer(answers[next_answer])
                next_answer += 1
            if act.event_id in self.counted:
                yield act.asked, past
            past._add(act)


@dataclass(slots=True)
class _Found:
    """Calls and their first answers, with where each stands in time."""

    calls: dict[str, tuple[tuple[int, str, int], LogEvent]]
    answers: dict[str, tuple[tuple[int, str, int], Mapping[str, Any]]]
    clocks: dict[str, int]

    def fold(self, event: LogEvent) -> None:
        fields = event.fields
        name = fields["conversation_id"]
        at = self.clocks[name] = max(fields["occurred_at"], self.clocks.get(name, -(2**63)))
        moment = at, name, event.record.offset
        if event.kind == "ToolCall":
            self.calls.setdefault(event.event_id, (moment, event))
        elif event.kind == "ToolResult" and fields["call_id"] is not None:
            kept = {key: fields[key] for key in ("ok", "result", "error")}
            self.answers.setdefault(fields["call_id"], (moment, kept))


async def read_acts(
    log: EventLog,
    since: Vector,
    end: Vector,
    on_damage: OnDamage,
    meter: Meter | None = None,
) -> Acts:
    """Read the tool calls up to `end`; those from `since` on are counted."""
    found = _Found({}, {}, {})
    upto = end.only([_TOPIC])
    async for records in log.log.read(Vector(), upto, on_damage=on_damage):
        wanted = [record for record in records if _is_act(record)]
        for event in await log.decode_all(wanted, on_damage):
            if event.kind in ("ToolCall", "ToolResult"):
                found.fold(event)
        if meter is not None:
            meter.batch(len(records), str(records[-1].position))
    return _in_order(found, since)


def _is_act(record: Record) -> bool:
    """Tell by its header whether a record may be a call or an answer; without one it may."""
    kind = next((value for name, value in record.headers if name == "kind"), None)
    return kind is None or kind in _KINDS


def _in_order(found: _Found, since: Vector) -> Acts:
    moments = [*((moment, event.event_id, True) for moment, event in found.calls.values())]
    moments += ((moment, call_id, False) for call_id, (moment, _) in found.answers.items())
    moments.sort()
    numbers = {(name, call): number for number, (_, name, call) in enumerate(moments, 1)}
    acts: list[Act] = []
    positions: dict[str, str] = {}
    for moment, event_id, is_call in moments:
        if not is_call:
            continue
        _, event = found.calls[event_id]
        acts.append(_act(event, moment[0], numbers, found.answers.get(event_id)))
        tp = event.position.topic_partition
        if event.record.offset >= since.get(tp, 0):
            positions[event_id] = str(event.position)
    return Acts(acts, positions)


def _act(
    event: LogEvent,
    at: int,
    numbers: Mapping[tuple[str, bool], int],
    answer: tuple[Any, Mapping[str, Any]] | None,
) -> Act:
    fields = event.fields
    given = object_of(fields["arguments"])
    number = numbers[event.event_id, True]
    answered = numbers.get((event.event_id, False))
    # An answer that stands before its call answers another of the same id.
    told = {} if answer is None or (answered or 0) < number else dict(answer[1])
    return Act(
        number,
        event.event_id,
        fields["conversation_id"],
        fields["sender"]["name"],
        fields["action"],
        None if given is None else MappingProxyType(given),
        fields["arguments"],
        at,
        fields["causation_id"],
        answered if told else None,
        **told,
    )
