"""The memo: the route that turns of exactly the same form took, as soon as it was seen often.

It answers where the same route was seen three times and at most one time in ten another, and falls
silent as a whole while over one in twenty of its last answers were wrong. Silent or not it is
tested on, so it comes back by itself.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from madlog.processors.dtr.features import FEATURES, Feature
from madlog.processors.dtr.grown import Values, confidence

__all__ = ("Memo",)

_SAME_MIN = 3
_OTHER_SHARE = 10
# Old answers weigh less: at this count both halves are halved.
_SAME_MAX = 64
# One odd answer is noise; two running that agree are a change.
_CHANGE = 2
_RECENT = 500
_RECENT_MIN = 20
_WRONG_SHARE = 20


class _Entry:
    __slots__ = ("odd", "odd_route", "other", "route", "same")

    def __init__(self, route: str) -> None:
        self.route = route
        self.same = 1
        self.other = 0
        self.odd_route = route
        self.odd = 0

    def answers(self) -> bool:
        return self.same >= _SAME_MIN and self.other * _OTHER_SHARE <= self.same

    def learn(self, route: str) -> None:
        if route == self.route:
            self.odd = 0
            self.same += 1
            if self.same >= _SAME_MAX:
                self.same //= 2
                self.other //= 2
            return
        self.other += 1
        self.odd = self.odd + 1 if route == self.odd_route else 1
        self.odd_route = route
        if self.odd >= _CHANGE:
            # It keeps one count against it, so that a form of two routes does not flip to and fro.
            self.route, self.same, self.other, self.odd = route, _CHANGE, 1, 0


class Memo:
    """Routes by the exact values of the features that tell forms apart; bounded."""

    def __init__(self, features: Mapping[str, Feature] = FEATURES, size_max: int = 1_024) -> None:
        self.names = [name for name, feature in features.items() if feature.exact]
        self._indexes = [i for i, feature in enumerate(features.values()) if feature.exact]
        self._size_max = size_max
        # In the order of their last use: the first is the one to drop.
        self._entries: dict[Values, _Entry] = {}
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._wrong = 0

    def key(self, values: Values) -> Values:
        """Return what of the values tells forms apart."""
        return tuple([values[index] for index in self._indexes])

    def predict(self, key: Values) -> str | None:
        """Return the route of turns of this form, None where it is not sure."""
        entry = self._entries.get(key)
        return entry.route if entry is not None and entry.answers() and self._trusted() else None

    def learn(self, key: Values, route: str) -> None:
        """Test the memo with an example, then take it up."""
        entry = self._entries.pop(key, None)
        if entry is None:
            if len(self._entries) >= self._size_max:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = _Entry(route)
            return
        if entry.answers():
            self._count(entry.route != route)
        entry.learn(route)
        self._entries[key] = entry

    def confidence(self) -> float:
        """Return how sure its answers are: one less the upper bound of its last answers' errors."""
        return confidence(len(self._recent), self._wrong)

    def rows(self) -> list[list[Any]]:
        """Return what it answers now as the rows of a model file, sorted."""
        if not self._trusted():
            return []
        sure = self.confidence()
        return [
            [list(key), entry.route, sure]
            for key, entry in sorted(self._entries.items())
            if entry.answers()
        ]

    def _trusted(self) -> bool:
        tested = len(self._recent)
        return tested >= _RECENT_MIN and self._wrong * _WRONG_SHARE <= tested

    def _count(self, wrong: bool) -> None:
        if len(self._recent) == _RECENT:
            self._wrong -= self._recent[0]
        self._recent.append(wrong)
        self._wrong += wrong
