"""Asked so many times, always the same answer: then a cheaper tier may give it.

Turns of exactly the same form (the features that the memo tells forms apart by) to one agent are
counted in the order in which they were decided. A form is promoted once its last answers were all
the same and none of them failed; another answer, a failure, or an audit that disagrees demotes it,
and it has to be asked as many times again. How sure promoted answers are is tested on those that
came after the promotion, all of an agent's forms together.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from madlog.processors.dtr.grown import Values, confidence
from madlog.processors.dtr.memo import Memo
from madlog.processors.dtr.tree import ACTION_PREFIX, MEMO_FORMAT, VERB_ROUTE, Tree, is_route
from madlog.processors.imperator.comparing import Did

__all__ = ("TIMES", "FormCount", "Observed", "Repeats", "tree_route")

TIMES = 5
_SETTLED = ("ack", "health")
# A memo holds no more rows than a model file may have.
_ROWS_MAX = 1_024


class Observed(NamedTuple):
    """What a language model answered to a turn of a form; None where only its failure is known."""

    agent: str
    form: Values
    verb: str
    did: Did | None
    failed: bool


@dataclass(slots=True)
class FormCount:
    """How often a form was asked; `answer` is the last good one, `same` how often it came last."""

    asked: int = 0
    same: int = 0
    failures: int = 0
    answer: str | None = None
    route: str | None = None
    promoted: bool = False
    promotions: int = 0

    @property
    def state(self) -> Literal["promoted", "demoted", "asked"]:
        """Where it stands."""
        if self.promoted:
            return "promoted"
        return "demoted" if self.promotions else "asked"


class Repeats:
    """A fold over what was observed, in the order of the decisions."""

    def __init__(self, times: int = TIMES) -> None:
        self._times = times
        self.forms: dict[tuple[str, Values], FormCount] = {}
        # Of each agent's promoted answers: how many were tested, how many were wrong.
        self._tested: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    @classmethod
    def of(cls, observed: Iterable[Observed], times: int = TIMES) -> "Repeats":
        """Fold all that was observed."""
        made = cls(times)
        for one in observed:
            made.observe(one)
        return made

    def observe(self, one: Observed) -> None:
        """Take up one answer or failure."""
        count = self.forms.setdefault((one.agent, one.form), FormCount())
        answer = None if one.did is None else _key(one.did, one.verb)
        good = answer is not None and not one.failed
        right = good and count.same > 0 and answer == count.answer
        if count.promoted and answer is not None:
            tested = self._tested[one.agent]
            tested[0] += 1
            tested[1] += not right
        count.asked += answer is not None
        count.failures += one.failed
        if right:
            count.same += 1
        elif not good:
            count.same, count.route = 0, None
        else:
            count.same, count.answer = 1, answer
            count.route = tree_route(one.did, one.verb)
        was, count.promoted = count.promoted, count.same >= self._times and count.route is not None
        count.promotions += count.promoted and not was

    def confidence(self, agent: str) -> float:
        """Return how sure an agent's promoted answers are: one less the upper bound of errors."""
        tested, wrong = self._tested[agent]
        return confidence(tested, wrong)

    def rows(self, max_error: float) -> list[list[Any]]:
        """Return the promoted forms as rows of a model file, those that keep the promise."""
        sure = {agent: self.confidence(agent) for agent, _ in self.forms}
        found = [
            [list(form), count.route, sure[agent]]
            for (agent, form), count in self.forms.items()
            if count.promoted and sure[agent] >= 1.0 - max_error
        ]
        return sorted(found, key=lambda row: json.dumps(row[0]))

    def applied(self, tree: Tree, max_error: float) -> Tree:
        """Return a tree with the promoted forms in its memo, and without those demoted."""
        document = json.loads(tree.text)
        names = Memo().names
        memo = document.get("memo", {"features": names, "rows": []})
        if memo["features"] != names:
            return tree
        gone = {form for (_, form), count in self.forms.items() if count.state == "demoted"}
        kept = {tuple(row[0]): row for row in memo["rows"] if tuple(row[0]) not in gone}
        for row in self.rows(max_error):
            if len(kept) < _ROWS_MAX:
                kept.setdefault(tuple(row[0]), row)
        rows = sorted(kept.values(), key=lambda row: json.dumps(row[0]))
        if rows == memo["rows"]:
            return tree
        memo = {"features": names, "rows": rows}
        return Tree.from_document({**document, "format": MEMO_FORMAT, "memo": memo})


def tree_route(did: Did | None, verb: str) -> str | None:
    """Return the route by which a tree does the same, None where it cannot.

    A tree gives no arguments: the command in the turn brings them, or the action takes none. And
    it has no words.
    """
    if did is None:
        return None
    if did.route == f"{ACTION_PREFIX}{verb}":
        return VERB_ROUTE
    bare = did.route.startswith(ACTION_PREFIX) and did.arguments in (None, "{}")
    return did.route if (bare or did.route in _SETTLED) and is_route(did.route) else None


def _key(did: Did, verb: str) -> str:
    """Return what makes two answers the same."""
    return tree_route(did, verb) or f"{did.route} {did.arguments or ''}"
