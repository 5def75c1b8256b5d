"""Named questions about routing and learning, each on a log of a few events."""

from datetime import datetime
from typing import Any

import pytest
from tests.unit.test_questions import about, answer, call, decision, eid, log_of, turn
from tests.unit.test_questions_agents import Case, command, step
from tests.unit.test_questions_learning import outcome

from madlog.analytics.questions import ask
from madlog.schemas import Decision, Event, LlmCall, Outcome

FEATURES: dict[str, int | str] = {
    "sender_kind": "human",
    "intent": "request",
    "command": "execute",
    "verb": "refund",
    "shorthand": "none",
    "ack_tag": 0,
    "words": 3,
}


def decided(n: int, tier: Any = "dtr", **changes: Any) -> Decision:
    made = decision(n, tier, changes.pop("mode", "live")).event
    assert isinstance(made, Decision)
    return made.model_copy(update={"features": FEATURES, **changes})


def judged(n: int, about_id: str, result: Any, by: str, cause: int | None = None) -> Outcome:
    return outcome(n, about_id, result, by).model_copy(
        update={"causation_id": None if cause is None else eid(cause)}
    )


def withdrawn(made: Outcome) -> Outcome:
    return made.model_copy(update={"extra": {"withdrawn": "1"}})


def spent(n: int, cause: int | None, answer_id: str | None = None, **more: Any) -> LlmCall:
    return LlmCall(**about(n, "bot", cause=cause), answer_id=answer_id, **more)


def about_conversation(n: int, conversation: str, result: Any, quality: float | None) -> Outcome:
    return outcome(n, conversation, result, "reward").model_copy(
        update={"about": "conversation", "quality": quality}
    )


