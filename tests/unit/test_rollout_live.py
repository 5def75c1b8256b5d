"""Router, judges, learner and roll-out together: a good model goes live, a bad one does not."""

import json
from typing import Any

import pytest
from tests.unit.rollout_scene import AGENT, MARIA, ORDERS, Scene, published

from madlog.analytics.output import rows
from madlog.analytics.questions import ask
from madlog.analytics.verify import verify
from madlog.processors import Engine, Router
from madlog.processors.control import bucket
from madlog.processors.learning import Learning
from madlog.processors.outcomes import Judge
from madlog.processors.outcomes.rules import RULES
from madlog.processors.ports import Registry
from madlog.processors.rollout import RolloutSettings
from madlog.processors.tiers import TierModels
from madlog.schemas import Decision, Event, ToolCall, Turn
from madlog.schemas.text import parse

MAX_ERROR = 0.1
# So that a test needs no thousands: judged from 30 a side on, by the estimate from 60.
SOON: dict[str, Any] = {"minimum": 30, "maximum": 60, "max_error": MAX_ERROR}


class Desk:
    """A desk where customers ask for orders; the router decides, a language model knows better."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.asked: dict[str, tuple[str, str]] = {}
        registry = Registry([AGENT])
        self.router = Router(registry, max_error=MAX_ERROR, audit_rate=0.0)
        settings = RolloutSettings("test", scene._put, scene.get_blob, registry, **SOON)
        self.learning = Learning(scene.log, Judge(rules=["tool"]), None, settings)
        self.answered: set[str] = set()

    async def day(self, customers: int) -> None:
        """Let so many customers ask, what is decided be done, and what is new be learned."""
        scene, turns = self.scene, []
        for _ in range(customers):
            name = f"case-{len(self.asked):05}"
            order = str(scene.random.randrange(10_000, 99_999))
            said = scene.random.choice(("Where is order {0}?", "What about {0}?", "Order {0}?!"))
            parts = parse(said.format(order)).parts
            turns.append(Turn(**scene._envelope(name, MARIA), recipients=("orders",), parts=parts))
            self.asked[turns[-1].event_id] = name, order
        await scene.log.append(turns)
        await self._route()
        done: list[Event] = []
        for decision in await self.decisions():
            if decision.turn_id in self.asked and decision.turn_id not in self.answered:
                self.answered.add(decision.turn_id)
                done += self._done(decision)
        await scene.log.append(done)
        await self._route()
        await self.learning.run(lambda _: None)

    async def _route(self) -> None:
        await Engine(self.scene.log, [self.router]).run(until_idle=True)

    def _done(self, decision: Decision) -> list[Event]:
        name, order = self.asked[decision.turn_id]
        arguments = json.dumps({"order": order})
        if decision.tier != "imperator":
            arguments = decision.arguments or "{}"
        envelope = self.scene._envelope(name, ORDERS)
        call = ToolCall(
            **envelope, causation_id=decision.turn_id, action="get_order", arguments=arguments
        )
        well = json.loads(arguments) == {"order": order}
        return [call, self.scene.outcome(decision, well)]

    async def decisions(self, mode: str = "live") -> list[Decision]:
        found = []
        async for events in self.scene.log.read_topics(["mad.decisions"]):
            for event in events:
                made = event.event
                assert isinstance(made, Decision)
                if made.mode == mode:
                    found.append(made)
        return found


@pytest.mark.soak
async def test_a_model_is_learned_goes_live_and_a_bad_one_is_taken_back_by_itself() -> None:
    desk = Desk(await Scene.opened())
    scene = desk.scene
    for _ in range(8):
        await desk.day(200)
        if "100" in await scene.said():
            break
    gone_live = [one for one in await scene.models() if "100" in await scene.said(one["event_id"])]
    live = gone_live[0]
    assert await scene.said(live["event_id"]) == ["shadow", "10", "50", "100"]
    # It decided in its share of conversations alone, beside in the others, and then in all.
    by_stage = {
        one["event_id"]: one["value"]
        for one in await scene.fields("mad.control")
        if one["about_id"] == live["event_id"]
    }
    own = [one for one in await desk.decisions() if one.model_id == live["event_id"]]
    at_ten = {
        bucket(one.conversation_id) for one in own if by_stage.get(str(one.control_id)) == "10"
    }
    assert at_ten
    assert max(at_ten) < 10
    settled = [one for one in own if one.tier == "lppm"]
    assert settled
    assert all(json.loads(one.arguments or "")["order"] for one in settled)
    shadows = await desk.decisions("shadow")
    assert {one.model_id for one in shadows} >= {live["event_id"]}

    served = await _served(desk)
    bad = published("bad", _careless())
    await scene.log.append([bad])
    await scene.control(bad.event_id, "10")
    for _ in range(2):
        await desk.day(200)
    assert await scene.said(bad.event_id) == ["10", "back"]
    assert await _served(desk) == served == live["event_id"]
    after = [one for one in await desk.decisions() if one.model_id == bad.event_id]
    assert {bucket(one.conversation_id) for one in after} <= set(range(10))
    # Every decision, live and in shadow, at any stage, comes out again from the log.
    again = await verify(scene.log, scene.get_blob, registry=Registry([AGENT]))
    assert again.decisions == len(await desk.decisions()) + len(await desk.decisions("shadow"))
    assert again.differences == []
    # Each step can be seen in SQL.
    told = list(rows(await ask(scene.log, "rollouts")))
    assert [one["stage"] for one in told if one["model_id"] == live["event_id"]] == [
        "shadow",
        "10",
        "50",
        "100",
    ]
    (ten,) = [one for one in told if one["model_id"] == bad.event_id and one["stage"] == "10"]
    assert (ten["model"], ten["component"], ten["said_by"]) == ("bad", "routing", "maria")
    assert ten["success"] == 0.0
    assert ten["other_success"] > 0.9
    assert ten["judged"] == len(after)
    (back,) = [one for one in told if one["model_id"] == bad.event_id and one["stage"] == "back"]
    assert back["said_by"] == "rollout"
    assert f"at 10 it succeeded in 0 of {len(after)}" in back["reason"]


async def _served(desk: Desk) -> str | None:
    rollout = desk.learning._rollout
    assert rollout is not None
    return rollout._facts.served


def _careless() -> TierModels:
    """Return a model that looks up an order for everybody without saying which."""
    sure = {"format": "tree-1", "root": {"route": "action:get_order", "confidence": 1.0}}
    return TierModels.parse(json.dumps({"format": "tiers-1", "dtr": sure, "lppm": None}))


def test_the_question_ranks_judges_as_the_roll_out_does() -> None:
    from madlog.analytics.questions import question
    from madlog.processors.outcomes.rules import rule_of

    text = " ".join(question("rollouts").sql.split())
    for name in RULES:
        assert f"WHEN '{name}' THEN {rule_of(name)[0]} " in text
    assert f"ELSE {rule_of('csv:desk')[0]} END" in text
