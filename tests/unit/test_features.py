"""What the decision tree sees of a turn."""

from typing import Any

import pytest

from madlog.processors.dtr.features import FEATURES, NO_HISTORY, command_verb, turn_features
from madlog.schemas import Sender, Turn, fields_of
from madlog.schemas.text import parse

TURN_ID = "01890000-0000-7000-8000-000000000001"


def features(text: str, **changes: Any) -> dict[str, int | str]:
    parsed = parse(text)
    values: dict[str, Any] = {
        "event_id": TURN_ID,
        "conversation_id": "c",
        "sender": Sender(name="maria", kind="human"),
        "occurred_at": 1,
        "recipients": ("orders",),
        "mentions": parsed.mentions,
        "tags": parsed.tags,
        "parts": parsed.parts,
        **changes,
    }
    return turn_features(fields_of(Turn(**values)), "orders", {"get_order"}, NO_HISTORY)


def test_every_feature_is_declared_with_its_type() -> None:
    for text in ("", "hello", "@orders get_order 4711", "HRU?", "see https://example.org/x"):
        found = features(text)
        assert list(found) == list(FEATURES)
        assert all(type(found[name]) is feature.type for name, feature in FEATURES.items())


def test_a_command_for_a_registered_action_is_seen_with_its_verb() -> None:
    found = features("@orders get_order 4711")
    assert (found["command"], found["verb"], found["verb_registered"]) == (
        "command",
        "get_order",
        1,
    )
    assert (found["prose_pct"], found["deterministic_pct"]) == (0, 100)


def test_an_unknown_verb_is_not_registered() -> None:
    found = features("EXECUTE: delete_all now")
    assert (found["verb"], found["verb_registered"]) == ("delete_all", 0)


@pytest.mark.parametrize("text", ["Where is my parcel?", "where is your parcel?"])
def test_words_of_prose_are_not_seen(text: str) -> None:
    found = features(text)
    assert found["command"] == "none"
    assert found["verb"] == "none"
    assert found["questions"] == 1
    assert found["prose_pct"] == 100
    same_form = {name: value for name, value in found.items() if name != "chars"}
    assert same_form == {
        name: value for name, value in features("What's the use of it?").items() if name != "chars"
    }


def test_code_is_no_command() -> None:
    found = features("```python\ndelete_all()\n```\n")
    assert (found["command"], found["verb"]) == ("code", "none")


def test_two_commands_are_several() -> None:
    found = features("EXECUTE: get_order 1\nEXECUTE: get_order 2\n")
    assert (found["command"], found["verb"], found["verb_registered"]) == ("several", "none", 0)


def test_mentions_and_tags_are_no_prose() -> None:
    found = features("#ack @orders")
    assert (found["prose_pct"], found["ack_tag"], found["mentioned"]) == (0, 1, 1)


def test_a_little_prose_beside_a_long_command_is_never_rounded_away() -> None:
    found = features("EXECUTE: get_order " + "9" * 3000 + "\nok?")
    assert found["prose_pct"] == 1


@pytest.mark.parametrize(
    ("text", "word"), [("HRU?", "hru"), ("@orders HRU?", "hru"), ("ACK", "ack"), ("hi", "none")]
)
def test_shorthand_is_a_category(text: str, word: str) -> None:
    assert features(text)["shorthand"] == word


def test_the_past_of_the_conversation_counts() -> None:
    turn = fields_of(
        Turn(
            event_id=TURN_ID,
            conversation_id="c",
            sender=Sender(name="maria", kind="human"),
            occurred_at=1,
            recipients=("orders",),
        )
    )
    history = {
        "turns": 7,
        "calls": 2,
        "sender": "maria",
        "ack": 1,
        "intent": "request",
        "tool_ok": 0,
    }
    found = turn_features(turn, "orders", (), history)
    assert [
        found[name] for name in ("turns_before", "same_sender", "last_ack", "calls_before")
    ] == [
        7,
        1,
        1,
        2,
    ]
    assert (found["last_intent"], found["last_tool_ok"]) == ("request", 0)


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("@orders get_order 1", "get_order"),
        ("@orders, #now EXECUTE: refund 1", "refund"),
        ("SQL: select 1", "sql"),
        ("REFUND || ORDER=1", "REFUND"),
        ("1 2 3", None),
    ],
)
def test_the_verb_of_a_command(text: str, verb: str | None) -> None:
    assert command_verb(text) == verb
