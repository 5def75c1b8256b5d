"""Replay, second strength: verify. Every Decision is computed again from the log and compared.

Features and routes are computed from the turns, never from what the Decision says of them; the
model, the Control event, the promised error and the audited share are those that it names. Which
model a live turn is decided by follows from the Control events up to the one that is named.
Nothing outside is touched. Conversations go by in slices, so that memory is that of one slice.
"""

import asyncio
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from madlog.analytics.decided_by import DecidedBy, decided_end, read_decided_by
from madlog.analytics.replay_range import NoSuchPlace, Range, replay_range
from madlog.analytics.replay_report import Meter, OnProgress
from madlog.processors.acting.writing import GUARD, went_up
from madlog.processors.ports import Registry
from madlog.processors.retrospect import Conversation, decide
from madlog.processors.router import Decides, Router
from madlog.processors.serving import CONTROL_KEY, CONTROLS_KEY
from madlog.schemas import Decision, Event
from madlog.topics import Damage, EventLog, LogEvent, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.log import OnDamage, Record, log_damage

__all__ = ("DecisionDifference", "VerifyReport", "verify")

_CONVERSATIONS, _DECISIONS = "mad.conversations", "mad.decisions"
_ABSENT = "absent"
# About so many records are held at once; more are gone through in several passes.
_RECORDS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class DecisionDifference:
    """A Decision that is not what comes out again; `fields` holds (recorded, recomputed)."""

    event_id: str
    position: str
    conversation_id: str
    why: str
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass
class VerifyReport:
    """How many Decisions were computed again, and which differ."""

    decisions: int = 0
    events: int = 0
    seconds: float = 0.0
    differences: list[DecisionDifference] = field(default_factory=list)


class _Held(NamedTuple):
    """One conversation as it is held, not decoded: what was said in it, and decided."""

    said: list[Record]
    made: list[Record]


class _Slice(NamedTuple):
    """Some of the conversations: of some partitions those whose name's hash leaves `number`."""

    upto: Vector
    number: int
    of: int
    records: int

    def holds(self, record: Record) -> bool:
        return self.of == 1 or zlib.crc32(record.key) % self.of == self.number


async def verify(
    log: EventLog,
    get_blob: Callable[[str], bytes],
    *,
    registry: Registry | None = None,
    since: str | None = None,
    until: str | None = None,
    conversation: str | None = None,
    progress: OnProgress | None = None,
    on_damage: OnDamage = log_damage,
) -> VerifyReport:
    """Compute every Decision on the log again and report each that differs.

    With `since`, `until` (places as replay_range takes them) or a `conversation` only those about
    what stands there; what was said before is folded all the same, and damage is named once.

    Raises NoSuchPlace, and what analytics.as_of raises.
    """
    named: set[str] = set()

    def damaged(damage: Damage) -> None:
        if str(damage) not in named:
            named.add(str(damage))
            on_damage(damage)

    meter = Meter(log.log.clock, progress)
    end = await decided_end(log, (_CONVERSATIONS, "mad.models", "mad.control", "mad.outcomes"))
    where = await replay_range(log, since, until, on_damage=damaged)
    wanted = await _wanted(log, where, conversation, bool(since or until))
    by = await read_decided_by(log, end, get_blob, damaged)
    refusals: dict[str, str] = {}
    refused = False
    again = _Again(by, refusals, registry)
    slices = await _slices(log, end.only([_CONVERSATIONS, _DECISIONS]), conversation)
    meter.total = sum(some.records for some in slices)
    report = VerifyReport()
    for some in slices:
        held = await _read(log, some, wanted, damaged)
        meter.total += sum(len(one.said) + len(one.made) for one in held.values()) - some.records
        for said, made in held.values():
            events = await log.decode_all(said, damaged) if made else []
            decisions = [
                event for event in await log.decode_all(made, damaged) if event.kind == "Decision"
            ]
            if not refused and any(map(_by_guard, decisions)):
                refusals |= await _refusals(log, end, damaged)
                refused = True
            counted = _counted(events, decisions, where)
            report.decisions += sum(one.event_id in counted for one in decisions)
            differences = _compared(again, events, decisions)
            report.differences += [one for one in differences if one.event_id in counted]
            meter.batch(len(said) + len(made), str((*said, *made)[-1].position))
            # A stop is heard here, also where the log answers without a pause.
            await asyncio.sleep(0)
    report.events, report.seconds = meter.events, meter.seconds
    return report


async def _wanted(
    log: EventLog, where: Range, conversation: str | None, ranged: bool
) -> frozenset[bytes] | None:
    """Return the names of the conversations that stand in the range, None: all of them."""
    if not ranged and conversation is None:
        return None
    found: set[bytes] = set()
    span = where.start.only([_CONVERSATIONS]), where.end.only([_CONVERSATIONS])
    # Damage is named when the records themselves are read.
    async for records in log.log.read(*span, on_damage=lambda damage: None):
        found.update(record.key for record in records)
    if conversation is None:
        return frozenset(found)
    if conversation.encode() not in found:
        raise NoSuchPlace(
            f"the log holds no conversation {conversation[:80]!r}"
            + " in this range" * ranged
            + ': `madlog sql "select distinct conversation_id from turns"` lists them'
            * (not ranged)
        )
    return frozenset([conversation.encode()])


