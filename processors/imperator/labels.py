"""What live traffic teaches the tiers below: examples whose outcome is known, and what repeats.

A fold over a log's conversations, decisions, calls and outcomes, in any order between topics. What
it returns is sorted by when it was decided, so it is the same however the log was read.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from madlog.processors.dtr.features import check_features
from madlog.processors.dtr.memo import Memo
from madlog.processors.dtr.tree import IMPERATOR, PROCESS, VERB_ROUTE, is_route
from madlog.processors.errors import InvalidFeatures
from madlog.processors.imperator.answering import AUDIT, PURPOSE
from madlog.processors.imperator.comparing import Did
from madlog.processors.imperator.repeats import TIMES, Observed, Repeats, tree_route
from madlog.processors.outcomes import Judge, label
from madlog.processors.outcomes.facts import ConversationFacts, Judged
from madlog.processors.outcomes.judge import CONVERSATIONS_MAX
from madlog.topics import LogEvent

__all__ = ("TOPICS", "Example", "LiveLabels", "labels")

TOPICS = ("mad.conversations", "mad.decisions", "mad.llm", "mad.outcomes")


class Example(NamedTuple):
    """A turn's features and the route that was right for it, with its arguments where known."""

    decision_id: str
    features: Mapping[str, Any]
    route: str
    arguments: str | None


class LiveLabels:
    """Gathers what live decisions teach; memory is that of the newest conversations."""

    def __init__(self, conversations_max: int = CONVERSATIONS_MAX) -> None:
        # Of the judge its facts alone: what it would conclude is on the log, or is switched off.
        self._facts = Judge(conversations_max=conversations_max)
        self._decisions: dict[str, Mapping[str, Any]] = {}
        self._answers: dict[str, Did | None] = {}
        self._memo = Memo()

    def fold(self, event: LogEvent) -> None:
        """Take up one event."""
        fields = event.fields
        if event.kind == "LlmCall":
            route = fields["extra"].get("route")
            if PURPOSE in fields["parameters"]:
                # Of two workers at once the first call counts.
                did = None if route is None else Did(route, fields["extra"].get("arguments"))
                self._answers.setdefault(fields["causation_id"], did)
            return
        if event.kind == "Decision":
            if fields["mode"] != "live":
                return
            self._decisions[event.event_id] = fields
        self._facts.fold(event)

    def examples(self) -> list[Example]:
        """Return the decisions that ended well or were corrected, with the route that was right.

        For a tree: an action with arguments that no command brings is the route `process`.
        """
        found = []
        for decision_id, fields, facts in self._ordered():
            right = label(decision_id, facts)
            if right is None:
                continue
            did = Did(right.route, right.arguments)
            answered = self._answers.get(decision_id)
            if answered is not None and answered.route == right.route:
                did = answered
            verb = str(fields["features"]["verb"])
            route = tree_route(did, verb)
            if route == VERB_ROUTE:
                route = did.route
            elif route is None:
                route = IMPERATOR if did.route == IMPERATOR else PROCESS
            if is_route(route):
                found.append(Example(decision_id, fields["features"], route, did.arguments))
        return found

    def observed(self) -> list[Observed]:
        """Return what the language model answered, and what failed, in the order of decisions."""
        found = []
        for decision_id, fields, facts in self._ordered():
            did = self._answers.get(decision_id)
            failed = any(map(_failed, facts.outcomes(decision_id)))
            if did is None and not failed:
                continue
            form = self._memo.key(check_features(fields["features"]))
            verb = str(fields["features"]["verb"])
            found.append(Observed(fields["recipient"], form, verb, did, failed))
        return found

    def repeats(self, times: int = TIMES) -> Repeats:
        """Return which forms were asked how often, and which of them are promoted."""
        return Repeats.of(self.observed(), times)

    def _ordered(self) -> list[tuple[str, Mapping[str, Any], ConversationFacts]]:
        """Return the decisions that are still known, and whose features are those of today."""
        found, gone = [], []
        for decision_id, fields in self._decisions.items():
            facts = self._facts.facts(fields["conversation_id"])
            if facts is None or decision_id not in facts.decisions:
                gone.append(decision_id)
            elif _usable(fields["features"]):
                found.append((decision_id, fields, facts))
        for decision_id in gone:
            del self._decisions[decision_id]
            self._answers.pop(decision_id, None)
        return sorted(found, key=lambda one: (one[1]["occurred_at"], one[0]))


def labels(events: Iterable[LogEvent]) -> list[Example]:
    """Return the examples that live events teach: see LiveLabels, which can go on from there."""
    gathered = LiveLabels()
    for event in events:
        gathered.fold(event)
    return gathered.examples()


def _failed(outcome: Judged) -> bool:
    # That an audit disagrees is no failure of what it would have done: its answer is counted.
    return outcome.result == "failure" and not outcome.withdrawn and outcome.judged_by != AUDIT


def _usable(features: Mapping[str, Any]) -> bool:
    try:
        check_features(features)
    except InvalidFeatures:
        return False
    return True
