"""What the decision tree router learns from: a memo, a tree that grows, a tree grown anew.

Each example is first answered, then learned. The memo answers where it is sure, else the tree that
was wrong less often of late: the Hoeffding tree, which has every example, or the last re-fit, made
each time that the examples since the last change are a quarter more. An alarm of the drift test
drops what is older than the rise of errors and starts over from the examples since.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from madlog.processors.dtr.drift import PageHinkley
from madlog.processors.dtr.features import FEATURES, Feature, check_features
from madlog.processors.dtr.grown import CountedLeaf, Node, Values, confidence, leaf_of, node_of
from madlog.processors.dtr.hoeffding import HoeffdingTree
from madlog.processors.dtr.memo import Memo
from madlog.processors.dtr.refit import WINDOW, Example, refit
from madlog.processors.dtr.tree import (
    ACTION_PREFIX,
    MEMO_FORMAT,
    VERB_ROUTE,
    Leaf,
    Tree,
    is_route,
)
from madlog.processors.errors import InvalidFeatures

__all__ = ("Learner",)

# A re-fit is due after so many examples, and then each time that there are a quarter more.
_FIRST_REFIT = 100
_MORE_SHARE = 4
# The recent error of a tree is a running mean over about so many examples.
_MEMORY = 64
_UNIT = 1 << 20


class Learner:
    """Learns routes by the form of turns, example by example, and publishes what it learned.

    The same examples in the same order give the same bytes, on any machine.
    """

    def __init__(self, features: Mapping[str, Feature] = FEATURES, window: int = WINDOW) -> None:
        self._features = features
        self._verb = tuple(features).index("verb") if "verb" in features else None
        self._examples: deque[Example] = deque(maxlen=window)
        self._memo = Memo(features)
        self._drift = PageHinkley()
        self._grown: Node = CountedLeaf("imperator")
        self._hoeffding = HoeffdingTree(features)
        self._since = 0
        self._next_refit = _FIRST_REFIT
        self._errors = [_UNIT, _UNIT]
        self.alarms = 0
        self.refits = 0

    def predict(self, features: Mapping[str, Any]) -> Leaf:
        """Return the route of a turn and how sure it is; raises InvalidFeatures."""
        values = check_features(features, self._features)
        route = self._memo.predict(self._memo.key(values))
        if route is not None:
            return Leaf(route, self._memo.confidence())
        leaf = leaf_of(self._tree(), values)
        return Leaf(leaf.route, confidence(leaf.tested, leaf.wrong))

    def learn(self, features: Mapping[str, Any], route: str) -> None:
        """Take up one turn and the route that was right for it; raises InvalidFeatures."""
        values = check_features(features, self._features)
        if not is_route(route):
            raise InvalidFeatures(f"{str(route)[:80]!r} is no route")
        if self._verb is not None and route == f"{ACTION_PREFIX}{values[self._verb]}":
            # One route for all verbs, so that one that was never seen is settled too.
            route = VERB_ROUTE
        key = self._memo.key(values)
        answer = self._test(values, key, route)
        self._memo.learn(key, route)
        self._hoeffding.learn(values, route)
        self._examples.append((values, route))
        self._since += 1
        began = self._drift.update(answer != route)
        if began is not None:
            self._start_over(began)
        if self._since >= self._next_refit:
            self._refit()

    def frozen(self) -> Tree:
        """Return what is known now as a model file to publish."""
        document = {
            "format": MEMO_FORMAT,
            "memo": {"features": self._memo.names, "rows": self._memo.rows()},
            "root": node_of(self._tree(), self._features),
        }
        return Tree.from_document(document, self._features)

    def _tree(self) -> Node:
        return self._hoeffding.root if self._errors[0] < self._errors[1] else self._grown

    def _test(self, values: Values, key: Values, route: str) -> str:
        """Return what was answered; both trees are tested, whichever answers."""
        grown, growing = leaf_of(self._grown, values), self._hoeffding.predict(values)
        answer = self._memo.predict(key)
        if answer is None:
            answer = growing if self._errors[0] < self._errors[1] else grown.route
        grown.test(route)
        for place, said in enumerate((growing, grown.route)):
            error = self._errors[place]
            self._errors[place] = error + ((said != route) * _UNIT - error) // _MEMORY
        return answer

    def _start_over(self, began: int) -> None:
        self.alarms += 1
        kept = list(self._examples)[-began:] if began else []
        self._examples.clear()
        self._examples.extend(kept)
        self._since = len(kept)
        self._next_refit = _FIRST_REFIT
        self._memo = Memo(self._features)
        self._hoeffding = HoeffdingTree(self._features)
        # Until the next re-fit the old tree answers, and has to prove itself anew.
        for leaf in _leaves(self._grown):
            leaf.tested = leaf.wrong = 0
        for values, route in kept:
            leaf_of(self._grown, values).test(route)
            self._memo.learn(self._memo.key(values), route)
            self._hoeffding.learn(values, route)

    def _refit(self) -> None:
        self._grown = refit(tuple(self._examples), self._features)
        self._next_refit = self._since + max(_FIRST_REFIT, self._since // _MORE_SHARE)
        self.refits += 1
        # It is another tree: it begins with what its held-out examples say of it.
        leaves = list(_leaves(self._grown))
        tested, wrong = sum(leaf.tested for leaf in leaves), sum(leaf.wrong for leaf in leaves)
        self._errors[1] = wrong * _UNIT // tested if tested else _UNIT


def _leaves(node: Node) -> Iterator[CountedLeaf]:
    if isinstance(node, CountedLeaf):
        yield node
    else:
        yield from _leaves(node.yes)
        yield from _leaves(node.no)
