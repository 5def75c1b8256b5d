"""Full-text search: what is found, how it is ranked, and how the index is kept and made anew."""

import json
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from madlog.analytics.errors import BadSearch, IndexUnavailable
from madlog.analytics.search import ANYTHING, Filters, Found, SearchIndex
from madlog.schemas import ConversationChanged, Event, Part, Sender, Turn, new_event_id
from madlog.topics import EventLog, Vector
from madlog.topics.log import NewRecord
from madlog.topics.memory import MemoryLog


def turn(number: int, text: str, conversation: str = "order-1", **fields: Any) -> Turn:
    at = number * 1_000_000
    return Turn(
        event_id=new_event_id(at, number.to_bytes(10, "big")),
        conversation_id=conversation,
        sender=Sender(name=fields.pop("sender", "ada"), kind="human"),
        occurred_at=at,
        parts=(Part(content_class="prose", text=text),),
        **fields,
    )


def joined(number: int, conversation: str = "order-1") -> ConversationChanged:
    return ConversationChanged(
        event_id=new_event_id(number, b"joined" + number.to_bytes(4, "big")),
        conversation_id=conversation,
        sender=Sender(name="ada", kind="human"),
        occurred_at=number,
        change="joined",
        participant="ada",
        participant_kind="human",
    )


TURNS: list[Event] = [
    joined(1),
    turn(1, "The espresso machine arrived broken, I want a refund", recipients=("shop",)),
    turn(2, "We will refund it late today", sender="shop", recipients=("ada",), tags=("money",)),
    turn(3, "Refunds take long", "order-2", tags=("money", "late")),
    turn(4, "Order-4711 is late, and so is the café crème", "order-2", sender="bob"),
    turn(5, "broken: arrived late", "order-3"),
]


@pytest.fixture
async def log() -> AsyncIterator[EventLog]:
    made = await EventLog.open(MemoryLog())
    await made.append(TURNS)
    yield made
    await made.close()


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    return SearchIndex(tmp_path / "search.sqlite")


def numbers(found: Found) -> list[int]:
    """The numbers that the turns found were made of."""
    return [hit.occurred_at // 1_000_000 for hit in found.hits]


async def test_words_phrases_beginnings_and_what_joins_them(
    log: EventLog, index: SearchIndex
) -> None:
    asked: list[tuple[str, set[int]]] = [
        ("refund", {1, 2}),
        ("REFUND", {1, 2}),
        ("refund late", {2}),
        ("refund AND late", {2}),
        ("refund*", {1, 2, 3}),
        ('"arrived broken"', {1}),
        ('"arrived bro"*', {1}),
        ("arrived broken", {1, 5}),
        ("refund OR broken", {1, 2, 5}),
        ("refund late OR broken late", {2, 5}),
        ("late -broken", {2, 4}),
        ("late NOT broken NOT order", {2}),
        ('late -"order 4711"', {2, 5}),
        ("order-4711", {4}),
        ("4711-order", set()),
        ("cafe creme", {4}),
        ("refund !!!", {1, 2}),
        ('"OR"', set()),
        ("near(refund", set()),
        ("text:refund", set()),
        ("nowhere", set()),
    ]
    for words, finds in asked:
        found = await index.search(log, words)
        assert (set(numbers(found)), found.matches) == (finds, len(finds)), words


async def test_other_fields_narrow_what_is_found(log: EventLog, index: SearchIndex) -> None:
    asked: list[tuple[Filters, set[int]]] = [
        (Filters(sender="shop"), {2}),
        (Filters(recipient="ada"), {2}),
        (Filters(recipient="shop"), set()),
        (Filters(tag="money"), {2}),
        (Filters(conversation="order-2"), {4}),
        (Filters(since=4_000_000), {4, 5}),
        (Filters(until=4_000_000), {2}),
        (Filters(since=2_000_001, until=5_000_000), {4}),
        (Filters(sender="ada", conversation="order-3"), {5}),
    ]
    for filters, finds in asked:
        found = await index.search(log, "late", filters)
        assert (set(numbers(found)), found.matches) == (finds, len(finds)), filters


async def test_what_cannot_be_looked_for_is_one_sentence(log: EventLog, index: SearchIndex) -> None:
    asked = [
        ("", "nothing with a letter"),
        ("   ", "nothing with a letter"),
        ("!!! --", "nothing with a letter"),
        ("AND NOT", "nothing with a letter"),
        ("OR", "two words or phrases"),
        ("refund OR", "two words or phrases"),
        ("OR refund", "two words or phrases"),
        ("-refund", "only to be left out"),
        ("late OR -refund", "only to be left out"),
        ('the "arrived broken', "character 5 of"),
        ('"""', "not closed"),
        ("x" * 1_000_000, "1,000,000 characters"),
        (" ".join("abcdefghij" for _ in range(33)), "33 words"),
        ("a\x00b", "NUL"),
        ("\ud800", "UTF-8"),
    ]
    for words, says in asked:
        with pytest.raises(BadSearch) as refused:
            await index.search(log, words)
        assert says in str(refused.value), words
        assert len(str(refused.value)) < 250


async def test_a_hit_says_where_it_stands_and_shows_its_words(
    log: EventLog, index: SearchIndex
) -> None:
    long = " ".join(f"word{number}" for number in range(200)) + " needle\nin hay"
    await log.append([turn(6, long, "order-2", recipients=("shop", "ada"), tags=("hay",))])
    (hit,) = (await index.search(log, "needle", marks=("<", ">"))).hits
    assert (hit.conversation_id, hit.turn_number) == ("order-2", 3)
    assert (hit.sender, hit.recipients, hit.tags) == ("ada", ("shop", "ada"), ("hay",))
    assert hit.snippet.startswith("…")
    assert hit.snippet.endswith("word199 <needle> in hay")
    assert len(hit.snippet.split()) <= 24
    at = {hit.position.topic_partition: hit.position.offset}
    upto = {tp: offset + 1 for tp, offset in at.items()}
    (events,) = [some async for some in log.read(Vector(at), Vector(upto))]
    assert events[0].event_id == hit.event_id


def bm25(texts: list[list[str]], words: list[str]) -> list[float]:
    """BM25 as the books have it, k1 = 1.2 and b = 0.75, by hand."""
    count, mean = len(texts), sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in words:
            having = sum(word in other for other in texts)
            rare = max(math.log((count - having + 0.5) / (having + 0.5)), 1e-6)
            times = text.count(word)
            score += rare * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(text) / mean))
        scores.append(score)
    return scores


