"""Each rule for outcomes: what it takes as evidence, and what it leaves alone."""

from typing import Any

import pytest
from tests.unit.outcomes_scene import MARIA, ORDERS, Scene

from madlog.processors.outcomes import RULES, Judge, UnknownRule, chosen
from madlog.processors.outcomes.rules import rule_of
from madlog.schemas import Sender


@pytest.mark.parametrize(
    ("text", "tags", "result"),
    [
        ("👍", (), "success"),
        ("👍🏽", (), "success"),
        ("@orders 👎", (), "failure"),
        ("+1", (), "success"),
        ("-1", (), "failure"),
        ("that was it", ("good",), "success"),
        ("no, not that one #bad", (), "failure"),
        ("👍 but where is it now", (), None),
        ("+12", (), None),
    ],
)
def test_a_thumb_of_a_person_judges_the_answer_before_it(
    text: str, tags: Any, result: str | None
) -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.answer()
    scene.say(MARIA, text, "orders", tags=tags)
    assert scene.judged().said_of(decision, "thumbs") == result


def test_a_thumb_names_by_its_cause_which_answer_it_means() -> None:
    scene = Scene()
    _, first = scene.ask()
    answer = scene.answer()
    _, second = scene.ask("And where is my order 18?")
    scene.answer("Lost.")
    scene.say(MARIA, "👍", causation_id=answer)
    scene.judged()
    assert scene.said_of(first, "thumbs") == "success"
    assert scene.said_of(second, "thumbs") is None


def test_a_thumb_of_an_agent_is_no_person_s() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.answer()
    scene.say(Sender(name="dewey", kind="mad"), "👍", "orders")
    assert scene.judged().said_of(decision, "thumbs") is None


def test_an_agent_reports_its_own_end() -> None:
    scene = Scene()
    _, done = scene.ask()
    scene.answer("Refunded. #done")
    _, failed = scene.ask("Please cancel order 18 too")
    scene.answer("I may not.", tags=("failed",))
    scene.say(MARIA, "I am done #done", "orders")
    scene.judged()
    assert scene.said_of(done, "report") == "success"
    assert scene.said_of(failed, "report") == "failure"


def test_only_who_asked_acknowledges() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.answer()
    scene.say(Sender(name="jonas", kind="human"), "Thanks!", "orders")
    assert scene.judged().said_of(decision, "ack") is None
    scene.say(MARIA, "Thank you!", "orders")
    assert scene.judged().said_of(decision, "ack") == "success"


def test_asking_the_same_again_says_that_the_first_time_failed() -> None:
    scene = Scene()
    _, first = scene.ask("Where is my order 17?")
    scene.answer("Hello.")
    _, second = scene.ask("@orders where is my order, 17")
    scene.answer()
    scene.judged()
    assert scene.said_of(first, "repeat") == "failure"
    assert scene.said_of(second, "repeat") is None


@pytest.mark.parametrize("text", ["yes", "get_order 17", "HRU?", "ACK"])
def test_what_one_says_often_is_no_repeated_request(text: str) -> None:
    scene = Scene()
    _, decision = scene.ask(text)
    scene.answer()
    scene.ask(text)
    assert scene.judged().said_of(decision, "repeat") is None


def test_an_answer_that_asks_is_half_an_answer() -> None:
    scene = Scene()
    _, asked_back = scene.ask()
    scene.answer("Which one?")
    _, acted = scene.ask("The one from Monday, please")
    scene.result(scene.call())
    scene.answer("It is here. Anything else?")
    _, unclear = scene.ask("No, tell me where")
    scene.answer("Z-7.")
    scene.say(MARIA, "??", "orders")
    scene.judged()
    results = [scene.said_of(one, "clarification") for one in (asked_back, acted, unclear)]
    assert results == ["partial", None, "partial"]


