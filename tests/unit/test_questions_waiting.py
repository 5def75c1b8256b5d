"""Named questions whose events nobody writes yet: no rows, a note, and answers once they come."""

import json
from typing import Any

import pytest
from pydantic import create_model
from tests.unit.test_questions import about, answer, eid, log_of, turn
from tests.unit.test_questions_learning import outcome

from madlog.schemas import Event, LlmCall, Turn, encode
from madlog.schemas.derive import avro_schema
from madlog.topics import EventLog, NewRecord


async def novel(log: EventLog, kind: str, *events: Event) -> None:
    """Append events of a kind that only a newer program knows, with no field of its own."""
    novelty = create_model(kind, __base__=Event)
    novelty.kind = kind
    schema = avro_schema(novelty)
    log.schemas.add(json.dumps(schema))
    await log.ensure_topics(["mad.system"])
    for event in events:
        made = novelty(**{name: getattr(event, name) for name in Event.model_fields})
        await log.log.append([NewRecord("mad.system", b"x", encode(made, schema))])


async def test_heartbeats_tell_who_is_away_once_there_are_any() -> None:
    log = await log_of()
    # Each append is a second later: 100 s pass after the first, 40 after the second.
    await novel(log, "Heartbeat", turn(1, "dewey"))
    await log.append([turn(n, "anna") for n in (2,)])
    for n in range(60):
        await log.append([turn(10 + n, "anna")])
    await novel(log, "Heartbeat", turn(3, "horace"))
    for n in range(40):
        await log.append([turn(100 + n, "anna")])
    await novel(log, "Heartbeat", turn(4, "marco"))
    found = await answer(log, "heartbeats", "agent", "state", "heartbeats")
    assert found == [("dewey", "disconnected", 1), ("horace", "stale", 1), ("marco", "healthy", 1)]


@pytest.mark.parametrize(
    ("name", "kind", "columns", "row"),
    [
        ("repairs", "DataRepaired", ("repaired_by", "repaired_event"), ("dewey", eid(1))),
        ("gates", "GateCrossed", ("sender", "event_id"), ("dewey", eid(5))),
    ],
)
async def test_what_waits_for_events_answers_once_they_come(
    name: str, kind: str, columns: tuple[str, ...], row: tuple[Any, ...]
) -> None:
    log = await log_of(turn(1, "anna"))
    assert await answer(log, name) == []
    await novel(log, kind, turn(5, "dewey", cause=1))
    assert await answer(log, name, *columns) == [row]


async def test_contexts_are_held_against_what_followed_once_there_are_any() -> None:
    log = await log_of(turn(1, "anna", "bot"))
    assert await answer(log, "context-use") == await answer(log, "unclear-contexts") == []
    await novel(log, "ContextBuilt", turn(2, "bot", cause=1), turn(3, "bot", cause=1))
    asked = LlmCall(**about(4, "bot", cause=2), model="m", tokens_in=900, answer_id=eid(6))
    silent = LlmCall(**about(5, "bot", cause=3), model="m2", tokens_in=100)
    back: Turn = turn(6, "bot", "anna", "Which order do you mean?")
    await log.append([asked, silent, back])
    await log.append(
        [outcome(7, "c1", "success", "reward").model_copy(update={"about": "conversation"})]
    )
    columns = ("agent", "contexts", "shown_to_a_model", "answered", "tokens_in", "tokens_wasted")
    assert await answer(log, "context-use", *columns) == [("bot", 2, 2, 1, 1000, 100)]
    unclear = await answer(log, "unclear-contexts", "context_id", "asked_back", "turn_id")
    assert unclear == [(eid(2), "Which order do you mean?", eid(6))]
    phases = ("phase_1", "phase_2", "phase_3", "phase_4", "contexts")
    assert await answer(log, "training-data", *phases) == [(True, True, False, True, 2)]
