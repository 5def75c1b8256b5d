"""Stated confidence beside what was delivered: by band, without bias, with exact intervals."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from tests.unit.test_questions import about, answer, decision, log_of

from madlog.analytics.routing_charts import reliability
from madlog.analytics.sql import _bound, query
from madlog.schemas import Decision, Event, Outcome

COLUMNS = ("confidence_from", "decisions", "judged", "right", "stated", "verdict")


def stated(
    count: int, confidence: float, right_share: float, first: int = 0, **more: Any
) -> Iterator[list[Event]]:
    """Decisions at one confidence, of which a share is right; all of them are audited."""
    random = Random(first)
    for n in range(first, first + count):
        made = decision(n + 1, "lppm", more.pop("mode", "live")).event
        assert isinstance(made, Decision)
        changes = {"confidence": confidence, "audited": True, **more}
        made = made.model_copy(update=changes)
        right = random.random() < right_share
        yield [
            made,
            Outcome(
                **about(n + 50_001, "auditor"),
                mad="bot",
                result="success" if right else "failure",
                judged_by="audit",
                about="decision",
                about_id=made.event_id,
            ),
        ]


async def test_a_tier_that_is_too_sure_is_told_from_one_that_is_as_right_as_it_says() -> None:
    log = await log_of(*stated(400, 0.99, 0.8), *stated(400, 0.85, 0.85, first=1_000))
    found = await answer(log, "calibration", *COLUMNS)
    (_, n, judged, right, said, verdict), top = found
    assert (n, judged, said, verdict) == (400, 400, 0.85, "fits")
    assert 310 < right < 370
    assert (top[0], top[-1]) == (0.99, "too sure")
    ((error, _), *_) = await answer(log, "calibration", "calibration_error", "mode")
    assert 0.07 < error < 0.13


async def test_live_only_what_was_audited_counts() -> None:
    log = await log_of(*stated(40, 0.99, 0.0, audited=False))
    assert await answer(log, "calibration", *COLUMNS) == [(0.99, 40, 0, 0, 0.99, "unknown")]


async def test_a_confidence_of_one_is_in_the_last_band_and_a_half_in_the_second() -> None:
    log = await log_of(*stated(1, 1.0, 1.0), *stated(1, 0.5, 1.0, 10), *stated(1, 0.0, 0.0, 20))
    found = await answer(log, "calibration", "confidence_from", "confidence_to", "decisions")
    assert found == [(0.0, 0.5, 1), (0.5, 0.7, 1), (0.99, 1.0, 1)]


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_interval_is_exact(part: int, whole: int) -> None:
    low, high = _bound(0, part, whole), _bound(1, part, whole)
    if whole == 0 or part > whole:
        assert (low, high) == (None, None)
        return
    assert low == pytest.approx(beta.ppf(0.025, part, whole - part + 1) if part else 0.0)
    assert high == pytest.approx(beta.ppf(0.975, part + 1, whole - part) if part < whole else 1.0)


async def test_every_query_can_ask_for_the_interval_of_a_share() -> None:
    log = await log_of()
    sql = "SELECT share_low(1, 10), share_high(1, 10), share_low(3, 2), share_high(NULL, 2)"
    result = await query(log, sql)
    (row,) = zip(*result.table.to_pydict().values(), strict=True)
    assert row == (pytest.approx(0.002529, abs=1e-6), pytest.approx(0.445, abs=1e-3), None, None)


def test_the_drawing_names_what_it_is_given_and_runs_no_foreign_text() -> None:
    row = {
        "mode": "<script>",
        "tier": "lppm",
        "judged": 10,
        "right": 9,
        "stated": 0.95,
        "delivered": 0.9,
        "delivered_low": 0.55,
        "delivered_high": 1.0,
        "verdict": "fits",
    }
    drawn = reliability([row, {**row, "judged": 0}])
    assert "<script>" not in drawn
    assert drawn.count("<circle") == 1
    assert "right 9 of 10" in drawn
