"""Rows of named features as one table of integers, for fitting many models from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ("ONE", "Table", "quantised")

ONE = 4096  # the integer that stands for a feature's value of 1.0
_VALUE_MAX = 256 * ONE


def quantised(value: float) -> int:
    """Return a feature's value as the integer that models see, held within ±256.0."""
    if not isfinite(value):
        raise ValueError(f"a feature's value must be a finite number, not {value!r}")
    return max(-_VALUE_MAX, min(_VALUE_MAX, round(value * ONE)))


@dataclass(frozen=True)
class Table:
    """Rows side by side: row `i` has `columns` and `values` from `starts[i]` to `starts[i + 1]`."""

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, float]]) -> "Table":
        """Read rows once; neither their own order of features nor a hash seed changes the table."""
        seen: dict[str, int] = {}
        columns: list[int] = []
        values: list[int] = []
        starts = [0]
        for row in rows:
            for name, value in row.items():
                if number := quantised(value):
                    columns.append(seen.setdefault(name, len(seen)))
                    values.append(number)
            starts.append(len(columns))
        names = sorted(seen)
        place = np.empty(len(names), np.int32)
        for column, name in enumerate(names):
            place[seen[name]] = column
        return cls(
            tuple(names),
            np.array(starts, np.int64),
            place[np.array(columns, np.int64)],
            np.array(values, np.int32),
        )._sorted()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the columns and the values of one row."""
        part = slice(self.starts[number], self.starts[number + 1])
        return self.columns[part], self.values[part]

    def rows(self, numbers: Sequence[int]) -> "Table":
        """Return the table of these rows alone, with all the names."""
        wanted = np.array(numbers, np.int64)
        lengths = self.starts[wanted + 1] - self.starts[wanted]
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        at = np.repeat(self.starts[wanted] - starts[:-1], lengths) + np.arange(starts[-1])
        return Table(self.names, starts, self.columns[at], self.values[at])

    def commonest(self, names_max: int) -> "Table":
        """Return the table of the names that most rows have; of equals the first by name."""
        count = np.bincount(self.columns, minlength=len(self.names))
        kept = np.sort(np.argsort(-count, kind="stable")[:names_max])
        kept = kept[count[kept] > 0]
        place = np.full(len(self.names), -1, np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        mask = place[self.columns] >= 0
        before = np.concatenate((np.zeros(1, np.int64), np.cumsum(mask)))
        names = tuple(self.names[column] for column in kept)
        starts: NDArray[np.int64] = before[self.starts].astype(np.int64)
        return Table(names, starts, place[self.columns[mask]], self.values[mask])

    def scipy(self) -> Any:
        """Return a sparse matrix of the values as numbers again."""
        from scipy.sparse import csr_matrix

        shape = (len(self), len(self.names))
        return csr_matrix((self.values / ONE, self.columns, self.starts), shape=shape)

    def _sorted(self) -> "Table":
        owner = np.repeat(np.arange(len(self)), np.diff(self.starts))
        order = np.lexsort((self.columns, owner))
        return Table(self.names, self.starts, self.columns[order], self.values[order])