async def _slices(log: EventLog, end: Vector, conversation: str | None) -> list[_Slice]:
    """Return slices of about as many records as are held at once; a conversation is in one."""
    counts = await log.log.topics()
    low = await log.log.start(sorted({tp.topic for tp in end}))
    # In one partition of both topics is what is about one conversation, unless a topic was given
    # other partitions than the catalogue's.
    parts = [end]
    if counts.get(_CONVERSATIONS) == counts.get(_DECISIONS):
        numbers = sorted({tp.partition for tp in end})
        if conversation is not None:
            numbers = [partition_for(conversation.encode(), counts[_CONVERSATIONS])]
        parts = [Vector({tp: at for tp, at in end.items() if tp.partition == n}) for n in numbers]
    found = []
    for upto in parts:
        size = sum(at - low.get(tp, 0) for tp, at in upto.items())
        of = 1 if conversation is not None else size // _RECORDS_MAX + 1
        found += [_Slice(upto, number, of, size // of) for number in range(of)]
    return found


async def _read(
    log: EventLog, some: _Slice, wanted: frozenset[bytes] | None, on_damage: OnDamage
) -> dict[bytes, _Held]:
    """Return the conversations of a slice, by name; decoded each would take ten times as much."""
    held: dict[bytes, _Held] = {}
    async for records in log.log.read(Vector(), some.upto, on_damage=on_damage):
        of = 0 if records[0].topic == _CONVERSATIONS else 1
        for record in records:
            if (wanted is None or record.key in wanted) and some.holds(record):
                held.setdefault(record.key, _Held([], []))[of].append(record)
    return held


async def _refusals(log: EventLog, end: Vector, on_damage: OnDamage) -> dict[str, str]:
    """Return why guards refused what was decided, by the Decision's id."""
    found: dict[str, str] = {}
    async for events in log.read_topics(["mad.outcomes"], end=end, on_damage=on_damage):
        for event in events:
            if event.kind == "Outcome" and _by_guard(event):
                found[event.fields["about_id"]] = event.fields["extra"].get("reason", "")
    return found


def _counted(events: Sequence[LogEvent], decisions: Sequence[LogEvent], where: Range) -> set[str]:
    """Return the decisions that are about what stands in the range, or about nothing at all."""
    places = {event.event_id: event.position for event in events}
    found = set()
    for one in decisions:
        place = places.get(one.fields["turn_id"])
        if place is None or place in where:
            found.add(one.event_id)
    return found


def _compared(
    again: "_Again", events: Sequence[LogEvent], decisions: Sequence[LogEvent]
) -> Iterator[DecisionDifference]:
    name = decisions[0].fields["conversation_id"] if decisions else ""
    guarded = [one for one in decisions if _by_guard(one)]
    live = [
        one for one in decisions if one.fields["mode"] != "retrospective" and not _by_guard(one)
    ]
    past = [one for one in decisions if one.fields["mode"] == "retrospective"]
    made: dict[tuple[str, str], Decision] = {}
    if events:
        for decision in (*again.live(events, live), *again.past(name, events, past)):
            made[decision.event_id, decision.model_id] = decision
    for decision in again.went_up(guarded, live):
        made[decision.event_id, decision.model_id] = decision
    for recorded in decisions:
        fresh = made.get((recorded.event_id, recorded.fields["model_id"]))
        why = again.why_not(recorded.fields["model_id"])
        fields: dict[str, tuple[Any, Any]] = {}
        if fresh is not None:
            fields = _differing(recorded.event, fresh)
            if not fields:
                continue
            why = f"{', '.join(fields)} came out otherwise"
        yield DecisionDifference(recorded.event_id, str(recorded.position), name, why, fields)


def _by_guard(event: LogEvent) -> bool:
    return bool(event.fields["sender"] == GUARD.model_dump())


def _differing(recorded: Event, fresh: Event) -> dict[str, tuple[Any, Any]]:
    was, now = recorded.model_dump(mode="json"), fresh.model_dump(mode="json")
    return {
        name: (was.get(name, _ABSENT), now.get(name, _ABSENT))
        for name in sorted({*was, *now})
        if was.get(name, _ABSENT) != now.get(name, _ABSENT)
    }


class _Again:
    """Decides again, by the models that the Decisions name."""

    def __init__(
        self,
        by: DecidedBy,
        refusals: Mapping[str, str],
        registry: Registry | None,
    ) -> None:
        self._by = by
        self._refusals = refusals
        self._registry = registry
        self._routers: dict[tuple[Decides, float, float], Router] = {}

    def why_not(self, model_id: str) -> str:
        """Say why what a model decided did not come out again at all."""
        return self._by.failed.get(model_id, "nothing on the log leads to it")

    def live(self, events: Sequence[LogEvent], recorded: Sequence[LogEvent]) -> Iterator[Decision]:
        """Go through a conversation as the router did, by what each turn's Decisions name."""
        if not recorded:
            return
        by_turn: dict[str, dict[tuple[str | None, str | None], list[LogEvent]]] = {}
        for decision in recorded:
            made = by_turn.setdefault(decision.fields["turn_id"], {})
            made.setdefault(self._named(decision, made), []).append(decision)
        state = dict(self._by.shared)
        idle = self._router("live", recorded)
        for event in events:
            groups = by_turn.get(event.event_id)
            if not groups:
                idle.step(state, event)
                continue
            before = dict(state)
            for number, ((tree_id, control_id), mine) in enumerate(groups.items()):
                # Where decisions of one turn name different ones, the first is gone on from.
                here = state if number == 0 else dict(before)
                self._set(here, tree_id, control_id)
                for output in self._router("live", mine).step(here, event):
                    if isinstance(output, Decision):
                        yield output

    def went_up(self, guarded: Sequence[LogEvent], live: Sequence[LogEvent]) -> Iterator[Decision]:
        """Let what guards refused go up, as each refusal says."""
        decided = {one.event_id: one for one in live}
        for one in guarded:
            refused = one.fields["causation_id"] or ""
            if refused in decided and refused in self._refusals:
                decision = decided[refused].event
                assert isinstance(decision, Decision)
                why, control_id = self._refusals[refused], one.fields["control_id"]
                yield went_up(decision, refused, why, control_id)

    def _named(
        self, decision: LogEvent, groups: Collection[tuple[str | None, str | None]]
    ) -> tuple[str | None, str | None]:
        """Return the tree and the Control event that a decision was made by.

        One in shadow was made with the live one that it stands beside, by what that one names.
        """
        control_id = decision.fields["control_id"]
        if decision.fields["mode"] == "shadow":
            for named in groups:
                if named[1] == control_id:
                    return named
        return self._tree_of(decision), control_id

    def _tree_of(self, decision: LogEvent) -> str | None:
        """Return the tree that a decision names, None where its model was rolled out."""
        model_id = str(decision.fields["model_id"])
        return None if self._by.rolled_out(model_id) else model_id

    def _set(self, state: dict[str, Any], tree_id: str | None, control_id: str | None) -> None:
        """Let a state share what a Decision names; what cannot be read leaves it as it was."""
        model = None if tree_id is None else self._by.model(tree_id)
        if model is not None:
            state.update(model.state)
        for name in (CONTROL_KEY, CONTROLS_KEY):
            state.pop(name, None)
        state.update(self._by.controls(control_id))
        state[CONTROL_KEY] = control_id

    def past(
        self, name: str, events: Sequence[LogEvent], recorded: Sequence[LogEvent]
    ) -> Iterator[Decision]:
        """Decide a conversation in retrospect as it was, by each model that decided of it."""
        conversation = Conversation(name, tuple(events))
        # What was added to it later may have been decided under another promise or audited share.
        asked: dict[tuple[str, float], list[LogEvent]] = {}
        for one in recorded:
            key = one.fields["model_id"], one.fields["max_error"]
            asked.setdefault(key, []).append(one)
        for (model_id, max_error), mine in asked.items():
            model = self._by.model(model_id)
            if model is None:
                continue
            for together in _audited_alike(mine):
                ids = {one.event_id for one in together}
                router = self._router("all", together)
                for output in decide(conversation, router, model, max_error):
                    if isinstance(output, Decision) and output.event_id in ids:
                        yield output

    def _router(self, decides: Decides, recorded: Sequence[LogEvent]) -> Router:
        max_error = recorded[0].fields["max_error"]
        cheap = (
            one.fields["propensity"]
            for one in recorded
            if one.fields["tier"] != "imperator" and one.fields["mode"] != "shadow"
        )
        key = decides, max_error, next(cheap, 0.0)
        if key not in self._routers:
            self._routers[key] = Router(
                self._registry, max_error=max_error, audit_rate=key[2], decides=decides
            )
        return self._routers[key]


def _audited_alike(recorded: Sequence[LogEvent]) -> Iterator[list[LogEvent]]:
    """Group decisions by the audited share that they were made under, which cheap tiers name."""
    cheap: dict[float, list[LogEvent]] = {}
    rest = []
    for one in recorded:
        if one.fields["tier"] == "imperator":
            rest.append(one)
        else:
            cheap.setdefault(one.fields["propensity"], []).append(one)
    groups = list(cheap.values()) or [[]]
    groups[0] += rest
    yield from groups
