import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.topics.errors import InvalidPosition
from madlog.topics.positions import Position, TopicPartition, Vector

PLACES = st.builds(
    TopicPartition, st.from_regex(r"mad\.[a-z]{1,9}", fullmatch=True), st.integers(0, 99)
)
VECTORS = st.dictionaries(PLACES, st.integers(0, 10**12)).map(Vector)


@given(VECTORS)
def test_a_vector_comes_back_from_its_text(vector: Vector) -> None:
    assert Vector.parse(str(vector)) == vector
    assert hash(Vector.parse(str(vector))) == hash(vector)


@given(VECTORS)
def test_the_text_is_sorted_whatever_the_order_it_was_made_in(vector: Vector) -> None:
    assert str(Vector(dict(reversed(list(vector.items()))))) == str(vector)


@pytest.mark.parametrize("text", ["a", "a/0", "a/0@", "a/x@1", "a/0@-1", "a/0@1;b/0@2", "/0@1"])
def test_what_is_no_position_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidPosition, match="TOPIC/PARTITION@OFFSET"):
        Vector.parse(text)


def test_a_vector_is_never_changed_only_made_anew() -> None:
    tp, other = TopicPartition("mad.a", 0), TopicPartition("mad.b", 0)
    vector = Vector({tp: 1})
    assert vector.with_offsets({tp: 2, other: 3}) == Vector({tp: 2, other: 3})
    assert vector == Vector({tp: 1})
    assert vector.with_offsets({other: 3}).only(["mad.b"]) == Vector({other: 3})
    assert str(Position("mad.a", 0, 7)) == "mad.a/0@7"
