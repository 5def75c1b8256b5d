"""Rows of named features as one table of integers, for fitting many models from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ("ONE", "Table", "quantised_all")

ONE = 4096  # the integer that stands for a feature's value of 1.0
_VALUE_MAX = 256 * ONE


def quantised(value: float) -> int:
    """Return a feature's value as the integer that models see, held within ±256.0."""
    if not isfinite(value):
        raise ValueError(f"a feature's value must be a finite number, not {value!r}")
    return max(-_VALUE_MAX, min(_VALUE_MAX, round(value * ONE)))


def quantised_all(values: Sequence[float]) -> NDArray[np.int32]:
    """Return what `quantised` makes of each value; raises ValueError as it does."""
    numbers = np.array(values, np.float64)
    if not (finite := np.isfinite(numbers)).all():
        quantised(values[int(np.argmin(finite))])
    limit = _VALUE_MAX / ONE
    whole: NDArray[np.int32] = np.rint(numbers.clip(-limit, limit) * ONE).astype(np.int32)
    return whole


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
        values: list[float] = []
        starts = [0]
        for row in rows:
            columns += [seen.setdefault(name, len(seen)) for name in row]
            values += row.values()
            starts.append(len(columns))
        numbers = quantised_all(values)
        names = sorted(seen)
        place = np.empty(len(names), np.int32)
        place[[seen[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        whole = cls(
            tuple(names),
            np.array(starts, np.int64),
            place[np.array(columns, np.int64)],
            numbers,
        )
        return whole._without(numbers == 0)._sorted()

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

    def beside(self, other: "Table") -> "Table":
        """Return the table whose rows are those of both, joined; no name may be in both."""
        names = sorted((*self.names, *other.names))
        place = {name: column for column, name in enumerate(names)}
        columns = [
            np.array([place[name] for name in table.names], np.int32)[table.columns]
            for table in (self, other)
        ]
        owners = np.concatenate((self._owners(), other._owners()))
        order = np.lexsort((joined := np.concatenate(columns), owners))
        values = np.concatenate((self.values, other.values))
        return Table(tuple(names), self.starts + other.starts, joined[order], values[order])

    def commonest(self, names_max: int) -> "Table":
        """Return the table of the names that most rows have; of equals the first by name."""
        count = np.bincount(self.columns, minlength=len(self.names))
        kept = np.argsort(-count, kind="stable")[:names_max]
        aside = np.ones(len(self.names), np.bool_)
        aside[kept[count[kept] > 0]] = False
        return self._without(aside[self.columns])

    def scipy(self) -> Any:
        """Return a sparse matrix of the values as numbers again."""
        from scipy.sparse import csr_matrix

        shape = (len(self), len(self.names))
        return csr_matrix((self.values / ONE, self.columns, self.starts), shape=shape)

    def _without(self, aside: NDArray[np.bool_]) -> "Table":
        """Return the table without some values, and without the names that then have none."""
        mask = ~aside
        before = np.concatenate((np.zeros(1, np.int64), np.cumsum(mask, dtype=np.int64)))
        columns = self.columns[mask]
        kept = np.flatnonzero(np.bincount(columns, minlength=len(self.names)))
        place = np.full(len(self.names), -1, np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        names = tuple(self.names[column] for column in kept)
        return Table(names, before[self.starts], place[columns], self.values[mask])

    def _owners(self) -> NDArray[np.int64]:
        """Return the row of each value."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.starts))

    def _sorted(self) -> "Table":
        order = np.lexsort((self.columns, self._owners()))
        return Table(self.names, self.starts, self.columns[order], self.values[order])
