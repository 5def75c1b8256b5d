"""Decision tree routing on a synthetic stream: time, labels needed, recovery after a change.

Ours and river's trees learn the same examples in the same run. Every figure is a mean over seeds
with its spread; all accuracies are of answers given before the label was seen. No setting was
tried on the streams of seeds from 100 up, which are those measured.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from time import perf_counter, perf_counter_ns
from typing import Any

from river.tree import HoeffdingAdaptiveTreeClassifier, HoeffdingTreeClassifier
from tests.bench.routing_rows import figure, row, say

from madlog.processors.dtr.features import FEATURES, NO_HISTORY, check_features, turn_features
from madlog.processors.dtr.learner import Learner
from madlog.processors.dtr.refit import WINDOW, refit
from madlog.processors.dtr.tree import Tree
from madlog.schemas import Sender, Turn, fields_of
from madlog.schemas.text import parse

__all__ = ("Traffic", "rows")

BEFORE, AFTER = 8_000, 12_000
_RECENT, _GOOD = 500, 0.97
_VERBS = 30
_NOISE = 0.01
_FIRST_SEED = 100
Features = dict[str, int | str]
Rule = Callable[[Features], str]
_INTENTS = ("none", "request", "inform", "confirm", "cancel", "ask")
_KINDS = ("human", "mad", "emad", "system")


class Traffic:
    """A seeded stream of features and routes: 30 verbs, a third of which depend on more.

    Verbs are unevenly common and named by hashes; 1 % of the labels are random. `change` gives
    half of the routes to other verbs. With habits a verb comes in one to three envelopes, as from
    programs; without, all features but the verb are drawn anew each time, which is harder.
    """

    def __init__(self, seed: int, *, habits: bool) -> None:
        self._habits = habits
        self._random = random = Random(seed)
        self._verbs = [f"v{random.getrandbits(32):08x}" for _ in range(_VERBS)]
        self._weights = [1.0 / (1 + place) ** 0.7 for place in range(_VERBS)]
        actions = [f"action:do_{number}" for number in range(26)]
        self._routes = ["ack", "health", "imperator", "process", *actions]
        self._forms = {verb: self._form(place) for place, verb in enumerate(self._verbs)}
        self._names = {route: route for route in self._routes}
        self._envelopes = {
            verb: [self._envelope() for _ in range(random.randint(1, 3))] for verb in self._verbs
        }

    def _form(self, place: int) -> Rule:
        random, own = self._random, self._routes[place]
        if place % 3:
            return lambda features: own
        other = random.choice(self._routes)
        name, limit = random.choice(
            (("chars", 120), ("turns_before", 12), ("sender_kind", "mad"), ("last_intent", "ask"))
        )
        if isinstance(limit, str):
            return lambda features: other if features[name] == limit else own
        return lambda features: other if int(features[name]) <= limit else own

    def change(self) -> None:
        """Exchange half of the routes among themselves."""
        moved = self._routes[::2]
        self._names |= dict(zip(moved, [*moved[1:], moved[0]], strict=True))

    def __iter__(self) -> Iterator[tuple[Features, str]]:
        random = self._random
        while True:
            features = self._features(random.choices(self._verbs, self._weights)[0])
            route = self._names[self._forms[str(features["verb"])](features)]
            yield features, random.choice(self._routes) if random.random() < _NOISE else route

    def _envelope(self) -> Features:
        random = self._random
        return {
            "mentions": random.randint(0, 2),
            "mentioned": random.randint(0, 1),
            "intent": random.choice(_INTENTS),
            "recipients": random.randint(1, 2),
            "sender_kind": random.choice(_KINDS),
            "same_sender": random.randint(0, 1),
            "last_intent": random.choice(_INTENTS),
        }

    def _features(self, verb: str) -> Features:
        random = self._random
        made: Features = {
            name: 0 if feature.type is int else "none" for name, feature in FEATURES.items()
        }
        share = random.choice((0, 0, 0, 30, 60))
        made |= {
            "chars": int(random.lognormvariate(4.5, 1.0)),
            "lines": random.randint(1, 5),
            "parts": random.randint(1, 4),
            "deterministic_pct": 100 - share,
            "prose_pct": share,
            "command": "command",
            "verb": verb,
            "questions": random.choice((0, 0, 1)),
            "verb_registered": 1,
            "recipient": "orders",
            "turns_before": random.randint(0, 30),
            "calls_before": random.randint(0, 9),
        }
        return made | (random.choice(self._envelopes[verb]) if self._habits else self._envelope())


class _Course:
    """How right a sequence of answers was: when it got good, and how good it stayed."""

    def __init__(self) -> None:
        self.right: list[bool] = []

    def good_after(self) -> int | None:
        """Return the examples until the last 500 were 97 % right, and the next 500 too."""
        total, totals = 0, [0]
        for one in self.right:
            total += one
            totals.append(total)
        for end in range(_RECENT, len(totals) - _RECENT):
            first, then = totals[end] - totals[end - _RECENT], totals[end + _RECENT] - totals[end]
            if min(first, then) >= _GOOD * _RECENT:
                return end
        return None

    def late(self) -> float:
        last = self.right[-2 * _RECENT :]
        return 100.0 * sum(last) / len(last)


class _Ours:
    name = "madlog"

    def __init__(self) -> None:
        self.learner = Learner()

    def answer(self, features: Features) -> str:
        return self.learner.predict(features).route

    def learn(self, features: Features, route: str) -> bool:
        """Tell whether this was a plain step: no re-fit."""
        before = self.learner.refits
        self.learner.learn(features, route)
        return self.learner.refits == before


class _River:
    def __init__(self, name: str, tree: Any) -> None:
        self.name = name
        self._tree = tree

    def answer(self, features: Features) -> str:
        return self._tree.predict_one(features) or ""

    def learn(self, features: Features, route: str) -> bool:
        self._tree.learn_one(features, route)
        return True


class _Majority:
    name = "majority"

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._top = ""

    def answer(self, features: Features) -> str:
        return self._top

    def learn(self, features: Features, route: str) -> bool:
        self._counts[route] = self._counts.get(route, 0) + 1
        self._top = max(self._counts, key=self._counts.__getitem__)
        return True


class _Last:
    name = "repeat last"

    def __init__(self) -> None:
        self._last = ""

    def answer(self, features: Features) -> str:
        return self._last

    def learn(self, features: Features, route: str) -> bool:
        self._last = route
        return True


def _learners() -> tuple[Any, ...]:
    words = [name for name, feature in FEATURES.items() if feature.type is str]
    return (
        _Ours(),
        _River("river HoeffdingTree", HoeffdingTreeClassifier(nominal_attributes=words)),
        _River(
            "river HoeffdingTree, majority leaves",
            HoeffdingTreeClassifier(leaf_prediction="mc", nominal_attributes=words),
        ),
        _River(
            "river HoeffdingAdaptiveTree",
            HoeffdingAdaptiveTreeClassifier(nominal_attributes=words, seed=1),
        ),
        _Majority(),
        _Last(),
    )


# By learner, name and unit: a value a seed, None where it never got there.
Figures = dict[tuple[str, str, str], list[float | None]]


def _add(figures: Figures, name: str, what: str, unit: str, value: float | None) -> None:
    figures.setdefault((name, what, unit), []).append(value)


def _run(seed: int, figures: Figures, *, habits: bool) -> None:
    traffic = Traffic(seed, habits=habits)
    stream, learners = iter(traffic), _learners()
    answer_us: dict[str, list[float]] = {one.name: [] for one in learners}
    learn_us: dict[str, list[float]] = {one.name: [] for one in learners}
    for part, when, size in (("to", "before", BEFORE), ("back to", "after", AFTER)):
        courses = {one.name: _Course() for one in learners}
        for _ in range(size):
            features, route = next(stream)
            for one in learners:
                begun = perf_counter_ns()
                said = one.answer(features)
                answered = perf_counter_ns()
                plain = one.learn(features, route)
                ended = perf_counter_ns()
                courses[one.name].right.append(said == route)
                answer_us[one.name].append((answered - begun) / 1000)
                if plain:
                    learn_us[one.name].append((ended - answered) / 1000)
        for name, course in courses.items():
            _add(figures, name, f"messages {part} 97 %", "messages", course.good_after())
            _add(figures, name, f"late accuracy, {when} the change", "%", course.late())
        traffic.change()
    for name in answer_us:
        _times(figures, name, "answer while learning", answer_us[name])
        _times(figures, name, "learn", learn_us[name])
    _served(learners[0].learner.frozen(), stream, figures)
    _add(figures, "madlog", "re-fit of 24,000", "s", _refit_seconds(stream))


def _times(figures: Figures, name: str, what: str, times: Sequence[float]) -> None:
    cut = statistics.quantiles(times, n=100)
    _add(figures, name, f"{what} p50", "µs", cut[49])
    _add(figures, name, f"{what} p99", "µs", cut[98])


def _served(tree: Tree, stream: Iterator[tuple[Features, str]], figures: Figures) -> None:
    """The published tree: time of a decision, share it answers at 5 % error, its errors."""
    turn = fields_of(_turn())
    bare, whole, answered, wrong = [], [], 0, 0
    for _ in range(5_000):
        features, route = next(stream)
        begun = perf_counter_ns()
        leaf = tree.walk(features)
        bare.append((perf_counter_ns() - begun) / 1000)
        begun = perf_counter_ns()
        tree.walk(turn_features(turn, "orders", ("get_order",), NO_HISTORY))
        whole.append((perf_counter_ns() - begun) / 1000)
        if leaf.confidence >= 0.95:
            answered += 1
            wrong += leaf.route != route
    _times(figures, "madlog", "decision", bare)
    _times(figures, "madlog", "decision with features", whole)
    _add(figures, "madlog", "coverage, promised 5 %", "%", answered / 50)
    share = 100.0 * wrong / answered if answered else None
    _add(figures, "madlog", "delivered error, promised 5 %", "%", share)
    _add(figures, "madlog", "model file", "KiB", len(tree.text) / 1024)


def _turn() -> Turn:
    parsed = parse("@orders get_order 4711 please, as the customer asks for it again\n")
    return Turn(
        event_id="01890000-0000-7000-8000-000000000001",
        conversation_id="c",
        sender=Sender(name="maria", kind="human"),
        occurred_at=1,
        recipients=("orders",),
        mentions=parsed.mentions,
        tags=parsed.tags,
        parts=parsed.parts,
    )


def _refit_seconds(stream: Iterator[tuple[Features, str]]) -> float:
    pairs = (next(stream) for _ in range(WINDOW))
    examples = [(check_features(features), route) for features, route in pairs]
    begun = perf_counter()
    refit(examples)
    return perf_counter() - begun


_REACH = {
    "messages to 97 %": 2_000,
    "messages back to 97 %": 4_000,
    "learn p99": 50,
    "decision p50": 5,
    "decision p99": 15,
    "decision with features p50": 60,
    "re-fit of 24,000": 2,
    "delivered error, promised 5 %": 5,
}


def rows(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Return a row for each figure, the other learners beside ours; no data set is read."""
    made = []
    for stream, habits in (("habits", True), ("no habits", False)):
        figures: Figures = {}
        for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
            say(f"  {stream}, seed {seed}")
            _run(seed, figures, habits=habits)
        made += _rows(stream, figures)
    return made


def _rows(stream: str, figures: Figures) -> list[dict[str, Any]]:
    made = []
    for (name, what, unit), values in figures.items():
        if name == "madlog":
            others = {
                other: row(other, found)
                for (other, same, _), found in figures.items()
                if same == what and other != name
            }
            beside = "; ".join(_beside(other, found) for other, found in others.items())
            made.append(
                row(
                    f"DTR, {stream}: {what}",
                    values,
                    unit,
                    reach=_REACH.get(what),
                    most=True,
                    baseline=beside or None,
                )
            )
    return made


def _beside(name: str, found: dict[str, Any]) -> str:
    """Return a learner's mean in words, its spread where a seed never got there."""
    mean = found["ours"]
    return f"{name} {found['spread'] if mean is None else figure(mean)}"
