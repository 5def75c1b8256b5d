"""The memo answers what it saw often, and falls silent when it stops being right."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from madlog.processors.dtr.features import Feature
from madlog.processors.dtr.memo import Memo

TABLE = {
    "form": Feature("form", str, "a form"),
    "size": Feature("size", int, "a size", exact=False),
    "flag": Feature("flag", int, "a flag"),
}
KEY = ("a", 1)


def trusted() -> Memo:
    """A memo that has proved itself on other forms."""
    memo = Memo(TABLE)
    for _ in range(30):
        memo.learn(("proof", 0), "ack")
    return memo


def test_only_what_tells_forms_apart_is_in_the_key() -> None:
    memo = Memo(TABLE)
    assert memo.names == ["form", "flag"]
    assert memo.key(("a", 77, 1)) == KEY


def test_it_answers_after_three_same_answers_once_it_has_proved_itself() -> None:
    memo = trusted()
    for _ in range(2):
        memo.learn(KEY, "health")
        assert memo.predict(KEY) is None
    memo.learn(KEY, "health")
    assert memo.predict(KEY) == "health"
    fresh = Memo(TABLE)
    for _ in range(3):
        fresh.learn(KEY, "health")
    assert fresh.predict(KEY) is None


def test_one_odd_answer_is_noise_and_two_are_a_change() -> None:
    memo = trusted()
    for _ in range(20):
        memo.learn(KEY, "health")
    memo.learn(KEY, "ack")
    assert memo.predict(KEY) == "health"
    memo.learn(KEY, "ack")
    assert memo.predict(KEY) is None
    for _ in range(8):
        memo.learn(KEY, "ack")
    assert memo.predict(KEY) == "ack"


def test_a_form_of_two_routes_is_hardly_answered() -> None:
    memo, random, answered = trusted(), Random(3), 0
    for _ in range(1_000):
        memo.learn(KEY, "health" if random.random() < 0.6 else "ack")
        answered += memo.predict(KEY) is not None
    assert answered < 50


def test_it_falls_silent_when_its_answers_go_wrong_and_comes_back() -> None:
    memo = Memo(TABLE)
    for number in range(100):
        for _ in range(4):
            memo.learn((f"f{number}", 0), "ack")
    assert len(memo.rows()) == 100
    assert memo.confidence() > 0.96
    for number in range(100):
        memo.learn((f"f{number}", 0), "health")
    assert memo.predict(("f1", 0)) is None
    assert memo.rows() == []
    for number in range(100):
        for _ in range(40):
            memo.learn((f"f{number}", 0), "health")
    assert memo.predict(("f1", 0)) == "health"


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(("ack", "health"))), max_size=200))
def test_it_stays_bounded_and_drops_what_was_not_used_for_longest(
    seen: list[tuple[int, str]],
) -> None:
    memo, model = Memo(TABLE, size_max=8), list[int]()
    for number, route in seen:
        memo.learn((f"f{number}", 0), route)
        model = [*[one for one in model if one != number], number][-8:]
    assert [key[0] for key in memo._entries] == [f"f{number}" for number in model]
