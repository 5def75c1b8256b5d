"""What live traffic teaches the tiers below: examples whose outcome is known, and what repeats.

Folds over a log's decisions, calls, outcomes and conversations, in any order between topics, each
topic in its own. What they return is sorted by when it was decided, so it is the same however the
log was read.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from madlog.processors.dtr.features import check_features
from madlog.processors.dtr.grown import Values
from madlog.processors.dtr.memo import Memo
from madlog.processors.dtr.tree import IMPERATOR, PROCESS, VERB_ROUTE, is_route
from madlog.processors.errors import InvalidFeatures
from madlog.processors.imperator.answering import AUDIT, PURPOSE
from madlog.processors.imperator.comparing import Did
from madlog.processors.imperator.repeats import TIMES, Observed, Repeats, tree_route
from madlog.processors.outcomes import Judge, label
from madlog.processors.outcomes.facts import WITHDRAWN
from madlog.processors.outcomes.judge import CONVERSATIONS_MAX
from madlog.topics import LogEvent

__all__ = ("DECISIONS_MAX", "TOPICS", "Answers", "Example", "LiveLabels", "labels")

TOPICS = ("mad.conversations", "mad.decisions", "mad.llm", "mad.outcomes")
DECISIONS_MAX = 100_000
_Order = tuple[int, int, int]


class Example(NamedTuple):
    """A turn's features and the route that was right for it, with its arguments where known."""

    decision_id: str
    features: Mapping[str, Any]
    route: str
    arguments: str | None


class _Decided(NamedTuple):
    """What of a live decision is held."""

    recipient: str
    conversation_id: str
    occurred_at: int
    form: Values
    verb: str


class Answers:
    """What language models answered to live decisions, and which decisions failed.

    Of the newest decisions only: so many are held in memory.
    """

    def __init__(self, decisions_max: int = DECISIONS_MAX) -> None:
        self._max = decisions_max
        self._decisions: OrderedDict[str, _Decided] = OrderedDict()
        self._dids: dict[str, Did | None] = {}
        # By decision and judge: the place of the newest verdict, and whether it is a failure.
        self._failures: dict[str, dict[str, tuple[_Order, bool]]] = {}
        self._memo = Memo()

    def fold(self, event: LogEvent) -> None:
        """Take up one event of mad.decisions, mad.llm or mad.outcomes."""
        fields = event.fields
        if event.kind == "LlmCall" and PURPOSE in fields["parameters"]:
            route = fields["extra"].get("route")
            did = None if route is None else Did(route, fields["extra"].get("arguments"))
            # Of two workers at once the first call counts.
            self._dids.setdefault(fields["causation_id"], did)
        elif event.kind == "Decision" and fields["mode"] == "live":
            self._decide(event)
        # That an audit disagrees is no failure of what it would have done: its answer is counted.
        elif event.kind == "Outcome" and fields["judged_by"] != AUDIT:
            self._judge(event)

    def _decide(self, event: LogEvent) -> None:
        fields = event.fields
        try:
            form = self._memo.key(check_features(fields["features"]))
        except InvalidFeatures:
            # Of a program with other features.
            return
        self._decisions[event.event_id] = _Decided(
            fields["recipient"],
            fields["conversation_id"],
            fields["occurred_at"],
            form,
            str(fields["features"]["verb"]),
        )
        if len(self._decisions) > self._max:
            self._forget(next(iter(self._decisions)))

    def _forget(self, decision_id: str) -> None:
        del self._decisions[decision_id]
        self._dids.pop(decision_id, None)
        self._failures.pop(decision_id, None)

    def _judge(self, event: LogEvent) -> None:
        fields, record = event.fields, event.record
        if fields["about"] != "decision":
            return
        failed = fields["result"] == "failure" and WITHDRAWN not in fields["extra"]
        held = self._failures.get(fields["about_id"], {})
        order = (record.appended_at, record.partition, record.offset)
        old = held.get(fields["judged_by"])
        # What nobody ever called a failure need not be held.
        if (old is None and failed) or (old is not None and old[0] < order):
            held[fields["judged_by"]] = order, failed
            self._failures[fields["about_id"]] = held

    def observed(self, since: int = 0) -> list[Observed]:
        """Return what was answered and what failed since then, in the order of decisions."""
        found = []
        for decision_id, one in self._ordered():
            did = self._dids.get(decision_id)
            held = self._failures.get(decision_id, {})
            failed = any(failure for _, failure in held.values())
            if one.occurred_at >= since and (did is not None or failed):
                found.append(Observed(one.recipient, one.form, one.verb, did, failed))
        return found

    def repeats(self, times: int = TIMES, since: int = 0) -> Repeats:
        """Return which forms were asked how often, and which of them are promoted."""
        return Repeats.of(self.observed(since), times)

    def _ordered(self) -> list[tuple[str, _Decided]]:
        return sorted(self._decisions.items(), key=lambda one: (one[1].occurred_at, one[0]))


class LiveLabels(Answers):
    """Gathers the examples of live decisions too; memory is that of the newest conversations."""

    def __init__(self, conversations_max: int = CONVERSATIONS_MAX) -> None:
        super().__init__()
        self._features: dict[str, Mapping[str, Any]] = {}
        # Of the judge its facts alone: what it would conclude is on the log, or is switched off.
        self._facts = Judge(conversations_max=conversations_max)

    def fold(self, event: LogEvent) -> None:
        """Take up one event of any of `TOPICS`."""
        super().fold(event)
        if event.event_id in self._decisions:
            self._features[event.event_id] = event.fields["features"]
        if event.kind != "LlmCall":
            self._facts.fold(event)

    def _forget(self, decision_id: str) -> None:
        super()._forget(decision_id)
        del self._features[decision_id]

    def examples(self) -> list[Example]:
        """Return the decisions that ended well or were corrected, with the route that was right.

        For a tree: an action with arguments that no command brings is the route `process`.
        """
        found = []
        for decision_id, one in self._ordered():
            facts = self._facts.facts(one.conversation_id)
            right = None if facts is None else label(decision_id, facts)
            if right is None:
                continue
            did = Did(right.route, right.arguments)
            answered = self._dids.get(decision_id)
            if answered is not None and answered.route == right.route:
                did = answered
            route = tree_route(did, one.verb)
            if route == VERB_ROUTE:
                route = did.route
            elif route is None:
                route = IMPERATOR if did.route == IMPERATOR else PROCESS
            if is_route(route):
                features = self._features[decision_id]
                found.append(Example(decision_id, features, route, did.arguments))
        return found


def labels(events: Iterable[LogEvent]) -> list[Example]:
    """Return the examples that live events teach: see LiveLabels, which can go on from there."""
    gathered = LiveLabels()
    for event in events:
        gathered.fold(event)
    return gathered.examples()
