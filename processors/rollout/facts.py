"""What a log says of live models: a fold of Control, models, live and shadow Decisions, Outcomes.

A side's success is that of all decisions which name its model, also of those that it left to the
language model: a model that leaves everything is no worse for it, only saves nothing. A verdict is
the strongest judge's, as learners take it (outcomes.labels.known); partial and unknown ones count
for no side. In shadow a pair counts for both sides, where both are known: what the candidate left
went as the live decision went; what it chose is right where the record says that this was done and
it went well, wrong where something else was done and that went well.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from madlog.processors.control import NOTHING, fold
from madlog.processors.dtr.drift import PageHinkley
from madlog.processors.errors import InvalidControl
from madlog.processors.history import is_imported
from madlog.processors.outcomes.facts import WITHDRAWN, Judged
from madlog.processors.outcomes.labels import known
from madlog.processors.rollout.machine import SINCE
from madlog.processors.rollout.sequential import Side
from madlog.processors.serving import ROUTING
from madlog.topics import LogEvent

__all__ = ("DECISIONS_MAX", "Begun", "Decided", "Facts", "Lived", "Standing", "Step")

# So many of the newest decisions are known one by one; what older ones led to stays as it was.
DECISIONS_MAX = 50_000
# Who judges the audited: the tier above, and in shadow what was done.
_AUDITS = frozenset(("audit", "imperator", "record"))
_TIMES_MAX = 2_000


class Step(NamedTuple):
    """A roll-out event: its place in mad.control, who said it, since when it forgets."""

    place: int
    model_id: str
    stage: str
    by: str
    since: int | None
    appended_at: int


class Decided(NamedTuple):
    """One decision; `place` is that of the last Control event it was made under."""

    conversation_id: str
    model_id: str
    shadow: bool
    settled: bool
    about: tuple[str, str]
    audited: bool
    place: int
    occurred_at: int
    took_us: int | None


@dataclass(slots=True)
class Lived:
    """A conversation in which registered agents decide, and how it and its decisions ended.

    `place` is (partition, offset) of its first decision.
    """

    place: tuple[int, int]
    succeeded: int = 0
    failed: int = 0
    result: str | None = None


class Begun(NamedTuple):
    """When a conversation began and where its first event stands."""

    at: int
    partition: int
    offset: int


class Standing(NamedTuple):
    """Where the model that is rolled out stands, and both sides' counts at this stage."""

    model_id: str
    stage: str
    candidate: Side
    served: Side
    # Newest durations of decisions, in µs.
    times: tuple[list[int], list[int]]


