"""The questions about what was learned: delivered error without bias, escalations, regret."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from tests.unit.history import history
from tests.unit.test_questions import about, answer, decision, log_of
from tests.unit.test_questions_all import Kept, recalled
from tests.unit.test_retrospect import log_of as history_log
from tests.unit.test_retrospect import settings

from madlog.analytics.columns import KINDS
from madlog.analytics.errors import BadParameter
from madlog.analytics.tables import LogSource
from madlog.processors.retrospect.job import Retrospector
from madlog.schemas import Decision, Event, LlmCall, Outcome

SETTLED, AUDIT_RATE = 4_000, 0.05


def outcome(n: int, decision_id: str, result: Any, judged_by: str) -> Outcome:
    return Outcome(
        **about(n, "auditor"),
        mad="bot",
        result=result,
        judged_by=judged_by,
        about="decision",
        about_id=decision_id,
    )


def silent_tier(wrong_share: float) -> Iterator[list[Event]]:
    """A tier that errs and is told so in the audits alone: all else that is heard is praise."""
    random = Random(3)
    for n in range(SETTLED):
        made = decision(n + 1, "dtr").event
        assert isinstance(made, Decision)
        audited, wrong = random.random() < AUDIT_RATE, random.random() < wrong_share
        made = made.model_copy(update={"audited": audited})
        told: list[Event] = [made]
        if audited:
            told.append(outcome(n + 10_001, made.event_id, _result(wrong), "audit"))
        elif not wrong:
            told.append(outcome(n + 10_001, made.event_id, "success", "correction"))
        yield told


def _result(wrong: bool) -> str:
    return "failure" if wrong else "success"


async def test_a_tier_that_errs_silently_is_shown_by_its_audits() -> None:
    log = await log_of(*silent_tier(0.2))
    columns = ("promised_error", "delivered_error", "error_low", "error_high", "verdict", "judged")
    ((promised, delivered, low, high, verdict, judged),) = await answer(log, "promises", *columns)
    assert (promised, verdict) == (0.05, "broken")
    assert low < 0.2 < high
    assert 0.1 < delivered < 0.3
    assert 0.03 * SETTLED < judged < 0.07 * SETTLED
    tiers = await answer(log, "tiers", "tier", "delivered_error", "error_low", "error_high")
    assert tiers == [("dtr", delivered, low, high)]


async def test_a_promise_that_is_kept_is_told_so_and_one_without_audits_is_unknown() -> None:
    kept = await log_of(*silent_tier(0.0))
    assert await answer(kept, "promises", "verdict", "wrong") == [("kept", 0)]
    unknown = await log_of(decision(1, "dtr"))
    assert await answer(unknown, "promises", "verdict", "delivered_error") == [("unknown", None)]


async def test_the_newest_judgement_counts() -> None:
    made = decision(2, "dtr").event
    first = outcome(3, made.event_id, "failure", "audit")
    then = outcome(4, made.event_id, "success", "audit")
    log = await log_of(made, first, then)
    assert await answer(log, "promises", "judged", "wrong") == [(1, 0)]
    assert await answer(log, "regret", "tier") == []


async def test_escalations_are_counted_by_reason() -> None:
    made = [
        decision(n, "imperator").event.model_copy(update={"escalation": why})
        for n, why in (
            (1, "left"),
            (2, "left"),
            (3, "promise"),
            (4, None),
        )
    ]
    log = await log_of(*made)
    assert await answer(log, "escalations", "escalation", "decisions", "share") == [
        ("left", 2, 0.5),
        ("promise", 1, 0.25),
        ("unknown", 1, 0.25),
    ]


def decided_in_retrospect(fails_every: int) -> Kept:
    """Return the tables of 190 conversations once they were decided, for several questions."""

    async def read() -> Kept:
        log = await history_log(*history(190, fails_every=fails_every))
        await Retrospector(log, settings()).run()
        end = await log.log.end(await log.log.topics())
        return Kept(await LogSource(log).tables(KINDS, end))

    return asyncio.run(read())


@pytest.fixture(scope="module")
def well() -> Kept:
    return decided_in_retrospect(0)


@pytest.fixture(scope="module")
def failing() -> Kept:
    return decided_in_retrospect(9)


async def told(kept: Kept, name: str, *columns: str, **params: str) -> list[tuple[Any, ...]]:
    return [tuple(row[one] for one in columns) for row in await recalled(kept, name, **params)]


async def test_regret_shows_what_was_chosen_beside_what_was_done(failing: Kept) -> None:
    columns = ("route", "arguments", "did", "did_arguments", "judged_by")
    found = await told(failing, "regret", *columns)
    # In the conversations that failed the agent looked up another order than it was asked for.
    assert found
    for route, arguments, did, did_arguments, judged_by in found:
        assert (route, did, judged_by) == ("action:get_order", "action:get_order", "record")
        assert "99999" in did_arguments
        assert "99999" not in arguments


async def test_models_stand_apart_unless_they_are_asked_together(failing: Kept) -> None:
    apart = await told(failing, "calibration", "model", "tier", "decisions")
    assert {tier for _, tier, _ in apart} == {"lppm"}
    assert [model for model, _, _ in apart] == sorted(model for model, _, _ in apart)[::-1]
    together = await told(failing, "calibration", "model", "decisions", by_model="no")
    assert {model for model, _ in together} == {None}
    assert sum(n for _, n in together) == sum(n for _, _, n in apart)


async def test_what_the_learned_process_says_of_itself_fits_what_it_delivers(well: Kept) -> None:
    found = await told(well, "calibration", "verdict", "calibration_error", by_model="no")
    assert found
    assert {verdict for verdict, _ in found} <= {"fits", "too unsure"}
    assert all(error < 0.1 for _, error in found)


async def test_learned_tells_of_each_model_what_it_saw_and_settled(well: Kept) -> None:
    columns = ("model", "conversations_seen", "decisions", "settled", "wrong")
    assert await told(well, "learned", *columns) == [
        ("seed-1", None, 60, 0, 0),
        ("first-20", 20, 60, 0, 0),
        ("first-40", 40, 120, 0, 0),
        ("first-80", 80, 240, 80, 0),
        ("first-160", 160, 90, 30, 0),
    ]


def model_call(n: int, **known: Any) -> LlmCall:
    return LlmCall(**about(n, "bot"), **known)


async def test_savings_are_calls_avoided_at_what_calls_took_and_unknown_stays_unknown() -> None:
    columns = ("mode", "calls_avoided", "tokens_in_avoided", "usd_avoided")
    made = [decision(1, "dtr"), decision(2, "dtr"), decision(3, "imperator")]
    nothing = await log_of(*made)
    assert await answer(nothing, "savings", *columns) == [("live", 2, None, None)]
    free = await log_of(*made, model_call(4, tokens_in=1_000, tokens_out=100))
    assert await answer(free, "savings", *columns) == [("live", 2, 2_000, None)]
    priced = {"usd_in": "2.5", "usd_out": "10"}
    # 2 calls of 1,000 tokens at 2.5 and 100 at 10 dollars a million.
    assert await answer(free, "savings", *columns, **priced) == [("live", 2, 2_000, 0.01)]
    paid = await log_of(*made, model_call(4, cost_usd=0.5), model_call(5, tokens_in=10))
    # The cost of one of the two calls is known, so that of one of the two that were avoided.
    assert await answer(paid, "savings", *columns) == [("live", 2, 20, 0.5)]
    assert await answer(paid, "savings", "calls_of_unknown_cost") == [(1,)]
    with pytest.raises(BadParameter, match="usd_in"):
        await answer(free, "savings", *columns, usd_in="cheap")
