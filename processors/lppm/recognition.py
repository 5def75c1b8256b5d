"""Recognising what a text asks for, or abstaining, within a promised share of errors.

{"format": "recognition-1", "linear": MODEL, "rarities": [INTEGER], "unknown": INTEGER,
"telling": [FEATURE], "right": [SCORE], "wrong": [SCORE]}: the linear model of `linear`, the rarity
of each of its features and of a feature that is not known, the words that tell labels apart, and
the scores of texts that the model was not fitted on, by whether it was right. Everything is
sorted, so equal data give equal bytes. A model that was learned with an embedding has "embedding":
NAME beside, and is served with that one.
"""

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from madlog.processors.calibration import Calibration
from madlog.processors.errors import InvalidModel, NoEmbedding
from madlog.processors.lppm._sparse import Table
from madlog.processors.lppm._telling import telling_words
from madlog.processors.lppm.embedding import MEANING, Embedding
from madlog.processors.lppm.linear import Linear, Scored, folded
from madlog.processors.lppm.text import FEATURES_MAX, Vocabulary
from madlog.processors.promise import threshold

__all__ = (
    "FORMAT",
    "NO_CONTENT",
    "NO_PROMISE",
    "RECOGNISED",
    "UNSURE",
    "Recognised",
    "Recognizer",
)

FORMAT = "recognition-1"
RECOGNISED = "recognised"
NO_CONTENT = "no content"  # no word that tells labels apart: look again with the next turn
UNSURE = "unsure"  # the score is below what the promise needs
NO_PROMISE = "no promise"  # too few texts held apart, or too many errors: no score is enough

_FOLDS = 5
_HELD_ENOUGH = 3_000  # so many held apart make a bound as close as anyone needs
_SCORE_MAX = 2**50
_RARITY_MAX = 2**20
_KEYS = ("format", "linear", "rarities", "right", "telling", "unknown", "wrong")


