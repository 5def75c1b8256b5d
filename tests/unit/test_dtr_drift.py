"""The drift test: silent on even noise, quick on a rise."""

from random import Random

import pytest

from madlog.processors.dtr.drift import PageHinkley


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_even_noise_gives_no_alarm(rate: float) -> None:
    random, drift = Random(1), PageHinkley()
    assert all(drift.update(random.random() < rate) is None for _ in range(200_000))


@pytest.mark.parametrize(("before", "after", "within"), [(0.02, 0.5, 100), (0.05, 0.2, 450)])
def test_a_rise_is_seen_soon_and_its_beginning_told(
    before: float, after: float, within: int
) -> None:
    for seed in range(50):
        random, drift = Random(seed), PageHinkley()
        assert all(drift.update(random.random() < before) is None for _ in range(2_000))
        answers = (drift.update(random.random() < after) for _ in range(within))
        found = next(((n, began) for n, began in enumerate(answers, 1) if began is not None), None)
        assert found is not None
        count, began = found
        assert abs(count - began) <= within // 3


def test_errors_that_become_fewer_are_no_drift() -> None:
    random, drift = Random(2), PageHinkley()
    for count in range(5_000):
        assert drift.update(random.random() < max(0.02, 0.9 - count / 1_000)) is None


def test_after_an_alarm_it_begins_anew() -> None:
    drift = PageHinkley()
    seen = [drift.update(number >= 100) for number in range(200)]
    assert [place for place, began in enumerate(seen) if began is not None] == [123]
