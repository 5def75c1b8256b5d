"""What was decided is run through the guards: once, announced before, told after."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.acting_scene import FakeEngine, Scene, agent

from madlog.processors.acting import Answer, Budget, Proposal
from madlog.processors.ports import Action
from madlog.schemas import LlmCall, Sender, ToolCall
from madlog.topics import Vector
from madlog.topics.errors import OutcomeUnknown

CONVERSATIONS = "mad.conversations"


def refund(order: int = 1, amount: float = 10) -> dict[str, float]:
    return {"order_id": order, "amount_eur": amount}


async def test_a_decided_act_is_announced_run_once_and_its_result_told() -> None:
    scene = Scene()
    scene.engine.answers["refund"] = Answer(True, '{"refunded": 10}')
    decision = await scene.decide("refund", refund())
    done = await scene.run()
    assert (done.succeeded, done.refused, done.waiting) == (1, 0, {})
    assert scene.engine.did == [("refund", '{"amount_eur":10,"order_id":1}', decision)]
    (call,) = await scene.of("ToolCall")
    assert (call["sender"]["name"], call["causation_id"]) == ("shop", decision)
    assert list(call["preconditions"]) == ["once-per:order_id", "argument:amount_eur<=100"]
    (result,) = await scene.of("ToolResult")
    assert (result["call_id"], result["ok"]) == (call["event_id"], True)
    assert result["result"] == '{"refunded": 10}'
    assert (await scene.run()).succeeded == 0
    assert (await scene.another().run()).succeeded == 0
    assert len(scene.engine.did) == 1


async def test_a_command_brings_its_arguments_in_the_text_of_its_turn() -> None:
    scene = Scene(agent(Action("refund", preconditions=("argument:amount_eur<=100",))))
    await scene.decide("refund", text="COMMAND: refund || order_id=17 || amount_eur=99.5")
    await scene.decide("refund", text="EXECUTE: refund order_id=18 amount_eur=5", conversation="d")
    await scene.decide("refund", text="EXECUTE: refund 19", conversation="d")
    await scene.run()
    assert sorted(arguments for _, arguments, _ in scene.engine.did) == [
        '{"amount_eur":"5","order_id":"18"}',
        '{"amount_eur":"99.5","order_id":"17"}',
    ]
    assert await scene.refusals() == ["argument:amount_eur<=100"]


@pytest.mark.parametrize(
    "decided",
    [{"mode": "shadow"}, {"mode": "retrospective"}, {"tier": "imperator"}, {"recipient": "other"}],
)
async def test_only_live_decisions_of_cheap_tiers_for_registered_agents_act(
    decided: dict[str, str],
) -> None:
    scene = Scene()
    await scene.decide("lookup_order", {}, **decided)
    done = await scene.run()
    assert (done.succeeded, done.refused) == (0, 0)
    assert scene.engine.did == []


async def test_a_refused_act_is_an_outcome_and_goes_up() -> None:
    scene = Scene()
    decision = await scene.decide("refund", refund(amount=101))
    assert (await scene.run()).refused == 1
    (outcome,) = await scene.of("Outcome")
    assert outcome["judged_by"] == "guard-argument:amount_eur<=100"
    assert (outcome["about_id"], outcome["result"]) == (decision, "failure")
    assert "amount_eur is 101" in outcome["extra"]["reason"]
    refused, up = await scene.of("Decision")
    assert (up["tier"], up["route"], up["escalation"]) == ("imperator", "imperator", "guard")
    assert (up["turn_id"], up["model_id"]) == (refused["turn_id"], refused["model_id"])
    assert up["arguments"] is None
    assert await scene.of("ToolCall") == []
    await scene.another().run()
    assert len(await scene.of("Decision")) == 2


async def test_an_action_that_nobody_registered_never_runs() -> None:
    scene = Scene()
    await scene.decide("drop_database", {})
    await scene.run()
    assert (await scene.refusals(), scene.engine.did) == (["registry"], [])


async def test_an_order_is_refunded_once_whatever_conversation_asks() -> None:
    scene = Scene()
    # These two are in different partitions.
    await scene.decide("refund", refund(4711), conversation="c")
    await scene.decide("refund", {"order_id": "4711", "amount_eur": 5}, conversation="d")
    calls = await scene.read("mad.conversations")
    assert len({event.record.partition for event in calls}) == 2
    done = await scene.run()
    assert (done.succeeded, done.refused) == (1, 1)
    assert await scene.refusals() == ["once-per:order_id"]
    await scene.decide("refund", refund(4712), conversation="d")
    assert (await scene.run()).succeeded == 1


async def test_a_refund_that_failed_may_be_tried_again_and_one_that_is_unknown_may_not() -> None:
    scene = Scene()
    scene.engine.answers["refund"] = Answer(False, error="the bank is closed")
    await scene.decide("refund", refund())
    assert (await scene.run()).failed == 1
    scene.engine.answers["refund"] = ConnectionError("cut off")
    await scene.decide("refund", refund())
    assert (await scene.run()).unknown == 1
    (_, result) = await scene.of("ToolResult")
    assert result["error"] == "outcome unknown: ConnectionError: cut off"
    del scene.engine.answers["refund"]
    await scene.decide("refund", refund())
    assert (await scene.run()).refused == 1
    (outcome,) = await scene.of("Outcome")
    assert "may have been done before" in outcome["extra"]["reason"]


async def test_an_act_waits_for_the_one_before_it_in_its_conversation() -> None:
    scene = Scene(agent(Action("lookup"), Action("refund", preconditions=("after:lookup",))))
    began, go = scene.engine.hold("lookup")
    await scene.decide("lookup", {})
    await scene.decide("refund", {})
    await scene.decide("refund", {}, conversation="d")
    running = asyncio.create_task(scene.run())
    await began.wait()
    assert scene.engine.actions == ["lookup"]
    go.set()
    done = await running
    assert scene.engine.actions == ["lookup", "refund"]
    assert (done.succeeded, done.refused) == (2, 1)


async def test_acts_of_a_conversation_run_one_after_the_other_and_of_several_at_once() -> None:
    scene = Scene()
    began, go = scene.engine.hold("lookup_order")
    await scene.decide("lookup_order", {})
    await scene.decide("refund", refund(1))
    await scene.decide("refund", refund(2), conversation="d")
    running = asyncio.create_task(scene.run())
    await began.wait()
    async for events in scene.log.subscribe(Vector(await scene.log.log.start([CONVERSATIONS]))):
        if any(event.kind == "ToolResult" for event in events):
            break
    assert sorted(arguments for _, arguments, _ in scene.engine.did) == [
        '{"amount_eur":10,"order_id":2}',
        "{}",
    ]
    go.set()
    assert (await running).succeeded == 3


async def test_an_act_whose_time_is_up_before_it_begins_is_announced_again_and_not_lost() -> None:
    scene = Scene(agent(Action("pay", timeout_s=10)))
    await scene.decide("pay", {})
    memory: Any = scene.log.log
    transact = memory.transact

    async def slow(records: Any, commit: Any = None) -> Any:
        receipts = await transact(records, commit)
        memory.transact = transact
        scene.clock.move(10)
        return receipts

    memory.transact = slow
    done = await scene.run()
    assert ([one.rule for one in done.waiting.values()], scene.engine.did) == (["late"], [])
    assert (await scene.run()).succeeded == 1
    first, second = await scene.of("ToolCall")
    assert first["event_id"] != second["event_id"]


async def test_of_two_workers_one_runs_each_act() -> None:
    scene = Scene()
    first, second = FakeEngine(), FakeEngine()
    for number in range(8):
        await scene.decide("refund", refund(number), conversation=f"c{number}")
    actors = [scene.another(first), scene.another(second)]
    await asyncio.gather(*(actor.run() for actor in actors))
    await asyncio.gather(*(actor.run() for actor in actors))
    assert len(first.did) + len(second.did) == 8
    assert len({key for _, _, key in first.did + second.did}) == 8
    assert len(await scene.of("ToolResult")) == len(await scene.of("ToolCall")) == 8


async def test_of_two_workers_that_announce_one_act_the_first_on_the_log_runs_it() -> None:
    scene = Scene()
    first, second = FakeEngine(), FakeEngine()
    await scene.decide("lookup_order", {})
    told = await scene.race(scene.another(first).run(), scene.another(second).run())
    assert sorted([len(first.did), len(second.did)]) == [0, 1]
    assert sum(one.succeeded for one in told) == 1
    assert len(await scene.of("ToolResult")) == len(await scene.of("ToolCall")) == 1


async def test_of_two_workers_that_announce_refunds_of_one_order_at_most_one_runs() -> None:
    scene = Scene()
    acts = [
        replace(llm_act(scene, "refund", number), conversation_id="cd"[number]) for number in (0, 1)
    ]
    here, there = scene.another(), scene.another()
    await scene.race(here.act(acts[0]), there.act(acts[1]))
    assert len(await scene.of("ToolCall")) == 2
    assert len(scene.engine.did) <= 1
    # What gave way to the other is not lost: it is tried again, by any worker.
    for _ in range(3):
        await scene.another().run()
    assert len(scene.engine.did) == 1
    assert await scene.refusals() == ["once-per:order_id"]


async def test_of_two_workers_that_announce_more_than_a_budget_allows_none_is_over_it() -> None:
    scene = Scene(budgets={"shop": {"one": Budget("one", acts=1, window_s=60)}})
    acts = [
        replace(llm_act(scene, "lookup_order", number), conversation_id="cd"[number])
        for number in (0, 1)
    ]
    here, there = scene.another(), scene.another()
    await scene.race(here.act(acts[0]), there.act(acts[1]))
    for count in (1, 2):
        await scene.another().run()
        assert len(scene.engine.did) == count
        scene.clock.move(60)


async def test_of_two_workers_that_refund_one_order_at_most_one_does() -> None:
    scene = Scene()
    for number in range(6):
        await scene.decide("refund", refund(7), conversation=f"c{number}")
    actors = [scene.another(), scene.another(), scene.another()]
    for _ in range(4):
        await asyncio.gather(*(actor.run() for actor in actors))
    assert len(scene.engine.did) == 1
    assert len(await scene.refusals()) == 5


async def test_what_a_dead_worker_left_is_run_again_only_where_that_does_no_harm() -> None:
    scene = Scene(agent(Action("pay", timeout_s=10), Action("note", timeout_s=10, idempotent=True)))
    began = [scene.engine.hold(name)[0] for name in ("pay", "note")]
    await scene.decide("pay", {})
    note = await scene.decide("note", {}, conversation="d")
    dying = asyncio.create_task(scene.another().run())
    for event in began:
        await event.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    scene.engine.holds.clear()
    scene.engine.did.clear()
    # Another worker cannot know that it died before the time of its acts is up.
    assert (await scene.run()).succeeded == 0
    scene.clock.move(14)
    assert (await scene.run()).succeeded == 0
    scene.clock.move(2)
    done = await scene.run()
    assert (done.succeeded, done.unknown) == (1, 1)
    assert [(action, key) for action, _, key in scene.engine.did] == [("note", note)]
    results = {one["action"]: one for one in await scene.of("ToolResult")}
    assert results["pay"]["error"] == "outcome unknown: the worker died while it ran"
    assert results["note"]["ok"]


async def test_what_is_left_behind_is_not_run_again_while_its_agent_is_stopped() -> None:
    scene = Scene(agent(Action("note", timeout_s=10, idempotent=True)))
    began, _ = scene.engine.hold("note")
    await scene.decide("note", {})
    dying = asyncio.create_task(scene.another().run())
    await began.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    scene.engine.holds.clear()
    scene.clock.move(60)
    await scene.control("stop")
    assert [one.rule for one in (await scene.run()).waiting.values()] == ["stopped"]
    await scene.control("start")
    assert (await scene.run()).succeeded == 1


async def test_a_result_that_comes_after_others_gave_up_is_told_beside_theirs() -> None:
    scene = Scene(agent(Action("pay", timeout_s=10)))
    began, go = scene.engine.hold("pay")
    await scene.decide("pay", {})
    slow = asyncio.create_task(scene.another().run())
    await began.wait()
    scene.clock.move(60)
    assert (await scene.run()).unknown == 1
    go.set()
    assert (await slow).succeeded == 1
    unknown, late = await scene.of("ToolResult")
    assert unknown["error"].startswith("outcome unknown")
    assert (late["ok"], late["call_id"]) == (True, unknown["call_id"])


async def test_an_engine_that_does_not_answer_in_time_leaves_the_outcome_unknown() -> None:
    scene = Scene(agent(Action("pay", timeout_s=0.01)))
    scene.engine.hold("pay")
    await scene.decide("pay", {})
    assert (await scene.run()).unknown == 1
    (result,) = await scene.of("ToolResult")
    assert result["error"] == "outcome unknown: it did not answer in time"


async def test_a_write_that_may_not_have_arrived_runs_nothing_twice() -> None:
    scene = Scene()
    await scene.decide("lookup_order", {})
    memory = scene.log.log
    calls = iter(range(10))

    def fault() -> None:
        if next(calls) == 0:
            raise OutcomeUnknown("the disk is gone")

    memory.fault = fault  # type: ignore[attr-defined]
    with pytest.raises(OutcomeUnknown):
        await scene.run()
    assert scene.engine.did == []
    assert (await scene.run()).succeeded == 1
    assert len(scene.engine.did) == 1


def llm_act(scene: Scene, action: str, number: int = 1) -> Proposal:
    return Proposal(
        decision_id=f"01890000-0000-7000-8000-0000000000{number:02d}",
        conversation_id="c",
        agent="shop",
        action=action,
        arguments='{"order_id":1,"amount_eur":5}',
        tier="imperator",
        occurred_at=scene.clock.us,
        asker="ann",
    )


def llm_call(scene: Scene, key: str) -> LlmCall:
    sender = Sender(name="shop", kind="mad")
    return LlmCall(**scene.envelope(sender), idempotency_key=key)


async def test_an_act_of_a_language_model_goes_through_the_same_guards() -> None:
    scene = Scene()
    acted = await scene.actor.act(llm_act(scene, "refund"), [llm_call(scene, "one")])
    assert acted.verdict.what == "run"
    assert acted.result is not None
    assert acted.result.ok
    assert len(await scene.read("mad.llm")) == 1
    again = await scene.actor.act(llm_act(scene, "refund"))
    assert (again.verdict.rule, again.written) == ("settled", True)
    other = await scene.actor.act(llm_act(scene, "refund", 2), [llm_call(scene, "two")])
    assert (other.verdict.what, other.verdict.rule) == ("refuse", "once-per:order_id")
    # Its call is on the log with the refusal, and who asked is told.
    assert len(await scene.read("mad.llm")) == 2
    (told,) = await scene.of("Turn")
    assert (list(told["recipients"]), told["intent"]) == (["ann"], "ERROR")
    assert scene.engine.actions == ["refund"]


async def test_what_goes_along_is_written_once_with_the_question_and_the_act_runs_later() -> None:
    scene = Scene()
    proposal = llm_act(scene, "close_account")
    acted = await scene.actor.act(proposal, [llm_call(scene, "one")])
    assert (acted.verdict.what, acted.verdict.rule, acted.written) == ("wait", "approval", True)
    assert len(await scene.read("mad.llm")) == 1
    await scene.control("approve", about_id=proposal.act_id)
    # Who proposed it may be gone: the question holds all that is needed.
    assert (await scene.another().run()).succeeded == 1
    assert scene.engine.did == [("close_account", '{"amount_eur":5,"order_id":1}', proposal.act_id)]


async def test_an_act_of_a_language_model_that_waits_writes_nothing() -> None:
    scene = Scene()
    await scene.control("stop")
    acted = await scene.actor.act(llm_act(scene, "refund"), [llm_call(scene, "one")])
    assert (acted.verdict.what, acted.verdict.rule, acted.written) == ("wait", "stopped", False)
    assert await scene.read("mad.llm") == []
    await scene.control("start")
    assert (await scene.actor.act(llm_act(scene, "refund"))).result is not None


async def test_a_decision_may_lead_to_several_acts() -> None:
    scene = Scene()
    first = llm_act(scene, "lookup_order")
    for number in range(3):
        acted = await scene.actor.act(replace(first, number=number))
        assert acted.result is not None
    assert len(await scene.of("ToolCall")) == 3


async def test_a_turn_that_the_log_does_not_hold_orders_nothing() -> None:
    scene = Scene()
    await scene.decide("lookup_order", {})
    source = await scene.read("mad.decisions")
    alone = Scene()
    await alone.log.append([source[0].event])
    await alone.run()
    assert await alone.refusals() == ["arguments"]


async def test_what_a_process_does_next_is_decided_on_a_tool_s_result() -> None:
    scene = Scene()
    await scene.decide("lookup_order", {})
    await scene.run()
    (result,) = await scene.of("ToolResult")
    (first,) = await scene.read("mad.decisions")
    again = scene.envelope(first.event.sender)
    changes = {"event_id": again["event_id"], "turn_id": result["event_id"], "tier": "lppm"}
    more = {"route": "action:refund", "arguments": json.dumps(refund())}
    await scene.log.append([first.event.model_copy(update={**changes, **more})])
    assert (await scene.run()).succeeded == 1
    assert scene.engine.actions == ["lookup_order", "refund"]


async def test_acts_that_were_made_by_others_count_as_the_past() -> None:
    scene = Scene()
    sender = Sender(name="old-shop", kind="mad")
    call = ToolCall(**scene.envelope(sender, "x"), action="refund", arguments=json.dumps(refund(5)))
    await scene.log.append([call])
    await scene.decide("refund", refund(5))
    done = await scene.run()
    assert [one.rule for one in done.waiting.values()] == ["once-per:order_id"]
    scene.clock.move(61)
    # It has had its time: it may have happened.
    assert (await scene.run()).refused == 1


async def test_an_act_that_nobody_ran_for_a_day_is_stale() -> None:
    scene = Scene(stale_after_s=100, approval_timeout_s=100)
    await scene.decide("lookup_order", {})
    scene.clock.move(100)
    await scene.run()
    assert (await scene.refusals(), scene.engine.did) == (["stale"], [])
    # Nobody waits for an answer any more, so it does not go up.
    assert len(await scene.of("Decision")) == 1


async def test_what_an_agent_did_by_itself_about_a_turn_is_not_done_again() -> None:
    scene = Scene()
    await scene.decide("lookup_order", {})
    (turn,) = await scene.of("Turn")
    own = scene.envelope(Sender(name="shop", kind="mad"))
    call = ToolCall(
        **{**own, "causation_id": turn["event_id"]}, action="lookup_order", arguments="{}"
    )
    await scene.log.append([call])
    done = await scene.run()
    assert (done.succeeded, done.refused, done.waiting) == (0, 0, {})
    assert scene.engine.did == []
    await scene.decide("lookup_order", {})
    assert (await scene.run()).succeeded == 1