class Recognised(NamedTuple):
    """What a text asks for, or None and the reason; `guess` is what came first all the same.

    `confidence` is the share of such guesses that are right, None where that was not measured.
    """

    label: str | None
    score: int
    reason: str
    guess: str
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class Recognizer:
    """A model that names what a text asks for, and knows what its scores are worth."""

    _linear: Linear
    _vocabulary: Vocabulary
    _telling: frozenset[str]
    _right: tuple[int, ...]
    _wrong: tuple[int, ...]
    _embedding: Embedding | None = None
    _least: dict[float, int | None] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: Sequence[str | None],
        groups: Sequence[Hashable] | None = None,
        *,
        seed: int = 0,
        features_max: int = FEATURES_MAX,
        embedding: Embedding | None = None,
    ) -> "Recognizer":
        """Learn from labelled texts, and measure on texts held apart what a score is worth.

        Texts with the label None are out of scope: nothing is learned from them, but to answer
        one is an error when scores are measured, so they should stand among the texts in the
        share that they have in traffic. A group, say a conversation, is never divided between
        what is learned and what measures it. An embedding's features are joined to the words'.
        """
        if len(texts) != len(labels):
            raise ValueError(f"{len(texts)} texts have {len(labels)} labels: give one a text")
        groups = range(len(texts)) if groups is None else groups
        if len(groups) != len(texts):
            raise ValueError(f"{len(texts)} texts have {len(groups)} groups: give one a text")
        scope = [text for text, label in zip(texts, labels, strict=True) if label is not None]
        vocabulary = Vocabulary.fit(scope, features_max)
        table = Table.of(_row(vocabulary, embedding, text) for text in texts)
        linear, telling = _learned(table, labels, range(len(texts)), seed)
        words = _words(linear)
        rarities = [vocabulary.rarities[name] for name in words]
        model = cls(
            linear,
            Vocabulary.of(words, rarities, vocabulary.unknown),
            frozenset(table.names[column] for column in np.flatnonzero(telling)),
            (),
            (),
            embedding,
        )
        return model._measured(_held_apart(table, labels, groups, seed))

    def calibrated(self, texts: Sequence[str], labels: Sequence[str | None]) -> "Recognizer":
        """Return the same model with its scores measured on other texts, a sample of traffic."""
        scored = []
        for text, label in zip(texts, labels, strict=True):
            row = _row(self._vocabulary, self._embedding, text)
            if not self._telling.isdisjoint(row):
                best = self._linear.best(row)
                scored.append((_confidence(best), best.label == label))
        return self._measured(scored)

    def recognise(self, text: str, max_error: float) -> Recognised:
        """Name what a text asks for, if answers at such a score are wrong no oftener than that.

        `max_error` is the share of wrong ones among the texts that get an answer. It holds with
        95 % confidence for traffic like the texts that measured the scores.
        """
        row = _row(self._vocabulary, self._embedding, text)
        best = self._linear.best(row)
        score = _confidence(best)
        if self._telling.isdisjoint(row):
            # What such guesses are worth was not measured.
            return Recognised(None, score, NO_CONTENT, best.label)
        told = self._calibration
        confidence = None if told is None else told.confidence(score)
        least = self.score_min(max_error)
        if least is None:
            return Recognised(None, score, NO_PROMISE, best.label, confidence)
        if score < least:
            return Recognised(None, score, UNSURE, best.label, confidence)
        return Recognised(best.label, score, RECOGNISED, best.label, confidence)

    def score_min(self, max_error: float) -> int | None:
        """Return the lowest score that is answered, None if no score keeps the promise."""
        if max_error not in self._least:
            self._least[max_error] = threshold(self._scored, max_error)
        return self._least[max_error]

    @cached_property
    def _calibration(self) -> Calibration | None:
        return Calibration.of(self._scored)

    @property
    def _scored(self) -> list[tuple[int, bool]]:
        scored = [(score, True) for score in self._right]
        return scored + [(score, False) for score in self._wrong]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can recognise, sorted."""
        return self._linear.labels

    def to_document(self) -> dict[str, Any]:
        """Return the model as an object that JSON can hold."""
        named = {} if self._embedding is None else {"embedding": self._embedding.name}
        return named | {
            "format": FORMAT,
            "linear": self._linear.to_document(),
            "rarities": [self._vocabulary.rarities[name] for name in _words(self._linear)],
            "unknown": self._vocabulary.unknown,
            "telling": sorted(self._telling),
            "right": list(self._right),
            "wrong": list(self._wrong),
        }

    def to_text(self) -> str:
        """Return the model file: canonical JSON, the same bytes for the same model."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_document(cls, document: Any, embedding: Embedding | None = None) -> "Recognizer":
        """Check a model file; raises InvalidModel naming what is wrong.

        A model that was learned with an embedding needs that one: raises NoEmbedding.
        """
        if not isinstance(document, dict) or document.keys() - {"embedding"} != set(_KEYS):
            raise InvalidModel(f"a recognition model must have exactly {', '.join(_KEYS)}")
        if document["format"] != FORMAT:
            raise InvalidModel(f"the model's format is {document['format']!r}, not {FORMAT!r}")
        wanted = document.get("embedding")
        if wanted is None:
            embedding = None
        elif embedding is None or embedding.name != wanted:
            given = "none was given" if embedding is None else f"{embedding.name!r} was given"
            raise NoEmbedding(f"the model was learned with the embedding {wanted!r}, and {given}")
        linear = Linear.from_document(document["linear"])
        words = _words(linear)
        rarities = _integers(_list(document["rarities"], "rarities"), 1, _RARITY_MAX, "rarities")
        if len(rarities) != len(words):
            raise InvalidModel(f"rarities: {len(rarities)} of {len(words)} features")
        (unknown,) = _integers([document["unknown"]], 1, _RARITY_MAX, "unknown")
        telling = _list(document["telling"], "telling")
        known = set(words)
        for name in telling:
            if not isinstance(name, str) or name not in known:
                raise InvalidModel(f"telling: {name!r} is not a feature")
        if any(one >= other for one, other in pairwise(telling)):
            raise InvalidModel("telling must be sorted, and each there once")
        vocabulary = Vocabulary.of(words, rarities, unknown)
        right, wrong = (_scores(document[name], name) for name in ("right", "wrong"))
        return cls(linear, vocabulary, frozenset(telling), right, wrong, embedding)

    @classmethod
    def parse(cls, text: str, embedding: Embedding | None = None) -> "Recognizer":
        """Read and check a model file; raises InvalidModel naming what is wrong, NoEmbedding."""
        try:
            document = json.loads(text)
        except (RecursionError, ValueError) as error:
            raise InvalidModel(f"the recognition model is not JSON: {error}") from error
        return cls.from_document(document, embedding)

    def _measured(self, scored: Sequence[tuple[int, bool]]) -> "Recognizer":
        right, wrong = (
            tuple(sorted(score for score, was_right in scored if was_right is side))
            for side in (True, False)
        )
        return replace(self, _right=right, _wrong=wrong, _least={})


