"""Cases and mining: what a conversation is to a miner, and what many have in common."""

import json
from itertools import zip_longest
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.talks import Event, cases, talk

from madlog.processors.lppm.cases import Answer, cases_of
from madlog.processors.lppm.mining import mine
from madlog.processors.lppm.process import READY_MIN, Process


def _tools(events: list[Event]) -> list[str]:
    return [act.what for act in cases_of(events)[0].acts]


def test_a_case_holds_what_each_did_and_what_tools_answered() -> None:
    (case,) = cases([1])
    assert [act.what for act in case.acts] == [
        "say",
        "ask",
        "say",
        "action:get_user",
        "action:get_booking",
        "action:move_booking",
        "say",
    ]
    looked_up = case.acts[3]
    assert looked_up.arguments == {"user_id": "ann_lee_1001"}
    assert looked_up.answer == Answer(True, {"name": "ann_lee_1001", "bookings": ["B1K001"]})
    assert looked_up.said == "It is ann_lee_1001, thanks."
    assert looked_up.took_us == 1_000
    assert case.succeeded


def test_a_failed_call_keeps_the_text_of_its_error() -> None:
    events = talk(1)
    place = next(at for at, (kind, _) in enumerate(events) if kind == "ToolResult")
    events[place][1].update(ok=False, result=None, error="Error: not found")
    assert cases_of(events)[0].acts[3].answer == Answer(False, "Error: not found")


def test_arguments_that_are_no_object_are_not_learned_from() -> None:
    events = talk(1)
    place = next(at for at, (kind, _) in enumerate(events) if kind == "ToolCall")
    events[place][1]["arguments"] = "[1"
    assert cases_of(events)[0].acts[3].arguments is None


def test_a_made_up_time_is_no_duration() -> None:
    events = talk(1)
    for _, fields in events:
        fields["time_source"] = "synthetic"
    assert {act.took_us for act in cases_of(events)[0].acts} == {None}


def test_who_settled_a_turn_stands_on_what_answered_it() -> None:
    events = talk(1)
    asked = next(at for at, (_, one) in enumerate(events) if one["sender"]["name"] == "ann")
    decision = {
        "conversation_id": "talk-001",
        "event_id": "d",
        "occurred_at": 0,
        "sender": {"name": "router", "kind": "system"},
        "turn_id": events[asked][1]["event_id"],
        "recipient": "agent",
        "mode": "live",
        "tier": "lppm",
    }
    events.insert(asked + 1, ("Decision", decision))
    assert [act.tier for act in cases_of(events)[0].acts[:3]] == [None, "lppm", None]


def test_decisions_come_after_a_human_and_after_an_action_but_not_after_own_words() -> None:
    (case,) = cases([1])
    assert [point.act.what for point in case.points()] == [
        "ask",
        "action:get_user",
        "action:get_booking",
        "action:move_booking",
        "say",
    ]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)))
def test_how_conversations_lie_on_the_log_changes_nothing(order: list[int]) -> None:
    logs = [talk(number) for number in order]
    mixed = [event for row in zip_longest(*logs) for event in row if event is not None]
    assert mine(cases_of(mixed), "p").version == mine(cases(range(6)), "p").version


def test_only_conversations_that_ended_well_are_mined() -> None:
    good, bad, open_ones = cases(range(5)), cases(range(5, 9), "failure"), cases([9], None)
    process = mine(good + bad + open_ones, "p")
    assert process.conversations == tuple(case.conversation_id for case in good)
    assert process.judged == 9


def test_a_process_is_ready_from_twenty_conversations_on() -> None:
    assert not mine(cases(range(READY_MIN - 1)), "p").ready
    assert mine(cases(range(READY_MIN)), "p").ready
    assert not mine(cases(range(READY_MIN), "failure"), "p").ready


def test_a_flag_of_the_answer_becomes_the_guard() -> None:
    process = mine(cases(range(30)), "p")
    found = {edge.step: edge for edge in process.edges if edge.after == "agent action:get_booking"}
    assert found["agent action:move_booking"].when == ("$.free = true",)
    assert found["agent say after get_booking"].when == ("$.free = false",)
    assert found["agent action:move_booking"].confidence > 0.6


def test_steps_say_what_they_need_and_show() -> None:
    process = mine(cases(range(30)), "p")
    move = process.step("agent action:move_booking")
    assert move.precondition == ("done get_booking", "done get_user")
    assert move.effect == ("ok", "$.id")
    assert move.timeout_ms == 4
    assert not move.needs_llm
    assert [(slot.parameter, slot.given) for slot in move.slots] == [
        ("booking_id", 20),
        ("fee", 20),
    ]
    assert all(slot.source for slot in move.slots)
    assert process.step("agent ask after start").needs_llm


def test_what_few_conversations_do_is_noise() -> None:
    odd = talk(30)
    call = {**odd[4][1], "action": "sing", "event_id": "odd"}
    odd.insert(8, ("ToolCall", call))
    assert "action:sing" in _tools(odd)
    process = mine([*cases(range(30)), *cases_of(odd)], "p")
    assert "agent action:sing" not in {step.key for step in process.steps}
    assert len(process.conversations) == 31


def test_what_mostly_follows_a_failure_is_its_compensation() -> None:
    made = []
    for number in range(6):
        events = talk(number, free=True)
        moves = [at for at, (_, one) in enumerate(events) if one.get("action") == "move_booking"]
        events[moves[1]][1].update(ok=False, result=None, error="Error")
        undo = {**events[moves[0]][1], "action": "undo", "event_id": f"undo-{number}"}
        events.insert(moves[1] + 1, ("ToolCall", undo))
        made += events
    process = mine(cases_of(made), "p")
    assert process.step("agent action:move_booking").compensation == "undo"
    assert process.step("agent action:get_booking").compensation is None


def test_mining_the_same_twice_gives_the_same_bytes() -> None:
    shuffled = cases(range(12))
    Random(3).shuffle(shuffled)
    first, second = mine(cases(range(12)), "p"), mine(shuffled, "p")
    assert json.dumps(first.to_document()) == json.dumps(second.to_document())


@pytest.mark.parametrize("result", ["failure", None])
def test_nothing_that_ended_well_is_an_empty_process(result: str | None) -> None:
    assert mine(cases(range(3), result), "p") == Process(
        "p", (), (), {}, {}, (), 3 if result else 0
    )