def test_an_error_in_answer_is_a_failure() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.answer("No such order", intent="ERROR")
    assert scene.judged().said_of(decision, "error") == "failure"


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ((True,), "success"),
        ((False,), "failure"),
        ((False, True), "partial"),
        ((True, False), "failure"),
        ((), None),
    ],
)
def test_the_results_of_its_calls_judge_a_decision(
    results: tuple[bool, ...], verdict: str | None
) -> None:
    scene = Scene()
    _, decision = scene.ask()
    for ok in results:
        scene.result(scene.call(), ok)
    scene.answer()
    assert scene.judged().said_of(decision, "tool") == verdict


def test_a_result_without_a_call_judges_nothing() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.result("01890000-0000-7000-8000-0000000000ff", ok=False)
    assert scene.judged().outcomes(decision) == {}


def test_no_answer_in_time_is_a_failure_and_a_late_one_is_partial() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.created(conversation_id="other", after_s=299)
    assert scene.judged().said_of(decision, "timeout") is None
    scene.created(conversation_id="another", after_s=2)
    assert scene.judged().said_of(decision, "timeout") == "failure"
    scene.answer()
    assert scene.judged().said_of(decision, "timeout") == "partial"


def test_a_time_out_is_taken_back_when_the_answer_was_in_time_after_all() -> None:
    scene = Scene()
    turn, decision = scene.ask()
    scene.created(conversation_id="other", after_s=400)
    assert scene.judged().said_of(decision, "timeout") == "failure"
    scene.answer(occurred_at=2_000_000, causation_id=turn)
    assert scene.judged().said_of(decision, "timeout") is None
    assert scene.verdict(decision) is None
    assert scene.judged().events[-1].fields["extra"] == {"withdrawn": "true"}


@pytest.mark.parametrize("fields", [{"intent": "TERMINATE"}, {"time_source": "synthetic"}])
def test_a_turn_that_wants_no_answer_times_out_for_nobody(fields: dict[str, Any]) -> None:
    scene = Scene()
    _, decision = scene.ask(**fields)
    scene.created(conversation_id="other", after_s=1000)
    assert scene.judged().said_of(decision, "timeout") is None


def test_a_note_taken_owes_no_answer() -> None:
    scene = Scene()
    decision = scene.decide(scene.say(MARIA, "All is well here", "orders"), "ack")
    scene.created(conversation_id="other", after_s=1000)
    assert scene.judged().said_of(decision, "timeout") is None


def test_a_higher_tier_corrects_or_confirms_the_lower_one() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "EXECUTE: cancel 17", "orders")
    wrong = scene.decide(turn, "action:cancel")
    right = scene.decide(turn, "action:refund", tier="lppm")
    judge = scene.decide(turn, "action:refund", tier="imperator", mode="shadow")
    scene.judged()
    assert scene.said_of(wrong, "correction") == "failure"
    assert scene.outcomes(wrong)["correction"].route == "action:refund"
    assert scene.said_of(right, "correction") == "success"
    assert scene.said_of(judge, "correction") is None


def test_a_turn_that_was_handed_up_was_not_corrected() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "Cancel it for me", "orders")
    handed = scene.decide(turn, "process")
    scene.decide(turn, "action:cancel", tier="imperator")
    assert scene.judged().said_of(handed, "correction") is None


@pytest.mark.parametrize("mode", ["live", "shadow", "retrospective"])
def test_who_hands_a_turn_up_says_nothing_of_what_was_right(mode: str) -> None:
    scene = Scene()
    turn = scene.say(MARIA, "EXECUTE: cancel 17", "orders")
    acted = scene.decide(turn, "action:cancel")
    scene.decide(turn, "imperator", mode=mode)
    assert scene.judged().said_of(acted, "correction") is None


def test_a_candidate_in_shadow_corrects_nobody() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "EXECUTE: cancel 17", "orders")
    acted = scene.decide(turn, "action:cancel")
    scene.decide(turn, "action:refund", tier="lppm", mode="shadow")
    assert scene.judged().said_of(acted, "correction") is None


