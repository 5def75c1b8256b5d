"""What Control events say, folded."""

from typing import Any

import pytest

from madlog.processors.control import (
    NOTHING,
    bucket,
    flag,
    fold,
    overridden,
    serving,
    stopped,
)
from madlog.processors.errors import InvalidControl

ONE, TWO = "0193a000-0000-7000-8000-000000000001", "0193a000-0000-7000-8000-000000000002"


def told(*events: dict[str, Any]) -> Any:
    controls: Any = NOTHING
    blank = dict.fromkeys(("tier", "value", "name", "about_id", "expires_at", "reason"))
    for event in events:
        controls = fold(controls, {"event_id": ONE, "target": "all", **blank, **event})
    return controls


def rollout(model: str, value: str) -> dict[str, Any]:
    return {"target": "routing", "command": "rollout", "about_id": model, "value": value}


def test_the_kill_switch_stops_an_agent_a_tier_or_all() -> None:
    one = told({"command": "stop", "target": "refunds", "reason": "it errs"})
    assert stopped(one, "refunds", "dtr", 0) == "refunds/all is stopped: it errs"
    assert stopped(one, "billing", "dtr", 0) is None
    tier = told({"command": "stop", "tier": "lppm"})
    assert stopped(tier, "billing", "lppm", 0) == "all/lppm is stopped"
    assert stopped(tier, "billing", "dtr", 0) is None


def test_what_was_stopped_starts_again_by_the_same_name_or_when_its_time_is_up() -> None:
    stop = {"command": "stop", "target": "refunds", "expires_at": 10}
    assert stopped(told(stop), "refunds", "dtr", 9)
    assert stopped(told(stop), "refunds", "dtr", 10) is None
    assert (
        stopped(told(stop, {"command": "start", "target": "refunds"}), "refunds", "dtr", 9) is None
    )


def test_an_override_holds_until_it_is_taken_back() -> None:
    override = {"command": "override", "target": "refunds", "value": "imperator"}
    assert overridden(told(override), "refunds", 0) == "imperator"
    assert overridden(told(override), "billing", 0) is None
    assert overridden(told(override, {**override, "value": None}), "refunds", 0) is None


def test_an_agents_flag_goes_before_that_of_all() -> None:
    everyone = {"command": "flag", "name": "conducting", "value": "on"}
    one = {**everyone, "target": "refunds", "value": "off"}
    controls = told(everyone, one)
    assert flag(controls, "conducting", "billing", 0) is True
    assert flag(controls, "conducting", "refunds", 0) is False
    assert flag(controls, "another", "refunds", 0) is None


def test_a_candidate_decides_its_share_of_conversations_and_beside_the_others() -> None:
    controls = told(rollout(ONE, "100"), rollout(TWO, "10"))
    names = [f"conversation-{number}" for number in range(2_000)]
    own = [name for name in names if serving(controls, "routing", name) == (TWO, None)]
    assert {bucket(name) for name in own} == set(range(10))
    assert all(serving(controls, "routing", name) in ((TWO, None), (ONE, TWO)) for name in names)


def test_a_conversation_stays_with_a_candidate_as_its_share_grows() -> None:
    for name in map(str, range(300)):
        small = serving(told(rollout(ONE, "10")), "routing", name)[0]
        large = serving(told(rollout(ONE, "10"), rollout(ONE, "50")), "routing", name)[0]
        assert small is None or large == small


def test_a_model_that_is_taken_back_leaves_the_one_before() -> None:
    served = told(rollout(ONE, "100"), rollout(TWO, "100"), rollout(TWO, "back"))
    assert serving(served, "routing", "c") == (ONE, None)
    candidate = told(rollout(ONE, "100"), rollout(TWO, "50"), rollout(TWO, "back"))
    assert serving(candidate, "routing", "c") == (ONE, None)
    assert serving(told(rollout(ONE, "shadow")), "routing", "c") == (None, ONE)


@pytest.mark.parametrize(
    "event",
    [
        {"command": "explode"},
        {"command": "flag", "name": "x", "value": "maybe"},
        {"command": "flag", "value": "on"},
        {"command": "rollout", "value": "70", "about_id": ONE},
        {"command": "rollout", "value": "50"},
    ],
)
def test_what_nobody_can_follow_is_refused_and_says_so(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidControl, match=ONE):
        told(event)
