"""Asked so often with the same answer, a tier below may give it; when it errs, no longer."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.counting import event_id, read, run
from tests.unit.imperator_scene import AGENTS, Told, escalations, fields_of, log_with, turn_of
from tests.unit.test_questions import answer

from madlog.analytics.questions import question
from madlog.processors import Router
from madlog.processors.dtr.grown import confidence
from madlog.processors.dtr.memo import Memo
from madlog.processors.dtr.seed_model import seed_model, seed_tree
from madlog.processors.dtr.tree import Tree
from madlog.processors.imperator import Answer
from madlog.processors.imperator.comparing import Did
from madlog.processors.imperator.labels import TOPICS, LiveLabels, labels
from madlog.processors.imperator.repeats import FormCount, Observed, Repeats, tree_route
from madlog.processors.rollout import Rollout, RolloutSettings
from madlog.processors.rollout.canary import is_canary
from madlog.processors.tiers import TierModels
from madlog.schemas import Event, Outcome, Sender
from madlog.topics import EventLog

PING = "EXECUTE: ping"
SAME = Answer.acts("get_order")
COLUMNS = ("recipient", "answer", "asked", "same", "failures", "state")
FORM = ("a", 1)


def seen(answers: Sequence[Did | None], failed: Sequence[int] = ()) -> FormCount:
    repeats = Repeats.of(
        Observed("orders", FORM, "none", did, number in failed)
        for number, did in enumerate(answers)
    )
    return repeats.forms["orders", FORM]


ORDER, REFUND = Did("action:get_order", "{}"), Did("action:refund", None)


def test_five_times_the_same_promotes_and_four_times_does_not() -> None:
    assert seen([ORDER] * 4).state == "asked"
    five = seen([ORDER] * 5)
    assert (five.state, five.route, five.asked, five.same) == ("promoted", ORDER.route, 5, 5)


def test_another_answer_or_a_failure_demotes_until_it_is_the_same_five_times_again() -> None:
    assert seen([ORDER] * 5 + [REFUND]).state == "demoted"
    assert seen([ORDER] * 6, failed=[5]).state == "demoted"
    assert seen([ORDER] * 5 + [None], failed=[5]).state == "demoted"
    assert seen([ORDER] * 5 + [REFUND] * 4).state == "demoted"
    assert seen([ORDER] * 5 + [REFUND] * 5).route == REFUND.route
    assert seen([ORDER] * 11, failed=[5]).state == "promoted"


def test_a_failure_among_them_is_no_repetition() -> None:
    assert seen([ORDER] * 8, failed=[4]).state == "asked"


@pytest.mark.parametrize(
    ("did", "verb", "route"),
    [
        (ORDER, "none", "action:get_order"),
        (Did("action:get_order", '{"args":["17"]}'), "get_order", "action:{verb}"),
        (Did("action:get_order", '{"id":17}'), "none", None),
        (Did("imperator", None), "none", None),
        (Did("ack", None), "none", "ack"),
        (Did("health", None), "health", "health"),
        (Did("action:drop table", None), "none", None),
        (None, "none", None),
    ],
)
def test_a_tree_gives_no_words_and_no_arguments(
    did: Did | None, verb: str, route: str | None
) -> None:
    assert tree_route(did, verb) == route


def test_words_are_promoted_never() -> None:
    assert seen([Did("imperator", None)] * 9).state == "asked"


def test_how_sure_it_is_comes_from_what_was_asked_after_the_promotion() -> None:
    def of(answers: Sequence[Did]) -> Repeats:
        return Repeats.of(Observed("orders", FORM, "none", did, False) for did in answers)

    assert of([ORDER] * 5).confidence("orders") == 0.0
    assert of([ORDER] * 5).rows(0.05) == []
    # 59 right ones of 59 are the fewest that promise 5 %.
    assert of([ORDER] * 63).rows(0.05) == []
    assert [row[1] for row in of([ORDER] * 64).rows(0.05)] == ["action:get_order"]


async def asked_live(count: int, log: EventLog | None = None, start: int = 1) -> EventLog:
    turns = [turn_of(n, PING, f"c{n}") for n in range(start, start + count)]
    if log is None:
        return await log_with(*turns)
    await log.append(turns)
    await run(log, Router(AGENTS, audit_rate=0.3))
    return log


async def gathered(log: EventLog) -> LiveLabels:
    found = LiveLabels()
    async for events in log.read_topics(TOPICS):
        for event in events:
            found.fold(event)
    return found


async def served(log: EventLog, tree: Tree) -> None:
    """Publish a tree to the router."""
    update = {
        "event_id": event_id(700_000),
        "version": "repeats-1",
        "idempotency_key": "repeats-1",
        "parameters": tree.text,
        "parameters_sha256": hashlib.sha256(tree.text.encode()).hexdigest(),
    }
    await log.append([seed_model().model_copy(update=update)])


async def test_what_is_promoted_is_settled_by_the_tree_and_demoted_when_audits_disagree() -> None:
    log = await asked_live(70)
    assert {one["tier"] for one in await fields_of(log, "mad.decisions")} == {"imperator"}
    await escalations(log, Told(lambda _: SAME)).run()
    repeats = (await gathered(log)).repeats()
    (row,) = await answer(log, "promoted", *COLUMNS)
    assert row == ("orders", "action:get_order", 70, 70, 0, "promoted")
    tree = repeats.applied(seed_tree(), 0.05)
    await served(log, tree)
    await asked_live(100, log, start=101)
    later = [one for one in await fields_of(log, "mad.decisions") if one["occurred_at"] > 100]
    assert {(one["tier"], one["route"]) for one in later} == {("dtr", "action:get_order")}
    # The world has changed: who is asked in the audits says so.
    await escalations(log, Told(lambda _: Answer.acts("refund"))).run()
    repeats = (await gathered(log)).repeats()
    audits = sum(one["audited"] for one in later)
    ((recipient, changed, asked, same, failures, state),) = await answer(log, "promoted", *COLUMNS)
    assert (recipient, changed, asked, same, failures) == (
        "orders",
        "action:refund",
        70 + audits,
        audits,
        0,
    )
    # It is promoted anew only by as many answers of the new kind, and not sure again for long.
    assert state == "promoted"
    assert repeats.confidence("orders") < 0.95
    assert repeats.rows(0.05) == []
    assert repeats.applied(seed_tree(), 0.05).text == seed_tree().text


async def test_a_failure_of_what_the_tree_did_takes_it_out_of_the_memo() -> None:
    log = await asked_live(70)
    await escalations(log, Told(lambda _: SAME)).run()
    tree = (await gathered(log)).repeats().applied(seed_tree(), 0.05)
    assert tree.text != seed_tree().text
    await served(log, tree)
    await asked_live(1, log, start=200)
    await log.append([verdict(900, (await decisions(log))[-1], "failure", "tool")])
    repeats = (await gathered(log)).repeats()
    assert [count.state for count in repeats.forms.values()] == ["demoted"]
    assert await answer(log, "promoted", "state", "failures") == [("demoted", 1)]
    assert '"rows":[]' in repeats.applied(tree, 0.05).text


async def decisions(log: EventLog) -> list[dict[str, Any]]:
    found = await fields_of(log, "mad.decisions")
    return sorted(found, key=lambda one: (one["occurred_at"], one["event_id"]))


def verdict(number: int, decision: dict[str, Any], result: Any, by: str, **more: Any) -> Outcome:
    return Outcome(
        event_id=event_id(number),
        conversation_id=decision["conversation_id"],
        sender=Sender(name="judge", kind="system"),
        occurred_at=number,
        mad="orders",
        result=result,
        judged_by=by,
        about="decision",
        about_id=decision["event_id"],
        **more,
    )


async def test_only_what_is_known_to_have_ended_well_or_was_corrected_is_an_example() -> None:
    log = await log_with(
        *(turn_of(n, PING, f"c{n}") for n in range(1, 6)), turn_of(6, "HRU?", "c6"), audit_rate=1.0
    )
    script = {
        "c1": SAME,
        "c2": SAME,
        "c3": SAME,
        "c4": Answer.acts("get_order", {"id": 4}),
        "c5": Answer.says("No."),
        "c6": Answer.acts("refund"),
    }
    await escalations(log, Told(lambda asked: script[asked.conversation_id])).run()
    ordered = await decisions(log)
    results = ["success", "failure", None, "success", "success", None]
    await log.append(
        [
            verdict(900 + n, decision, result, "tool")
            for n, (decision, result) in enumerate(zip(ordered, results, strict=True))
            if result is not None
        ]
    )
    events = [event for topic in TOPICS for event in await read(log, topic)]
    found = labels(events)
    assert [(one.decision_id, one.route) for one in found] == [
        (ordered[0]["event_id"], "action:get_order"),
        (ordered[3]["event_id"], "process"),
        (ordered[4]["event_id"], "imperator"),
        # The audit of the health query names what would have been right.
        (ordered[5]["event_id"], "action:refund"),
    ]
    assert found[1].arguments == '{"id":4}'
    # Topics may come in any order, each in its own.
    assert labels([one for topic in TOPICS[::-1] for one in await read(log, topic)]) == found


async def test_the_examples_are_what_a_learner_takes() -> None:
    from madlog.processors.dtr.learner import Learner

    log = await asked_live(30)
    await escalations(log, Told(lambda _: SAME)).run()
    await log.append(
        [verdict(900 + n, one, "success", "tool") for n, one in enumerate(await decisions(log))]
    )
    learner = Learner()
    for example in (await gathered(log)).examples():
        learner.learn(example.features, example.route)
    features = (await decisions(log))[0]["features"]
    assert learner.predict(features).route == "action:get_order"


def test_the_question_knows_the_features_that_tell_forms_apart() -> None:
    named = re.findall(r"'(\w+)', features->>'(\w+)'", question("promoted").sql)
    assert [one for one, _ in named] == [one for _, one in named] == Memo().names


ANSWERS = [SAME, Answer.acts("refund"), Answer.says("No."), Answer.acts("refund", {"id": 1})]
STEPS = st.tuples(st.integers(0, 3), st.sampled_from([None, "failure", "success", "withdrawn"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=24), st.integers(1, 4))
async def test_the_question_counts_as_the_fold_does(
    steps: list[tuple[int, str | None]], times: int
) -> None:
    log = await asked_live(len(steps))
    chosen = {event_id(n): ANSWERS[which] for n, (which, _) in enumerate(steps, 1)}
    await escalations(log, Told(lambda asked: chosen[asked.turn_id])).run()
    made: list[Event] = []
    for n, (decision, (_, said)) in enumerate(zip(await decisions(log), steps, strict=True)):
        if said is not None:
            result = "success" if said == "success" else "failure"
            more = {"extra": {"withdrawn": "true"}} if said == "withdrawn" else {}
            made.append(verdict(1_000 + n, decision, result, "tool", **more))
    await log.append(made)
    found = (await gathered(log)).repeats(times)
    counts = [
        ("orders", one.answer, one.asked, one.same, one.failures, one.state)
        for one in found.forms.values()
    ]
    assert await answer(log, "promoted", *COLUMNS, times=str(times)) == counts


async def test_a_live_round_takes_up_what_repeats_and_knows_no_canary_case_of_it() -> None:
    log = await asked_live(110)
    await escalations(log, Told(lambda _: SAME)).run()
    ended = [
        verdict(2_000 + n, one, "success", "reward").model_copy(
            update={"about": "conversation", "about_id": one["conversation_id"]}
        )
        for n, one in enumerate((await decisions(log))[:30])
    ]
    # Of the others nobody knows how they ended: they teach the learner nothing.
    await log.append(ended)
    rollout = Rollout(log, RolloutSettings("test", lambda _: "", lambda _: b"", AGENTS))
    await rollout.run()
    published = [event.fields for event in await read(log, "mad.models")]
    (model,) = [one for one in published if one["component"] == "routing"]
    assert model["metrics"]["promoted"] == 1.0
    tree = TierModels.parse(model["parameters"]).tree
    (features, *_) = [one["features"] for one in await decisions(log)]
    leaf = tree.walk(features)
    counted = sum(not is_canary(f"c{n}") for n in range(1, 111))
    assert 64 <= counted < 110
    assert leaf == ("action:get_order", confidence(counted - 5, 0))
