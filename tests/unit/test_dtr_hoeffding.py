"""The Hoeffding tree: river's is the oracle."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from river.tree import HoeffdingTreeClassifier

from madlog.processors.dtr.features import Feature
from madlog.processors.dtr.grown import Split, Values
from madlog.processors.dtr.hoeffding import HoeffdingTree

NAMES = ("shade", "form", "kind", "size")
TABLE = {name: Feature(name, str, name) for name in NAMES[:3]} | {"size": Feature("size", int, "")}


def stream(seed: int, count: int) -> Iterator[tuple[Values, str]]:
    random = Random(seed)
    for _ in range(count):
        form, kind, size = random.choice("abcd"), random.choice("xyz"), random.randrange(200)
        route = {"a": "ack", "b": "health"}.get(form, "process" if kind == "x" else "imperator")
        if form == "b" and size > 100:
            route = "action:big"
        if random.random() < 0.01:
            route = random.choice(("ack", "health", "process"))
        yield (random.choice("uv"), form, kind, size), route


def test_it_splits_and_answers_as_river_does() -> None:
    ours = HoeffdingTree(TABLE, delta=1e-7, tie=0.05, grace=200)
    oracle: Any = HoeffdingTreeClassifier(
        grace_period=200,
        delta=1e-7,
        tau=0.05,
        leaf_prediction="mc",
        binary_split=True,
        nominal_attributes=list(NAMES[:3]),
    )
    same = 0
    for number, (values, route) in enumerate(stream(1, 8_000)):
        features = dict(zip(NAMES, values, strict=True))
        if number >= 4_000:
            same += ours.predict(values) == oracle.predict_one(features)
        ours.learn(values, route)
        oracle.learn_one(features, route)
    assert isinstance(ours.root, Split)
    assert NAMES[ours.root.index] == oracle._root.feature
    # River takes integers for normal distributions, so the two differ near their limits.
    assert same >= 0.97 * 4_000


def test_a_rule_is_learned_but_for_noise() -> None:
    tree, right = HoeffdingTree(TABLE), 0
    for number, (values, route) in enumerate(stream(2, 6_000)):
        right += number >= 4_000 and tree.predict(values) == route
        tree.learn(values, route)
    assert right >= 0.97 * 2_000


@pytest.mark.parametrize("value", ["a", "b"])
def test_one_route_needs_no_split(value: str) -> None:
    tree = HoeffdingTree(TABLE)
    for values, _ in stream(3, 2_000):
        tree.learn(values, "ack")
    assert not isinstance(tree.root, Split)
    assert tree.predict(("u", value, "x", 1)) == "ack"


def test_noise_alone_is_not_split_with_the_published_settings() -> None:
    random, tree = Random(4), HoeffdingTree(TABLE, delta=1e-7, tie=0.0)
    for values, _ in stream(5, 10_000):
        tree.learn(values, random.choice(("ack", "health")))
    assert not isinstance(tree.root, Split)


def test_equal_features_are_split_by_the_first_once_the_bound_is_small() -> None:
    twins = {name: Feature(name, str, name) for name in ("one", "two")}
    tree, random = HoeffdingTree(twins), Random(6)
    for _ in range(2_000):
        value = random.choice("ab")
        tree.learn((value, value), "ack" if value == "a" else "health")
    assert isinstance(tree.root, Split)
    assert tree.root.index == 0
