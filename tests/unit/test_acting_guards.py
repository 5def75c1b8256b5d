"""Each guard by itself and in its order: people's orders, approvals, budgets."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.acting_scene import SECOND, Scene, agent

from madlog.processors.acting import Budget, InvalidBudget, budget_of
from madlog.processors.acting.budgets import NEVER, Used
from madlog.processors.ports import Action

PAY = Action("pay")


async def test_a_stop_between_two_acts_lets_the_second_not_run() -> None:
    scene = Scene(agent(PAY, Action("note")))
    began, go = scene.engine.hold("pay")
    await scene.decide("pay", {})
    await scene.decide("note", {})
    running = asyncio.create_task(scene.run())
    await began.wait()
    await scene.control("stop", reason="it errs")
    go.set()
    done = await running
    assert (done.succeeded, done.refused) == (1, 1)
    assert scene.engine.actions == ["pay"]
    (outcome,) = await scene.of("Outcome")
    assert outcome["extra"]["reason"] == "stopped: shop/all is stopped: it errs"
    up = (await scene.of("Decision"))[-1]
    assert (up["escalation"], up["control_id"]) == (
        "guard",
        (await scene.of("Control"))[-1]["event_id"],
    )


async def test_a_stop_that_comes_with_the_announcement_is_still_in_time() -> None:
    scene = Scene(agent(PAY))
    await scene.decide("pay", {})
    memory: Any = scene.log.log
    transact, told = scene.log.log.transact, list[bool]()

    async def stopping(records: Any, commit: Any = None) -> Any:
        receipts = await transact(records, commit)
        if not told:
            told.append(True)
            await scene.control("stop")
        return receipts

    memory.transact = stopping
    done = await scene.run()
    assert (done.refused, scene.engine.did) == (1, [])
    (result,) = await scene.of("ToolResult")
    assert result["error"].startswith("not run: stopped: shop/all is stopped")
    assert (await scene.another().run()).succeeded == 0


@pytest.mark.parametrize(
    ("order", "rule", "what"),
    [
        ({"command": "stop", "target": "all"}, "stopped", "refused"),
        ({"command": "stop", "target": "all", "tier": "lppm"}, "stopped", "refused"),
        ({"command": "stop", "tier": "dtr"}, None, "ran"),
        ({"command": "stop", "target": "another"}, None, "ran"),
        ({"command": "stop", "expires_at": 1}, None, "ran"),
        ({"command": "override", "value": "imperator"}, "override", "refused"),
        ({"command": "override", "value": "action:pay"}, None, "ran"),
        ({"command": "flag", "name": "acting", "value": "off"}, "flag", "waits"),
        ({"command": "flag", "name": "acting", "value": "on"}, None, "ran"),
        ({"command": "flag", "name": "action:pay", "value": "off"}, "flag", "refused"),
        ({"command": "flag", "name": "action:note", "value": "off"}, None, "ran"),
        ({"command": "budget", "name": "few", "value": '{"acts": 0}'}, "budget", "waits"),
        ({"command": "budget", "name": "few", "value": "nonsense"}, None, "ran"),
        ({"command": "explode"}, None, "ran"),
    ],
)
async def test_what_people_order_goes_before_what_was_decided(
    order: dict[str, Any], rule: str | None, what: str
) -> None:
    scene = Scene(agent(PAY))
    await scene.control(**order)
    await scene.decide("pay", {})
    done = await scene.run()
    assert (done.refused, done.succeeded, len(done.waiting)) == {
        "refused": (1, 0, 0),
        "ran": (0, 1, 0),
        "waits": (0, 0, 1),
    }[what]
    rules = await scene.refusals() + [one.rule for one in done.waiting.values()]
    assert rules == ([] if rule is None else [rule])


async def test_what_a_flag_holds_back_runs_when_it_is_on_again() -> None:
    scene = Scene(agent(PAY))
    await scene.control("flag", "all", name="acting", value="off")
    for number in range(3):
        await scene.decide("pay", {}, conversation=f"c{number}")
    assert len((await scene.run()).waiting) == 3
    await scene.control("flag", "all", name="acting", value="on")
    assert (await scene.run()).succeeded == 3


# ---------------------------------------------------------------- approvals


RISKY = agent(Action("pay", "high"))


async def test_an_act_of_high_risk_waits_for_an_approval() -> None:
    scene = Scene(RISKY)
    decision = await scene.decide("pay", {"amount": 5})
    done = await scene.run()
    assert (done.asked, [one.rule for one in done.waiting.values()]) == (1, ["approval"])
    (ask,) = await scene.of("Control")
    assert (ask["command"], ask["target"], ask["about_id"]) == ("ask", "shop", decision)
    assert ask["value"] == '{"action":"pay","arguments":{"amount":5}}'
    assert ask["expires_at"] == ask["occurred_at"] + 3_600 * SECOND
    assert done.until == ask["expires_at"]
    # Asking again asks nobody twice.
    assert (await scene.another().run()).asked == 0
    await scene.control("approve", about_id=decision)
    assert (await scene.run()).succeeded == 1


async def test_what_is_refused_by_a_person_goes_up_with_the_reason() -> None:
    scene = Scene(RISKY)
    decision = await scene.decide("pay", {})
    await scene.run()
    await scene.control("refuse", about_id=decision, reason="too much")
    assert (await scene.run()).refused == 1
    await scene.control("approve", about_id=decision)
    await scene.run()
    (outcome,) = await scene.of("Outcome")
    assert outcome["extra"]["reason"] == "approval: ops refused it: too much"
    assert scene.engine.did == []


async def test_what_nobody_approves_in_time_expires_and_a_late_approval_changes_nothing() -> None:
    scene = Scene(RISKY, approval_timeout_s=60)
    decision = await scene.decide("pay", {})
    await scene.run()
    scene.clock.move(60)
    late = await scene.control("approve", about_id=decision)
    assert (await scene.run()).refused == 1
    commands = [(one["command"], one["about_id"]) for one in await scene.of("Control")]
    assert commands == [("ask", decision), ("approve", decision), ("expire", decision)]
    assert late
    await scene.control("approve", about_id=decision)
    await scene.another().run()
    assert scene.engine.did == []
    assert await scene.refusals() == ["approval"]


async def test_an_approval_in_time_counts_however_late_the_worker_looks() -> None:
    scene = Scene(RISKY, approval_timeout_s=60)
    decision = await scene.decide("pay", {})
    await scene.run()
    scene.clock.move(59)
    await scene.control("approve", about_id=decision)
    scene.clock.move(100)
    assert (await scene.run()).succeeded == 1


async def test_nobody_can_be_asked_about_an_act_whose_time_is_up() -> None:
    scene = Scene(RISKY, approval_timeout_s=60)
    await scene.decide("pay", {})
    scene.clock.move(60)
    assert (await scene.run()).refused == 1
    assert await scene.of("Control") == []


async def test_an_approval_before_the_question_approves_nothing() -> None:
    scene = Scene(RISKY)
    decision = await scene.decide("pay", {})
    await scene.control("approve", about_id=decision)
    assert len((await scene.run()).waiting) == 1
    assert scene.engine.did == []


async def test_nobody_is_asked_about_what_would_be_refused() -> None:
    scene = Scene(agent(Action("pay", "high", ("requires:amount",))))
    await scene.decide("pay", {})
    assert (await scene.run()).refused == 1
    assert await scene.of("Control") == []


async def test_preconditions_are_checked_again_after_the_approval() -> None:
    scene = Scene(agent(Action("pay", "high", ("once-per:order",))))
    first = await scene.decide("pay", {"order": 1}, conversation="c")
    second = await scene.decide("pay", {"order": 1}, conversation="d")
    assert (await scene.run()).asked == 2
    await scene.control("approve", about_id=second)
    await scene.control("approve", about_id=first)
    done = await scene.run()
    assert (done.succeeded, done.refused) == (1, 1)
    assert len(scene.engine.did) == 1
    assert await scene.refusals() == ["once-per:order"]


# ---------------------------------------------------------------- budgets


def budgeted(**value: Any) -> dict[str, Any]:
    return {"budgets": {"shop": {"limit": budget_of("limit", value)}}}


async def test_acts_over_a_budget_wait_until_the_window_has_moved_on_and_none_is_lost() -> None:
    scene = Scene(agent(PAY), **budgeted(acts=2, window_s=60))
    for number in range(5):
        await scene.decide("pay", {}, conversation=f"c{number}")
    done = await scene.run()
    assert (done.succeeded, len(done.waiting)) == (2, 3)
    assert {one.rule for one in done.waiting.values()} == {"budget"}
    assert done.until == scene.clock.us + 60 * SECOND
    scene.clock.move(59)
    assert (await scene.run()).succeeded == 0
    scene.clock.move(1)
    assert (await scene.another().run()).succeeded == 2
    scene.clock.move(60)
    assert (await scene.run()).succeeded == 1
    assert len({key for _, _, key in scene.engine.did}) == 5
    assert await scene.refusals() == []


async def test_a_budget_of_a_risk_counts_acts_of_that_risk_only() -> None:
    agents = agent(PAY, Action("move", "medium"))
    scene = Scene(agents, **budgeted(acts=1, window_s=60, risk="medium"))
    for number, action in enumerate(["pay", "move", "pay", "move"]):
        await scene.decide(action, {}, conversation=f"c{number}")
    done = await scene.run()
    assert sorted(scene.engine.actions) == ["move", "pay", "pay"]
    assert len(done.waiting) == 1


async def test_an_agent_that_spent_its_money_waits_and_unknown_cost_is_not_counted() -> None:
    scene = Scene(agent(PAY), **budgeted(cost_usd=1, window_s=60))
    await scene.spent(0.5)
    await scene.spent(None)
    await scene.spent(9, "another")
    assert (await scene.actor.spending("shop")).what == "run"
    scene.clock.move(10)
    await scene.spent(0.5)
    await scene.decide("pay", {})
    assert (await scene.actor.spending("shop")).rule == "budget"
    done = await scene.run()
    assert [one.rule for one in done.waiting.values()] == ["budget"]
    assert done.until == scene.clock.us + 50 * SECOND
    scene.clock.move(50)
    assert (await scene.run()).succeeded == 1


async def test_an_ordered_budget_takes_the_place_of_the_file_s_until_it_is_taken_back() -> None:
    scene = Scene(agent(PAY), **budgeted(acts=1, window_s=60))
    for number in range(4):
        await scene.decide("pay", {}, conversation=f"c{number}")
    assert (await scene.run()).succeeded == 1
    await scene.control("budget", name="limit", value='{"acts": 3, "window_s": 60}')
    assert (await scene.run()).succeeded == 2
    await scene.control("budget", name="limit")
    assert (await scene.run()).succeeded == 0
    scene.clock.move(60)
    assert (await scene.run()).succeeded == 1


async def test_two_workers_do_not_share_out_more_than_a_budget_allows() -> None:
    scene = Scene(agent(PAY), **budgeted(acts=3, window_s=60))
    for number in range(9):
        await scene.decide("pay", {}, conversation=f"c{number}")
    actors = [scene.another(), scene.another()]
    for window in range(1, 4):
        for _ in range(6):
            await asyncio.gather(*(actor.run() for actor in actors))
        assert len(scene.engine.did) <= 3 * window
        scene.clock.move(60)
    for _ in range(6):
        await scene.run()
        scene.clock.move(60)
    assert sorted({key for _, _, key in scene.engine.did}) == sorted(
        key for _, _, key in scene.engine.did
    )
    assert len(scene.engine.did) == 9


@given(
    acts=st.integers(1, 5),
    window_s=st.integers(1, 20),
    moves=st.lists(st.integers(0, 15), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_acts_than_the_budget_and_each_gets_its_turn(
    acts: int, window_s: int, moves: list[int]
) -> None:
    budget = Budget("b", acts=acts, window_s=window_s)
    used, now, waiting, ran = Used(), 1_000 * SECOND, 0, []
    for move in moves:
        now += move * SECOND
        waiting += 1
        while waiting and (used.free_at("a", budget, now)) <= now:
            used.act("a", "low", now)
            ran.append(now)
            waiting -= 1
    while waiting:
        free_at = used.free_at("a", budget, now)
        assert free_at != NEVER
        # It says when: not a moment later than need be, and never before.
        assert used.free_at("a", budget, free_at - 1) > free_at - 1 or free_at <= now
        now = max(now, free_at)
        used.act("a", "low", now)
        ran.append(now)
        waiting -= 1
    assert len(ran) == len(moves)
    for start in ran:
        inside = [at for at in ran if start <= at < start + window_s * SECOND]
        assert len(inside) <= acts


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 300)), max_size=30))
def test_money_is_free_when_the_window_holds_less_than_the_limit(
    costs: list[tuple[int, int]],
) -> None:
    budget = Budget("b", cost_usd=5.0, window_s=20)
    used = Used()
    for at, cents in costs:
        used.cost("a", at * SECOND, cents / 100)
    for now in range(0, 130, 3):
        spent = sum(cents for at, cents in costs if now - 20 < at)
        free_at = used.free_at("a", budget, now * SECOND)
        assert (free_at <= now * SECOND) is (spent < 500)
        if free_at > now * SECOND:
            then = free_at // SECOND
            assert sum(cents for at, cents in costs if then - 20 < at) < 500


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "give either acts or cost_usd"),
        ({"acts": 1, "cost_usd": 1}, "give either acts or cost_usd"),
        ({"acts": -1}, "acts is a whole number"),
        ({"acts": True}, "acts is a whole number"),
        ({"acts": 1.5}, "acts is a whole number"),
        ({"cost_usd": float("nan")}, "cost_usd is a number of dollars"),
        ({"cost_usd": "5"}, "cost_usd is a number of dollars"),
        ({"acts": 1, "window_s": 0}, "window_s is a whole number"),
        ({"acts": 1, "window_s": 10**9}, "31 days"),
        ({"acts": 1, "risk": "huge"}, "risk is one of"),
        ({"cost_usd": 1, "risk": "low"}, "goes with acts only"),
        ({"act": 1}, "has no 'act'"),
        ("[1]", "is no object"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_budget_that_nobody_can_keep_is_refused(value: Any, said: str) -> None:
    with pytest.raises(InvalidBudget, match=said):
        budget_of("limit", value)


def test_a_budget_comes_back_from_its_own_text() -> None:
    for value in ({"acts": 3, "window_s": 60, "risk": "high"}, {"cost_usd": 2.5, "window_s": 9}):
        budget = budget_of("b", value)
        assert budget_of("b", budget.json()) == budget
