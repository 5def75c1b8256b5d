"""Texts of any script and length become features, in bounded work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.processors.lppm.text import CHARACTERS_MAX, PIECE, WORD, Counts, Vocabulary

TEXTS = ["Where is my order?", "where is my parcel", "refund my order please"]


def test_words_pairs_and_pieces_are_features() -> None:
    row = Vocabulary.fit(TEXTS).row("My ORDER!")
    assert {f"{WORD}my", f"{WORD}order", f"{WORD}my order", f"{PIECE} my ", f"{PIECE}rder"} <= set(
        row
    )
    assert f"{PIECE}y o" not in row


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    row = Vocabulary.fit(TEXTS).row("my parcel")
    assert row[f"{WORD}parcel"] > row[f"{WORD}my"]


def test_unknown_words_take_weight_from_the_known_ones() -> None:
    vocabulary = Vocabulary.fit(TEXTS)
    alone, among = vocabulary.row("refund"), vocabulary.row("refund qwxz vbnz")
    assert among[f"{WORD}refund"] < alone[f"{WORD}refund"] == 1.0


def test_only_the_commonest_features_are_kept_and_of_equals_the_first() -> None:
    assert list(Vocabulary.fit(["b a", "b"], features_max=3).rarities) == ["c: b", "c: b ", "c:b "]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Кофе, пожалуйста!", "кофе"),
        ("हिन्दी में बताओ", "हिन्दी"),
        ("สวัสดี ครับ", "สวัสดี"),
        ("\uff46\uff55\uff4c\uff4c width", "full"),
        ("don’t", "don’t"),
        ("cafe\u0301 noir", "café"),
        ("🚕 now", "🚕"),
    ],
)
def test_words_of_every_script_are_kept_whole(text: str, word: str) -> None:
    assert WORD + word in Vocabulary.fit([text]).rarities


def test_of_a_long_text_the_beginning_and_the_end_are_considered() -> None:
    vocabulary = Vocabulary.fit(["refund order middle"])
    long = "refund " + "x " * CHARACTERS_MAX + "middle " + "y " * CHARACTERS_MAX + "order"
    row = vocabulary.row(long)
    assert f"{WORD}refund" in row
    assert f"{WORD}order" in row
    assert f"{WORD}middle" not in row
    # One character may be written out as many: that is held within bounds too.
    for text in ("ﷺ" * 1_000_000, "a" * 1_000_000):
        assert len(Vocabulary.fit([text], features_max=100_000).rarities) < 6 * CHARACTERS_MAX


def test_texts_counted_in_parts_make_the_vocabulary_of_them_all() -> None:
    parts = [Counts.of([text]) for text in TEXTS]
    whole = sum(parts, start=Counts())
    for features_max in (7, 1_000):
        fitted = Vocabulary.fit(TEXTS, features_max)
        assert Vocabulary.fit_counts(whole, features_max).rarities == fitted.rarities
        rest = Vocabulary.fit(TEXTS[1:], features_max)
        assert Vocabulary.fit_counts(whole - parts[0], features_max).rarities == rest.rarities
        assert Vocabulary.fit_counts(whole - parts[0]).unknown == rest.unknown


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_has_features_of_at_most_length_one(text: str, texts: list[str]) -> None:
    vocabulary = Vocabulary.fit(texts)
    row = vocabulary.row(text)
    for kind in (WORD, PIECE):
        assert sum(v * v for name, v in row.items() if name.startswith(kind)) <= 1.001
    assert all(0 <= value <= 1 and (value * 4096).is_integer() for value in row.values())
    again = Vocabulary.of(
        list(vocabulary.rarities), list(vocabulary.rarities.values()), vocabulary.unknown
    )
    assert again.row(text) == row


def test_an_empty_text_has_no_features() -> None:
    assert Vocabulary.fit([""]).row("") == {}
    assert Vocabulary.fit([]).row("anything") == {}