async def test_the_rank_is_bm25(index: SearchIndex) -> None:
    texts = ["a b c", "a a b", "a a a a a b c d e f g", "b b b", "c", "d e", "e f g h", "x"]
    log = await EventLog.open(MemoryLog())
    await log.append([turn(number, text) for number, text in enumerate(texts)])
    found = await index.search(log, "a b")
    scores = bm25([text.split() for text in texts], ["a", "b"])
    best = sorted((number for number in (0, 1, 2)), key=lambda number: -scores[number])
    assert numbers(found) == best
    assert [hit.score for hit in found.hits] == pytest.approx([scores[n] for n in best])


async def test_equally_good_turns_come_newest_first_and_all_are_counted(
    index: SearchIndex,
) -> None:
    log = await EventLog.open(MemoryLog())
    for number in (3, 1, 5, 2, 4):
        await log.append([turn(number, "the same words", f"c-{number % 3}")])
    found = await index.search(log, "same", limit=3)
    assert numbers(found) == [5, 4, 3]
    assert found.matches == 5


async def test_a_search_takes_up_what_came_since_and_reads_no_more(
    log: EventLog, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await index.search(log, "late")
    assert first.as_of == await log.log.end(["mad.conversations"])
    read: list[int] = []
    before = log.read

    async def counted(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        async for events in before(*arguments, **named):
            read.append(len(events))
            yield events

    monkeypatch.setattr(log, "read", counted)
    assert numbers(await index.search(log, "late")) == numbers(first)
    assert read == []
    await log.append([turn(7, "late again", "order-1")])
    assert set(numbers(await index.search(log, "late"))) == {2, 4, 5, 7}
    # The new one, and the one before it, which says that this is still the same log.
    assert sum(read) == 2


async def test_a_search_as_of_sees_no_later_turn(log: EventLog, index: SearchIndex) -> None:
    then = await log.log.end(["mad.conversations"])
    await log.append([turn(number, "late", f"c-{number}") for number in range(10, 30)])
    assert (await index.search(log, "late")).matches == 23
    found = await index.search(log, "late", as_of=then)
    assert set(numbers(found)) == {2, 4, 5}
    assert (found.matches, found.as_of) == (3, then)
    assert (await index.search(log, "late", as_of=Vector())).hits == ()


async def test_a_log_without_turns_has_none_that_match(index: SearchIndex) -> None:
    empty = await EventLog.open(MemoryLog())
    assert await index.search(empty, "late") == Found((), 0, Vector())


async def test_damaged_records_are_named_and_passed_over(log: EventLog, index: SearchIndex) -> None:
    await log.log.append([NewRecord("mad.conversations", b"order-1", b"no event")])
    await log.append([turn(8, "late, after the damage")])
    named: list[str] = []
    found = await index.search(log, "late", on_damage=lambda damage: named.append(str(damage)))
    assert 8 in numbers(found)
    assert len(named) == 1


def garbage(path: Path) -> None:
    path.write_bytes(b"not an index at all " * 1000)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def pages_gone(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)


def newer(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def a_table_gone(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE folded")
    connection.close()


@pytest.mark.parametrize("spoil", [garbage, cut_short, pages_gone, newer, a_table_gone])
async def test_an_index_that_cannot_be_used_is_made_anew_and_that_is_said(
    log: EventLog, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "search.sqlite"
    whole = SearchIndex(path)
    right = await whole.search(log, "late OR broken")
    whole.close()
    spoil(path)
    said: list[str] = []
    index = SearchIndex(path, said.append)
    assert await index.search(log, "late OR broken") == right
    assert said
    assert all("made anew" in sentence and str(path) in sentence for sentence in said)
    assert await index.search(log, "late OR broken") == right
    index.close()


async def test_damage_that_comes_while_the_index_is_open_is_mended_too(
    log: EventLog, tmp_path: Path
) -> None:
    said: list[str] = []
    index = SearchIndex(tmp_path / "search.sqlite", said.append)
    right = await index.search(log, "late")
    a_table_gone(tmp_path / "search.sqlite")
    assert await index.search(log, "late") == right
    assert said


async def test_an_index_of_another_log_is_made_anew(log: EventLog, tmp_path: Path) -> None:
    said: list[str] = []
    index = SearchIndex(tmp_path / "search.sqlite", said.append)
    await index.search(log, "late")
    # Fewer events than were folded, and then as many but others.
    shorter = await EventLog.open(MemoryLog())
    await shorter.append([turn(20, "late", "order-1")])
    assert numbers(await index.search(shorter, "late")) == [20]
    other = await EventLog.open(MemoryLog())
    await other.append([turn(30, "late", "order-1"), turn(31, "later", "order-1")])
    assert numbers(await index.search(other, "late")) == [30]
    assert len(said) == 2
    assert all("another log" in sentence for sentence in said)


async def test_a_place_that_cannot_be_written_is_one_sentence(
    log: EventLog, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.sqlite").mkdir()
    for path in (tmp_path / "file" / "search.sqlite", tmp_path / "folder.sqlite"):
        with pytest.raises(IndexUnavailable) as refused:
            await SearchIndex(path).search(log, "late")
        assert str(path) in str(refused.value)
        assert refused.value.exit_code == 3


async def test_what_was_begun_and_broken_off_is_gone_on_with(
    log: EventLog, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("madlog.analytics.search._ROWS", 1)
    seen = 0

    def stop(done: int, total: int) -> None:
        nonlocal seen
        seen = done
        if done >= total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await index.search(log, "late", progress=stop)
    assert 0 < seen < len(TURNS)
    assert set(numbers(await index.search(log, "late"))) == {2, 4, 5}


async def test_all_matches_come_as_rows_for_sql(log: EventLog, index: SearchIndex) -> None:
    rows = await index.rows(log, "late")
    best = (await index.search(log, "late", ANYTHING)).hits
    assert [(row[0], row[4]) for row in rows] == [(hit.event_id, hit.score) for hit in best]
    assert [row[1:4] for row in rows] == [
        (hit.conversation_id, hit.sender, hit.occurred_at) for hit in best
    ]


async def test_the_index_holds_no_more_than_the_log_says(log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    index = SearchIndex(path)
    await index.take_up(log)
    index.close()
    connection = apsw.Connection(str(path))
    rows = connection.execute("SELECT text, tags FROM turns ORDER BY occurred_at").fetchall()
    assert [(text, json.loads(str(tags))) for text, tags in rows] == [
        (event.text, list(event.tags)) for event in TURNS if isinstance(event, Turn)
    ]
    connection.close()
