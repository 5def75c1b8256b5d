"""Slots: where the values of arguments stand, learned and found again."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.talks import cases

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.cases import Act, Answer, Case
from madlog.processors.lppm.slots import Rule, SlotRules
from madlog.processors.lppm.values import canonical, dates, flattened, is_shape, shapes, tokens


def _human(text: str) -> Act:
    return Act("ann", True, "say", "e", text)


def _call(action: str, arguments: dict[str, Any], answer: Any = None) -> Act:
    return Act("agent", False, f"action:{action}", "e", "", arguments, answer=Answer(True, answer))


def _learnt(*talks: list[Act]) -> SlotRules:
    return SlotRules.learn(Case(str(at), at, tuple(acts)) for at, acts in enumerate(talks))


def test_an_id_is_found_in_words_by_its_shape() -> None:
    rules = SlotRules.learn(cases(range(6)))
    past = [_human("hi"), _human("I am bob_ray_77, I think.")]
    assert rules.filled("get_user", past).arguments == {"user_id": "bob_ray_77"}


def test_nothing_is_filled_where_one_slot_stays_open() -> None:
    rules = SlotRules.learn(cases(range(6)))
    found = rules.filled("get_user", [_human("I do not know my id")])
    assert found == (None, 0, ())
    assert rules.filled("unknown", []).arguments is None


def test_elements_of_an_answer_are_taken_in_turn() -> None:
    def talk(*ids: str) -> list[Act]:
        listed = _call("list", {}, {"ids": list(ids)})
        return [_human("go"), listed, *(_call("show", {"id": one}, {}) for one in ids)]

    rules = _learnt(talk("a1x", "b2y"), talk("c3z", "d4"), talk("e5", "ff66", "g7"))
    past = talk("k11k", "m2", "n3")
    assert rules.filled("show", past[:2]).arguments == {"id": "k11k"}
    assert rules.filled("show", past[:3]).arguments == {"id": "m2"}
    assert rules.filled("show", past[:5]).arguments is None


def test_a_constant_and_a_parameter_left_out_are_learned() -> None:
    def talk(number: int) -> list[Act]:
        extra = {"note": f"free text {number}"} if number == 0 else {}
        return [_human("go"), _call("pay", {"fee": 0, "now": True, **extra})]

    rules = _learnt(*(talk(number) for number in range(5)))
    assert rules.filled("pay", [_human("do it")]).arguments == {"fee": 0, "now": True}


def test_an_earlier_argument_is_taken_again() -> None:
    def talk(number: int) -> list[Act]:
        name = f"x{number}" * (number + 1)
        return [_human("go"), _call("open", {"name": name}), _call("close", {"name": name})]

    rules = _learnt(*(talk(number) for number in range(4)))
    assert rules.filled("close", talk(9)[:2]).arguments == {"name": "x9" * 10}


def test_one_of_few_values_is_found_however_it_is_spelt() -> None:
    def talk(word: str, value: str) -> list[Act]:
        return [_human(f"a {word} ticket for me"), _call("book", {"kind": value})]

    rules = _learnt(
        *[talk("one way", "one_way"), talk("round-trip", "round_trip")] * 3,
    )
    assert rules.filled("book", [_human("Round trip then")]).arguments == {"kind": "round_trip"}
    assert rules.filled("book", [_human("which are there")]).arguments is None


def test_a_spelt_date_takes_its_year_from_what_was_seen() -> None:
    def talk(month: str, number: int, day: int) -> list[Act]:
        seen = _call("look", {}, {"made": "2024-01-02T03:04:05"})
        said = _human(f"please on {month} {day}th")
        return [_human("hi"), seen, said, _call("book", {"on": f"2024-{number:02d}-{day}"})]

    rules = _learnt(talk("May", 5, 24), talk("June", 6, 11), talk("July", 7, 19))
    assert rules.filled("book", talk("Aug", 8, 30)[:3]).arguments == {"on": "2024-08-30"}


def test_a_number_in_words_fills_a_number() -> None:
    def talk(count: int) -> list[Act]:
        return [_human(f"we are {count} people"), _call("seats", {"count": count})]

    rules = _learnt(*(talk(count) for count in (2, 3, 5)))
    assert rules.filled("seats", talk(7)[:1]).arguments == {"count": 7}


def test_a_surer_rule_scores_higher() -> None:
    few, many = SlotRules.learn(cases(range(3))), SlotRules.learn(cases(range(30)))
    past = [_human("ann_lee_5")]
    assert few.filled("get_user", past).score < many.filled("get_user", past).score


def test_rules_come_back_from_their_file() -> None:
    rules = SlotRules.learn(cases(range(6)))
    document = json.loads(json.dumps(rules.to_document()))
    assert SlotRules.from_document(document).rules == rules.rules


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (["words"], "source"),
        (["guess", "", "", "first", False, 1, 1], "guess"),
        (["words", "a", "ever", "first", False, 1, 1], "ever"),
        (["answer", "a", "$", "first", False, 1, 2], "2 right of 1"),
        (["constant", "{", "", "first", False, 1, 1], "JSON"),
        (["choice", "[1]", "all", "first", False, 1, 1], "list of texts"),
        (["words", "(a+)+", "all", "first", False, 1, 1], "shape"),
        (["words", "[a-z]+[a-z]+", "all", "first", False, 1, 1], "shape"),
    ],
)
def test_a_spoilt_rule_is_refused_and_says_where(rule: list[Any], told: str) -> None:
    document = {"format": "slots-1", "rules": {"go": {"to": [rule]}}}
    with pytest.raises(InvalidModel, match=rf"rules\.go\.to.*{told}"):
        SlotRules.from_document(document)


def test_a_rule_tells_where_it_looks() -> None:
    assert str(Rule("answer", "get", "$.ids[*]", "first", True)) == (
        "first unused $.ids[*] of get's answer"
    )


@given(st.text(st.sampled_from("abzAZ019_-.:"), min_size=1))
def test_a_token_has_the_shapes_that_it_is_given(token: str) -> None:
    for shape in shapes(token):
        assert re.fullmatch(shape, token)
        assert is_shape(shape)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda one: st.lists(one, max_size=3)))
def test_every_value_of_an_answer_has_a_path(value: Any) -> None:
    found = [canonical(one) for values in flattened(value).values() for one in values]
    assert canonical(value) in found
    if isinstance(value, list):
        assert all(canonical(one) in found for one in value)


def test_dates_are_read_in_both_orders() -> None:
    assert dates("May 3rd, 2025 or the 4th of June", "2024") == ["2025-05-03", "2024-06-04"]
    assert dates("May 3", None) == []


def test_tokens_keep_ids_whole_and_drop_what_ends_a_sentence() -> None:
    assert tokens("It's a_b_1, (2024-05-01).") == ("It", "s", "a_b_1", "2024-05-01")


@pytest.mark.parametrize(
    ("value", "text"),
    [(330.0, "330"), (1e22, "10000000000000000000000"), ([{"a": 12.0}], '[{"a":12}]')],
)
def test_a_whole_number_is_written_without_a_fraction(value: Any, text: str) -> None:
    assert canonical(value) == text
    assert canonical({"e 1.0": 0.5}) == '{"e 1.0":0.5}'
    assert canonical('1.0 "e') == '"1.0 \\"e"'
