"""Recognition with an embedding joined to the words, and the installed one where there is one."""

import json
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madlog.processors.errors import NoEmbedding
from madlog.processors.lppm.embedding import MEANING, installed
from madlog.processors.lppm.recognition import RECOGNISED, Recognizer

NEAR = {"refund": "money", "reimburse": "money", "repay": "money", "track": "way", "where": "way"}
TEXTS = [f"{word} {thing}" for word in ("refund", "track") for thing in "abcdefghijklmnop"]
LABELS = [text.partition(" ")[0] for text in TEXTS]


class Script:
    """An embedding that was told what few words mean."""

    def __init__(self, name: str = "script") -> None:
        self.name = name

    def row(self, text: str) -> dict[str, float]:
        return {MEANING + NEAR[word]: 1.0 for word in text.split() if word in NEAR}


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.fit(TEXTS, LABELS, embedding=Script())


def test_a_word_that_was_never_seen_is_known_by_what_it_means(recognizer: Recognizer) -> None:
    plain = Recognizer.fit(TEXTS, LABELS)
    assert recognizer.recognise("reimburse a", 1.0).guess == "refund"
    assert recognizer.recognise("where a", 1.0).guess == "track"
    assert recognizer.recognise("refund q", 1.0).reason == RECOGNISED
    scores = [model.recognise("reimburse a", 1.0).score for model in (recognizer, plain)]
    assert scores[0] > scores[1]


def test_a_model_is_served_with_the_embedding_that_it_was_learned_with(
    recognizer: Recognizer,
) -> None:
    text = recognizer.to_text()
    assert json.loads(text)["embedding"] == "script"
    again = Recognizer.parse(text, Script())
    assert again.to_text() == text
    for asked in (*TEXTS, "reimburse me", "", "nothing known"):
        assert again.recognise(asked, 0.5) == recognizer.recognise(asked, 0.5)
    for other, told in ((None, "none was given"), (Script("other"), "'other' was given")):
        with pytest.raises(NoEmbedding, match=told):
            Recognizer.parse(text, other)


def test_a_model_without_one_is_served_without(recognizer: Recognizer) -> None:
    plain = Recognizer.fit(TEXTS, LABELS)
    assert "embedding" not in plain.to_document()
    again = Recognizer.parse(plain.to_text(), Script())
    assert again.to_text() == plain.to_text()


@pytest.mark.skipif(find_spec("wordllama") is None, reason="pip install 'madlog[embedding]'")
@settings(max_examples=30, deadline=None)
@given(st.text(max_size=200))
def test_the_installed_vectors_are_the_same_for_the_same_text(text: str) -> None:
    row = installed().row(text)
    assert installed().row(text) == row
    length = sum(value * value for value in row.values()) ** 0.5
    assert not row or length == pytest.approx(1, abs=0.01)


@pytest.mark.skipif(find_spec("wordllama") is None, reason="pip install 'madlog[embedding]'")
def test_words_of_one_meaning_are_nearer_than_others() -> None:
    def near(one: str, other: str) -> float:
        first, second = installed().row(one), installed().row(other)
        return sum(value * second[name] for name, value in first.items())

    assert near("car", "vehicle") > 0.5 > near("car", "banana")


@pytest.mark.skipif(find_spec("wordllama") is not None, reason="the embedding is installed")
def test_without_the_package_it_says_how_to_get_it() -> None:
    with pytest.raises(NoEmbedding, match="pip install"):
        installed()
