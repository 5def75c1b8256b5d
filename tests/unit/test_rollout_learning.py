"""What is lived is learned, once, without the canary cases; what must not be served is refused."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.rollout_scene import AGENT, Scene, published

from madlog.processors import Engine
from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.ports import Agent, Registry
from madlog.processors.retrospect.models import model_event
from madlog.processors.rollout import Rolled
from madlog.processors.rollout.canary import Canary, is_canary, worse
from madlog.processors.rollout.facts import Facts
from madlog.processors.rollout.learner import (
    changes_and_round,
    learned,
    model_of,
    read_conversations,
    round_of,
    split,
    version_of,
)
from madlog.processors.router import Router
from madlog.processors.tiers import TierModels
from madlog.schemas import ModelPublished
from madlog.topics import Vector
from madlog.topics.log import log_damage


@given(st.integers(min_value=0, max_value=100_000))
def test_rounds_are_those_of_the_data_and_come_in_order(count: int) -> None:
    due = round_of(count)
    assert due is None if count < 20 else due is not None
    if due is not None:
        assert due <= count
        assert round_of(due) == due
        assert due in (20, 40, 80, 160) or due % 320 == 0
        assert count < 2 * due or count < due + 320
        assert changes_and_round(version_of(due, 0)) == (0, due)
        assert changes_and_round(version_of(due, 3)) == (3, due)
    assert changes_and_round("seed-1") is None


async def test_what_ended_well_is_learned_published_and_begins_in_shadow() -> None:
    scene = await Scene.opened()
    names = await scene.live(100)
    await scene.live(20, well=False, first=100)
    blobs_before = dict(scene.blobs)
    assert await scene.rollout().run() == Rolled(models=1, steps=1)
    (model,) = await scene.models()
    plain, held = split(names)
    assert held
    assert model["version"] == version_of(80, 0)
    assert model["sender"]["name"] == "learner"
    assert model["code_version"] == "test"
    assert model["metrics"]["conversations"] == 80
    assert model["metrics"]["canary_cases"] == len(held)
    # One decision about the question, one about what the tool answered.
    assert model["metrics"]["canary_decisions"] == 2 * len(held)
    assert model["metrics"]["canary_settled"] == model["metrics"]["canary_right"]
    assert set(scene.blobs) == set(blobs_before)
    assert await scene.said(model["event_id"]) == ["shadow"]
    # What it learned: to look up the order that was asked for.
    models = TierModels.parse(model["parameters"])
    assert models.steps is not None
    assert "action:get_order" in models.steps.actions.labels
    assert list(models.processes) == ["orders"]
    # It names what it saw, and what it saw last is on the log.
    (place,) = {one.split("/")[0] for one in model["trained_on"]}
    assert place == "mad.conversations"
    told = {one["event_id"]: one for one in await scene.fields("mad.conversations")}
    last = [told[event_id]["conversation_id"] for event_id in model["trained_on"].values()]
    assert set(last) <= set(plain[:80])


async def test_a_canary_case_is_never_trained_on() -> None:
    scene = await Scene.opened()
    names = await scene.live(60)
    rollout = scene.rollout(rolls_out=False)
    await rollout.run()
    (model,) = await scene.models()
    kept = [name for name in names if not is_canary(name)][:40]
    assert model["metrics"]["conversations_learned"] == len(kept)
    text = model["parameters"]
    process = json.loads(text)["processes"]["orders"]
    assert set(process["conversations"]) == set(kept)
    assert not any(is_canary(name) for name in process["conversations"])


async def test_what_failed_what_nobody_judged_and_what_was_imported_teaches_nothing() -> None:
    scene = await Scene.opened()
    await scene.live(80, well=False)
    assert await scene.rollout().run() == Rolled()
    other = await Scene.opened()
    await other.live(19)
    assert await other.rollout().run() == Rolled()
    stranger = await Scene.opened()
    await stranger.live(80)
    nobody = Registry([Agent("billing", actions=frozenset({"pay"}))])
    assert await stranger.rollout(registry=nobody).run() == Rolled()


async def test_what_runs_actions_that_are_not_registered_is_not_learned() -> None:
    scene = await Scene.opened()
    await scene.live(80)
    bare = Registry([Agent("orders", actions=frozenset({"refund"}))])
    assert await scene.rollout(registry=bare).run() == Rolled()


async def test_two_learners_and_one_after_a_crash_publish_a_round_once() -> None:
    scene = await Scene.opened()
    await scene.live(50)
    one, two = scene.rollout(rolls_out=False), scene.rollout(rolls_out=False)
    await one.run()
    # The second has seen more, and learns of the same round something else: the first counts.
    await two._catch_up()
    await scene.live(1, first=50)
    await two.run()
    await scene.rollout(rolls_out=False).run()
    assert [model["version"] for model in await scene.models()] == ["lived-40"]
    await scene.live(60, first=51)
    assert (await one.run()).models == 1
    assert (await two.run()).models == 0
    assert [model["version"] for model in await scene.models()] == ["lived-40", "lived-80"]


async def test_a_long_log_is_known_after_a_restart_as_it_was_while_it_grew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from madlog.processors.rollout import job

    monkeypatch.setattr(job, "_SLICE", 10)
    registry = Registry([AGENT])
    scene = await Scene.opened()
    growing = scene.rollout(learns=False)
    growing._facts = Facts(registry, 80)
    for first in range(0, 300, 20):
        await scene.live(20, first=first, well=first != 100)
        await growing.run()
    fresh = scene.rollout(learns=False)
    fresh._facts = Facts(registry, 80)
    await fresh.run()
    # Only the newest decisions are known one by one; how their conversations ended is known of all.
    assert len(fresh._facts.good(0)) == 280
    assert fresh._facts.good(0) == growing._facts.good(0)
    assert fresh._read == growing._read


async def test_learner_and_roll_out_may_work_apart() -> None:
    scene = await Scene.opened()
    await scene.live(40)
    rolls, learns = scene.rollout(learns=False), scene.rollout(rolls_out=False)
    assert await rolls.run() == Rolled()
    assert (await learns.run()).models == 1
    assert await scene.said() == []
    assert (await rolls.run()).steps == 1
    assert await scene.said() == ["shadow"]


async def test_after_a_change_only_what_began_since_is_learned() -> None:
    scene = await Scene.opened()
    await scene.live(90)
    rollout = scene.rollout()
    await rollout.run()
    (model,) = await scene.models()
    await scene.control(model["event_id"], "100")
    control_id = await scene.last_control()
    await scene.decide(model["event_id"], 200, 2, control_id=control_id)
    await rollout.run()
    await scene.decide(model["event_id"], 100, 70, control_id=control_id)
    await rollout.run()
    assert await scene.said(model["event_id"]) == ["shadow", "100", "back"]
    since = await scene.live(30, first=90)
    await rollout.run()
    models = await scene.models()
    assert [one["version"] for one in models] == ["lived-80", "lived-20-after-1"]
    text = json.loads(models[-1]["parameters"])
    assert set(text["processes"]["orders"]["conversations"]) <= set(since)
    assert await scene.said(models[-1]["event_id"]) == ["shadow"]
    # And after a crash it is known that it was learned.
    assert await scene.rollout().run() == Rolled()


async def _trained(scene: Scene, names: list[str]) -> ModelPublished:
    facts = Facts(Registry([AGENT]))
    for topic in ("mad.decisions", "mad.conversations", "mad.outcomes"):
        async for events in scene.log.read_topics([topic]):
            for event in events:
                facts.fold(event)
    end = await scene.log.log.end(["mad.decisions", "mad.conversations"])
    seen = await read_conversations(scene.log, facts, names, Vector(end), log_damage)
    router = Router(Registry([AGENT]), decides="all")
    return model_of(learned(seen, router), seen, "x", "test", scene._put, 0)


async def test_the_same_conversations_give_the_same_model_and_the_cheap_tiers_acts_are_known() -> (
    None
):
    scene = await Scene.opened()
    names = await scene.live(30)
    one, two = await _trained(scene, names), await _trained(scene, names)
    assert one == two
    facts = Facts(Registry([AGENT]))
    for topic in ("mad.decisions", "mad.conversations", "mad.outcomes"):
        async for events in scene.log.read_topics([topic]):
            for event in events:
                facts.fold(event)
    end = await scene.log.log.end(["mad.decisions", "mad.conversations"])
    (first, *_) = await read_conversations(scene.log, facts, names, Vector(end), log_damage)
    assert [event.kind for event in first.events] == [
        "Turn",
        "Decision",
        "ToolCall",
        "ToolResult",
        "Turn",
    ]
    assert {act.tier for act in first.case.acts if act.actor == "orders"} == {"imperator"}


def test_a_drop_on_the_canary_cases_is_told_and_few_decisions_tell_nothing() -> None:
    served = Canary(20, 100, 60, 59, 1)
    assert worse(Canary(20, 100, 60, 54, 6), served) is None
    told = worse(Canary(20, 100, 60, 53, 7), served)
    assert told is not None
    assert "wrong in 7 of 100 decisions" in told
    assert worse(Canary(2, 10, 10, 0, 10), Canary(2, 10, 0, 0, 0)) is None


async def test_a_model_that_is_worse_on_the_canary_cases_is_not_rolled_out() -> None:
    scene = await Scene.opened()
    names = await scene.live(1_000)
    assert len(split(names)[1]) >= 40
    # It looks up one order for everybody, and is sure of it.
    sure = {"format": "tree-1", "root": {"route": "action:get_order", "confidence": 1.0}}
    text = json.dumps(
        {"format": "tiers-1", "dtr": sure, "lppm": None}, sort_keys=True, separators=(",", ":")
    )
    bad = published("careless", TierModels.parse(text))
    await scene.log.append([bad])
    await scene.rollout(learns=False).run()
    assert await scene.said(bad.event_id) == ["back"]
    (reason,) = await scene.reasons(bad.event_id)
    assert "canary cases it is wrong in" in reason


def _document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(TierModels.seed().text()), **changes}


def _raw(text: str, **more: Any) -> ModelPublished:
    return model_event("routing", "bad", text, "test", **{"parameters": text, **more})


SURE = {"format": "tree-1", "root": {"route": "action:drop_tables", "confidence": 0.9}}
NAN = {"format": "tree-1", "root": {"route": "ack", "confidence": float("nan")}}
MEMO = {
    "format": "dtr-1",
    "memo": {"features": ["verb", "ack_tag"], "rows": [[["x", 1], "action:drop_tables", 0.9]]},
    "root": {"route": "imperator", "confidence": 1.0},
}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            _raw(json.dumps(_document())).model_copy(update={"parameters_sha256": "0" * 64}),
            "damaged",
        ),
        (_raw(TierModels.seed().text()[:-9]), "not JSON"),
        (_raw(json.dumps(_document(dtr=NAN))), "NaN"),
        (_raw(json.dumps(_document(lppm={"format": "next-step-1"}))), "next-step model"),
        (_raw(json.dumps(_document(dtr=SURE))), "registered action of no agent"),
        (_raw(json.dumps(_document(dtr=MEMO))), "registered action of no agent"),
        (
            published("ahead", trained_on={"mad.conversations/0": seed_model().event_id}),
            "not on this log",
        ),
        (published("ahead", trained_on={"nowhere": seed_model().event_id}), "not on this log"),
        (published("strange", component="oracle"), "no component 'oracle'"),
    ],
)
async def test_a_model_that_must_not_be_served_is_refused_with_the_reason(
    model: ModelPublished, reason: str
) -> None:
    scene = await Scene.opened()
    served = published("served")
    await scene.log.append([served])
    await scene.control(served.event_id, "100")
    await scene.live(3)
    await scene.log.append([model])
    rollout = scene.rollout()
    await rollout.run()
    assert await scene.said(model.event_id) == ["back"]
    (told,) = await scene.reasons(model.event_id)
    assert reason in told
    assert told.startswith("refused: ")
    # Said once, and what was served before goes on.
    assert await rollout.run() == Rolled()
    assert rollout._facts.served == served.event_id
    router = Router(Registry([AGENT]), get_blob=scene.get_blob)
    await scene.live(1, first=3)
    await Engine(scene.log, [router]).run(until_idle=True)
    decided = [one for one in await scene.fields("mad.decisions") if one["features"]]
    assert {one["model_id"] for one in decided} == {served.event_id}


async def test_a_truncated_blob_is_refused_and_a_missing_one_is_waited_for() -> None:
    scene = await Scene.opened()
    text = TierModels.seed().text()
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    model = _raw(text, parameters=None, parameters_uri=f"sha256:{sha256}")
    await scene.log.append([model])
    rollout = scene.rollout()
    assert await rollout.run() == Rolled()
    scene.blobs[sha256] = text.encode()[:-5]
    await rollout.run()
    assert await scene.said(model.event_id) == ["back"]
    other = await Scene.opened()
    await other.log.append([model])
    other.blobs[sha256] = text.encode()
    await other.rollout().run()
    assert await other.said(model.event_id) == ["shadow"]


async def test_a_large_model_is_a_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    from madlog.processors.retrospect import models

    monkeypatch.setattr(models, "_INLINE_MAX", 100)
    scene = await Scene.opened()
    await scene.live(40)
    await scene.rollout().run()
    (model,) = await scene.models()
    assert model["parameters"] is None
    assert model["parameters_uri"] == f"sha256:{model['parameters_sha256']}"
    assert TierModels.parse(scene.blobs[model["parameters_sha256"]].decode()).steps is not None
    assert await scene.said(model["event_id"]) == ["shadow"]