def _row(vocabulary: Vocabulary, embedding: Embedding | None, text: str) -> dict[str, float]:
    words = vocabulary.row(text)
    return words if embedding is None else words | embedding.row(text)


def _words(linear: Linear) -> list[str]:
    return [name for name in linear.features if not name.startswith(MEANING)]


def _confidence(best: Scored) -> int:
    # The best score tells what is out of scope, the margin what lies between two labels.
    return best.score + best.margin // 2


def _learned(
    table: Table, labels: Sequence[str | None], numbers: Sequence[int], seed: int
) -> tuple[Linear, NDArray[np.bool_]]:
    """Learn from those of these rows that are in scope."""
    scope = [(number, label) for number in numbers if (label := labels[number]) is not None]
    part, names = table.rows([number for number, _ in scope]), [label for _, label in scope]
    linear = Linear.fit_table(part, names, seed=seed, features_max=len(table.names))
    return linear, telling_words(part, names)


def _held_apart(
    table: Table, labels: Sequence[str | None], groups: Sequence[Hashable], seed: int
) -> list[tuple[int, bool]]:
    """Return scores, and whether they were right, by models that did not see the rows' groups."""
    scored: list[tuple[int, bool]] = []
    for kept, held in _divided(labels, groups, seed):
        linear, telling = _learned(table, labels, kept, seed)
        part = table.rows(held)
        for place, (number, best) in enumerate(zip(held, linear.best_rows(part), strict=True)):
            if telling[part.row(place)[0]].any():
                scored.append((_confidence(best), best.label == labels[number]))
        if len(scored) >= _HELD_ENOUGH:
            break
    return scored


def _divided(
    labels: Sequence[str | None], groups: Sequence[Hashable], seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the rows that are learned from and those held apart, as long as there are both."""
    if len(set(groups)) < 2:
        return
    for held in folded(groups, _FOLDS, Random(seed)):
        aside = set(held)
        kept = [number for number in range(len(labels)) if number not in aside]
        if any(labels[number] is not None for number in kept):
            yield kept, held


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidModel(f"{what} must be a list")
    return value


def _integers(values: list[Any], least: int, most: int, what: str) -> list[int]:
    if not all(type(one) is int and least <= one <= most for one in values):
        raise InvalidModel(f"{what} must be integers from {least} to {most}")
    return values


def _scores(value: Any, what: str) -> tuple[int, ...]:
    scores = _integers(_list(value, what), -_SCORE_MAX, _SCORE_MAX, what)
    if any(one > other for one, other in pairwise(scores)):
        raise InvalidModel(f"{what} must be sorted")
    return tuple(scores)
