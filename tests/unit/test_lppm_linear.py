"""A linear model decides in integers, and its file is checked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm._sparse import Table
from madlog.processors.lppm.linear import SCORE_ONE, Linear, Scored, out_of_fold

ROWS: list[dict[str, float]] = [
    {"refund": 1.0, "order": 0.5},
    {"refund": 1.0},
    {"where": 1.0, "order": 0.5},
    {"where": 1.0, "parcel": 1.0},
    {"hello": 1.0},
    {"hello": 1.0, "there": 0.5},
]
LABELS = ["refund", "refund", "track", "track", "greet", "greet"]


def test_what_was_learned_is_recognised() -> None:
    model = Linear.fit(ROWS, LABELS)
    assert [model.best(row).label for row in ROWS] == LABELS
    best = model.best({"refund": 1.0})
    assert best.score == model.scores({"refund": 1.0})["refund"]
    assert best.runner_up is not None
    assert best.margin == best.score - model.scores({"refund": 1.0})[best.runner_up]


def test_two_labels_mirror_each_other() -> None:
    model = Linear.fit(ROWS[:4], LABELS[:4])
    scores = model.scores(ROWS[0])
    assert scores["refund"] > 0 > scores["track"]
    assert abs(scores["refund"] + scores["track"]) <= 1


def test_one_label_alone_has_a_score_that_says_nothing() -> None:
    model = Linear.fit(ROWS[:2], ["refund", "refund"])
    assert model.best({"anything": 1.0}) == Scored("refund", 0, None, 0)
    assert model.best(ROWS[0]) == Scored("refund", 0, None, 0)


def test_rows_without_features_give_the_commonest_label() -> None:
    model = Linear.fit([{}, {}, {}], ["b", "a", "b"])
    assert model.best({"x": 1.0}).label == "b"
    assert model.scores({}) == {"a": SCORE_ONE // 3, "b": 2 * SCORE_ONE // 3}
    assert Linear.fit([*ROWS, {}], [*LABELS, "track"]).best({}).label in LABELS


def test_a_thousand_labels_with_one_example_each_are_told_apart() -> None:
    rows = [{f"word {number}": 1.0, "please": 0.2} for number in range(1000)]
    labels = [f"label {number:04}" for number in range(1000)]
    model = Linear.fit(rows, labels)
    assert [model.best(row).label for row in rows[::50]] == labels[::50]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        Linear.fit([], [])
    with pytest.raises(ValueError, match="2 rows have 1 labels"):
        Linear.fit([{}, {}], ["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Linear.fit([{"a": value}], ["x"])
    with pytest.raises(ValueError, match="finite"):
        Linear.fit(ROWS, LABELS).best({"refund": value})


def test_only_the_commonest_features_are_kept() -> None:
    rows: list[dict[str, float]] = [{"both": 1.0, "a": 1.0}, {"both": 1.0, "b": 1.0}]
    assert Linear.fit(rows, ["x", "y"], features_max=2).features == ("a", "both")


def test_large_values_are_learned_and_served_alike() -> None:
    rows = [{"count": 3000.0 * number} for number in (1, -1)] * 5
    model = Linear.fit(rows, ["up", "down"] * 5)
    assert model.best({"count": 1e9}).label == "up"
    assert model.best({"count": -1e9}).label == "down"


def test_contradicting_rows_are_learned_without_a_warning() -> None:
    rows = [{f"f{number % 7}": 1.0 + number % 3} for number in range(200)]
    labels = [f"l{number % 2}" for number in range(200)]
    assert Linear.fit(rows, labels, cost=1000.0).labels == ("l0", "l1")


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abcdef"), st.floats(-3, 3), max_size=4),
            st.sampled_from("xyz"),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_model_file_gives_the_same_model(examples: list[tuple[dict[str, float], str]]) -> None:
    rows, labels = [row for row, _ in examples], [label for _, label in examples]
    model = Linear.fit(rows, labels)
    text = json.dumps(model.to_document(), sort_keys=True)
    again = Linear.from_document(json.loads(text))
    assert json.dumps(again.to_document(), sort_keys=True) == text
    turned = [dict(reversed(row.items())) for row in rows]
    assert Linear.fit(turned, labels).to_document() == model.to_document()
    for row in rows:
        assert again.scores(row) == model.scores(row)
        assert again.best(row) == model.best(row)


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda document: {name: value for name, value in document.items() if name != key}


def _with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: [document], "exactly"),
        (_without("biases"), "exactly"),
        (_with(format="linear-9"), "format"),
        (_with(labels=[]), "labels: 0"),
        (_with(labels=["b", "a", "c"]), "labels must be sorted"),
        (_with(features=["a", "a"]), "features must be sorted"),
        (_with(features="abc"), "features must be a list"),
        (_with(labels=["a", 1]), "labels must be a list"),
        (_with(biases=[1, 2]), "one integer a label"),
        (_with(biases=[1, 2, float("nan")]), "biases must be integers"),
        (_with(biases=[1, 2, True]), "biases must be integers"),
        (_with(biases=[1, 2, 2**60]), "biases must be integers"),
        (_with(scales="????"), "scales is not base64"),
        (_with(scales="AAAA"), "scales: 3 bytes"),
        (_with(weights=7), "weights must be a string"),
        (_with(weights="AAAA"), "weights: 3 bytes"),
    ],
)
def test_a_wrong_model_file_is_named(change: Callable[[Any], Any], message: str) -> None:
    document = Linear.fit(ROWS, LABELS).to_document()
    with pytest.raises(InvalidModel, match=message):
        Linear.from_document(change(document))


def test_each_row_is_predicted_by_a_model_that_did_not_see_its_group() -> None:
    # Each group's word stands in no other group, so nothing about it can be known out of fold.
    rows = [{f"own {number // 2}": 1.0} for number in range(20)]
    labels = [f"label {number // 2}" for number in range(20)]
    groups = [number // 2 for number in range(20)]
    found = out_of_fold(rows, labels, groups, folds=5, seed=1)
    assert len(found) == 20
    assert all(one.label != label for one, label in zip(found, labels, strict=True))
    alone = out_of_fold(rows, labels, range(20), folds=20, seed=1)
    assert all(one.label == label for one, label in zip(alone, labels, strict=True))


def test_folds_need_two_groups() -> None:
    with pytest.raises(ValueError, match="of 1 groups"):
        out_of_fold(ROWS, LABELS, ["same"] * 6)
    with pytest.raises(ValueError, match="6 rows have 2 groups"):
        out_of_fold(ROWS, LABELS, ["a", "b"])


def test_a_hash_seed_changes_nothing() -> None:
    script = (
        "import json\n"
        "from madlog.processors.lppm.linear import Linear\n"
        "words = {f'w{n}' for n in range(40)}\n"
        "rows = [{w: 1.0 for w in words if (int(w[1:]) + r) % 3} for r in range(30)]\n"
        "print(json.dumps(Linear.fit(rows, [f'l{r % 5}' for r in range(30)]).to_document()))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_tables_side_by_side_are_the_table_of_the_joined_rows() -> None:
    more = [{"again": 1.0}, {}, {"fill": 300.0, "naught": 0.0}, {}, {"again": 0.5}, {}]
    whole = Table.of([row | extra for row, extra in zip(ROWS, more, strict=True)])
    joined = Table.of(ROWS).beside(Table.of(more))
    assert joined.names == whole.names
    assert "naught" not in whole.names
    for number in range(len(ROWS)):
        for one, other in zip(joined.row(number), whole.row(number), strict=True):
            assert one.tolist() == other.tolist()


def test_a_feature_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number, not inf"):
        Table.of([{"a": 1.0, "b": float("inf")}])
