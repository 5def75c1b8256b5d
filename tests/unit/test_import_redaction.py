"""What is taken out before anything is written, and what is left alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.analytics.importing import Redactor

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----"


def _text(text: str) -> str:
    return str(Redactor().value(text))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key sk-proj-abcDEF0123456789_x!", "key [REDACTED:secret]!"),
        ("AKIA" + "ABCDEFGH12345678", "[REDACTED:secret]"),
        ("use ghp_" + "a1B2" * 9, "use [REDACTED:secret]"),
        ("xoxb" + "-123456789012-abcdef", "[REDACTED:secret]"),
        (f"token {JWT}.", "token [REDACTED:secret]."),
        ("Authorization: Bearer abcdefghijklmnop1234", "Authorization: Bearer [REDACTED:secret]"),
        (f"a {KEY} b", "a [REDACTED:private-key] b"),
        ("cut -----BEGIN PRIVATE KEY-----\nMII", "cut [REDACTED:private-key]"),
        ("password=hunter2, next", "password=[REDACTED:secret], next"),
        ('api_key: "a b c"', 'api_key: "[REDACTED:secret]"'),
        ("postgres://me:pw@host/db", "postgres://me:[REDACTED:secret]@host/db"),
        ("to Ann.Lee+x@mail.example.co.uk.", "to [REDACTED:e-mail]."),
        ("pay 4111 1111 1111 1111 12/30", "pay [REDACTED:card] 12/30"),
        ("5500-0055-5555-5559", "[REDACTED:card]"),
        ("7 4111111111111111 378282246310005", "7 [REDACTED:card] [REDACTED:card]"),
        ("call +49 170 1234567 now", "call [REDACTED:phone] now"),
        ("call (415) 555-2671", "call [REDACTED:phone]"),
        ("call 415-555-2671.", "call [REDACTED:phone]."),
    ],
)
def test_what_is_stated_is_taken_out(text: str, clean: str) -> None:
    assert _text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "on 2024-05-20 at 11:30:00, flight HAT136, $1,250.00",
        "reservation NO6JO3, credit_card_4421486",
        "order 4111111111111112",
        "id 1234567890123456789012345",
        "call_oIHazX6yQrB8hUwl4cRilFKj",
        "@ann #tag a@b",
        "the password is secret",
        "c038ba88dc4d569bb81a7920c7abbf096966c50952d4b4f4d378130d704d09ec",
    ],
)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert _text(text) == text


def test_values_are_redacted_wherever_they_stand() -> None:
    redactor = Redactor()
    arguments = json.dumps({"to": "a\u0040b.example", "password": "x", "n": 1})
    found: Any = redactor.value(
        {
            "list": ["a@b.example", 4111111111111111, 12, None, True, 1.5],
            "a@b.example": 1,
            "api_key": "anything",
            "arguments": arguments.replace("@", "\\u0040"),
        }
    )
    assert found["list"] == ["[REDACTED:e-mail]", "[REDACTED:card]", 12, None, True, 1.5]
    assert found["[REDACTED:e-mail]"] == 1
    assert found["api_key"] == "[REDACTED:secret]"
    inner = json.loads(found["arguments"])
    assert inner == {"to": "[REDACTED:e-mail]", "password": "[REDACTED:secret]", "n": 1}
    assert redactor.counts == {"e-mail": 3, "card": 1, "secret": 2}


def test_a_value_hidden_behind_an_equal_key_is_found() -> None:
    assert "a@b.example" not in _text('{"k": "a@b.example", "k": 1}')


def test_text_without_findings_keeps_every_character() -> None:
    assert _text('{"a":1,   "b" : [2]}') == '{"a":1,   "b" : [2]}'


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_redacting_twice_changes_nothing_more(value: Any) -> None:
    once = Redactor().value(value)
    again = Redactor()
    assert again.value(once) == once


@pytest.mark.parametrize("piece", ["a", "a.", "4 ", "@a", "+1 ", "password=", "-", "eyJaaaaaaaaa."])
def test_long_texts_take_time_in_proportion(piece: str) -> None:
    # Quadratic matching of so much would outlast the test's time limit.
    _text(piece * (100_000 // len(piece)))
