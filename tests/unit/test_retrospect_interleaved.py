"""Where several things are asked at once, an act is the answer to what it names."""

from typing import Any

from tests.unit.orders import AGENT, CUSTOMER, TOOLS, log_event

from madlog.processors.retrospect.conversation import Conversation
from madlog.schemas import Event, Part, ToolCall, ToolResult, Turn, derived_event_id, new_event_id


def made(number: int, kind: type[Event], sender: Any = CUSTOMER, **fields: Any) -> Event:
    at = 1_700_000_000_000_000 + number * 1_000_000
    event_id = new_event_id(at, number.to_bytes(10, "big"))
    envelope = {"event_id": event_id, "conversation_id": "c", "sender": sender, "occurred_at": at}
    return kind(**{**envelope, **fields})


def asked(number: int, text: str, **fields: Any) -> Event:
    parts = (Part(content_class="prose", text=text),)
    return made(number, Turn, recipients=("orders",), parts=parts, **fields)


def called(number: int, about: Event, **fields: Any) -> Event:
    decision = derived_event_id(about.event_id, "router", 0)
    named = {"causation_id": decision, "seen": about.event_id, "extra": {"decision": decision}}
    return made(number, ToolCall, AGENT, arguments="{}", **{**named, **fields})


def said(number: int, about: Event | None) -> Event:
    cause = None if about is None else about.event_id
    parts = (Part(content_class="prose", text="It is done."),)
    return made(number, Turn, AGENT, recipients=("maria",), parts=parts, causation_id=cause)


def done(events: list[Event], number: int) -> str | None:
    on_log = tuple(log_event(event, offset=at) for at, event in enumerate(events))
    found = Conversation("c", on_log).trigger(number, "orders").done
    return None if found is None else found.act.event_id


def test_answers_that_come_in_another_order_are_told_apart() -> None:
    first, second = asked(1, "Where is order 1?"), asked(2, "And order 2?")
    to_second = called(3, second, action="get_order")
    to_first = called(4, first, action="get_order")
    events = [first, second, to_second, to_first]
    assert done(events, 0) == to_first.event_id
    assert done(events, 1) == to_second.event_id


def test_what_was_not_answered_is_not_taken_as_answered_by_another_answer() -> None:
    first, second = asked(1, "ACK"), asked(2, "Where is order 2?")
    events = [first, second, called(3, second, action="get_order"), said(4, second)]
    assert done(events, 0) is None


def test_a_result_is_answered_by_what_names_it_however_late() -> None:
    ask = asked(1, "Where is order 1?")
    call = called(2, ask, action="get_order")
    result = made(3, ToolResult, TOOLS, call_id=call.event_id, ok=True, result="{}")
    other = asked(4, "Hello?")
    answer = said(5, result)
    assert done([ask, call, result, other, answer], 2) == answer.event_id


def test_an_act_that_names_nothing_is_the_next_one_as_before() -> None:
    ask = asked(1, "Where is order 1?")
    answer = said(2, None)
    assert done([ask, answer], 0) == answer.event_id


def test_history_that_was_brought_in_goes_by_its_order_alone() -> None:
    ask = asked(1, "Where is order 1?", time_source="imported")
    other = asked(2, "And order 2?", time_source="imported")
    answer = said(3, other).model_copy(update={"time_source": "imported"})
    assert done([ask, other, answer], 0) == answer.event_id
