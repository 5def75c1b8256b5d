"""A model goes live step by step, on evidence alone, and is taken back by itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.rollout_scene import AGENT, Scene, published

from madlog.processors.control import STAGES, serving
from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.ports import Registry
from madlog.processors.rollout import Rolled
from madlog.processors.rollout.facts import Facts
from madlog.processors.rollout.machine import NEXT, next_stage

VERDICTS = st.sampled_from(["advance", "back", "wait"])
HANDS = st.sampled_from(STAGES)


@given(st.lists(st.one_of(VERDICTS, st.tuples(HANDS)), max_size=30))
def test_the_machine_skips_no_stage_and_goes_not_on_after_back(moves: list[Any]) -> None:
    said: list[str] = []
    for move in moves:
        if isinstance(move, tuple):
            said.append(move[0])  # a person may say what they will
            continue
        stage = next_stage(said, move)
        if stage is None:
            continue
        if stage != "back":
            assert move == "advance"
            assert "back" not in said
            assert stage == (NEXT[said[-1]] if said else "shadow")
            assert stage not in said
        else:
            assert move == "back"
            assert not said or said[-1] != "back"
        said.append(stage)


@given(st.lists(VERDICTS, max_size=40))
def test_alone_it_says_the_stages_in_their_order_each_once(verdicts: list[Any]) -> None:
    said: list[str] = []
    for verdict in verdicts:
        stage = next_stage(said, verdict)
        said += [] if stage is None else [stage]
    assert len(set(said)) == len(said)
    order = [stage for stage in said if stage != "back"]
    assert order == list(STAGES[: len(order)])
    assert "back" not in said[:-1]


async def at_ten(**more: Any) -> tuple[Scene, str]:
    """Return a scene in which a person has just let a model decide 10 % of conversations."""
    scene = await Scene.opened()
    model = published("by-hand")
    await scene.log.append([model])
    await scene.control(model.event_id, "10")
    return scene, model.event_id


async def both(scene: Scene, model_id: str, wrong: int, decisions: int = 1_000) -> None:
    """Let both sides decide, what is served in 20 of 1,000 wrong."""
    control_id = await scene.last_control()
    await scene.decide(seed_model().event_id, 1_000, 20, settles=False, control_id=control_id)
    await scene.decide(model_id, decisions, wrong, control_id=control_id)


async def test_a_good_model_goes_live_by_itself_and_each_step_says_its_figures() -> None:
    scene = await Scene.opened()
    model = published("by-hand")
    await scene.log.append([model])
    rollout = scene.rollout(learns=False)
    assert await rollout.run() == Rolled(steps=1)
    live = await scene.decide(seed_model().event_id, 1_000, 20, settles=False)
    await scene.shadow(model.event_id, live, wrong=10)
    await rollout.run()
    for _ in range(3):
        await both(scene, model.event_id, wrong=20)
        await rollout.run()
    assert await scene.said(model.event_id) == ["shadow", "10", "50", "100"]
    reasons = await scene.reasons(model.event_id)
    assert "at 10 it succeeded in 980 of 1000, what is served in 980 of 1000" in reasons[2]
    served = await _facts(scene)
    assert serving(served.controls, "routing", "c") == (model.event_id, None)


async def _facts(scene: Scene) -> Facts:
    facts = Facts(Registry([AGENT]))
    for topic in ("mad.control", "mad.models", "mad.decisions", "mad.conversations"):
        async for events in scene.log.read_topics([topic]):
            for event in events:
                facts.fold(event)
    async for events in scene.log.read_topics(["mad.outcomes"]):
        for event in events:
            facts.fold(event)
    return facts


async def test_a_bad_model_in_shadow_never_decides_anything() -> None:
    scene = await Scene.opened()
    model = published("bad")
    await scene.log.append([model])
    await scene.rollout().run()
    live = await scene.decide(seed_model().event_id, 600, 10, settles=False)
    await scene.shadow(model.event_id, live, wrong=120)
    await scene.rollout().run()
    assert await scene.said() == ["shadow", "back"]


async def test_a_bad_model_at_ten_percent_is_taken_back_and_stays_so() -> None:
    scene, model_id = await at_ten()
    rollout = scene.rollout()
    await both(scene, model_id, wrong=40, decisions=499)
    assert await rollout.run() == Rolled()
    await both(scene, model_id, wrong=40, decisions=400)
    await rollout.run()
    assert await scene.said(model_id) == ["10", "back"]
    await both(scene, model_id, wrong=0, decisions=3_000)
    await rollout.run()
    assert await scene.said(model_id) == ["10", "back"]
    assert (await _facts(scene)).served is None


async def test_a_broken_promise_takes_a_model_back_whatever_its_success() -> None:
    scene, model_id = await at_ten()
    control_id = await scene.last_control()
    await scene.decide(model_id, 40, 12, judged_by="audit", audited=True, control_id=control_id)
    await scene.rollout().run()
    assert await scene.said(model_id) == ["10", "back"]
    assert "12 of 40 judged wrong" in (await scene.reasons(model_id))[-1]


async def test_what_is_served_to_all_is_taken_back_by_its_audits() -> None:
    scene, model_id = await at_ten()
    await scene.control(model_id, "100")
    control_id = await scene.last_control()
    await scene.decide(model_id, 40, 12, judged_by="audit", audited=True, control_id=control_id)
    await scene.rollout().run()
    assert await scene.said(model_id) == ["10", "100", "back"]
    assert (await _facts(scene)).served is None


async def test_a_model_that_leaves_everything_is_no_worse() -> None:
    scene, model_id = await at_ten()
    control_id = await scene.last_control()
    await scene.decide(seed_model().event_id, 1_000, 20, control_id=control_id)
    await scene.decide(model_id, 1_000, 20, settles=False, control_id=control_id)
    await scene.rollout().run()
    assert await scene.said(model_id) == ["10", "50"]


async def test_only_decisions_of_the_stage_count() -> None:
    scene, model_id = await at_ten()
    early = await scene.last_control()
    await scene.control(model_id, "50")
    await scene.decide(seed_model().event_id, 2_000, 20, control_id=early)
    await scene.decide(model_id, 2_000, 20, control_id=early)
    await scene.decide(model_id, 2_000, 1_900, control_id=None)
    assert await scene.rollout().run() == Rolled()
    assert await scene.said() == ["10", "50"]


async def test_a_corrected_verdict_counts_as_corrected_and_a_withdrawn_one_not_at_all() -> None:
    scene, model_id = await at_ten()
    control_id = await scene.last_control()
    made = await scene.decide(model_id, 100, 100, control_id=control_id)
    await scene.log.append([scene.outcome(one, True) for one in made[:60]])
    void = [scene.outcome(one, False) for one in made[90:]]
    await scene.log.append(
        [one.model_copy(update={"extra": {"withdrawn": "true"}}) for one in void]
    )
    standing = (await _facts(scene)).standing()
    assert standing is not None
    assert (standing.candidate.successes, standing.candidate.decisions) == (60, 90)


async def test_what_was_decided_in_retrospect_never_counts() -> None:
    scene, model_id = await at_ten()
    control_id = await scene.last_control()
    await scene.decide(model_id, 600, 600, mode="retrospective", control_id=control_id)
    standing = (await _facts(scene)).standing()
    assert standing is not None
    assert standing.candidate.decisions == 0


async def test_a_person_goes_before_the_machine() -> None:
    scene, model_id = await at_ten()
    await scene.control(model_id, "back")
    rollout = scene.rollout()
    assert await rollout.run() == Rolled()
    # Whoever has it go on after that has it to themselves, but for harm.
    await scene.control(model_id, "50")
    await both(scene, model_id, wrong=0)
    assert await rollout.run() == Rolled()
    await scene.control(model_id, "100")
    control_id = await scene.last_control()
    await scene.decide(model_id, 40, 12, judged_by="audit", audited=True, control_id=control_id)
    await rollout.run()
    assert await scene.said(model_id) == ["10", "back", "50", "100", "back"]


async def test_two_at_work_and_one_after_a_crash_say_each_step_once() -> None:
    scene, model_id = await at_ten()
    one, two = scene.rollout(), scene.rollout()
    await both(scene, model_id, wrong=20)
    # The second has read less when it concludes the same.
    await one.run()
    await both(scene, model_id, wrong=20)
    await two.run()
    await one.run()
    await scene.rollout().run()
    assert await scene.said(model_id) == ["10", "50", "100"]


async def test_the_newest_model_takes_the_place_of_one_in_shadow_and_waits_for_one_that_acts() -> (
    None
):
    scene = await Scene.opened()
    first, second, third = published("1"), published("2"), published("3")
    rollout = scene.rollout()
    await scene.log.append([first])
    await rollout.run()
    await scene.log.append([second])
    await rollout.run()
    assert await scene.said(first.event_id) == ["shadow", "back"]
    await scene.control(second.event_id, "10")
    await scene.log.append([third])
    await rollout.run()
    assert await scene.said(third.event_id) == []
    await scene.control(second.event_id, "back")
    await rollout.run()
    assert await scene.said(third.event_id) == ["shadow"]


async def test_when_what_is_served_begins_to_err_all_that_was_learned_is_taken_back() -> None:
    scene, model_id = await at_ten()
    older = published("older")
    await scene.log.append([older])
    await scene.control(older.event_id, "100")
    await scene.control(model_id, "100")
    control_id = await scene.last_control()
    rollout = scene.rollout()
    await scene.decide(model_id, 200, 2, control_id=control_id)
    assert await rollout.run() == Rolled()
    changed_at = scene.now
    await scene.decide(model_id, 100, 60, control_id=control_id)
    waiting = published("learned-before-and-waiting")
    await scene.log.append([waiting])
    await rollout.run()
    assert await scene.said(model_id) == ["10", "100", "back"]
    assert await scene.said(older.event_id) == ["100", "back"]
    facts = await _facts(scene)
    assert facts.served is None
    changes, since = facts.since
    assert changes == 1
    assert abs(since - changed_at) < 60_000_000
    await scene.rollout().run()
    assert await scene.said(waiting.event_id) == []


async def test_without_models_and_agents_it_does_nothing_and_reads_no_conversation() -> None:
    scene = await Scene.opened()
    await scene.live(30)
    rollout = scene.rollout(registry=Registry())
    assert await rollout.run() == Rolled()
    assert not rollout._facts.lived
    assert not rollout._facts.begun
    assert await scene.said() == []


async def test_a_slower_model_is_said_to_be_slower_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from madlog.topics.event_log import NewEvent

    scene, model_id = await at_ten()
    control_id = await scene.last_control()
    for by, took in ((seed_model().event_id, 100), (model_id, 900)):
        made = [
            scene.decision(f"01890000-0000-7000-8000-{n:012x}", by, "c", control_id=control_id)
            for n in range(1_000)
        ]
        header = (("duration-us", b"%d" % took),)
        await scene.log.append([NewEvent(one, header) for one in made])
        await scene.log.append([scene.outcome(one, True) for one in made])
    await scene.rollout().run()
    assert await scene.said(model_id) == ["10", "50"]
    assert "slower: 900 µs a decision" in (await scene.reasons(model_id))[-1]
    assert "is slower" in caplog.text
