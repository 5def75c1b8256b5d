"""The decision tree as a model file."""

import json
from typing import Any

import pytest

from madlog.processors import InvalidModel
from madlog.processors.dtr.features import FEATURES
from madlog.processors.dtr.seed_model import seed_model, seed_tree
from madlog.processors.dtr.tree import Leaf, Tree

LEAF = {"route": "imperator", "confidence": 1.0}
EMPTY: dict[str, int | str] = {
    name: 0 if feature.type is int else "none" for name, feature in FEATURES.items()
}


def node(**changes: Any) -> dict[str, Any]:
    return {"feature": "chars", "op": "<=", "value": 3, "yes": LEAF, "no": LEAF, **changes}


def tree(root: Any) -> Tree:
    return Tree.parse(json.dumps({"format": "tree-1", "root": root}))


def test_a_walk_compares_order_and_equality() -> None:
    yes = {"route": "ack", "confidence": 0.5}
    made = tree(node(yes=node(feature="verb", op="==", value="x", yes=yes)))
    assert made.walk({**EMPTY, "chars": 3, "verb": "x"}) == Leaf("ack", 0.5)
    assert made.walk({**EMPTY, "chars": 4, "verb": "x"}) == Leaf("imperator", 1.0)
    assert made.walk({**EMPTY, "chars": 3, "verb": "y"}) == Leaf("imperator", 1.0)


def test_its_text_is_canonical() -> None:
    made = tree(node())
    assert Tree.parse(made.text).text == made.text
    assert Tree.parse(json.dumps(json.loads(made.text), indent=3)).text == made.text


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (node(feature="mood"), "no feature 'mood'"),
        (node(feature=["chars"]), "no feature"),
        (node(op="<"), "not an operator"),
        (node(value="3"), "chars is int"),
        (node(value=True), "chars is int"),
        (node(feature="verb", value="a"), "has no order"),
        (node(yes=None), "root.yes must be an object"),
        (node(no={"route": "sudo", "confidence": 1}), "root.no: 'sudo' is no route"),
        (node(no={"route": "action:", "confidence": 1}), "is no route"),
        (node(no={"route": "ack", "confidence": 1.5}), "confidence 1.5"),
        (node(no={"route": "ack", "confidence": "high"}), "confidence 'high'"),
        (node(extra=1), "exactly"),
        ([], "root must be an object"),
    ],
)
def test_what_is_no_tree_is_refused_with_its_place(root: Any, said: str) -> None:
    with pytest.raises(InvalidModel, match=said):
        tree(root)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format":"tree-2","root":{}}', '{"a":1,"a":2}'])
def test_what_is_no_model_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidModel):
        Tree.parse(text)


def test_a_tree_that_never_ends_is_refused() -> None:
    deep: Any = LEAF
    for _ in range(70):
        deep = node(yes=deep)
    with pytest.raises(InvalidModel, match="levels"):
        tree(deep)
    with pytest.raises(InvalidModel):
        Tree.parse("[" * 100_000)


@pytest.mark.parametrize(
    ("changes", "route"),
    [
        ({}, "imperator"),
        ({"shorthand": "hru"}, "health"),
        ({"shorthand": "ack"}, "ack"),
        ({"shorthand": "ok"}, "imperator"),
        ({"ack_tag": 1}, "ack"),
        ({"ack_tag": 1, "prose_pct": 40}, "imperator"),
        ({"command": "command", "verb": "refund", "verb_registered": 1}, "action:{verb}"),
        ({"command": "command", "verb": "refund"}, "imperator"),
        ({"command": "command", "verb": "health"}, "health"),
        ({"command": "command", "verb": "x", "verb_registered": 1, "prose_pct": 9}, "imperator"),
        ({"command": "several", "verb_registered": 1}, "imperator"),
        ({"command": "code", "ack_tag": 1}, "imperator"),
    ],
)
def test_the_first_tree_settles_what_has_one_right_answer(
    changes: dict[str, int | str], route: str
) -> None:
    assert seed_tree().walk({**EMPTY, **changes}).route == route


def test_the_first_model_is_the_same_event_everywhere() -> None:
    assert seed_model() == seed_model()
    parameters = seed_model().parameters
    assert parameters == seed_tree().text
