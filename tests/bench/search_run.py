"""Searches of words drawn from the data: ours and a plain FTS5 table, same texts, by turns."""

import statistics
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import apsw
from tests.bench.fixtures import turn

from madlog.analytics.search import SearchIndex
from madlog.wiring import open_event_log, open_search

__all__ = ("TURNS", "measure")

TURNS = 200_000
_WORDS = 50_000
_QUERIES = 200
_BATCH = 2_000
_REACH_MS = 20.0
_TOKENIZER = "unicode61 remove_diacritics 2"


def _texts(count: int) -> Iterator[str]:
    """Yield texts of 3 to 200 words, 16 in the middle, that are as often as words are: by rank."""
    random = Random(1)
    syllables = [begin + end for begin in "bcdfghklmnprstvwz" for end in (*"aeiou", "ai", "ou")]
    words: dict[str, None] = {}
    while len(words) < _WORDS:
        words["".join(random.choices(syllables, k=random.choice((1, 2, 2, 3, 3, 4))))] = None
    weights = list(accumulate(1 / (rank + 2.7) for rank in range(_WORDS)))
    names = list(words)
    for _ in range(count):
        length = max(3, min(200, int(random.lognormvariate(2.8, 0.7))))
        yield " ".join(random.choices(names, cum_weights=weights, k=length))


async def measure(folder: Path, rounds: int, turns: int) -> list[dict[str, Any]]:
    """Fill a log and a plain table with the same texts, and ask both the same."""
    log = await open_event_log(str(folder / "log"))
    asked: list[str] = []
    random, batch = Random(2), []
    every = max(1, turns // _QUERIES)
    for number, text in enumerate(_texts(turns)):
        batch.append(turn(number, 20_000, key=False, text=text))
        if number % every == 0:
            words = sorted(set(text.split()))
            asked.append(" ".join(random.sample(words, min(len(words), random.choice((2, 3))))))
        if len(batch) == _BATCH or number == turns - 1:
            await log.append(batch)
            batch = []
    index = open_search(str(folder / "log"))
    begun = perf_counter()
    await index.take_up(log)
    ours_s = perf_counter() - begun
    bare, base_s = _plain(folder / "plain.sqlite", turns)
    ours: list[list[float]] = []
    base: list[list[float]] = []
    for _ in range(rounds):
        one, other = [], []
        for query in asked:
            one.append(await _ours_ms(index, log, query))
            other.append(_plain_ms(bare, query))
        ours.append(sorted(one))
        base.append(sorted(other))
    bare.close()
    index.close()
    await log.close()
    rate = {"ours": round(turns / ours_s), "baseline": round(turns / base_s)}
    return [
        _row(f"search of 2-3 words of a turn, {turns:,} turns, p50 / plain FTS5", ours, base, 0.5),
        {**_row("the same, p95", ours, base, 0.95), "reach": None, "met": None},
        {
            "what": "search index from zero: read, decoded, folded / plain inserts of the texts",
            **rate,
            "unit": "/s",
            "ratio": round(rate["ours"] / rate["baseline"], 3),
            "spread": "once",
            "reach": None,
            "met": None,
        },
    ]


def _plain(path: Path, turns: int) -> tuple[apsw.Connection, float]:
    """Return a table of the texts, and the seconds that its inserts took."""
    inserted_s = 0.0
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = wal; PRAGMA synchronous = normal").fetchall()
    connection.execute("PRAGMA cache_size = -65536").fetchall()
    connection.execute("CREATE TABLE said(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    connection.execute(
        "CREATE VIRTUAL TABLE words USING fts5(text, content = 'said', content_rowid = 'id', "
        f"tokenize = '{_TOKENIZER}')"
    )
    rows: list[tuple[int, str]] = []
    for number, text in enumerate(_texts(turns)):
        rows.append((number, text))
        if len(rows) == 10 * _BATCH or number == turns - 1:
            begun = perf_counter()
            with connection:
                connection.executemany("INSERT INTO said VALUES(?, ?)", rows)
                connection.executemany("INSERT INTO words(rowid, text) VALUES(?, ?)", rows)
            inserted_s += perf_counter() - begun
            rows = []
    return connection, inserted_s


async def _ours_ms(index: SearchIndex, log: Any, words: str) -> float:
    begun = perf_counter()
    await index.search(log, words)
    return (perf_counter() - begun) * 1000


def _plain_ms(connection: apsw.Connection, words: str) -> float:
    begun = perf_counter()
    connection.execute(
        "SELECT rowid, bm25(words), snippet(words, 0, '[', ']', '…', 24) FROM words "
        "WHERE words MATCH ? ORDER BY rank LIMIT 20",
        (words,),
    ).fetchall()
    return (perf_counter() - begun) * 1000


def _row(what: str, ours: list[list[float]], base: list[list[float]], at: float) -> dict[str, Any]:
    mine, others = ([one[int(len(one) * at)] for one in side] for side in (ours, base))
    ratios = [a / b for a, b in zip(mine, others, strict=True)]
    return {
        "what": what,
        "ours": round(statistics.median(mine), 2),
        "baseline": round(statistics.median(others), 2),
        "unit": "ms",
        "ratio": round(statistics.median(ratios), 3),
        "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "reach": f"≤ {_REACH_MS:g} ms",
        "met": statistics.median(mine) <= _REACH_MS,
    }
