"""Shares of tiers: of messages and of model calls, by mode, MAD and day, of what traffic."""

from typing import Any

from tests.unit.history import history
from tests.unit.test_questions import DAY, about, answer, call, decision, eid, log_of, turn
from tests.unit.test_retrospect import log_of as history_log
from tests.unit.test_retrospect import settings

from madlog.processors.retrospect.job import Retrospector
from madlog.schemas import Decision, Source, Turn


def decided(n: int, tier: Any, turn_id: str, **changes: Any) -> Decision:
    made = decision(n, tier).event
    assert isinstance(made, Decision)
    return made.model_copy(update={"turn_id": turn_id, **changes})


async def test_what_a_tool_answered_is_a_model_call_and_no_message() -> None:
    log = await log_of(
        turn(1, "anna", "bot"),
        call(2, "refund", {}),
        turn(4, "anna", "bot"),
        decided(5, "dtr", eid(1)),
        decided(6, "imperator", eid(3)),
        decided(7, "imperator", eid(4)),
    )
    columns = ("tier", "decisions", "share", "messages", "message_share")
    assert await answer(log, "tiers", *columns) == [
        ("imperator", 2, 0.6667, 1, 0.5),
        ("dtr", 1, 0.3333, 1, 0.5),
    ]
    assert await answer(log, "tiers", "target_low", "target_high") == [(0.05, 0.1), (0.6, 0.8)]


async def test_shares_are_told_by_mad_and_by_day() -> None:
    log = await log_of(
        turn(1, "anna", "bot"),
        decided(5, "dtr", eid(1)),
        decided(6, "imperator", eid(1), recipient="orders"),
        decided(7, "dtr", eid(1), recipient="orders", occurred_at=DAY + 1),
    )
    columns = ("part", "tier", "decisions", "share")
    assert await answer(log, "tiers", *columns, by="mad") == [
        ("bot", "dtr", 1, 1.0),
        ("orders", "dtr", 1, 0.5),
        ("orders", "imperator", 1, 0.5),
    ]
    assert await answer(log, "tiers", *columns, by="day") == [
        ("1970-01-01", "dtr", 1, 0.5),
        ("1970-01-01", "imperator", 1, 0.5),
        ("1970-01-02", "dtr", 1, 1.0),
    ]


async def test_it_says_what_traffic_it_is_of() -> None:
    scripted = await history_log(*history(3))
    await Retrospector(scripted, settings()).run()
    assert await answer(scripted, "tiers", "mode", "traffic") == [("retrospective", "scripted")]
    foreign = Turn(
        **about(1, "anna", "c2"),
        time_source="imported",
        source=Source(format="chat", sha256="0" * 64, line=1),
        recipients=("bot",),
    )
    log = await log_of(
        foreign,
        turn(2, "anna", "bot"),
        decided(3, "dtr", eid(1), conversation_id="c2"),
        decided(4, "dtr", eid(2)),
        decided(5, "imperator", eid(2)),
    )
    assert await answer(log, "tiers", "tier", "traffic") == [
        ("dtr", "imported, live"),
        ("imperator", "live"),
    ]
