"""τ-bench runs as events: ids, links, calls matched by place, outcomes."""

import json
from itertools import pairwise
from typing import Any

import pytest

from madlog.analytics.exporting.tau_bench import run_from
from madlog.analytics.importing import FORMATS, BadLine, SourceObject
from madlog.schemas import (
    SYNTHETIC_EPOCH_US,
    ConversationChanged,
    Event,
    Outcome,
    ToolCall,
    ToolResult,
    Turn,
)

FORMAT = FORMATS["tau-bench"]


def _call(name: str, call_id: str, content: str | None = None) -> dict[str, Any]:
    function = {"name": name, "arguments": '{"a": 1}'}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def _answer(name: str, call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


def _run(**changes: Any) -> dict[str, Any]:
    run: dict[str, Any] = {
        "task_id": 3,
        "trial": 0,
        "reward": 1.0,
        "info": {"task": {"user_id": "ann", "actions": []}, "user_cost": 0.00354750000000003},
        "traj": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi @agent #help"},
            _call("look_up", "call_1", "One moment"),
            _answer("look_up", "call_1", "Error: not found"),
            _call("look_up", "call_1"),
            _answer("look_up", "call_1", ""),
            {"role": "assistant", "content": "Done"},
            {"role": "user", "content": "###STOP###"},
        ],
    }
    return run | changes


def _events(run: dict[str, Any], line: int = 1, file_sha256: str = "f" * 64) -> list[Event]:
    value = FORMAT.check(json.loads(json.dumps(run)))
    return FORMAT.events(SourceObject(value, line, file_sha256, FORMAT.conversation(value)))


def test_a_run_becomes_a_conversation() -> None:
    events = _events(_run())
    shown = [
        (event.kind, event.sender.name, getattr(event, "recipients", None)) for event in events
    ]
    assert shown == [
        ("ConversationChanged", "import", None),
        ("ConversationChanged", "import", None),
        ("ConversationChanged", "import", None),
        ("ConversationChanged", "import", None),
        ("Turn", "system", ("agent",)),
        ("Turn", "user", ("agent",)),
        ("Turn", "agent", ("user",)),
        ("ToolCall", "agent", None),
        ("ToolResult", "tools", None),
        ("ToolCall", "agent", None),
        ("ToolResult", "tools", None),
        ("Turn", "agent", ("user",)),
        ("Turn", "user", ("agent",)),
        ("Outcome", "import", None),
    ]
    joined = [event for event in events if isinstance(event, ConversationChanged)][1:]
    assert [(event.participant, event.participant_kind) for event in joined] == [
        ("system", "system"),
        ("user", "human"),
        ("agent", "mad"),
    ]


def test_the_conversation_carries_the_task_and_the_actions_called() -> None:
    created = _events(_run())[0]
    assert isinstance(created, ConversationChanged)
    assert json.loads(created.metadata["tools"]) == ["look_up"]
    assert json.loads(created.metadata["info"])["task"]["user_id"] == "ann"
    assert created.conversation_id.startswith("tau-bench-3-0-")
    assert len(created.conversation_id) == len("tau-bench-3-0-") + 8


def test_each_event_is_linked_to_the_one_before() -> None:
    events = _events(_run())
    assert events[0].causation_id is None
    for before, event in pairwise(events):
        assert event.causation_id == event.seen == before.event_id
        assert event.correlation_id == events[0].event_id
    assert len({event.event_id for event in events}) == len(events)
    assert len({event.idempotency_key for event in events}) == len(events)


def test_times_are_synthetic_and_count_up() -> None:
    events = _events(_run())
    assert [event.occurred_at for event in events] == [
        SYNTHETIC_EPOCH_US + index * 1_000_000 for index in range(len(events))
    ]
    assert {event.time_source for event in events} == {"synthetic"}


def test_a_result_names_its_call_by_place_although_ids_repeat() -> None:
    events = _events(_run())
    calls = [event for event in events if isinstance(event, ToolCall)]
    results = [event for event in events if isinstance(event, ToolResult)]
    assert [result.call_id for result in results] == [call.event_id for call in calls]
    assert [(result.ok, result.result, result.error) for result in results] == [
        (False, None, "Error: not found"),
        (True, "", None),
    ]
    assert calls[0].arguments == '{"a": 1}'


def test_mentions_and_tags_are_read() -> None:
    turn = next(event for event in _events(_run()) if event.sender.name == "user")
    assert isinstance(turn, Turn)
    assert (turn.mentions, turn.tags, turn.text) == (("agent",), ("help",), "Hi @agent #help")


@pytest.mark.parametrize(
    ("reward", "result", "quality"),
    [(1.0, "success", 1.0), (0, "failure", 0.0), (0.5, "partial", 0.5), (7, "partial", None)],
)
def test_the_reward_becomes_an_outcome(reward: float, result: str, quality: float | None) -> None:
    outcome = _events(_run(reward=reward))[-1]
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.quality, outcome.about_id) == (
        result,
        quality,
        outcome.conversation_id,
    )


def test_ids_do_not_depend_on_the_file_or_the_line() -> None:
    one, other = _events(_run(), 1, "a" * 64), _events(_run(), 99, "b" * 64)
    assert [event.event_id for event in one] == [event.event_id for event in other]
    assert {event.source.line for event in other if event.source} == {99}


def test_another_content_is_another_conversation() -> None:
    assert _events(_run())[0].conversation_id != _events(_run(note="x"))[0].conversation_id


@pytest.mark.parametrize(
    "run",
    [
        _run(),
        _run(tools=["not ours"], other_fields=1, tool_definitions={}),
        _run(**{"ü \ud800": 1, "": None}),
        _run(reward=1),
        _run(traj=[]),
        _run(traj=[{"role": "user", "content": None}, {"role": "user"}, _call("a", "b", "")]),
        _run(traj=[_answer("a", "b", "no call")]),
        _run(traj=[{"role": "user", "content": "\ud83d half \u0085 \ufeff"}]),
    ],
)
def test_the_run_comes_back_field_for_field(run: dict[str, Any]) -> None:
    back = run_from(_events(run))
    assert json.dumps(back, sort_keys=True) == json.dumps(run, sort_keys=True)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ([], "not an object"),
        ({}, "`task_id`"),
        (_run(trial="0"), "`trial`"),
        (_run(reward=None), "`reward`"),
        (_run(traj={}), "`traj`"),
        (_run(traj=[1]), "message 1 is not an object"),
        (_run(traj=[{"role": "critic"}]), "message 1 has no role"),
        (_run(traj=[{"role": "user", "content": 1}]), "message 1 has a content"),
        (_run(traj=[{"role": "assistant", "tool_calls": [{}]}]), "names no function"),
    ],
)
def test_another_shape_is_refused_with_its_reason(run: Any, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        FORMAT.check(run)
