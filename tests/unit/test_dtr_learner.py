"""What is learned from a log: routes by form, honestly sure, the same bytes everywhere."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.processors.dtr.features import FEATURES, check_features
from madlog.processors.dtr.learner import Learner
from madlog.processors.dtr.tree import Leaf, Tree
from madlog.processors.errors import InvalidFeatures, InvalidModel
from madlog.schemas import MadlogError

EMPTY: dict[str, Any] = {
    name: 0 if feature.type is int else "none" for name, feature in FEATURES.items()
}
ROUTES = ("ack", "health", "imperator", "process", "action:list", "action:show")
Example = tuple[dict[str, Any], str]


def stream(seed: int, count: int, turned: int = 0, noise: float = 0.02) -> Iterator[Example]:
    random = Random(seed)
    for _ in range(count):
        place, chars = random.randrange(6), random.randrange(400)
        features = EMPTY | {
            "verb": f"v{place}",
            "chars": chars,
            "turns_before": random.randrange(30),
            "last_intent": random.choice(("ask", "none")),
        }
        route = ROUTES[(place + turned) % 6]
        if place == 3 and chars > 200:
            route = "ack"
        yield features, random.choice(ROUTES) if random.random() < noise else route


def learned(examples: Iterator[Example]) -> Learner:
    learner = Learner()
    for features, route in examples:
        learner.learn(features, route)
    return learner


def digest() -> str:
    learner = learned(stream(1, 1_500))
    for features, route in stream(2, 1_000, turned=1):
        learner.learn(features, route)
    return hashlib.sha256(learner.frozen().text.encode()).hexdigest()


def test_the_model_is_the_same_under_any_hash_seed() -> None:
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert found == {digest()}


def test_a_published_model_keeps_its_promise_on_new_turns() -> None:
    tree, answered, wrong = learned(stream(3, 4_000)).frozen(), 0, 0
    for features, route in stream(4, 4_000):
        leaf = tree.walk(features)
        if leaf.confidence >= 0.95:
            answered += 1
            wrong += leaf.route != route
    assert answered >= 2_000
    assert wrong <= 0.05 * answered


def test_the_published_model_answers_as_the_learner_does() -> None:
    learner = learned(stream(5, 2_000))
    tree = learner.frozen()
    assert json.loads(tree.text)["memo"]["rows"]
    for features, _ in stream(6, 500):
        assert tree.walk(features) == learner.predict(features)
    assert Tree.parse(tree.text) == tree


def test_a_change_is_noticed_and_learned() -> None:
    learner = learned(stream(7, 3_000))
    for features, route in stream(8, 1_500, turned=1):
        learner.learn(features, route)
    assert learner.alarms == 1
    fresh = list(stream(9, 500, turned=1))
    right = sum(learner.predict(features).route == route for features, route in fresh)
    assert right >= 0.95 * len(fresh)


def test_right_after_a_change_the_old_tree_is_not_sure() -> None:
    learner = learned(stream(7, 3_000))
    for features, route in stream(8, 200, turned=1):
        learner.learn(features, route)
        if learner.alarms:
            break
    assert learner.alarms == 1
    tree = learner.frozen()
    assert all(tree.walk(features).confidence < 0.95 for features, _ in stream(9, 200, turned=1))


def test_a_verb_that_was_never_seen_is_settled_by_its_rule() -> None:
    learner, random = Learner(), Random(1)
    for number in range(2_000):
        verb = f"v{random.randrange(300)}"
        known = number % 2
        features = EMPTY | {"verb": verb, "verb_registered": known, "chars": number % 50}
        learner.learn(features, f"action:{verb}" if known else "imperator")
    leaf = learner.frozen().walk(EMPTY | {"verb": "brand_new", "verb_registered": 1})
    assert leaf.route == "action:{verb}"
    assert leaf.confidence >= 0.95


def test_who_learned_nothing_abstains() -> None:
    assert Learner().predict(EMPTY) == Leaf("imperator", 0.0)
    assert Learner().frozen().walk(EMPTY) == Leaf("imperator", 0.0)


def test_one_route_alone_is_learned() -> None:
    learner = Learner()
    for number in range(500):
        learner.learn(EMPTY | {"chars": number}, "ack")
    leaf = learner.frozen().walk(EMPTY | {"chars": 7, "verb": "new"})
    assert leaf.route == "ack"
    assert leaf.confidence >= 0.95


def test_a_thousand_routes_of_one_example_leave_it_unsure() -> None:
    learner = Learner()
    for number in range(1_000):
        learner.learn(EMPTY | {"verb": f"v{number}", "chars": number}, f"action:a{number}")
    tree = learner.frozen()
    assert all(tree.walk(EMPTY | {"verb": f"v{n}", "chars": n}).confidence < 0.5 for n in range(99))


@pytest.mark.parametrize(
    "changes",
    [
        {"chars": float("nan")},
        {"chars": 1.0},
        {"chars": True},
        {"chars": 2**60},
        {"chars": "many"},
        {"verb": 7},
        {"verb": None},
        {"verb": ""},
        {"verb": "please refund my order"},
        {"verb": "tab\tbed"},
        {"verb": "x" * 65},
        {"mood": "good"},
    ],
)
def test_what_could_be_prose_is_refused_and_nothing_learned(changes: dict[str, Any]) -> None:
    learner = Learner()
    before = learner.frozen().text
    with pytest.raises(InvalidFeatures) as caught:
        learner.learn(EMPTY | changes, "ack")
    assert isinstance(caught.value, MadlogError)
    assert isinstance(caught.value, TypeError)
    assert learner.frozen().text == before


def test_a_missing_feature_and_an_unknown_route_are_refused() -> None:
    features = {name: value for name, value in EMPTY.items() if name != "verb"}
    with pytest.raises(InvalidFeatures, match="verb"):
        Learner().learn(features, "ack")
    with pytest.raises(InvalidFeatures, match="verb"):
        Learner().learn(features | {"mood": "none"}, "ack")
    with pytest.raises(InvalidFeatures, match="no route"):
        Learner().learn(EMPTY, "sudo")


@given(st.text(max_size=80))
def test_only_words_without_blanks_pass_as_categories(text: str) -> None:
    fine = 0 < len(text) <= 64 and not any(one.isspace() for one in text)
    try:
        check_features(EMPTY | {"verb": text})
    except InvalidFeatures:
        assert not fine
    else:
        assert fine


LEAF = {"route": "imperator", "confidence": 1.0}


def model(**memo: Any) -> str:
    given_memo = {"features": ["verb", "ack_tag"], "rows": [[["x", 1], "ack", 0.9]]} | memo
    return json.dumps({"format": "dtr-1", "memo": given_memo, "root": LEAF})


def test_a_memo_answers_before_the_tree() -> None:
    tree = Tree.parse(model())
    assert tree.walk(EMPTY | {"verb": "x", "ack_tag": 1}) == Leaf("ack", 0.9)
    assert tree.walk(EMPTY | {"verb": "x"}) == Leaf("imperator", 1.0)


@pytest.mark.parametrize(
    "memo",
    [
        {"features": ["mood", "verb"]},
        {"features": ["verb"]},
        {"features": ["verb", "verb"]},
        {"features": "verb"},
        {"rows": {}},
        {"rows": [[["x", "1"], "ack", 0.9]]},
        {"rows": [[["x", True], "ack", 0.9]]},
        {"rows": [[["x"], "ack", 0.9]]},
        {"rows": [[["x", 1], "sudo", 0.9]]},
        {"rows": [[["x", 1], "ack", 2]]},
        {"rows": [[["x", 1], "ack", 0.9]] * 2},
        {"more": 1},
    ],
)
def test_what_is_no_memo_is_refused(memo: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match="memo"):
        Tree.parse(model(**memo))


if __name__ == "__main__":
    print(digest())
