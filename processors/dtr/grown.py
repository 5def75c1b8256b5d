"""A decision tree while it is learned: its splits, and leaves that count how they were right.

Examples are tuples of values in the order of the feature table. A leaf counts each example that it
answered before it learned from it, so its error rate is that of answers, never of memories.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from madlog.processors.dtr.features import Feature
from madlog.processors.promise import upper_error

__all__ = ("CountedLeaf", "Node", "Split", "Values", "confidence", "edge_of", "leaf_of", "node_of")

Values = tuple[int | str, ...]
_SCALE: Final = 10_000
_EXACT_BITS = 4


class Split:
    """A question about one feature: is its value this one, or up to this one?"""

    __slots__ = ("equal", "index", "no", "value", "yes")

    def __init__(self, index: int, equal: bool, value: int | str, yes: "Node", no: "Node") -> None:
        self.index = index
        self.equal = equal
        self.value = value
        self.yes = yes
        self.no = no

    def side(self, values: Values) -> "Node":
        """Return the side that these values are on."""
        value = values[self.index]
        # Values at one index have one type, which the feature table declares.
        passed = value == self.value if self.equal else value <= self.value  # type: ignore[operator]
        return self.yes if passed else self.no


class CountedLeaf:
    """An answer, how often it was given to examples that it had not learned, and wrongly."""

    __slots__ = ("route", "tested", "wrong")

    def __init__(self, route: str) -> None:
        self.route = route
        self.tested = 0
        self.wrong = 0

    def test(self, route: str) -> None:
        """Count an example that this leaf answers and has not learned from."""
        self.tested += 1
        self.wrong += route != self.route


Node = Split | CountedLeaf


def leaf_of(node: Node, values: Values) -> CountedLeaf:
    """Return the leaf that an example ends in."""
    while type(node) is Split:
        node = node.side(values)
    assert isinstance(node, CountedLeaf)
    return node


def confidence(tested: int, wrong: int) -> float:
    """Return one less the upper bound of the error rate, rounded down to four places.

    Rounded, because the last bits of a logarithm differ from machine to machine.
    """
    return math.floor(_SCALE * (1.0 - upper_error(wrong, tested))) / _SCALE


def node_of(node: Node, table: Mapping[str, Feature]) -> dict[str, Any]:
    """Return the tree as the node of a model file."""
    return _document(node, tuple(table))


def _document(node: Node, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(node, CountedLeaf):
        return {"route": node.route, "confidence": confidence(node.tested, node.wrong)}
    return {
        "feature": names[node.index],
        "op": "==" if node.equal else "<=",
        "value": node.value,
        "yes": _document(node.yes, names),
        "no": _document(node.no, names),
    }


def edge_of(value: int) -> int:
    """Return the highest integer of the value's bin: exact to 16, then 8 bins an octave.

    So that a feature has a bounded number of limits to try, and none finer than an eighth.
    """
    shift = value.bit_length() - _EXACT_BITS
    return value if shift <= 0 else ((value >> shift) + 1 << shift) - 1
