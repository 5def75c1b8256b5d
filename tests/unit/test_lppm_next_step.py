"""The next step: which call comes next, and when to leave it to the language model."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.talks import cases

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.cases import Answer
from madlog.processors.lppm.next_step import NextStep
from madlog.processors.promise import threshold

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> NextStep:
    return NextStep.learn(cases(range(60)))


def _digest(model: NextStep) -> str:
    return hashlib.sha256(json.dumps(model.to_document()).encode()).hexdigest()


def test_the_next_call_is_settled_with_its_arguments(model: NextStep) -> None:
    acts = cases([301])[0].acts
    step = model.predict(acts[:3], 0.1)
    assert (step.action, step.arguments) == ("get_user", {"user_id": "ann_lee_1301"})
    step = model.predict(acts[:5], 0.1)
    assert (step.action, step.arguments) == ("move_booking", {"booking_id": "B1K301", "fee": 0})


def test_the_answer_decides_between_a_call_and_words(model: NextStep) -> None:
    acts = cases([300])[0].acts
    assert model.likeliest(acts[:5]).label == "say"
    assert model.predict(acts[:5], 0.1) == (
        None,
        None,
        model.likeliest(acts[:5]).score,
        "words come next",
        None,
    )


def test_a_call_whose_arguments_are_not_found_is_left_to_the_language_model(
    model: NextStep,
) -> None:
    acts = list(cases([301])[0].acts[:3])
    acts[2] = replace(acts[2], said="It is, thanks.")
    assert model.predict(acts, 0.5).action is None


def test_a_promise_that_too_few_examples_can_keep_settles_nothing(model: NextStep) -> None:
    step = model.predict(cases([301])[0].acts[:3], 0.001)
    assert step.action is None
    assert "0.001" in step.reason


def test_a_stricter_promise_never_settles_more(model: NextStep) -> None:
    points = [point for case in cases(range(200, 215)) for point in case.points()]
    settled = [
        sum(model.predict(point.past, error).action is not None for point in points)
        for error in (0.01, 0.05, 0.2)
    ]
    assert settled == sorted(settled)


def test_too_few_conversations_promise_nothing() -> None:
    small = NextStep.learn(cases(range(2)))
    assert small.trials == ()
    assert small.predict(cases([301])[0].acts[:3], 0.5).action is None


def test_no_decision_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no decision"):
        NextStep.learn([])


@pytest.mark.parametrize("result", [None, "failure", "success"])
def test_what_the_process_settled_itself_is_proof_where_it_is_known_to_have_ended_well(
    result: str | None,
) -> None:
    learnt = [
        replace(case, result=result, acts=tuple(replace(act, tier="lppm") for act in case.acts))
        for case in cases(range(30))
    ]
    assert bool(NextStep.learn(learnt).trials) == (result == "success")


def test_an_action_that_is_wrong_by_itself_does_not_hide_behind_the_others(
    model: NextStep,
) -> None:
    acts = cases([301])[0].acts
    score = model.predict(acts[:5], 0.1).score
    good = [(score + 1, True)] * 400
    bad = [(score, True)] * 20 + [(score, False)] * 12
    tried = ("get_user",) * len(good) + ("move_booking",) * len(bad)
    trials = tuple(good + bad)
    mixed = replace(model, trials=trials, tried=tried, families=(), _thresholds={}, _poor={})
    assert mixed.predict(acts[:3], 0.1).action == "get_user"
    step = mixed.predict(acts[:5], 0.1)
    assert step.action is None
    assert step.reason == "move_booking was wrong in 12 of 32 trials of its own"
    untold = replace(mixed, tried=(), _thresholds={}, _poor={})
    assert untold.predict(acts[:5], 0.1).action == "move_booking"


def test_a_request_of_a_new_kind_is_nobodys_to_guess(model: NextStep) -> None:
    (case,) = cases([301])
    assert model.predict(case.acts[:3], 0.1).action is not None
    strange = "Würden Sie bitte unverzüglich meine Anschrift berichtigen"
    asked = [replace(act, said=strange) if act.human else act for act in case.acts[:3]]
    step = model.predict(asked, 0.1)
    assert (step.action, step.arguments) == (None, None)
    assert "of these words are known" in step.reason


def test_a_model_comes_back_from_its_file(model: NextStep) -> None:
    again = NextStep.from_document(json.loads(json.dumps(model.to_document())))
    assert _digest(again) == _digest(model)
    for point in (point for case in cases(range(100, 104)) for point in case.points()):
        assert again.predict(point.past, 0.1) == model.predict(point.past, 0.1)


def test_a_call_says_how_often_such_calls_are_right(model: NextStep) -> None:
    step = model.predict(cases([301])[0].acts[:3], 0.1)
    assert model.calibration is not None
    assert step.confidence == model.calibration.confidence(step.score)
    right = sum(right for score, right in model.trials if score >= step.score)
    count = sum(score >= step.score for score, _ in model.trials)
    assert step.confidence == pytest.approx(right / count, abs=0.05)


def test_a_model_from_before_confidence_was_measured_decides_as_it_did(model: NextStep) -> None:
    document = model.to_document()
    del document["calibration"]
    old = NextStep.from_document(document)
    assert old.to_document() == document
    for point in (point for case in cases(range(100, 104)) for point in case.points()):
        was, now = old.predict(point.past, 0.1), model.predict(point.past, 0.1)
        assert was[:4] == now[:4]
        assert was.confidence == (None if was.action is None else 0.9)


def test_a_model_says_which_trials_are_of_one_task_and_an_older_one_decides_without() -> None:
    known = cases(range(40))
    tasks = {case.conversation_id: f"task {n // 4}" for n, case in enumerate(known)}
    model = NextStep.learn(known, families=tasks)
    assert set(model.families) == set(range(10))
    document = model.to_document()
    assert NextStep.from_document(document).families == model.families
    del document["families"]
    old = NextStep.from_document(document)
    assert old.to_document() == document
    acts = cases([301])[0].acts
    # 10 tasks are too few for 10 %, however many trials there were of them.
    assert old.predict(acts[:3], 0.1).action == "get_user"
    assert model.predict(acts[:3], 0.1).action is None


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("more", 1, "exactly"),
        ("families", [-1], "families"),
        ("families", [1], "one number a trial"),
        ("calibration", [[1, 3, 2]], "calibration"),
        ("format", "x", "'x'"),
        ("trials", [[1, 2]], "trials"),
        ("words", {"w:a": -1}, "words"),
        ("judge", {}, "linear model"),
    ],
)
def test_a_spoilt_file_is_refused(model: NextStep, name: str, value: Any, told: str) -> None:
    document = json.loads(json.dumps(model.to_document()))
    document[name] = value
    with pytest.raises(InvalidModel, match=told):
        NextStep.from_document(document)


def test_the_order_of_the_input_changes_nothing(model: NextStep) -> None:
    assert _digest(NextStep.learn(reversed(cases(range(60))))) == _digest(model)


_PROGRAM = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from tests.unit.talks import cases
from madlog.processors.lppm.mining import mine
from madlog.processors.lppm.next_step import NextStep
learnt = cases(range(30))
print(hashlib.sha256(json.dumps(NextStep.learn(learnt).to_document()).encode()).hexdigest())
print(mine(learnt, "p").version)
"""


def test_two_hash_seeds_learn_the_same_bytes() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(_ROOT)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_the_promise_rests_on_conversations_that_were_held_apart(model: NextStep) -> None:
    assert len(model.trials) > 100
    assert threshold(model.trials, 0.1) is not None


def test_what_a_cheap_tier_did_in_vain_is_not_learned_as_right() -> None:
    (case,) = cases([301])
    at, call = next((at, act) for at, act in enumerate(case.acts) if act.action)
    failed = replace(call, answer=Answer(False, "not any more"), event_id="failed", tier="lppm")
    tried = replace(case, acts=(*case.acts[:at], failed, *case.acts[at:]))
    assert tried.mended.acts == case.acts
    by_model = replace(tried, acts=tuple(replace(act, tier="imperator") for act in tried.acts))
    assert by_model.mended.acts == by_model.acts
