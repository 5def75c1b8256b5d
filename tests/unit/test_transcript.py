"""A conversation on the screen: what stands together, what is folded, what the margin says."""

import json
from typing import Any

import pytest

from madlog.analytics.conversation_view import ConversationView, conversation_view
from madlog.cli._transcript import Fold, print_transcript
from madlog.mads.demo.traffic import traffic
from madlog.schemas import (
    Decision,
    Event,
    LlmCall,
    Outcome,
    Part,
    ProcessStep,
    Sender,
    Source,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

AT = 1_767_600_000_000_000


def eid(number: int) -> str:
    return new_event_id(AT + number, number.to_bytes(10, "big"))


def about(number: int, sender: str = "bot", **fields: Any) -> dict[str, Any]:
    return {
        "event_id": eid(number),
        "conversation_id": "c1",
        "sender": Sender(name=sender, kind="human" if sender == "ada" else "mad"),
        "occurred_at": AT + number * 1_000_000,
        **fields,
    }


def said(number: int, text: str, sender: str = "ada", **fields: Any) -> Turn:
    return Turn(**about(number, sender, **fields), parts=(Part(content_class="prose", text=text),))


def call(number: int, action: str, arguments: dict[str, Any]) -> ToolCall:
    return ToolCall(**about(number), action=action, arguments=json.dumps(arguments))


def result(number: int, of: int, answer: Any, **fields: Any) -> ToolResult:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return ToolResult(**about(number), call_id=eid(of), ok=True, result=text, **fields)


def decision(number: int, turn: int, **fields: Any) -> Decision:
    given: dict[str, Any] = {
        "turn_id": eid(turn),
        "recipient": "bot",
        "mode": "live",
        "tier": "dtr",
        "route": "action:refund",
        "confidence": 0.97,
        "max_error": 0.05,
        "model_id": eid(99),
        "model_version": "1",
        "reason": "leaf",
        "propensity": 1.0,
        "audited": False,
        **fields,
    }
    return Decision(**about(number), **given)


def outcome(number: int, result: str, of: str, about_id: str) -> Event:
    ended = {"mad": "bot", "result": result, "judged_by": "x", "about": of, "about_id": about_id}
    return Outcome.model_validate({**about(number), **ended})


async def viewed(*events: Event) -> ConversationView:
    log = await EventLog.open(MemoryLog())
    await log.append(events)
    return await conversation_view(log, "latest")


def printed(
    view: ConversationView,
    capsys: pytest.CaptureFixture[str],
    fold: Fold = Fold.SOME,
    width: int = 100,
) -> list[str]:
    print_transcript(view, fold, width=width)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


async def test_a_call_stands_with_its_result_also_when_results_come_late(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = await viewed(
        said(1, "both, please", recipients=("bot",)),
        call(2, "look", {"id": 1}),
        call(3, "refund", {"id": 2, "eur": 5}),
        result(4, 3, {"id": 2, "eur": 5, "status": "paid"}),
        result(5, 2, {"id": 1}),
        result(6, 90, "of a call that is not here"),
    )
    entries = view.entries()
    assert [entry.event.event_id for entry in entries] == [eid(n) for n in (1, 2, 3, 6)]
    assert [entry.event_ids for entry in entries][1:3] == [(eid(2), eid(5)), (eid(3), eid(4))]
    lines = printed(view, capsys, Fold.LINE)
    assert "look(id=1) = id=1" in lines[2]
    # What the tool was given and says again is left out.
    assert "refund(id=2, eur=5) = status=paid" in lines[3]
    assert "= of a call that is not here" in lines[4]
    assert any("= id=2, eur=5, status=paid" in line for line in printed(view, capsys, Fold.NONE))


async def test_what_failed_and_what_has_no_result_yet_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = ToolResult(**about(2), call_id=eid(1), ok=False, error="no such order")
    lines = printed(
        await viewed(call(1, "refund", {"id": 2}), failed, call(3, "look", {})), capsys, Fold.LINE
    )
    assert "refund(id=2) ✗ no such order" in lines[1]
    assert "look()  no result" in lines[2]


async def test_the_margin_says_who_settled_it_how_sure_and_what_it_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = await viewed(
        said(1, "refund it", recipients=("bot",)),
        said(2, "and the other", recipients=("bot",)),
        said(3, "why?", recipients=("bot",)),
        decision(4, 1),
        decision(5, 2, mode="retrospective", tier="lppm"),
        decision(6, 3, tier="imperator", route="imperator", escalation="unsure"),
        LlmCall(**about(7), answer_id=eid(3), cost_usd=0.25, tokens_in=1200, tokens_out=9),
        LlmCall(**about(8)),
        outcome(9, "failure", "decision", eid(5)),
        outcome(10, "success", "conversation", "c1"),
    )
    lines = printed(view, capsys, Fold.LINE)
    assert lines[1].endswith("tree refund 97%")
    assert lines[2].endswith("process? refund 97% ✗")
    assert lines[3].endswith("llm unsure $0.2500")
    assert "? = what would have been decided; it did not act" in lines
    assert "outcome: success (judged by x)" in lines
    assert "decisions judged: 1 failure" in lines
    told = "language model calls: 2, $0.2500 and 1 of unknown cost, 1,200 tokens in, 9 out"
    assert told in lines


async def test_unknown_costs_are_unknown_and_made_up_times_are_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Source(format="tau-bench", sha256="0" * 64, line=1)
    imported = said(1, "hello", source=source, time_source="synthetic")
    lines = printed(await viewed(imported, LlmCall(**about(2))), capsys)
    assert lines[0] == "c1"
    assert lines[-1] == "language model calls: 1, cost unknown"
    own = printed(await viewed(said(1, "hello"), said(62, "bye")), capsys)
    assert own[0] == "c1  2026-01-05 08:00:01, 1 min 1 s"
    assert own[-1] == "language model calls: none recorded"


async def test_long_texts_are_folded_cut_to_a_line_or_shown_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "\n".join(f"line {number}" for number in range(20)) + "x" * 600
    view = await viewed(said(1, long), said(2, "y" * 500))
    some = printed(view, capsys)
    assert any("… 14 lines more" in line for line in some)
    assert any("100 characters more" in line for line in some)
    brief = printed(view, capsys, Fold.LINE)
    assert len(brief) == 4
    assert all(len(line) <= 100 for line in brief)
    whole = "".join(printed(view, capsys, Fold.NONE))
    assert whole.count("x") == 600
    assert whole.count("y") >= 500


async def test_a_narrow_screen_gets_the_words_under_the_speaker(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = await viewed(said(1, "refund it now please", recipients=("bot",)), decision(2, 1))
    lines = printed(view, capsys, width=40)
    assert "1 ada → bot  tree refund 97%" in lines
    assert "  refund it now please" in lines
    assert all(len(line) <= 40 for line in lines[1:])


async def test_the_demo_s_twice_paid_refund_shows_what_its_model_had_not_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    *_, last = traffic(1, 200)
    view = await viewed(*last)
    (missing,) = view.left_out()
    assert [entry.number for entry in missing.entries] == [1, 2, None, 3, 4]
    paid = missing.entries[2].result
    assert paid is not None
    assert paid.fields["action"] == "refund"
    lines = printed(view, capsys, Fold.LINE, width=80)
    assert len(lines) <= 19
    told = " ".join(lines)
    assert "not shown to payments's model before refund(amount_eur=480, order_id=4711)" in told
    assert "#1 to #4; refund(amount_eur=480, order_id=4711) = reference=R-" in told


async def test_what_a_model_could_not_have_been_shown_is_not_said_to_be_left_out() -> None:
    view = await viewed(
        said(1, "one"),
        said(2, "two"),
        LlmCall(**about(3, seen=eid(2)), messages=(eid(1), eid(2))),
        said(4, "three"),
        LlmCall(**about(5, seen=eid(4)), messages=()),
        LlmCall(**about(6), messages=(eid(1),)),
    )
    assert list(view.left_out()) == []


@pytest.mark.parametrize("width", [100, 40])
async def test_the_moves_of_a_process_stand_in_a_line_under_what_caused_them(
    capsys: pytest.CaptureFixture[str], width: int
) -> None:
    process: dict[str, Any] = {"instance_id": eid(9), "mad": "bot", "process": "p1"}
    more: dict[str, Any] = {
        "action": "refund",
        "arguments": '{"eur": 5}',
        "reason": "it was broken",
    }
    view = await viewed(
        said(1, "it broke"),
        said(3, "done", "bot"),
        ProcessStep(**about(4, causation_id=eid(1)), **process, state="started"),
        ProcessStep(**about(5, causation_id=eid(1)), **process, **more, state="step"),
        # What a timer caused stands where it came.
        ProcessStep(**about(6, causation_id=eid(8)), **process, state="timed-out"),
    )
    lines = [line.strip() for line in printed(view, capsys, Fold.LINE, width)]
    moved = next(
        at for at, line in enumerate(lines) if line.startswith("process p1 of bot: started")
    )
    assert lines[moved - 1].endswith("it broke")
    assert "process p1 of bot: timed-out" in lines[moved + 2 :]
    whole = printed(view, capsys, Fold.NONE, 100)
    assert [line.strip() for line in whole if "refund" in line] == [
        "process p1 of bot: step refund(eur=5): it was broken"
    ]
    assert [step["state"] for step in view.as_json()["process_steps"]] == [
        "started",
        "step",
        "timed-out",
    ]
