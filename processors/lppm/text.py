"""Text as sparse features: words and pairs of words, and pieces of words, weighed by rarity.

All is integers but the final 1/4096ths, so a text has the same features on every CPU. Features
that the vocabulary does not hold count in a text's length all the same, as the rarest do: a text
of unknown words is thereby far from everything learned, which is what tells that it is out of
scope. No list of words and no rule of a language is built in.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import isqrt, log

from madlog.processors.lppm._sparse import ONE

__all__ = ("CHARACTERS_MAX", "FEATURES_MAX", "PIECE", "WORD", "Counts", "Vocabulary", "ends")

CHARACTERS_MAX = 2_000  # of a longer text the first and the last half as many are considered
FEATURES_MAX = 20_000
WORD = "w:"  # begins the name of a feature that is a word or two
PIECE = "c:"  # begins the name of a feature that is 2 to 5 characters of a word
_PIECE_MAX = 5
_RARITY_ONE = 2048
# Marks that join letters are no \w, yet belong to the word in many scripts; hence the ranges.
_LETTER = r"[\w\u00c0-\u167f\u1681-\u1fff\u2070-\u2fff\u3040-\ud7ff\ue000-\U0010ffff]"
_WORDS = re.compile(rf"{_LETTER}+(?:['\u2019]{_LETTER}+)*")


@dataclass(frozen=True, eq=False)
class Counts:
    """How many texts there are, and how many of them have each feature.

    What parts of the texts count can be added, and taken away again.
    """

    texts: int = 0
    having: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Counts":
        """Count the features of texts."""
        having: Counter[str] = Counter()
        count = 0
        for text in texts:
            having.update(_counted(text).keys())
            count += 1
        return cls(count, having)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.texts + other.texts, self.having + other.having)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.texts - other.texts, self.having - other.having)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The features that are known, each with its rarity."""

    rarities: dict[str, int]
    unknown: int

    @classmethod
    def fit(cls, texts: Iterable[str], features_max: int = FEATURES_MAX) -> "Vocabulary":
        """Keep the features that most texts have, of equals the first by name."""
        return cls.fit_counts(Counts.of(texts), features_max)

    @classmethod
    def fit_counts(cls, counts: "Counts", features_max: int = FEATURES_MAX) -> "Vocabulary":
        """Keep features as `fit` does, of texts that were counted already."""
        texts, having = counts.texts, counts.having
        kept: Iterable[str] = having
        if len(having) > features_max:
            kept = sorted(having, key=lambda name: (-having[name], name))[:features_max]
        rarities = {name: _rarity(texts, having[name]) for name in sorted(kept)}
        return cls(rarities, _rarity(texts, 1))

    @classmethod
    def of(cls, names: Sequence[str], rarities: Sequence[int], unknown: int) -> "Vocabulary":
        """Take up a vocabulary that was kept in a model file."""
        return cls(dict(zip(names, rarities, strict=True)), unknown)

    @cached_property
    def _pieces(self) -> bool:
        # Where no piece is known, none needs to be looked for: they are most of the work.
        return any(name.startswith(PIECE) for name in self.rarities)

    def known(self, text: str) -> tuple[int, int]:
        """Return what a text's known words weigh, and all of them; what has digits is data."""
        known = total = 0
        for name in _counted(text, pieces=False):
            if " " in name or any(map(str.isdigit, name)):
                continue
            rarity = self.rarities.get(name)
            total += self.unknown if rarity is None else rarity
            known += rarity or 0
        return known, total

    def row(self, text: str) -> dict[str, float]:
        """Return a text's known features; words have length 1 together, and so have pieces."""
        known: list[tuple[str, int]] = []
        squares = {WORD: 0, PIECE: 0}
        for name, count in _counted(text, pieces=self._pieces).items():
            rarity = self.rarities.get(name)
            # The second mention says less than the first, the fourth less than the second.
            weight = count.bit_length() * (self.unknown if rarity is None else rarity)
            squares[name[:2]] += weight * weight
            if rarity is not None:
                known.append((name, weight))
        lengths = {kind: max(1, isqrt(square)) for kind, square in squares.items()}
        return {name: weight * ONE // lengths[name[:2]] / ONE for name, weight in known}


def _rarity(texts: int, having: int) -> int:
    return round(_RARITY_ONE * (log((1 + texts) / (1 + having)) + 1))


def _counted(text: str, *, pieces: bool = True) -> Counter[str]:
    """Return how often a text has each feature, of pieces of words where they are asked for."""
    words = _WORDS.findall(_considered(text))
    found: Counter[str] = Counter()
    for word, count in Counter(words).items():
        found[WORD + word] += count
        if not pieces:
            continue
        padded = f" {word} "
        size = len(padded)
        for length in range(2, min(_PIECE_MAX, size) + 1):
            for first in range(size - length + 1):
                found[PIECE + padded[first : first + length]] += count
    for first_word, second in pairwise(words):
        found[f"{WORD}{first_word} {second}"] += 1
    return found


def _considered(text: str) -> str:
    # Twice, since one character may be written out as up to eighteen.
    return ends(unicodedata.normalize("NFKC", ends(text)).casefold())


def ends(text: str) -> str:
    """Return a text, or the beginning and the end of a long one."""
    if len(text) <= CHARACTERS_MAX:
        return text
    half = CHARACTERS_MAX // 2
    return f"{text[: half - 1]} {text[-half:]}"
