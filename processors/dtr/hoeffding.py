"""A Hoeffding tree: grows with each example, and splits where more examples would not differ.

Domingos and Hulten, Mining high-speed data streams (2000): a leaf splits by the feature of the
highest information gain once it leads the second by more than the Hoeffding bound, or once the
bound is so small that they are as good as equal. Leaves answer with their commonest route.
Equal gains go to the feature that stands first in the table; nothing depends on hashes.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from madlog.processors.dtr.features import FEATURES, Feature
from madlog.processors.dtr.grown import CountedLeaf, Node, Split, Values, edge_of, leaf_of

__all__ = ("HoeffdingTree",)

Counts = dict[str, int]
_DEPTH_MAX = 40
_LEAVES_MAX = 1_000
# Values that a leaf keeps counts of, by feature: hashes and ids have no end of them.
_VALUES_MAX = 200
# Gains are compared as integers: the last bits of a logarithm differ from machine to machine.
_GAIN_UNIT = 1_000_000


class _Best(NamedTuple):
    gain: int
    value: int | str
    yes: Counts


class _Growing(CountedLeaf):
    __slots__ = ("counts", "depth", "seen", "tried", "values")

    def __init__(self, counts: Counts, route: str, depth: int, features: int) -> None:
        super().__init__(route)
        self.counts = counts
        self.depth = depth
        self.seen = self.tried = sum(counts.values())
        self.values: list[dict[int | str, Counts]] = [{} for _ in range(features)]

    def learn(self, edges: list[int | str], route: str) -> None:
        self.test(route)
        self.seen += 1
        counts = self.counts
        count = counts[route] = counts.get(route, 0) + 1
        if route != self.route and count > counts.get(self.route, 0):
            # What was counted is the record of another answer.
            self.route, self.tested, self.wrong = route, 0, 0
        for by_value, edge in zip(self.values, edges, strict=True):
            by_route = by_value.get(edge)
            if by_route is not None:
                by_route[route] = by_route.get(route, 0) + 1
            elif len(by_value) < _VALUES_MAX:
                by_value[edge] = {route: 1}


class HoeffdingTree:
    """An incremental decision tree over a table of features."""

    def __init__(
        self,
        features: Mapping[str, Feature] = FEATURES,
        *,
        delta: float = 1e-5,
        tie: float = 0.3,
        grace: int = 200,
    ) -> None:
        self._ordered = [feature.type is int for feature in features.values()]
        self._log_delta = math.log(1.0 / delta)
        self._tie = tie
        self._grace = grace
        self._leaves = 1
        self.root: Node = _Growing({}, "imperator", 1, len(self._ordered))

    def predict(self, values: Values) -> str:
        """Return the commonest route of the leaf that these values end in."""
        return leaf_of(self.root, values).route

    def learn(self, values: Values, route: str) -> None:
        """Test the leaf of these values with an example, then take it up."""
        parent, node = None, self.root
        while type(node) is Split:
            parent, node = node, node.side(values)
        assert isinstance(node, _Growing)
        # Small integers are bins of their own: no call for most of them.
        edges = [v if type(v) is not int or -16 < v < 16 else edge_of(v) for v in values]
        node.learn(edges, route)
        if node.seen - node.tried < self._grace or len(node.counts) < 2:
            return
        node.tried = node.seen
        split = self._split(node)
        if split is None:
            return
        self._leaves += 1
        if parent is None:
            self.root = split
        elif parent.yes is node:
            parent.yes = split
        else:
            parent.no = split

    def _split(self, leaf: _Growing) -> Split | None:
        if leaf.depth >= _DEPTH_MAX or self._leaves >= _LEAVES_MAX:
            return None
        first, second, index = _Best(0, 0, {}), 0, -1
        for place, by_value in enumerate(leaf.values):
            best = _best(by_value, leaf.counts, self._ordered[place])
            if best.gain > first.gain:
                first, second, index = best, first.gain, place
            else:
                second = max(second, best.gain)
        span = math.log2(len(leaf.counts))
        bound = span * math.sqrt(self._log_delta / (2.0 * leaf.seen))
        if index < 0 or (first.gain - second <= bound * _GAIN_UNIT and bound >= self._tie):
            return None
        rest = {
            route: left
            for route, count in leaf.counts.items()
            if (left := count - first.yes.get(route, 0)) > 0
        }
        yes, no = self._leaf(first.yes, leaf), self._leaf(rest, leaf)
        return Split(index, not self._ordered[index], first.value, yes, no)

    def _leaf(self, counts: Counts, parent: _Growing) -> _Growing:
        # Of equally common routes the first by name.
        route = min(counts, key=lambda one: (-counts[one], one), default=parent.route)
        return _Growing(dict(counts), route, parent.depth + 1, len(self._ordered))


def _best(by_value: dict[int | str, Counts], counts: Counts, ordered: bool) -> _Best:
    """Return the best split of one feature; the first by value of equally good ones."""
    best = _Best(0, 0, {})
    if len(by_value) < 2:
        return best
    whole = sum(counts.values())
    before = _weight(counts.values(), whole)
    yes: Counts = {}
    for value in sorted(by_value):
        if ordered:
            for route, count in by_value[value].items():
                yes[route] = yes.get(route, 0) + count
        else:
            yes = by_value[value]
        size = sum(yes.values())
        if size == whole:
            continue
        rest = [count - yes.get(route, 0) for route, count in counts.items()]
        after = _weight(yes.values(), size) + _weight(rest, whole - size)
        gain = round((before - after) / whole * _GAIN_UNIT)
        if gain > best.gain:
            best = _Best(gain, value, dict(yes))
    return best


def _weight(counts: Iterable[int], whole: int) -> float:
    """Return a side's entropy times its size, in bits."""
    return _n_log_n(whole) - sum([_n_log_n(count) for count in counts])


@lru_cache(maxsize=65_536)
def _n_log_n(count: int) -> float:
    return count * math.log2(count) if count > 1 else 0.0
