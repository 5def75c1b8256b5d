"""What a score is worth rises with it, and comes near to the share that is right."""

import json
import math
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.processors.calibration import Calibration, Pool
from madlog.processors.errors import InvalidModel

SCORED = st.lists(st.tuples(st.integers(-500, 500), st.booleans()), max_size=300)


@given(SCORED)
def test_a_higher_score_is_worth_more_and_no_example_is_lost(
    scored: list[tuple[int, bool]],
) -> None:
    made = Calibration.of(scored)
    if made is None:
        assert scored == []
        return
    assert sum(pool.examples for pool in made.pools) == len(scored)
    assert sum(pool.right for pool in made.pools) == sum(right for _, right in scored)
    assert all(lower.least < higher.least for lower, higher in pairwise(made.pools))
    worth = [made.confidence(score) for score in range(-510, 511)]
    assert worth == sorted(worth)
    assert all(0.0 < one < 1.0 for one in worth)


@given(SCORED, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_changes_nothing(
    scored: list[tuple[int, bool]], random: Any
) -> None:
    shuffled = list(scored)
    random.shuffle(shuffled)
    assert Calibration.of(shuffled) == Calibration.of(scored)


@given(SCORED)
def test_a_table_comes_back_from_its_file(scored: list[tuple[int, bool]]) -> None:
    made = Calibration.of(scored)
    if made is not None:
        assert Calibration.from_document(json.loads(json.dumps(made.to_document()))) == made


def drawn(count: int, seed: int) -> list[tuple[int, bool, float]]:
    """Scores, whether right, and the share that is right at such a score."""
    random = Random(seed)
    found = []
    for _ in range(count):
        score = random.randrange(-3_000, 6_000)
        truth = 1.0 / (1.0 + math.exp(-score / 1_200))
        found.append((score, random.random() < truth, truth))
    return found


def test_confidence_is_near_the_share_that_is_right() -> None:
    made = Calibration.of([(score, right) for score, right, _ in drawn(4_000, 1)])
    assert made is not None
    fresh = drawn(4_000, 2)
    errors = [abs(made.confidence(score) - truth) for score, _, truth in fresh]
    assert sum(errors) / len(errors) < 0.03


def test_a_few_right_answers_are_no_certainty() -> None:
    made = Calibration.of([(1, True)] * 4)
    assert made is not None
    assert made.confidence(1) == 0.9


def test_equal_scores_are_worth_the_same() -> None:
    made = Calibration.of([(1, False)] * 25 + [(2, True)] * 60 + [(2, False)] * 2)
    assert made is not None
    assert made.pools == (Pool(1, 0, 25), Pool(2, 60, 62))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        [[1, 2]],
        [[1, 3, 2]],
        [[1, 0, 0]],
        [[1.5, 1, 2]],
        [[1, True, 2]],
        [[2, 1, 9], [1, 9, 9]],
        [[1, 9, 9], [2, 1, 9]],
    ],
)
def test_a_spoilt_table_is_refused(document: Any) -> None:
    with pytest.raises(InvalidModel, match="calibration"):
        Calibration.from_document(document)
