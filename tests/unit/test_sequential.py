"""The sequential test errs as seldom as it says, however often it is looked at."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madlog.processors.rollout.sequential import Side, above, difference, excludes, judge, needed


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(min_value=0, max_value=3_000))
    return draw(st.integers(min_value=0, max_value=n)), n


@given(counts(), counts())
@settings(max_examples=50, deadline=None)
def test_the_interval_holds_the_estimate_and_turns_round_with_its_sides(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    low, high = difference(*a, *b)
    assert -1.0 <= low <= high <= 1.0
    if a[1] and b[1]:
        assert low <= a[0] / a[1] - b[0] / b[1] <= high
    other = difference(*b, *a)
    assert other == pytest.approx((-high, -low), abs=1e-9)


@given(counts(), counts())
@settings(max_examples=50, deadline=None)
def test_a_stricter_level_gives_a_wider_interval(a: tuple[int, int], b: tuple[int, int]) -> None:
    loose, strict = difference(*a, *b, 0.2), difference(*a, *b, 0.01)
    assert strict[0] <= loose[0] + 1e-9
    assert strict[1] >= loose[1] - 1e-9


@given(counts(), counts(), st.integers(min_value=-98, max_value=98))
@settings(max_examples=50, deadline=None)
def test_what_is_excluded_lies_outside_the_interval(
    a: tuple[int, int], b: tuple[int, int], percent: int
) -> None:
    low, high = difference(*a, *b)
    apart = percent / 100
    if excludes(apart, *a, *b):
        assert not low + 1e-6 < apart < high - 1e-6
    else:
        assert low - 1e-6 <= apart <= high + 1e-6


def test_nothing_seen_tells_nothing_and_more_tells_more() -> None:
    assert difference(0, 0, 0, 0) == (-1.0, 1.0)
    widths = []
    for n in (20, 200, 2_000, 20_000):
        low, high = difference(n * 9 // 10, n, n * 9 // 10, n)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03


@pytest.mark.parametrize(("a", "b"), [(0.95, 0.95), (0.7, 0.7), (0.93, 0.95), (0.5, 0.99)])
def test_looked_at_after_every_decision_the_truth_is_excluded_as_seldom_as_promised(
    a: float, b: float
) -> None:
    random, alpha, runs = Random(11), 0.1, 100
    missed = 0
    for _ in range(runs):
        told = [0, 0, 0, 0]
        for _ in range(250):
            # Sides of unlike size, as at 10 %: which side is next is no matter of the outcomes.
            at, rate = (0, a) if random.random() < 0.25 else (2, b)
            told[at] += random.random() < rate
            told[at + 1] += 1
            if excludes(a - b, told[0], told[1], told[2], told[3], alpha):
                missed += 1
                break
    # Twice as many would have a probability under 0.1 % even if the test used up its level.
    assert missed <= 2 * alpha * runs


def test_an_error_rate_is_shown_to_lie_above_as_seldom_as_promised() -> None:
    random, alpha, runs = Random(5), 0.1, 300
    wrongly = 0
    for _ in range(runs):
        errors = 0
        for n in range(1, 500):
            errors += random.random() < 0.05
            if above(errors, n, 0.05, alpha):
                wrongly += 1
                break
    assert wrongly <= 2 * alpha * runs
    assert not above(0, 0, 0.05)
    assert not above(2, 10, 0.05)
    assert above(10, 30, 0.05)
    assert not above(10, 10, 1.0)


def side(successes: int, decisions: int, errors: int = 0, audited: int = 0) -> Side:
    return Side(successes, decisions, errors, audited)


@pytest.mark.parametrize(
    ("candidate", "served", "verdict"),
    [
        # Fewer than 500 on either side: nothing is concluded, however it looks.
        (side(0, 499), side(499, 499), "wait"),
        (side(0, 5_000), side(480, 499), "wait"),
        (side(425, 500), side(490, 500), "back"),
        (side(480, 500), side(480, 500), "wait"),
        # Better by far is shown at once, as good only by the estimate at 1,000.
        (side(495, 500), side(4_000, 5_000), "advance"),
        (side(960, 999), side(960, 999), "wait"),
        (side(960, 1_000), side(960, 1_000), "advance"),
        (side(939, 1_000), side(960, 1_000), "back"),
        (side(940, 1_000), side(960, 1_000), "advance"),
        # A broken promise needs no 500.
        (side(20, 20, 12, 30), side(0, 0), "back"),
        (side(20, 20, 1, 30), side(0, 0), "wait"),
    ],
)
def test_a_candidate_is_judged_by_the_rule(candidate: Side, served: Side, verdict: str) -> None:
    assert judge(candidate, served, max_error=0.05) == verdict


def test_the_figures_of_the_docstring_are_those_that_are_computed() -> None:
    from madlog.processors.rollout import sequential

    text = sequential.__doc__ or ""
    for rate in (0.8, 0.9, 0.95, 0.98):
        row = [f"{needed(rate, change):,}" for change in (0.0, -0.05, -0.1)]
        assert [rate, row] == [rate, _row(text, f"{rate:.2f}")]
    assert _row(text, "1.00") == [f"{needed(1.0, 0.0):,}"]
    # Not even where nothing fails do 500 a side show that a candidate is not two points worse.
    assert difference(500, 500, 500, 500)[0] < -0.02


def _row(text: str, rate: str) -> list[str]:
    return next(line.split()[1:] for line in text.splitlines() if line.split()[:1] == [rate])


@pytest.mark.parametrize("given", [(2, 1), (-1, 1)])
def test_counts_that_cannot_be_are_refused(given: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        difference(*given, 1, 2)
    with pytest.raises(ValueError, match="level"):
        difference(1, 2, 1, 2, 1.0)