def test_the_end_of_a_conversation_is_shared_along_the_chain_that_led_to_it() -> None:
    scene = Scene()
    first, one = scene.ask()
    second = scene.answer(causation_id=first)
    _, aside = scene.ask("And what do you think of the weather?")
    scene.answer("Nice.")
    third, two = scene.ask("Please send it to Rome", causation_id=second)
    end = scene.answer("Sent.", causation_id=third)
    scene.outcome("success", "conversation", "c", "reward", causation_id=end)
    scene.judged()
    shares = [scene.outcomes(decision).get("credit") for decision in (one, aside, two)]
    assert [share and share.quality for share in shares] == [0.5, None, 0.5]


def test_where_no_end_is_named_all_decisions_share() -> None:
    scene = Scene()
    decisions = [scene.ask(f"Question number {number} of mine")[1] for number in range(4)]
    scene.outcome("failure", "conversation", "c", "csv:tickets", causation_id=None)
    scene.judged()
    found = [scene.outcomes(decision)["credit"] for decision in decisions]
    assert {(one.result, one.quality) for one in found} == {("failure", 0.25)}


def test_a_decision_in_shadow_did_nothing_that_could_have_failed() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "Where is my order?", "orders")
    shadow = scene.decide(turn, mode="shadow")
    scene.result(scene.call(), ok=False)
    scene.answer("No.", intent="ERROR", tags=("failed",))
    scene.say(MARIA, "👎", "orders")
    assert scene.judged().outcomes(shadow) == {}


def test_an_agent_s_turn_without_a_cause_answers_the_newest_turn_to_it() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.say(ORDERS, "Done that. #done", causation_id=None)
    assert scene.judged().said_of(decision, "report") == "success"


@pytest.mark.parametrize("rule", [name for name, one in RULES.items() if one.judge])
def test_each_rule_can_be_switched_off_alone(rule: str) -> None:
    def everything() -> Scene:
        scene = Scene()
        turn, _ = scene.ask()
        scene.decide(turn, "action:x")
        scene.decide(turn, "action:y", tier="lppm")
        scene.result(scene.call(), ok=False)
        scene.answer("Sorry #failed", intent="ERROR")
        scene.say(MARIA, "👎", "orders")
        scene.ask()
        scene.answer("Which one?", after_s=400)
        scene.say(MARIA, "thanks", "orders")
        scene.outcome("failure", "conversation", "c", "reward")
        return scene

    def rules_of(scene: Scene) -> set[str]:
        return {event.fields["judged_by"] for event in scene.events if event.kind == "Outcome"}

    assert rules_of(everything().judged()) == set(RULES) - {"audit"}
    without = everything().judged(Judge(rules=chosen(f"-{rule}")))
    assert rules_of(without) == set(RULES) - {"audit", rule}
    alone = everything().judged(Judge(rules=chosen(f"{rule},reward")))
    assert rules_of(alone) == {rule, "reward"}


def test_a_setting_names_rules_or_is_refused() -> None:
    assert chosen() == tuple(RULES)
    assert chosen(" tool, thumbs ") == ("thumbs", "tool")
    assert "tool" not in chosen("-tool")
    with pytest.raises(UnknownRule, match=r"no rule 'tols'.*thumbs, reward"):
        chosen("-tols")
    with pytest.raises(UnknownRule):
        Judge(rules=["nonsense"])


def test_credit_is_taken_from_no_judge_that_is_switched_off() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.outcome("success", "conversation", "c", "reward", causation_id=None)
    assert scene.judged(Judge(rules=chosen("-reward"))).said_of(decision, "credit") is None


def test_the_order_of_trust() -> None:
    names = ["ack", "credit", "tool", "correction", "csv:x", "report", "thumbs"]
    assert sorted(names, key=lambda name: rule_of(name)[0]) == [
        "thumbs",
        "report",
        "csv:x",
        "correction",
        "tool",
        "credit",
        "ack",
    ]
