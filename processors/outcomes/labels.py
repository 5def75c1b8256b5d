"""What learners may learn from: the effective verdict about a decision, and the right route.

Learners take only decisions whose outcome is known. A label is what the recipient did where that
ended well, or what a correction names; where neither is there, there is no label.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from madlog.processors.outcomes.facts import ConversationFacts, Judged, Result
from madlog.processors.outcomes.rules import RULES, rule_of

__all__ = ("Label", "Verdict", "known", "label")


class Verdict(NamedTuple):
    """How the handling of a turn ended, by the strongest judge; weight 0..1."""

    result: Result
    judged_by: str
    weight: float
    quality: float | None = None
    route: str | None = None
    outcome_id: str | None = None


class Label(NamedTuple):
    """The route that would have been right; `arguments` as the agent wrote them."""

    route: str
    weight: float
    judged_by: str
    arguments: str | None = None


def known(outcomes: Iterable[Judged], rules: Collection[str] = tuple(RULES)) -> Verdict | None:
    """Return the one verdict about a decision from its outcomes, None where none is known.

    The strongest judge counts, of equals the newest; of each judge the newest outcome. What a
    rule that is not among `rules` wrote is passed over. A share of credit weighs by its size.
    """
    newest: dict[str, Judged] = {}
    for one in outcomes:
        old = newest.get(one.judged_by)
        if old is None or old.order < one.order:
            newest[one.judged_by] = one
    found = [
        one
        for name, one in newest.items()
        if not one.withdrawn and (name not in RULES or name in rules)
    ]
    if not found:
        return None
    best = max(found, key=lambda one: (-rule_of(one.judged_by)[0], one.order))
    weight = rule_of(best.judged_by)[1].weight
    if best.judged_by == "credit" and best.quality is not None:
        weight *= best.quality
    return Verdict(best.result, best.judged_by, weight, best.quality, best.route, best.event_id)


def label(
    decision_id: str, facts: ConversationFacts, rules: Collection[str] = tuple(RULES)
) -> Label | None:
    """Return which route would have been right for a decision, None where nobody knows."""
    decided = facts.decisions.get(decision_id)
    verdict = known(facts.outcomes(decision_id), rules)
    if decided is None or verdict is None:
        return None
    if verdict.route is not None:
        return Label(verdict.route, verdict.weight, verdict.judged_by)
    if verdict.result != "success":
        return None
    done = _done(facts, decided.turn_id, decided.recipient)
    if done is None:
        return None
    return Label(done[0], verdict.weight, verdict.judged_by, done[1])


def _done(facts: ConversationFacts, turn_id: str, recipient: str) -> tuple[str, str | None] | None:
    """Return (route, arguments) of what the recipient did about a turn."""
    answers = facts.answers(turn_id, recipient)
    for said in answers:
        if said.kind == "ToolCall":
            return f"action:{said.action}", said.arguments
    turns = [said for said in answers if said.kind == "Turn"]
    turn = facts.said.get(turn_id)
    if not turns or turn is None:
        return None
    if turns[0].marks.ack:
        return "ack", None
    return ("health" if turn.marks.health else "imperator"), None