class Facts:
    """A fold; the topics in the order control, models, decisions, conversations, outcomes."""

    def __init__(self, agents: Collection[str], decisions_max: int = DECISIONS_MAX) -> None:
        self._agents = frozenset(agents)
        self._decisions_max = decisions_max
        self.controls: Mapping[str, Any] = NOTHING
        self.steps: list[Step] = []
        self.published: dict[str, LogEvent] = {}
        self.lived: dict[str, Lived] = {}
        # Of all that is lived here: who decides in it may come to be known later.
        self.begun: dict[str, Begun] = {}
        self.newest_us = 0
        self._places: dict[str | None, int] = {None: -1}
        self._decisions: OrderedDict[str, Decided] = OrderedDict()
        self._live: dict[tuple[str, str], str] = {}
        self._judged: dict[str, dict[str, Judged]] = {}
        self._ends: dict[str, dict[str, Judged]] = {}
        # Whether each live decision went well, where it is known.
        self._wells: dict[str, bool] = {}
        # Of settled live decisions, each as its first verdict came: (decision, whether wrong).
        self._came: list[tuple[Decided, bool]] = []
        self._told: set[str] = set()
        self._watched: str | None = None
        self._watch, self._watched_to = PageHinkley(), 0
        self._seen: list[int] = []

    def fold(self, event: LogEvent) -> None:
        """Take up one event; what says nothing of live models changes nothing."""
        kind, fields = event.kind, event.fields
        if kind == "Decision":
            if fields["mode"] in ("live", "shadow"):
                self._decide(event)
        elif kind == "Outcome":
            self._judge(event)
        elif kind == "Control":
            self._control(event)
        elif kind == "ModelPublished":
            self.published[event.event_id] = event
        elif fields["conversation_id"] not in self.begun and not is_imported(fields):
            record = event.record
            place = Begun(fields["occurred_at"], record.partition, record.offset)
            self.begun[fields["conversation_id"]] = place

    def said(self, model_id: str) -> list[str]:
        """Return the stages that were said of a model, in order."""
        return [step.stage for step in self.steps if step.model_id == model_id]

    @property
    def served(self) -> str | None:
        """The model that is served to all but a candidate's share."""
        served = self._rollout["served"]
        return str(served[-1]) if served else None

    @property
    def pending(self) -> tuple[str, ...]:
        """All models that decide or are served again if another is taken back."""
        rollout = self._rollout
        candidate = rollout["candidate"]
        return (*(() if candidate is None else (candidate,)), *reversed(rollout["served"]))

    @property
    def since(self) -> tuple[int, int]:
        """How often all that was learned was taken back, and since when it is learned from."""
        found = {step.since for step in self.steps if step.since is not None}
        return len(found), max(found, default=0)

    def standing(self) -> Standing | None:
        """Return where the model that is rolled out stands, None where there is none."""
        model_id, stage = self._rollout["candidate"], self._rollout["stage"]
        if model_id is None:
            return None
        begun = max(step.place for step in self.steps if step.model_id == model_id)
        at_stage = [one for one in self._decisions.items() if one[1].place >= begun]
        counts = [_Count(), _Count()]
        for decision_id, one in at_stage:
            by_candidate = one.model_id == model_id
            if one.shadow and not by_candidate:
                continue
            count = counts[0 if by_candidate else 1]
            if one.took_us is not None:
                count.times.append(one.took_us)
            count.audit(self._audited(decision_id, one))
            if stage == "shadow" and one.shadow:
                for side, well in zip(counts, self._pair(decision_id, one), strict=True):
                    side.take(well)
            elif stage != "shadow" and not one.shadow:
                count.take(self._wells.get(decision_id))
        sides = [count.side() for count in counts]
        times = (counts[0].times[-_TIMES_MAX:], counts[1].times[-_TIMES_MAX:])
        return Standing(model_id, stage, sides[0], sides[1], times)

    def errors(self, model_id: str) -> Side:
        """Return what the audits say of a model's decisions, whenever they were made."""
        count = _Count()
        for decision_id, one in self._decisions.items():
            if one.model_id == model_id:
                count.audit(self._audited(decision_id, one))
        return count.side()

    def drift(self) -> int | None:
        """Return since when what is served errs more than it did, None where it does not."""
        if self._watched != self.served:
            self._watched, self._watch = self.served, PageHinkley()
            self._watched_to, self._seen = 0, []
        new, self._watched_to = self._came[self._watched_to :], len(self._came)
        if self._watched is None:
            return None
        for one, wrong in new:
            if one.model_id != self._watched:
                continue
            self._seen.append(one.occurred_at)
            began = self._watch.update(wrong)
            if began is not None:
                return min(self._seen[-max(began, 1) :])
        return None

    def good(self, since: int) -> list[str]:
        """Return the conversations that ended well and began since then, in that order."""
        found = [
            (self.begun[name].at, name)
            for name, one in self.lived.items()
            if one.result == "success" and name in self.begun and self.begun[name].at >= since
        ]
        return [name for _, name in sorted(found)]

    @property
    def _rollout(self) -> Mapping[str, Any]:
        empty: Mapping[str, Any] = {"served": [], "candidate": None, "stage": None}
        found: Mapping[str, Any] = self.controls["rollouts"].get(ROUTING, empty)
        return found

    def _control(self, event: LogEvent) -> None:
        fields = event.fields
        place = self._places[event.event_id] = len(self._places)
        try:
            self.controls = fold(self.controls, fields)
        except InvalidControl:
            return
        if fields["command"] == "rollout":
            since = fields["extra"].get(SINCE)
            self.steps.append(
                Step(
                    place,
                    fields["about_id"],
                    fields["value"],
                    fields["sender"]["name"],
                    int(since) if since is not None and since.isdecimal() else None,
                    event.record.appended_at,
                )
            )

    def _decide(self, event: LogEvent) -> None:
        fields, record = event.fields, event.record
        if event.event_id in self._decisions:
            return
        took = event.header("duration-us")
        one = Decided(
            fields["conversation_id"],
            fields["model_id"],
            fields["mode"] == "shadow",
            fields["tier"] != "imperator",
            (fields["turn_id"], fields["recipient"]),
            fields["audited"],
            # One that names a Control event which is not there belongs to no stage.
            self._places.get(fields["control_id"], -1),
            fields["occurred_at"],
            int(took) if took is not None and took.isdigit() else None,
        )
        self._decisions[event.event_id] = one
        self.newest_us = max(self.newest_us, one.occurred_at)
        if not one.shadow:
            self._live[one.about] = event.event_id
            if fields["recipient"] in self._agents and one.conversation_id not in self.lived:
                self.lived[one.conversation_id] = Lived((record.partition, record.offset))
        if len(self._decisions) > self._decisions_max:
            old_id, old = self._decisions.popitem(last=False)
            self._judged.pop(old_id, None)
            self._wells.pop(old_id, None)
            self._told.discard(old_id)
            if self._live.get(old.about) == old_id:
                del self._live[old.about]

    def _judge(self, event: LogEvent) -> None:
        fields, record = event.fields, event.record
        about = fields["about_id"]
        one = Judged(
            event.event_id,
            fields["judged_by"],
            fields["result"],
            fields["quality"],
            fields["causation_id"],
            (record.appended_at, record.partition, record.offset),
            fields["occurred_at"],
            fields["time_source"],
            fields["extra"].get("route"),
            WITHDRAWN in fields["extra"],
        )
        if fields["about"] == "decision":
            if about not in self._decisions:
                return
            held = self._judged.setdefault(about, {})
        elif about in self.lived:
            held = self._ends.setdefault(about, {})
        else:
            return
        old = held.get(one.judged_by)
        if old is not None and old.order > one.order:
            return
        held[one.judged_by] = one
        self.newest_us = max(self.newest_us, one.occurred_at)
        if fields["about"] == "decision":
            self._take(about, _well(held))
            about = self._decisions[about].conversation_id
        if about in self.lived:
            self.lived[about].result = self._ended(about)

    def _take(self, decision_id: str, well: bool | None) -> None:
        """Take up what is known by now of how a decision went."""
        one, before = self._decisions[decision_id], self._wells.pop(decision_id, None)
        if one.shadow:
            return
        if well is not None:
            self._wells[decision_id] = well
        lived = self.lived.get(one.conversation_id)
        if lived is not None:
            lived.succeeded += (well is True) - (before is True)
            lived.failed += (well is False) - (before is False)
        if well is not None and one.settled and decision_id not in self._told:
            self._told.add(decision_id)
            self._came.append((one, not well))
            if len(self._came) > 2 * self._decisions_max:
                gone = len(self._came) - self._decisions_max
                del self._came[:gone]
                self._watched_to = max(0, self._watched_to - gone)

    def _ended(self, name: str) -> str | None:
        """Return how a conversation ended: as was said of it, else as its live decisions did."""
        ends = [one for one in self._ends.get(name, {}).values() if not one.withdrawn]
        if ends:
            return max(ends, key=lambda one: one.order).result
        if self.lived[name].failed:
            return "failure"
        return "success" if self.lived[name].succeeded else None

    def _said_by(self, decision_id: str, judges: Collection[str]) -> bool | None:
        held = self._judged.get(decision_id, {}).values()
        found = [one for one in held if one.judged_by in judges and not one.withdrawn]
        if not found:
            return None
        return max(found, key=lambda one: one.order).result == "success"

    def _audited(self, decision_id: str, one: Decided) -> bool | None:
        if not one.settled or not (one.shadow or one.audited):
            return None
        return self._said_by(decision_id, _AUDITS)

    def _pair(self, decision_id: str, one: Decided) -> tuple[bool | None, bool | None]:
        """Return how a decision in shadow and the live one beside it went."""
        live = self._live.get(one.about)
        went = None if live is None else self._wells.get(live)
        if went is None or not one.settled:
            return went, went
        done = self._said_by(decision_id, ("record",))
        if done is None or (not done and not went):
            return None, None
        return (went if done else False), went


def _well(held: Mapping[str, Judged]) -> bool | None:
    """Tell whether a decision went well by its verdicts, None where they do not say."""
    verdict = known(held.values())
    if verdict is None or verdict.result not in ("success", "failure"):
        return None
    return verdict.result == "success"


@dataclass(slots=True)
class _Count:
    successes: int = 0
    decisions: int = 0
    errors: int = 0
    audited: int = 0
    times: list[int] = field(default_factory=list)

    def take(self, well: bool | None) -> None:
        self.decisions += well is not None
        self.successes += well is True

    def audit(self, right: bool | None) -> None:
        self.audited += right is not None
        self.errors += right is False

    def side(self) -> Side:
        return Side(self.successes, self.decisions, self.errors, self.audited)
