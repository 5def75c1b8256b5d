"""A learned process at work: step after step, held, handed back, taken back, never twice."""

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from tests.unit.orders import AGENT, CUSTOMER, ORDERS, REGISTRY, TOOLS, log_event, model

from madlog.processors.control import STAGES
from madlog.processors.ports import Action, Agent, Registry
from madlog.processors.router import Router
from madlog.processors.tiers import TierModels
from madlog.schemas import (
    Control,
    Decision,
    Event,
    ModelPublished,
    ProcessStep,
    Sender,
    TimerFired,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.schemas.text import parse

ADMIN = Sender(name="admin", kind="human")


class World:
    """A router and its state, told of one event after the other."""

    def __init__(self, registry: Registry = REGISTRY, models: TierModels | None = None) -> None:
        self.router = Router(registry, max_error=0.1)
        self.state: dict[str, Any] = {}
        self.numbers = count(1)
        self.steps: list[ProcessStep] = []
        self.decisions: list[Decision] = []
        for event in self.router.prelude(self.state):
            self.router.share(self.state, log_event(event, "mad.models"))
        self.model_id = self.publish(models or model())
        self.control("rollout", target="routing", about_id=self.model_id, value="100")

    def _made(self, kind: type[Event], **fields: Any) -> Event:
        at = 1_800_000_000_000_000 + next(self.numbers) * 1_000_000
        envelope = {
            "event_id": new_event_id(at, at.to_bytes(10, "big")),
            "conversation_id": "c",
            "sender": ADMIN,
            "occurred_at": at,
        }
        return kind(**{**envelope, **fields})

    def publish(self, models: TierModels) -> str:
        more = {"version": "1", "parameters_sha256": _sha256(models.text())}
        event = self._made(ModelPublished, component="routing", parameters=models.text(), **more)
        self.router.share(self.state, log_event(event, "mad.models"))
        return event.event_id

    def control(self, command: str, target: str = "orders", **fields: Any) -> str:
        event = self._made(Control, command=command, target=target, **fields)
        self.router.share(self.state, log_event(event, "mad.control"))
        return event.event_id

    def tell(self, kind: type[Event], sender: Sender, **fields: Any) -> Event:
        event = self._made(kind, sender=sender, **fields)
        for output in self.router.step(self.state, log_event(event)):
            if isinstance(output, ProcessStep):
                self.steps.append(output)
            elif isinstance(output, Decision):
                self.decisions.append(output)
        return event

    def say(self, text: str, sender: Sender = CUSTOMER) -> Decision:
        parsed = parse(text)
        content = {"parts": parsed.parts, "tags": parsed.tags, "mentions": parsed.mentions}
        self.tell(Turn, sender, recipients=("orders",), **content)
        return self.decisions[-1]

    def act(self, decision: Decision) -> Event:
        assert decision.route.startswith("action:")
        return self.tell(
            ToolCall,
            AGENT,
            action=decision.route.removeprefix("action:"),
            arguments=decision.arguments,
            causation_id=decision.event_id,
        )

    def answer(self, call: Event, *, ok: bool = True, **more: Any) -> Decision:
        assert isinstance(call, ToolCall)
        result = json.dumps({**json.loads(call.arguments), "status": "open", **more})
        said: dict[str, Any] = {"result": result} if ok else {"error": "no such order"}
        self.tell(ToolResult, TOOLS, call_id=call.event_id, ok=ok, **said)
        return self.decisions[-1]

    @property
    def moves(self) -> list[tuple[str, str | None]]:
        return [(step.state, step.action) for step in self.steps]


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def begun() -> tuple[World, Event]:
    """Return a world in which the first step was decided and its act began."""
    world = World()
    return world, world.act(world.say("Please cancel my order A12345."))


def test_a_process_is_conducted_from_the_first_words_to_its_end() -> None:
    world, call = begun()
    first = world.decisions[0]
    assert (first.tier, first.route, first.mode) == ("lppm", "action:get_order", "live")
    assert json.loads(first.arguments or "") == {"order": "A12345"}
    assert first.model_id == world.model_id
    second = world.answer(call)
    assert (second.tier, second.route) == ("lppm", "action:cancel_order")
    last = world.answer(world.act(second), cancelled=True)
    assert (last.tier, last.escalation) == ("imperator", "unsure")
    assert world.moves == [
        ("started", None),
        ("step", "get_order"),
        ("done", "get_order"),
        ("step", "cancel_order"),
        ("done", "cancel_order"),
        ("completed", None),
    ]
    assert len({step.instance_id for step in world.steps}) == 1
    assert [step.step for step in world.steps if step.state == "done"] == [0, 1]
    assert not [key for key in world.state if key.startswith("p/")]


def test_every_event_of_a_conversation_has_ids_of_its_own() -> None:
    world, call = begun()
    world.answer(world.act(world.answer(call)), cancelled=True)
    ids = [event.event_id for event in (*world.steps, *world.decisions)]
    assert len(set(ids)) == len(ids)


def test_the_same_events_give_the_same_outputs() -> None:
    one, call = begun()
    other, again = begun()
    one.answer(call)
    other.answer(again)
    assert one.steps == other.steps
    assert one.decisions == other.decisions


def test_an_answer_that_failed_or_lacks_its_effect_hands_the_rest_to_the_language_model() -> None:
    world, call = begun()
    decision = world.answer(call, ok=False)
    assert (decision.tier, decision.escalation) == ("imperator", "effect")
    assert world.moves[-1] == ("escalated", None)
    assert world.steps[-1].reason == "get_order: it failed"

    world, call = begun()
    decision = world.answer(world.act(world.answer(call)))
    assert decision.escalation == "effect"
    assert world.steps[-1].reason == "cancel_order: its answer lacks $.cancelled"


def test_what_the_language_model_did_on_its_way_is_gone_on_from() -> None:
    world, call = begun()
    handed = world.answer(call, ok=False)
    call = world.tell(
        ToolCall,
        AGENT,
        action="get_order",
        arguments='{"order":"A99999"}',
        causation_id=handed.event_id,
    )
    decision = world.answer(call)
    assert (decision.tier, decision.route) == ("lppm", "action:cancel_order")
    assert json.loads(decision.arguments or "") == {"order": "A99999"}
    assert world.moves[-2:] == [("resumed", None), ("step", "cancel_order")]
    assert len({step.instance_id for step in world.steps}) == 1


def test_a_call_that_nobody_decided_here_is_answered_to_nobody() -> None:
    world = World()
    call = world.tell(ToolCall, AGENT, action="get_order", arguments="{}")
    world.tell(ToolResult, TOOLS, call_id=call.event_id, ok=True, result="{}")
    assert (world.decisions, world.steps) == ([], [])


def test_while_an_act_is_waited_for_no_second_one_begins() -> None:
    world, call = begun()
    decision = world.say("Please cancel my order A12345.")
    assert (decision.tier, decision.escalation) == ("imperator", "waiting")
    world.answer(call)
    assert world.moves.count(("step", "get_order")) == 1


def test_a_person_pauses_and_resumes_a_process() -> None:
    world, call = begun()
    told = world.say("@orders pause", ADMIN)
    assert (told.tier, told.route) == ("dtr", "process")
    before = len(world.decisions)
    world.answer(call)
    assert len(world.decisions) == before
    assert world.moves[-2:] == [("paused", None), ("done", "get_order")]
    resumed = world.say("@orders resume", ADMIN)
    assert (resumed.tier, resumed.route) == ("lppm", "action:cancel_order")
    assert world.moves[-2:] == [("resumed", None), ("step", "cancel_order")]


def test_what_is_said_to_a_paused_process_goes_to_the_language_model() -> None:
    world, call = begun()
    world.say("@orders pause", ADMIN)
    world.answer(call)
    assert world.say("Please cancel it now.").escalation == "paused"


def test_an_agent_cannot_pause_and_without_a_process_the_word_means_nothing() -> None:
    world, _ = begun()
    world.say("@orders pause", Sender(name="billing", kind="mad"))
    assert ("paused", None) not in world.moves
    other = World()
    assert other.say("@orders pause", ADMIN).route != "process"


def test_what_was_done_is_taken_back_in_reverse_and_once() -> None:
    world, call = begun()
    call = world.act(world.answer(call))
    world.say("@orders cancel", ADMIN)
    undo = world.answer(call, cancelled=True)
    assert (undo.tier, undo.route) == ("lppm", "action:restore_order")
    assert json.loads(undo.arguments or "") == {"order": "A12345"}
    world.answer(world.act(undo))
    assert world.moves[-3:] == [
        ("step", "restore_order"),
        ("compensated", "restore_order"),
        ("compensated", None),
    ]
    assert world.steps[-2].step == 1
    assert not [key for key in world.state if key.startswith("p/")]


def test_nothing_is_taken_back_where_nothing_can_be() -> None:
    world, call = begun()
    world.say("@orders pause", ADMIN)
    world.answer(call)
    told = world.say("@orders cancel", ADMIN)
    assert told.route == "process"
    assert world.moves[-1] == ("compensated", None)


def test_an_act_that_does_not_answer_in_time_goes_to_the_language_model() -> None:
    world, call = begun()
    world.act(world.answer(call))
    waiting = world.steps[-1]
    assert waiting.deadline == waiting.occurred_at + 60_000_000
    fired: dict[str, Any] = {"about_id": waiting.event_id, "deadline": waiting.deadline}
    world.tell(TimerFired, Sender(name="timers", kind="system"), **fired)
    assert world.decisions[-1].escalation == "timeout"
    assert world.moves[-2:] == [("timed-out", "cancel_order"), ("escalated", None)]
    made = len(world.decisions), len(world.steps)
    world.tell(TimerFired, Sender(name="timers", kind="system"), **fired)
    assert (len(world.decisions), len(world.steps)) == made


def test_a_time_that_came_too_late_changes_nothing() -> None:
    world, call = begun()
    step = world.steps[-1]
    world.answer(call)
    made = len(world.decisions), len(world.steps)
    fired: dict[str, Any] = {"about_id": step.event_id, "deadline": 1}
    world.tell(TimerFired, Sender(name="timers", kind="system"), **fired)
    assert (len(world.decisions), len(world.steps)) == made


def test_an_act_of_high_risk_is_blocked_until_it_begins() -> None:
    contracts = {**ORDERS.contracts, "get_order": Action("get_order", risk="high")}
    careful = Agent("orders", actions=ORDERS.actions, contracts=contracts)
    world = World(Registry([careful]))
    decision = world.say("Please cancel my order A12345.")
    assert world.moves == [("started", None), ("step", "get_order"), ("blocked", None)]
    world.act(decision)
    assert world.moves[-1] == ("resumed", None)


def test_an_agent_that_speaks_instead_of_acting_is_not_waited_for() -> None:
    world = World()
    world.say("Please cancel my order A12345.")
    parts = parse("That is against our rules.").parts
    world.tell(Turn, AGENT, recipients=("maria",), parts=parts)
    assert world.moves[-1] == ("escalated", None)
    assert world.say("Please cancel my order A12345.").tier == "lppm"


@pytest.mark.parametrize(
    ("told", "escalation"),
    [
        ({"command": "stop", "target": "orders"}, "stopped"),
        ({"command": "stop", "target": "all", "tier": "lppm"}, "switched-off"),
        ({"command": "override", "value": "imperator"}, "override"),
        ({"command": "override", "value": "action:delete_all"}, "override"),
        ({"command": "flag", "name": "conducting", "value": "off"}, "switched-off"),
    ],
)
def test_control_goes_before_what_was_learned(told: dict[str, Any], escalation: str) -> None:
    world = World()
    control_id = world.control(**told)
    decision = world.say("Please cancel my order A12345.")
    assert (decision.tier, decision.escalation) == ("imperator", escalation)
    assert decision.control_id == control_id


def test_a_stopped_tree_leaves_its_turns_to_the_tiers_above() -> None:
    world = World()
    assert world.say("EXECUTE: get_order A1").tier == "dtr"
    world.control("stop", target="all", tier="dtr")
    assert world.say("EXECUTE: get_order A1").tier != "dtr"
    world.control("start", target="all", tier="dtr")
    assert world.say("EXECUTE: get_order A1").tier == "dtr"


def test_an_override_gives_its_route() -> None:
    world = World()
    world.control("override", value="ack")
    decision = world.say("Please cancel my order A12345.")
    assert (decision.tier, decision.route) == ("dtr", "ack")


def shadows(world: World) -> Sequence[Decision]:
    return [decision for decision in world.decisions if decision.mode == "shadow"]


def test_a_candidate_decides_beside_and_moves_nothing() -> None:
    world = World(models=TierModels.seed())
    candidate = world.publish(model())
    world.control("rollout", target="routing", about_id=candidate, value="shadow")
    world.say("Please cancel my order A12345.")
    (shadow,) = shadows(world)
    (live,) = [decision for decision in world.decisions if decision.mode == "live"]
    assert (shadow.tier, shadow.route, shadow.model_id) == ("lppm", "action:get_order", candidate)
    assert (live.tier, live.model_id) == ("imperator", world.model_id)
    assert (shadow.propensity, shadow.audited) == (1.0, False)
    assert shadow.event_id != live.event_id
    assert world.steps == []


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_of_a_roll_out_serves_its_share(stage: str) -> None:
    world = World(models=TierModels.seed())
    candidate = world.publish(model())
    world.control("rollout", target="routing", about_id=candidate, value=stage)
    parts = parse("Please cancel my order A12345.").parts
    for number in range(200):
        conversation: dict[str, Any] = {"conversation_id": f"c{number}"}
        world.tell(Turn, CUSTOMER, recipients=("orders",), parts=parts, **conversation)
    live = [decision for decision in world.decisions if decision.mode == "live"]
    share = sum(decision.model_id == candidate for decision in live) / len(live)
    least, most = {"shadow": (0, 0), "back": (0, 0), "100": (1, 1)}.get(
        stage, (int(stage) / 100 - 0.07, int(stage) / 100 + 0.07) if stage.isdigit() else (0, 0)
    )
    assert least <= share <= most
    beside = 0 if stage in ("100", "back") else 200 - round(share * 200)
    assert len(shadows(world)) == beside


def test_a_model_that_cannot_be_read_leaves_the_one_before() -> None:
    world = World()
    nowhere = new_event_id(1, b"nobody published this")
    world.control("rollout", target="routing", about_id=nowhere, value="100")
    assert world.say("Please cancel my order A12345.").model_id == world.model_id
    world.control("rollout", target="routing", about_id=world.model_id, value="back")
    assert world.say("Please cancel my order A12345.").model_version == "seed-1"
