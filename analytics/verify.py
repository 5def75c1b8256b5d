"""Replay, second strength: verify. Every Decision is computed again from the log and compared.

Features and routes are computed from the turns, never from what the Decision says of them; the
model, the Control event, the promised error and the audited share are those that it names. Which
model a live turn is decided by follows from the Control events up to the one that is named.
Nothing outside is touched. Conversations and decisions are held in memory.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from madlog.analytics.decided_by import DecidedBy
from madlog.analytics.replay_report import Meter, OnProgress
from madlog.processors.acting.writing import GUARD, went_up
from madlog.processors.ports import Registry
from madlog.processors.retrospect import Conversation, decide
from madlog.processors.router import Decides, Router
from madlog.processors.serving import CONTROL_KEY, CONTROLS_KEY
from madlog.schemas import Decision, Event
from madlog.topics import EventLog, LogEvent
from madlog.topics.log import OnDamage, log_damage

__all__ = ("DecisionDifference", "VerifyReport", "verify")

_TOPICS = ("mad.models", "mad.control", "mad.conversations", "mad.decisions")
_ABSENT = "absent"


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


@dataclass
class _Log:
    """What is compared: models by id, conversations and their decisions by name."""

    models: dict[str, LogEvent] = field(default_factory=dict)
    # Control events in their order.
    controls: list[LogEvent] = field(default_factory=list)
    events: dict[str, list[LogEvent]] = field(default_factory=dict)
    decisions: dict[str, list[LogEvent]] = field(default_factory=dict)
    # Why guards refused what was decided, by the Decision's id; read where a refusal went up.
    refusals: dict[str, str] = field(default_factory=dict)

    def fold(self, event: LogEvent) -> None:
        if event.kind == "ModelPublished":
            self.models[event.event_id] = event
        elif event.record.topic == "mad.control":
            self.controls.append(event)
        elif event.kind == "Decision":
            self.decisions.setdefault(event.fields["conversation_id"], []).append(event)
        elif event.record.topic == "mad.conversations":
            self.events.setdefault(event.fields["conversation_id"], []).append(event)
        elif event.kind == "Outcome" and _by_guard(event):
            self.refusals[event.fields["about_id"]] = event.fields["extra"].get("reason", "")


async def verify(
    log: EventLog,
    get_blob: Callable[[str], bytes],
    *,
    registry: Registry | None = None,
    progress: OnProgress | None = None,
    on_damage: OnDamage = log_damage,
) -> VerifyReport:
    """Compute every Decision on the log again and report each that differs."""
    held = _Log()
    meter = Meter(log.log.clock, progress)
    there = await log.log.topics()
    names = [name for name in _TOPICS if name in there]
    end, start = await log.log.end(names), await log.log.start(names)
    meter.total = sum(end[tp] - start.get(tp, 0) for tp in end)
    async for events in log.read_topics(names, end=end, on_damage=on_damage):
        for event in events:
            held.fold(event)
        if events:
            meter.batch(len(events), str(events[-1].position))
    if any(_by_guard(one) for decisions in held.decisions.values() for one in decisions):
        async for events in log.read_topics(["mad.outcomes"], on_damage=on_damage):
            for event in events:
                held.fold(event)
    report = VerifyReport()
    again = _Again(held, get_blob, registry)
    for name, decisions in held.decisions.items():
        report.decisions += len(decisions)
        report.differences += _compared(again, held.events.get(name, []), name, decisions)
    report.events, report.seconds = meter.events, meter.seconds
    return report


def _compared(
    again: "_Again", events: Sequence[LogEvent], name: str, decisions: Sequence[LogEvent]
) -> Iterator[DecisionDifference]:
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
        held: _Log,
        get_blob: Callable[[str], bytes],
        registry: Registry | None,
    ) -> None:
        self._by = DecidedBy(held.models, held.controls, get_blob)
        self._refusals = held.refusals
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
