"""Whatever the batches, the search index gives the same answers; whatever is typed is answered."""

import asyncio
import tempfile
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from unittest import mock

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_search import turn

from madlog.analytics import search
from madlog.analytics._search_file import tokens
from madlog.analytics.errors import BadSearch
from madlog.analytics.search import Filters, SearchIndex
from madlog.analytics.search_words import expression
from madlog.schemas import Turn
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog

WORDS = st.sampled_from(["refund", "refunds", "late", "broken", "the", "café"])
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)
CONVERSATIONS = st.sampled_from(["order-1", "order-2", "order-3"])
ASKED = ("refund", "the late", "refund* -late", '"the late" OR broken', "cafe")


@st.composite
def turns(draw: st.DrawFn) -> list[Turn]:
    said = draw(st.lists(st.tuples(TEXTS, CONVERSATIONS, st.integers(1, 3)), max_size=14))
    made = []
    for number, (text, conversation, at) in enumerate(said):
        one = turn(number + 1, text, conversation)
        # Times that are equal or fall, so that ties are common.
        made.append(one.model_copy(update={"occurred_at": at}))
    return made


async def answers(index: SearchIndex, log: EventLog) -> list[object]:
    found: list[object] = [await index.rows(log, words) for words in ASKED]
    found += [await index.search(log, words, limit=4) for words in ASKED]
    found.append(await index.search(log, "the", Filters(conversation="order-1")))
    return found


async def folded_at_once_and_in_batches(
    said: list[Turn], cuts: list[int], rows: int, folder: Path
) -> None:
    log = await EventLog.open(MemoryLog())
    with closing(SearchIndex(folder / "grown.sqlite")) as grown:
        places = sorted({0, *(cut % (len(said) + 1) for cut in cuts), len(said)})
        with mock.patch.object(search, "_ROWS", rows):
            for start, end in pairwise(places):
                await log.append(said[start:end])
                await grown.take_up(log)
            incremental = await answers(grown, log)
    with closing(SearchIndex(folder / "fresh.sqlite")) as fresh:
        assert await answers(fresh, log) == incremental
    held = []
    for name in ("grown.sqlite", "fresh.sqlite"):
        with closing(apsw.Connection(str(folder / name))) as connection:
            tables = ("turns ORDER BY id", "folded ORDER BY partition")
            held.append([list(connection.execute(f"SELECT * FROM {one}")) for one in tables])
    assert held[0] == held[1]


@settings(max_examples=10, deadline=None)
@given(turns(), st.lists(st.integers(0, 20), max_size=4), st.integers(1, 5))
def test_any_batches_give_the_answers_of_one_fold_from_zero(
    said: list[Turn], cuts: list[int], rows: int
) -> None:
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(folded_at_once_and_in_batches(said, cuts, rows, Path(made)))


PIECES = st.sampled_from(['"', "*", "-", "OR", "AND", "NOT", "NEAR(", ")", ":", "^", "+", "a", " "])


@given(st.one_of(st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join), st.text()))
def test_whatever_is_typed_is_an_expression_or_refused(text: str) -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        try:
            written = expression(text, lambda one: tokens(connection, one))
        except BadSearch:
            return
        connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (written,)).fetchall()
