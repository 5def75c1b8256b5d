"""A linear classifier over sparse named features that is learned in floats and served in integers.

The decision is a sum of integers, so it is the same on every CPU. A model file is
{"format": "linear-1", "labels": [LABEL], "features": [NAME], "scales": BASE64 of uint16, one a
feature, "weights": BASE64 of int8, a row a feature and a column a label, "biases": [INTEGER]};
numbers are little-endian, labels and features are sorted. A weight is scale × int8 / 65536.
"""

import base64
import binascii
import math
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm._sparse import ONE, Table, quantised_all

__all__ = ("FEATURES_MAX", "FORMAT", "SCORE_ONE", "Linear", "Scored", "folded", "out_of_fold")

FORMAT = "linear-1"
FEATURES_MAX = 30_000
SCORE_ONE = 1024  # a score of 1.0, the distance at which the fit is content with a row
_WEIGHT_ONE = 65536
_SCALE_MAX = 65535
_SHIFT = (ONE * _WEIGHT_ONE // SCORE_ONE).bit_length() - 1
_BIAS_MAX = 2**48
_LABELS_MAX = 100_000
_STEPS_MAX = 2_000
_Item = TypeVar("_Item", bound=Hashable)


class Scored(NamedTuple):
    """The best label, how sure it is, and which came second; the scores' unit is 1/1024.

    `score` is the best label's own, `margin` how far the second is behind. Neither is a
    probability: what it is worth is measured on rows that the model was not fitted on. With one
    label both are 0.
    """

    label: str
    score: int
    runner_up: str | None
    margin: int


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier with one integer weight a feature and label."""

    labels: tuple[str, ...]
    features: tuple[str, ...]
    _scales: NDArray[np.uint16]
    _weights: NDArray[np.int8]
    _biases: NDArray[np.int64]
    _places: dict[str, int]

    @classmethod
    def fit(
        cls,
        rows: Iterable[Mapping[str, float]],
        labels: Sequence[str],
        *,
        seed: int = 0,
        cost: float = 1.0,
        features_max: int = FEATURES_MAX,
    ) -> "Linear":
        """Learn from rows and their labels: a linear support vector machine, one label against all.

        Rows are read once. They are scaled so that their mean length is 1, hence `cost`, what an
        error costs against a large weight, does not depend on the features' unit.
        """
        return cls.fit_table(
            Table.of(rows), labels, seed=seed, cost=cost, features_max=features_max
        )

    @classmethod
    def fit_table(
        cls,
        table: Table,
        labels: Sequence[str],
        *,
        seed: int = 0,
        cost: float = 1.0,
        features_max: int = FEATURES_MAX,
    ) -> "Linear":
        """Learn from a table of rows, as `fit` does."""
        if len(table) != len(labels):
            raise ValueError(f"{len(table)} rows have {len(labels)} labels: give one a row")
        if not labels:
            raise ValueError("there is nothing to learn from: give at least one row")
        table = table.commonest(features_max)
        names = tuple(sorted(set(labels)))
        place = {name: number for number, name in enumerate(names)}
        targets = np.array([place[label] for label in labels])
        if len(names) == 1 or not table.names:
            # Nothing tells labels apart: the commonest one is the best guess there is.
            shape = (len(table.names), len(names))
            shares = np.bincount(targets, minlength=len(names)) / len(targets)
            bias = shares if len(names) > 1 else np.zeros(1)
            return _quantise(names, table.names, np.zeros(shape), bias)
        return _quantise(names, table.names, *_solve(table, targets, cost, seed))

    def scores(self, row: Mapping[str, float]) -> dict[str, int]:
        """Return the score of each label; features that the model does not know are left out."""
        return dict(zip(self.labels, self._sums(*self._known(row)).tolist(), strict=True))

    def best(self, row: Mapping[str, float]) -> Scored:
        """Return the label with the highest score, of equals the first by name."""
        return self.best_of(*self._known(row))

    def best_of(self, columns: NDArray[np.integer], values: NDArray[np.integer]) -> Scored:
        """Return the best label of a row that is given as places in `features` and integers."""
        sums = self._sums(columns, values)
        first = int(np.argmax(sums))
        score = int(sums[first])
        if len(self.labels) == 1:
            return Scored(self.labels[0], score, None, 0)
        sums[first] = np.iinfo(np.int64).min
        second = int(np.argmax(sums))
        return Scored(self.labels[first], score, self.labels[second], score - int(sums[second]))

    def best_rows(self, table: Table) -> list[Scored]:
        """Return the best label of each row of a table."""
        place = np.array([self._places.get(name, -1) for name in table.names], np.int64)
        found = []
        for number in range(len(table)):
            columns, values = table.row(number)
            known = place[columns]
            found.append(self.best_of(known[known >= 0], values[known >= 0]))
        return found

    def to_document(self) -> dict[str, Any]:
        """Return the model as an object that JSON can hold."""
        return {
            "format": FORMAT,
            "labels": list(self.labels),
            "features": list(self.features),
            "scales": _encoded(self._scales, "<u2"),
            "weights": _encoded(self._weights, "<i1"),
            "biases": self._biases.tolist(),
        }

    @classmethod
    def from_document(cls, document: Any) -> "Linear":
        """Check a model file; raises InvalidModel naming what is wrong."""
        wanted = {"format", "labels", "features", "scales", "weights", "biases"}
        if not isinstance(document, dict) or document.keys() != wanted:
            raise InvalidModel(f"a linear model must have exactly {', '.join(sorted(wanted))}")
        if document["format"] != FORMAT:
            raise InvalidModel(f"the model's format is {document['format']!r}, not {FORMAT!r}")
        labels = _names(document["labels"], "labels")
        features = _names(document["features"], "features")
        if not 0 < len(labels) <= _LABELS_MAX:
            raise InvalidModel(f"labels: {len(labels)}, not 1 to {_LABELS_MAX}")
        biases = document["biases"]
        if not isinstance(biases, list) or len(biases) != len(labels):
            raise InvalidModel("biases must be a list of one integer a label")
        if not all(type(one) is int and abs(one) <= _BIAS_MAX for one in biases):
            raise InvalidModel(f"biases must be integers within ±{_BIAS_MAX}")
        scales = _decoded(document["scales"], "<u2", (len(features),), "scales")
        weights = _decoded(document["weights"], "<i1", (len(features), len(labels)), "weights")
        return _linear(labels, features, scales, weights, np.array(biases, np.int64))

    def _known(self, row: Mapping[str, float]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        places = self._places
        known = [name for name in row if name in places]
        columns = np.array([places[name] for name in known], np.int64)
        return columns, quantised_all([row[name] for name in known])

    def _sums(self, columns: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int64]:
        factors = values.astype(np.int64) * self._scales[columns]
        sums: NDArray[np.int64] = factors @ self._weights[columns].astype(np.int64) + self._biases
        return sums >> _SHIFT


def out_of_fold(
    rows: Iterable[Mapping[str, float]],
    labels: Sequence[str],
    groups: Sequence[Hashable],
    folds: int = 5,
    seed: int = 0,
) -> list[Scored]:
    """Return each row's best label by a model that saw no row of its group.

    A conversation's turns resemble one another: a model that saw one knows the next too well.
    """
    table = Table.of(rows)
    if len(table) != len(groups):
        raise ValueError(f"{len(table)} rows have {len(groups)} groups: give one a row")
    found: dict[int, Scored] = {}
    for held in folded(groups, folds, Random(seed)):
        aside = set(held)
        kept = [number for number in range(len(table)) if number not in aside]
        model = Linear.fit_table(table.rows(kept), [labels[number] for number in kept], seed=seed)
        found.update(zip(held, model.best_rows(table.rows(held)), strict=True))
    return [found[number] for number in range(len(table))]


def folded(groups: Sequence[Hashable], folds: int, random: Random) -> list[list[int]]:
    """Return the rows of each fold; a group's rows are in one fold."""
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    if folds < 2 or len(members) < 2:
        raise ValueError(f"{folds} folds of {len(members)} groups: give at least 2 of each")
    order = list(members.values())
    random.shuffle(order)
    folds = min(folds, len(order))
    return [sorted(row for group in order[first::folds] for row in group) for first in range(folds)]


def _solve(
    table: Table, targets: NDArray[np.int64], cost: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights, a row a feature and a column a label, and biases."""
    # Serving never fits, so it never waits for this import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    matrix = table.scipy()
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    length = float(lengths.mean())
    solver = LinearSVC(C=cost, tol=0.1, max_iter=_STEPS_MAX, random_state=seed)
    with warnings.catch_warnings():
        # Contradicting rows may use up the steps; what was found by then is a model all the same,
        # and what it is worth is measured on rows held apart.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Many labels with an example or two each are a young log, not numbers taken for labels.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        solver.fit(matrix / length, targets)
    weights, biases = solver.coef_ / length, solver.intercept_
    if len(biases) == 1:
        # Of two labels the library keeps one side: a row for the second, the first is its mirror.
        weights, biases = np.vstack((-weights, weights)), np.concatenate((-biases, biases))
    return weights.T, biases


def _quantise(
    labels: tuple[str, ...],
    features: tuple[str, ...],
    weights: NDArray[np.float64],
    biases: NDArray[np.float64],
) -> Linear:
    """Round weights to int8 by a scale of each feature's own; biases to the unit of the sums."""
    most = np.abs(weights).max(axis=1, initial=0.0)
    scales = np.clip(np.ceil(most * _WEIGHT_ONE / 127), 1, _SCALE_MAX).astype(np.uint16)
    small = np.rint(weights * _WEIGHT_ONE / scales[:, None]).clip(-127, 127).astype(np.int8)
    unit = ONE * _WEIGHT_ONE
    large = np.rint(biases * unit).clip(-_BIAS_MAX, _BIAS_MAX).astype(np.int64)
    return _linear(labels, features, scales, small, large)


def _linear(
    labels: tuple[str, ...],
    features: tuple[str, ...],
    scales: NDArray[np.uint16],
    weights: NDArray[np.int8],
    biases: NDArray[np.int64],
) -> Linear:
    places = {name: number for number, name in enumerate(features)}
    return Linear(labels, features, scales, weights, biases, places)


def _names(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidModel(f"{what} must be a list of strings")
    if any(a >= b for a, b in pairwise(value)):
        raise InvalidModel(f"{what} must be sorted, and each there once")
    return tuple(value)


def _encoded(array: NDArray[Any], kind: str) -> str:
    return base64.b64encode(array.astype(kind).tobytes()).decode("ascii")


def _decoded(value: Any, kind: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    if not isinstance(value, str):
        raise InvalidModel(f"{what} must be a string of base64")
    try:
        raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidModel(f"{what} is not base64: {error}") from error
    size = math.prod(shape) * np.dtype(kind).itemsize
    if len(raw) != size:
        raise InvalidModel(f"{what}: {len(raw)} bytes, not {size} for {shape}")
    return np.frombuffer(raw, kind).reshape(shape)