CASES = (
    Case(
        "decided",
        [
            turn(1, "anna", "bot", "refund 17"),
            turn(2, "anna", "bot", "thanks"),
            decided(3),
            decided(4, "imperator", turn_id=eid(2), escalation="unsure", conversation_id="c1"),
            decided(5, turn_id=eid(9), conversation_id="c2"),
        ],
        {"conversation": "c1"},
        ("turn_number", "route", "confidence", "promised_error", "escalation", "model_version"),
        [(1, "action:ok", 0.5, 0.05, None, "1"), (2, "imperator", 0.5, 0.05, "unsure", "1")],
    ),
    Case(
        "contradicted",
        [
            turn(1, "anna", "bot"),
            decided(2, arguments='{"order":1}'),
            decided(3, "imperator", route="action:look", sender=turn(1, "guard").sender),
            judged(4, eid(2), "failure", "correction", cause=3),
            decided(5),
            judged(6, eid(5), "failure", "audit").model_copy(
                update={"extra": {"route": "action:look", "arguments": "{}"}}
            ),
            decided(7),
            judged(8, eid(7), "failure", "audit"),
            judged(9, eid(7), "success", "audit"),
            decided(10),
            withdrawn(judged(11, eid(10), "failure", "correction", cause=3)),
            decided(12, "lppm"),
            judged(13, eid(12), "failure", "audit"),
            decided(14),
            judged(15, eid(14), "failure", "tool"),
        ],
        {},
        ("decision_id", "route", "contradicted_by", "by_tier", "chose", "chose_arguments"),
        [
            (eid(5), "action:ok", "audit", None, "action:look", "{}"),
            (eid(2), "action:ok", "correction", "imperator", "action:look", None),
        ],
    ),
    Case(
        "patterns",
        [
            decided(1, mode="retrospective"),
            decided(2, mode="retrospective"),
            decided(3, mode="retrospective", features={**FEATURES, "words": 9}),
            decided(4, mode="retrospective", features={**FEATURES, "verb": "look"}),
            decided(5, "imperator", mode="retrospective"),
            judged(6, eid(1), "success", "record"),
            judged(7, eid(2), "failure", "record"),
        ],
        {},
        ("route", "support", "judged", "success", "first_at"),
        [
            ("action:ok", 3, 2, 0.5, datetime(1970, 1, 1, 0, 0, 0, 1000)),  # noqa: DTZ001
            ("action:ok", 1, 0, None, datetime(1970, 1, 1, 0, 0, 0, 4000)),  # noqa: DTZ001
        ],
    ),
    Case(
        "irreproducible",
        [
            decided(1),
            decided(2),
            decided(3, route="action:other"),
            decided(4, "imperator", escalation="guard"),
            decided(5, features={**FEATURES, "words": 9}),
            decided(6, features={**FEATURES, "words": 9}, model_id=eid(91), route="ack"),
            decided(7, "lppm", features={}),
            decided(8, "lppm", features={}, route="ack"),
        ],
        {},
        ("decisions", "decided", "decision_ids"),
        [(3, ["dtr action:ok", "dtr action:other"], [eid(1), eid(2), eid(3)])],
    ),
    Case(
        "versions",
        [
            decided(1, mode="retrospective"),
            decided(2, "imperator", mode="retrospective"),
            decided(3, mode="retrospective", model_id=eid(91), model_version="2"),
            decided(4, mode="retrospective", model_id=eid(91), model_version="2"),
            judged(5, eid(1), "success", "record"),
            judged(6, eid(3), "failure", "record"),
            judged(7, eid(4), "success", "record"),
        ],
        {},
        ("model", "decisions", "settled_share", "success", "model_before", "success_before"),
        [("1", 2, 0.5, 1.0, None, None), ("2", 2, 1.0, 0.5, "1", 1.0)],
    ),
    Case(
        "sequences",
        [
            *(
                event
                for n in (1, 2, 3)
                for event in (
                    command(10 * n, "@bot EXECUTE: refund 17").model_copy(
                        update={"conversation_id": f"c{n}"}
                    ),
                    *call(10 * n + 1, "look", {}, f"c{n}"),
                    *call(10 * n + 3, "refund", {}, f"c{n}"),
                )
            ),
            *call(40, "look", {}, "c1"),
            *call(42, "look", {}, "c1"),
            *call(50, "look", {}, "c4"),
            *call(52, "refund", {}, "c4"),
            step(54, "started", conversation="c4"),
        ],
        {"length": "2"},
        ("sequence", "times", "conversations"),
        [("anna: asks refund > bot: look", 3, 3), ("bot: look > bot: refund", 3, 3)],
    ),
    Case(
        "training-data",
        [
            turn(1, "anna", "bot"),
            turn(2, "bot", "anna"),
            about_conversation(3, "c1", "success", 0.9),
            turn(4, "anna", "bot", conversation="c2"),
            turn(5, "bot", "anna", conversation="c2"),
            about_conversation(6, "c2", "success", 0.5),
            turn(7, "anna", "bot", conversation="c3"),
            turn(8, "bot", "anna", conversation="c3"),
            about_conversation(9, "c3", "failure", None),
            turn(10, "anna", "bot", conversation="c4"),
            about_conversation(11, "c4", "success", None),
        ],
        {},
        ("conversation_id", "phase_1", "phase_2", "phase_3", "phase_4", "quality"),
        [("c1", True, False, False, False, 0.9)],
    ),
    Case(
        "participants",
        [turn(1, "anna", "bot")],
        {"conversation": "c1"},
        ("participant", "left_at"),
        [("anna", None)],
    ),
    Case(
        "escalations",
        [decided(1, "imperator"), decided(2, "imperator", max_error=0.01), decided(3)],
        {},
        ("escalation", "promised_error", "decisions", "share"),
        [("unknown", 0.01, 1, 0.5), ("unknown", 0.05, 1, 0.5)],
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_answer_on_a_small_log_is_the_one_counted_by_hand(case: Case) -> None:
    log = await log_of(*case.events)
    assert await answer(log, case.name, *case.columns, **case.params) == case.rows


async def test_one_turn_s_decisions_are_named_by_its_number_or_its_id() -> None:
    events: list[Event] = [turn(1, "anna", "bot"), turn(2, "anna", "bot")]
    log = await log_of(*events, decided(3), decided(4, turn_id=eid(2)))
    for given in ("2", eid(2)):
        found = await answer(log, "decided", "decision_id", turn=given)
        assert found == [(eid(4),)]


async def test_forms_that_are_older_than_asked_for_are_left_out() -> None:
    log = await log_of(decided(1), decided(5_000, features={**FEATURES, "verb": "look"}))
    since = {"since": "1970-01-01T00:00:02"}
    assert [row[0] for row in await answer(log, "patterns", "form", **since)] == [
        '{"sender_kind":"human","intent":"request","command":"execute","verb":"look",'
        '"shorthand":"none","ack_tag":"0"}'
    ]


async def test_the_model_in_use_at_a_time_is_the_one_that_decided_around_it() -> None:
    log = await log_of(
        decided(1_000),
        decided(3_000),
        decided(5_000, model_id=eid(91), model_version="2"),
        decided(7_000, model_id=eid(91), model_version="2"),
    )
    for at, models in (("02", ["1"]), ("06", ["2"]), ("04", [])):
        result = await ask(log, "versions", {"at": f"1970-01-01T00:00:{at}"})
        assert result.table.column("model").to_pylist() == models
