"""A view of a conversation so far, for finding values in it: words, answers, earlier calls."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.cases import Act
from madlog.processors.lppm.values import canonical, dates

__all__ = ("MISSING", "View")

MISSING: Final = object()
# Words further back are seldom meant, and a long conversation must not slow a decision.
_WORDS_MAX = 2_000


class View:
    """What came before a decision, read once and looked up often."""

    def __init__(self, past: Sequence[Act]) -> None:
        self.past = past
        self.arguments: dict[str, Mapping[str, Any]] = {}
        self._answers: dict[str, Act] = {}
        for act in past:
            if act.action is None:
                continue
            if act.arguments is not None:
                self.arguments[act.action] = act.arguments
            if act.answer is not None and act.answer.ok:
                self._answers[act.action] = act
        self._tokens: dict[str, tuple[str, ...]] = {}
        self._shaped: dict[tuple[str, str], list[Any]] = {}
        self._used: dict[tuple[str, str], frozenset[str]] = {}
        self._given: dict[str, frozenset[str]] = {}
        # What rules of slots found here, as slots keeps it: a trial asks the same of many folds.
        self.found: dict[Any, tuple[Any, str]] = {}

    def tokens(self, scope: str) -> tuple[str, ...]:
        """Return words: of the human's last turn, of all the human's, or the agent's last."""
        if scope not in self._tokens:
            self._tokens[scope] = self._gathered(scope)
        return self._tokens[scope]

    def shaped(self, shape: str, scope: str) -> list[Any]:
        """Return the tokens of a shape, in order."""
        key = shape, scope
        if key not in self._shaped:
            pattern = _compiled(shape)
            self._shaped[key] = [one for one in self.tokens(scope) if pattern.fullmatch(one)]
        return self._shaped[key]

    def choices(self, values: str, scope: str) -> list[Any]:
        """Return which of the values the words name, in order of their mention."""
        key = values, scope
        if key not in self._shaped:
            text = " ".join(self.tokens(scope)).lower()
            found = [
                (match.start(), -match.end(), value)
                for value, pattern in _spelt(values)
                for match in pattern.finditer(text)
            ]
            kept, end = [], 0
            for start, minus_end, value in sorted(found):
                # Of values that lie in one another, such as economy in basic economy, the longer.
                if start >= end:
                    kept.append(value)
                    end = -minus_end
            self._shaped[key] = kept
        return self._shaped[key]

    def answered(self, action: str, path: str) -> list[Any]:
        """Return the values of a path in the newest good answer of an action."""
        act = self._answers.get(action)
        return [] if act is None else act.paths.get(path, [])

    def places(self, text: str) -> Iterator[tuple[str, str]]:
        """Go through the actions and paths whose answers hold a value."""
        for action, act in self._answers.items():
            for path in act.places.get(text, ()):
                yield action, path

    def used(self, action: str, parameter: str) -> frozenset[str]:
        """Return the values that earlier calls of an action gave a parameter."""
        key = action, parameter
        if key not in self._used:
            self._used[key] = frozenset(
                canonical(act.arguments[parameter])
                for act in self.past
                if act.action == action and act.arguments and parameter in act.arguments
            )
        return self._used[key]

    def called(self, action: str, arguments: Mapping[str, Any]) -> bool:
        """Say whether the very same call was made before."""
        if action not in self.arguments:
            return False
        if action not in self._given:
            calls = (act.given for act in self.past if act.action == action)
            self._given[action] = frozenset(given for given in calls if given is not None)
        return canonical(arguments) in self._given[action]

    @staticmethod
    def constant(text: str) -> Any:
        """Return the value of a JSON text."""
        return json.loads(text)

    @staticmethod
    def checked(text: str, where: str, *, many: bool) -> None:
        """Refuse a text that is no JSON value, or no list of texts; raises InvalidModel."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidModel(f"{where}: {text!r} is not JSON") from error
        if many and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise InvalidModel(f"{where}: {text!r} is no list of texts")

    def _gathered(self, scope: str) -> tuple[str, ...]:
        acts: list[Act] = []
        for act in reversed(self.past):
            if act.action is None and act.human == (scope != "agent"):
                acts.append(act)
                if scope == "agent":
                    break
            elif scope == "turn" and act.action is None and acts:
                break
        year = self._year
        found: list[str] = []
        for act in reversed(acts):
            found += act.tokens
            found += dates(act.said, year)
        return tuple(found[-_WORDS_MAX:])

    @property
    def _year(self) -> str | None:
        """The year of the newest date that an answer holds: words seldom name it."""
        for act in reversed(self.past):
            if act.year is not None:
                return act.year
        return None


@lru_cache(maxsize=4096)
def _compiled(shape: str) -> re.Pattern[str]:
    return re.compile(shape)


@lru_cache(maxsize=1024)
def _spelt(values: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return each value with the pattern of its spellings: one_way, one-way, One way."""
    found = []
    for value in json.loads(values):
        words = re.split(r"[\s_-]+", value.lower())
        pattern = r"[\s_-]+".join(re.escape(word) for word in words)
        found.append((value, re.compile(rf"(?<!\w){pattern}(?!\w)")))
    return tuple(found)
