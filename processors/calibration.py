"""What a score is worth: the share of right answers at it, from answers that were held apart.

Isotonic regression by pooling adjacent violators (Ayer et al., 1955) over runs of neighbouring
scores, so that a higher score is never worth less. Each pool's share is (right + ½) / (examples +
1), the mean of Jeffreys' posterior: a few right answers in a row are no certainty. Pools are
counts, integers, so the same scores give the same table and the same confidence on any machine.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from madlog.processors.errors import InvalidModel

__all__ = ("Calibration", "Pool")

# A run holds at least so many examples, and at least this part of all.
_RUN_MIN = 20
_RUNS_MAX = 40
_PLACES = 4


class Pool(NamedTuple):
    """Neighbouring scores from `least` up: how many examples had them, how many were right."""

    least: int
    right: int
    examples: int

    def with_next(self, other: "Pool") -> "Pool":
        """Return this pool and the next as one."""
        return Pool(self.least, self.right + other.right, self.examples + other.examples)

    def at_most(self, other: "Pool") -> bool:
        """Tell whether this pool is worth no more than another, in whole numbers."""
        mine = (2 * self.right + 1) * (other.examples + 1)
        return mine <= (2 * other.right + 1) * (self.examples + 1)

    @property
    def confidence(self) -> float:
        """The share of right answers to expect, rounded to four places."""
        return round((2 * self.right + 1) / (2 * self.examples + 2), _PLACES)


@dataclass(frozen=True)
class Calibration:
    """Pools by rising score, each worth more than the one before."""

    pools: tuple[Pool, ...]
    _least: tuple[int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_least", tuple(pool.least for pool in self.pools))

    @classmethod
    def of(cls, scored: Sequence[tuple[int, bool]]) -> "Calibration | None":
        """Return what scores are worth by these, each right or wrong; None where there are none."""
        pools: list[Pool] = []
        for run in _runs(sorted(scored)):
            pools.append(run)
            while len(pools) > 1 and pools[-1].at_most(pools[-2]):
                pools[-2:] = [pools[-2].with_next(pools[-1])]
        return cls(tuple(pools)) if pools else None

    def confidence(self, score: int) -> float:
        """Return the share of right answers to expect at a score."""
        return self.pools[max(0, bisect_right(self._least, score) - 1)].confidence

    def to_document(self) -> list[list[int]]:
        """Return the table as a list that JSON can hold."""
        return [list(pool) for pool in self.pools]

    @classmethod
    def from_document(cls, document: Any) -> "Calibration":
        """Check a table of a model file; raises InvalidModel."""
        if not isinstance(document, list) or not document or not all(map(_is_pool, document)):
            raise InvalidModel("calibration must be a list of [least score, right, examples]")
        pools = tuple(Pool(*row) for row in document)
        for lower, higher in pairwise(pools):
            if higher.least <= lower.least or higher.at_most(lower):
                raise InvalidModel(
                    f"calibration: the score {higher.least} must be higher than {lower.least}, "
                    "and worth more"
                )
        return cls(pools)


def _runs(ordered: Sequence[tuple[int, bool]]) -> list[Pool]:
    """Return runs of neighbouring scores; equal scores stay together."""
    size = max(_RUN_MIN, -(-len(ordered) // _RUNS_MAX))
    runs: list[Pool] = []
    for score, alike in groupby(ordered, key=lambda one: one[0]):
        answers = [right for _, right in alike]
        tied = Pool(score, sum(answers), len(answers))
        if runs and runs[-1].examples < size:
            runs[-1] = runs[-1].with_next(tied)
        else:
            runs.append(tied)
    if len(runs) > 1 and runs[-1].examples < size:
        runs[-2:] = [runs[-2].with_next(runs[-1])]
    return runs


def _is_pool(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and all(type(one) is int for one in row)
        and 0 <= row[1] <= row[2]
        and row[2] > 0
    )
