"""Labels: which route would have been right, told only where the outcome is known."""

import pytest
from tests.unit.outcomes_scene import MARIA, Scene

from madlog.processors.outcomes import Label, chosen, known, label


def _thumb(scene: Scene, text: str = "👍") -> Scene:
    scene.say(MARIA, text, "orders")
    return scene.judged()


def test_without_an_outcome_there_is_no_label() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.answer()
    assert label(decision, scene.judged().facts()) is None


def test_a_first_call_that_ended_well_is_the_right_action() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.answer("Let me see.")
    scene.result(scene.call("get_order"))
    scene.result(scene.call("ship_order"))
    scene.answer()
    assert label(decision, scene.judged().facts()) == Label(
        "action:get_order", 0.7, "tool", '{"id": 17}'
    )


@pytest.mark.parametrize("result", ["failure", "partial"])
def test_what_ended_badly_teaches_nothing(result: str) -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.result(scene.call(), ok=False)
    if result == "partial":
        scene.result(scene.call())
    scene.judged()
    assert scene.said_of(decision, "tool") == result
    assert label(decision, scene.facts()) is None


@pytest.mark.parametrize(
    ("asked", "answered", "route"),
    [
        ("Where is my order?", "On its way.", "imperator"),
        ("HRU?", "Well, thanks.", "health"),
        ("I have sent it back now", "ACK", "ack"),
    ],
)
def test_an_answer_that_ended_well_is_the_right_route(
    asked: str, answered: str, route: str
) -> None:
    scene = Scene()
    _, decision = scene.ask(asked)
    scene.answer(answered)
    found = label(decision, _thumb(scene).facts())
    assert found == Label(route, 1.0, "thumbs")


def test_success_without_anything_done_has_no_label() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.outcome("success", "decision", decision, "csv:review")
    assert label(decision, scene.judged().facts()) is None
    assert label("unknown", scene.facts()) is None


def test_a_correction_names_the_right_route_of_what_was_wrong() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "EXECUTE: cancel 17", "orders")
    decision = scene.decide(turn, "action:cancel")
    scene.decide(turn, "action:refund", tier="imperator")
    assert label(decision, scene.judged().facts()) == Label("action:refund", 0.9, "correction")


def test_an_audit_names_the_right_route() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "EXECUTE: cancel 17", "orders")
    decision = scene.decide(turn, "action:cancel")
    extra = {"route": "imperator"}
    scene.outcome("failure", "decision", decision, "audit", extra=extra)
    assert label(decision, scene.judged().facts()) == Label("imperator", 0.9, "audit")


def test_the_strongest_judge_counts_and_of_equals_the_newest() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.result(scene.call(), ok=False)
    scene.answer()
    scene.judged()
    found = scene.verdict(decision)
    assert found is not None
    assert (found.result, found.judged_by) == ("failure", "tool")
    scene.outcome("failure", "decision", decision, "csv:a")
    scene.outcome("partial", "decision", decision, "csv:b", quality=0.4)
    found = scene.verdict(decision)
    assert found is not None
    assert (found.result, found.judged_by, found.quality) == ("partial", "csv:b", 0.4)
    assert known(_thumb(scene).facts().outcomes(decision)) != found


def test_a_rule_that_is_switched_off_is_believed_no_more() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.result(scene.call())
    facts = scene.judged().facts()
    assert known(facts.outcomes(decision)) is not None
    assert known(facts.outcomes(decision), chosen("-tool")) is None
    assert label(decision, facts, chosen("-tool")) is None


def test_a_share_weighs_by_its_size_and_a_later_end_corrects_it() -> None:
    scene = Scene()
    decisions = []
    for number in range(2):
        decisions.append(scene.ask(f"Question {number} of mine")[1])
        scene.answer()
    scene.outcome("success", "conversation", "c", "reward")
    facts = scene.judged().facts()
    assert [label(one, facts) for one in decisions] == [Label("imperator", 0.25, "credit")] * 2
    scene.outcome("failure", "conversation", "c", "csv:reopened")
    facts = scene.judged().facts()
    assert [label(one, facts) for one in decisions] == [None, None]
