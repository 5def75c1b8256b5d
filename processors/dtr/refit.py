"""A re-fit: the decision tree of a window of labelled examples, grown at once.

Greedy binary splits by Gini impurity, as CART (Breiman et al. 1984). Gini rather than entropy
because its score is integers and two divisions, which are the same on every machine; equal scores
go to the feature that stands first in the table, then to the lower value.

One example in four is held out: it grows nothing, and tests the leaf that it ends in.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from madlog.processors.dtr.features import FEATURES, Feature
from madlog.processors.dtr.grown import CountedLeaf, Node, Split, Values, edge_of, leaf_of

__all__ = ("WINDOW", "Example", "refit")

WINDOW = 24_000
Example = tuple[Values, str]
_HELD_OUT = 4
_DEPTH_MAX = 40
# A side needs this many examples, more of a large window: fewer are as often noise as a rule.
_SIDE_MIN, _SIDE_MAX, _SIDE_SHARE = 3, 5, 1_000
_Ints = npt.NDArray[np.int64]


class _Column(NamedTuple):
    """A feature's values as codes in ascending order of `limits`."""

    codes: _Ints
    limits: list[Any]
    ordered: bool


class _Grower(NamedTuple):
    columns: list[_Column]
    labels: _Ints
    routes: list[str]
    side_min: int


def refit(examples: Sequence[Example], features: Mapping[str, Feature] = FEATURES) -> Node:
    """Return the tree of the examples; its leaves are tested with those held out."""
    grown = [one for number, one in enumerate(examples, 1) if number % _HELD_OUT]
    if not grown:
        return CountedLeaf("imperator")
    routes = sorted({route for _, route in grown})
    code = {route: number for number, route in enumerate(routes)}
    labels = np.array([code[route] for _, route in grown], dtype=np.int64)
    columns = [
        _column([values[index] for values, _ in grown], feature.type is int)
        for index, feature in enumerate(features.values())
    ]
    side_min = min(_SIDE_MAX, max(_SIDE_MIN, len(grown) // _SIDE_SHARE))
    root = _grow(_Grower(columns, labels, routes, side_min), np.arange(len(grown)), 1)
    for number, (values, route) in enumerate(examples, 1):
        if not number % _HELD_OUT:
            leaf_of(root, values).test(route)
    return root


def _column(values: Sequence[int | str], ordered: bool) -> _Column:
    if ordered:
        values = [edge_of(value) for value in values if isinstance(value, int)]
    limits: list[Any] = sorted(set(values))
    code = {value: number for number, value in enumerate(limits)}
    codes = np.array([code[value] for value in values], dtype=np.int64)
    return _Column(codes, limits, ordered)


def _grow(grower: _Grower, rows: _Ints, depth: int) -> Node:
    present, labels = np.unique(grower.labels[rows], return_inverse=True)
    counts = np.bincount(labels)
    if len(present) > 1 and depth < _DEPTH_MAX:
        # A split must score better than none.
        best, index, code = float((counts * counts).sum() / len(rows)), -1, -1
        for place, column in enumerate(grower.columns):
            score, found = _best(column, rows, labels, counts, grower.side_min)
            if score > best * (1.0 + 1e-12):
                best, index, code = score, place, found
        if index >= 0:
            column = grower.columns[index]
            codes = column.codes[rows]
            passed = codes <= code if column.ordered else codes == code
            yes = _grow(grower, rows[passed], depth + 1)
            no = _grow(grower, rows[~passed], depth + 1)
            return Split(index, not column.ordered, column.limits[code], yes, no)
    return CountedLeaf(grower.routes[int(present[int(counts.argmax())])])


def _best(
    column: _Column, rows: _Ints, labels: _Ints, counts: _Ints, side_min: int
) -> tuple[float, int]:
    """Return the score and the code of the feature's best split, (0, -1) if there is none."""
    # Codes that this node has: most features have few of their values in one.
    present, codes = np.unique(column.codes[rows], return_inverse=True)
    if len(present) < 2:
        return 0.0, -1
    width = len(counts)
    yes = np.bincount(codes * width + labels, minlength=len(present) * width)
    yes = yes.reshape(len(present), width)
    if column.ordered:
        yes = yes.cumsum(axis=0)
    no = counts - yes
    yes_size = yes.sum(axis=1)
    no_size = len(rows) - yes_size
    allowed = (yes_size >= side_min) & (no_size >= side_min)
    if not allowed.any():
        return 0.0, -1
    yes_score = (yes * yes).sum(axis=1) / np.maximum(yes_size, 1)
    score = np.where(allowed, yes_score + (no * no).sum(axis=1) / np.maximum(no_size, 1), 0.0)
    place = int(score.argmax())
    return float(score[place]), int(present[place])
