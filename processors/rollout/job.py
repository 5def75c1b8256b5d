"""Learns from what is lived, and rolls out what was learned: reads, concludes, appends.

All comes from the log: after a crash it goes on as it would have, and of two at work the first to
append counts. Learning and rolling out may run in separate workers, which share the log alone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.errors import InvalidModel
from madlog.processors.imperator.labels import Answers
from madlog.processors.ports import Registry
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.rollout.canary import CASES_MAX, Canary, is_canary, tried, worse
from madlog.processors.rollout.facts import Facts, Standing
from madlog.processors.rollout.learner import (
    LEARNED_MAX,
    ROUND_MIN,
    changes_and_round,
    fitting,
    learned,
    model_of,
    read_conversations,
    round_of,
    split,
    version_of,
)
from madlog.processors.rollout.machine import control, figures, next_stage
from madlog.processors.rollout.refusal import missing_places, read_model, strange
from madlog.processors.rollout.sequential import above, judge
from madlog.processors.router import Router
from madlog.processors.serving import ROUTING
from madlog.processors.tiers import Published, TierModels, model_text
from madlog.schemas import Event
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.errors import BlobMissing, IdempotencyConflict
from madlog.topics.log import Damage, OnDamage, log_damage

__all__ = ("Rolled", "Rollout", "RolloutSettings")

_DECISIONS, _CONVERSATIONS, _OUTCOMES = "mad.decisions", "mad.conversations", "mad.outcomes"
_CONTROL, _MODELS, _CALLS = "mad.control", "mad.models", "mad.llm"
# How far each is read is asked for in this order, and it is read in the other: so a verdict that is
# read has its decision, a decision the Control event and model that it names, and its turn.
_ENDS = (_OUTCOMES, _CALLS, _DECISIONS, _CONVERSATIONS, _CONTROL, _MODELS)
_READ = (_CONTROL, _MODELS, _DECISIONS, _CALLS, _CONVERSATIONS, _OUTCOMES)
_ATTEMPTS_MAX = 20
# So many decisions of each partition are read at once.
_SLICE = 4_000
# On Kafka an offset may hold no record: one of these does.
_PEEKED = 10
_MOVES_MAX = 200
_SLOWER, _TIMES_MIN = 2.0, 100


@dataclass(frozen=True)
class RolloutSettings:
    """How models are learned and rolled out; blobs hold models that are large.

    See sequential.judge for margin, minimum, maximum and alpha.
    """

    code_version: str
    put_blob: Callable[[bytes], str]
    get_blob: Callable[[str], bytes]
    registry: Registry = field(default_factory=Registry)
    learns: bool = True
    rolls_out: bool = True
    max_error: float = 0.05
    audit_rate: float = 0.02
    margin: float = -0.02
    minimum: int = 500
    maximum: int = 1_000
    alpha: float = 0.05


@dataclass(slots=True)
class Rolled:
    """How many models were published and how many steps were said."""

    models: int = 0
    steps: int = 0


def _silent(_: Rolled) -> None:
    """Say nothing."""


class Rollout:
    """Learns and rolls out, each time from where it has read to.

    Without registered agents that decided here it reads no conversation, and holds nothing.
    """

    def __init__(
        self, log: EventLog, settings: RolloutSettings, *, on_damage: OnDamage = log_damage
    ) -> None:
        self._log = log
        self._settings = settings
        self._on_damage = on_damage
        self._facts = Facts(settings.registry)
        self._answers = Answers()
        self._read = Vector()
        self._router = Router(
            settings.registry,
            max_error=settings.max_error,
            audit_rate=settings.audit_rate,
            decides="all",
        )
        # Rounds that taught nothing, and models whose parameters are not here.
        self._vain: set[str] = set()
        self._absent: set[str] = set()

    async def run(self, progress: Callable[[Rolled], None] = _silent) -> Rolled:
        """Do what follows from what is new; raises what EventLog.append raises."""
        report = Rolled()
        for attempt in range(_ATTEMPTS_MAX):
            try:
                for _ in range(_MOVES_MAX):
                    await self._catch_up()
                    if not await self._move(report):
                        return report
                    progress(report)
            except IdempotencyConflict:
                # Another worker said the same from other evidence: that counts, and is read now.
                if attempt == _ATTEMPTS_MAX - 1:
                    raise
        return report

    async def _catch_up(self) -> None:
        there = await self._log.log.topics()
        ends = {name: await self._log.log.end([name]) for name in _ENDS if name in there}
        while (cut := await self._cut(ends)) is not None:
            await self._read_to(cut)
        await self._read_to(ends)

    async def _cut(self, ends: Mapping[str, Vector]) -> dict[str, Vector] | None:
        """Return how far to read first where much is new, so that verdicts find their decisions.

        Only so many decisions are known one by one; None where all that is new may be read at once.
        """
        new = ends.get(_DECISIONS, Vector())
        far = {tp: self._read.get(tp, 0) + _SLICE for tp in new}
        far = {tp: at for tp, at in far.items() if new[tp] > at + _SLICE}
        times: list[int] = []
        until = Vector({tp: at + _PEEKED for tp, at in far.items()})
        async for records in self._log.log.read(Vector(far), until, on_damage=_ignored):
            times += [record.appended_at for record in records]
        if not times:
            return None
        at_time = await self._log.log.at_time(list(ends), min(times))
        cut = {
            name: Vector({tp: max(self._read.get(tp, 0), min(at_time[tp], end[tp])) for tp in end})
            for name, end in ends.items()
        }
        # Where all of it was appended in one moment there is nothing between.
        return cut if any(cut[_DECISIONS][tp] > self._read.get(tp, 0) for tp in new) else None

    async def _read_to(self, ends: Mapping[str, Vector]) -> None:
        for topic in _READ:
            if topic not in ends or (topic == _CONVERSATIONS and not self._facts.lived):
                continue
            found: list[LogEvent] = []
            batches = self._log.read_topics(
                [topic], start=self._read, end=ends[topic], on_damage=self._on_damage
            )
            async for events in batches:
                if topic == _OUTCOMES:
                    found += events
                    continue
                for event in events:
                    self._fold(event)
            # In the order in which they came, whichever partition they are in.
            for event in sorted(found, key=_came):
                self._fold(event)
            self._read = Vector({**self._read, **ends[topic]})

    def _fold(self, event: LogEvent) -> None:
        if not is_canary(event.fields["conversation_id"]):
            self._answers.fold(event)
        if event.kind != "LlmCall":
            self._facts.fold(event)

    async def _move(self, report: Rolled) -> bool:
        """Append what is to be said first; tells whether anything was."""
        events: list[Event] = []
        if self._settings.rolls_out:
            events = await self._steps()
            report.steps += len(events)
        if not events and self._settings.learns:
            events = await self._learn()
            report.models += len(events)
        if events:
            await self._log.append(events)
        return bool(events)

    async def _steps(self) -> list[Event]:
        return (
            self._refused()
            or self._drifted()
            or self._broken()
            or await self._candidate()
            or self._judged()
        )

    def _say(self, model_id: str, stage: str, reason: str, since: int | None = None) -> list[Event]:
        event = self._facts.published.get(model_id)
        component = ROUTING if event is None else event.fields["component"]
        at = self._facts.newest_us or (0 if event is None else event.fields["occurred_at"])
        said = self._facts.said(model_id)
        return [control(component, model_id, stage, reason, at, said=said, since=since)]

    def _refused(self) -> list[Event]:
        """Refuse what is of no component, so that people see it."""
        for model_id, event in self._facts.published.items():
            reason = strange(event)
            if reason is not None and not self._facts.said(model_id):
                return self._say(model_id, "back", f"refused: {reason}")
        return []

    def _drifted(self) -> list[Event]:
        """Take back all that was learned before a change: it errs alike."""
        since = self._facts.drift()
        if since is None:
            return []
        reason = "what is served errs more than it did: all that was learned before is taken back"
        found: list[Event] = []
        for model_id in self._facts.pending:
            if next_stage(self._facts.said(model_id), "back"):
                found += self._say(model_id, "back", reason, since)
        return found

    def _broken(self) -> list[Event]:
        """Take back a served model that is shown to break the promise."""
        model_id = self._facts.served
        if model_id is None or next_stage(self._facts.said(model_id), "back") is None:
            return []
        side = self._facts.errors(model_id)
        if not above(side.errors, side.audited, self._settings.max_error, self._settings.alpha):
            return []
        reason = f"its promise is broken: {side.errors} of {side.audited} audited were wrong"
        return self._say(model_id, "back", reason)

    async def _candidate(self) -> list[Event]:
        """Begin with the newest model that nothing was said of, or refuse it."""
        standing = self._facts.standing()
        event = self._newest()
        if event is None or (standing is not None and standing.stage != "shadow"):
            return []
        try:
            models = read_model(event, self._settings.get_blob, self._settings.registry)
            missing = await missing_places(self._log, event.fields["trained_on"])
            if missing:
                raise InvalidModel(
                    f"it says it was trained on what is not on this log: {missing[0]}"
                )
        except InvalidModel as error:
            return self._say(event.event_id, "back", f"refused: {error}")
        except BlobMissing as error:
            if event.event_id not in self._absent:
                self._absent.add(event.event_id)
                logging.getLogger("madlog").warning("%s", error)
            return []
        published = Published(event.event_id, event.fields["version"], models)
        canary, reason = await self._tried(published)
        if reason is not None:
            return self._say(event.event_id, "back", f"refused: {reason}")
        told = (
            f"{published.version} begins; wrong in {canary.wrong} of {canary.decisions} decisions "
            f"of {canary.cases} canary cases"
        )
        found = self._say(event.event_id, "shadow", told)
        if standing is not None and next_stage(self._facts.said(standing.model_id), "back"):
            reason = f"{published.version} takes its place before it decided anything"
            found += self._say(standing.model_id, "back", reason)
        return found

    def _newest(self) -> LogEvent | None:
        """Return the newest model of ours, unless something was said of it or of a newer one."""
        changed = max(
            (step.appended_at for step in self._facts.steps if step.since is not None), default=-1
        )
        for event in reversed(self._facts.published.values()):
            if event.fields["component"] != ROUTING:
                continue
            said = self._facts.said(event.event_id)
            if said == ["back"]:
                continue
            # What was learned before a change and waited is as wrong as what was taken back for it.
            return None if said or event.record.appended_at <= changed else event
        return None

    async def _tried(self, published: Published) -> tuple[Canary, str | None]:
        """Try a model on the canary cases; returns how it did and why it is not rolled out."""
        cases = await self._cases(split(self._facts.good(self._facts.since[1]))[1])
        canary = await self._on(cases, published)
        served = self._facts.published.get(self._facts.served or "")
        if served is None:
            seed = seed_model()
            other = Published(seed.event_id, seed.version, TierModels.seed())
        else:
            # What is served was read before it was.
            text = model_text(served.fields, self._settings.get_blob)
            other = Published(served.event_id, served.fields["version"], TierModels.parse(text))
        return canary, worse(canary, await self._on(cases, other))

    async def _cases(self, names: Sequence[str]) -> list[Conversation]:
        """Read the newest canary cases of some conversations."""
        found = await self._conversations(names[-CASES_MAX:])
        return [one for one in found if fitting(one, self._settings.registry)]

    async def _on(self, cases: Sequence[Conversation], by: Published) -> Canary:
        return await asyncio.to_thread(tried, by, cases, self._router, self._settings.max_error)

    async def _conversations(self, names: Sequence[str]) -> list[Conversation]:
        return await read_conversations(self._log, self._facts, names, self._read, self._on_damage)

    def _judged(self) -> list[Event]:
        """Judge the candidate at its stage."""
        standing = self._facts.standing()
        if standing is None:
            return []
        settings = self._settings
        verdict = judge(
            standing.candidate,
            standing.served,
            margin=settings.margin,
            minimum=settings.minimum,
            maximum=settings.maximum,
            alpha=settings.alpha,
            max_error=settings.max_error,
        )
        stage = next_stage(self._facts.said(standing.model_id), verdict)
        if stage is None:
            return []
        return self._say(standing.model_id, stage, self._reason(standing))

    def _reason(self, standing: Standing) -> str:
        told = f"at {standing.stage} it {figures(standing.candidate, standing.served)}"
        own, other = (sorted(times) for times in standing.times)
        if min(len(own), len(other)) < _TIMES_MIN:
            return told
        medians = own[len(own) // 2], other[len(other) // 2]
        if medians[0] <= _SLOWER * medians[1]:
            return told
        slow = f"slower: {medians[0]} µs a decision, what is served {medians[1]} µs"
        logging.getLogger("madlog").warning("model %s is %s", standing.model_id, slow)
        return f"{told}; {slow}"

    async def _learn(self) -> list[Event]:
        """Learn the round that is due, if it is not on the log yet."""
        standing = self._facts.standing()
        if standing is not None and standing.stage != "shadow":
            # What is learned now could not begin before this one is through; then more is known.
            return []
        settings, (changes, since) = self._settings, self._facts.since
        names, held = split(self._facts.good(since))
        count = round_of(len(names))
        if count is None or self._is_learned(count, changes):
            return []
        version = version_of(count, changes)
        newest = await self._conversations(names[:count][-LEARNED_MAX:])
        seen = [one for one in newest if fitting(one, settings.registry)]
        if len(seen) < ROUND_MIN:
            self._vain.add(version)
            return []
        try:
            # In a thread, because a fit takes seconds and leases must be renewed meanwhile.
            models = await asyncio.to_thread(learned, seen, self._router)
        except ValueError:
            # Nobody did anything there: the next round has more.
            self._vain.add(version)
            return []
        # What the language model was asked again and again is taken up, or out where it erred.
        repeats = self._answers.repeats(since=since)
        tree = repeats.applied(models.tree, settings.max_error)
        models = replace(models, tree=tree)
        event = model_of(models, seen, version, settings.code_version, settings.put_blob, since)
        published = Published(event.event_id, version, models)
        canary = await self._on(await self._cases(held), published)
        promoted = float(len(repeats.rows(settings.max_error)))
        more = {"conversations": float(count), "promoted": promoted}
        metrics = {**event.metrics, **canary.metrics, **more}
        return [event.model_copy(update={"metrics": metrics})]

    def _is_learned(self, count: int, changes: int) -> bool:
        """Tell whether this round, or a later one, is on the log or taught nothing."""
        versions = {
            event.fields["version"]
            for event in self._facts.published.values()
            if event.fields["component"] == ROUTING
        }
        known = (changes_and_round(version) for version in versions | self._vain)
        return any(one is not None and one >= (changes, count) for one in known)


def _ignored(_: Damage) -> None:
    """Say nothing: what is damaged is said when it is read."""


def _came(event: LogEvent) -> tuple[Any, ...]:
    return event.record.appended_at, event.record.partition, event.record.offset
