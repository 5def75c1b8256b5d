"""`madlog search` as a person and a program use it, several at once, in a folder and on Kafka."""

import io
import json
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from tests.acceptance.cli import madlog
from tests.acceptance.inside import inside

from madlog.config import Settings
from madlog.mads.demo.writer import write
from madlog.wiring import open_search, opened

TURNS = 400


async def fill(url: str) -> None:
    async with opened(url) as log:
        await write(log, 1, TURNS, acknowledged=io.StringIO())


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    await fill(str(tmp_path / ".madlog"))
    return tmp_path


def test_people_see_the_words_and_where_to_read_on(log: Path) -> None:
    ran = inside("search", "espresso", "OR", "refund*", "-n", "2", "-c", "order-4711", cwd=log)
    assert ran.code == 0
    first, words = ran.out.splitlines()[:2]
    assert first.startswith("order-4711  #")
    assert " → " in first
    assert "[espresso]" in words
    assert all(len(line) < 400 for line in ran.out.splitlines())
    assert ran.err.splitlines()[-1].endswith("the best first; read on: madlog show order-4711")
    assert inside("show", "order-4711", cwd=log).code == 0


def test_programs_get_a_line_of_json_a_turn(log: Path) -> None:
    ran = inside("search", "espresso", "--sender", "maria", "--json", cwd=log)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert rows
    query = "select event_id, turn_number, conversation_id, sender, recipients, occurred_at "
    query += "from turns where text ilike '%espresso%' and sender = 'maria' order by event_id"
    (*by_sql,) = inside("sql", query, "--json", cwd=log).rows
    names = list(by_sql[0])
    mine = [{name: row[name] for name in names} for row in rows]
    assert sorted(mine, key=lambda row: str(row["event_id"])) == by_sql
    assert all("[espresso]" in row["snippet"].lower() for row in rows)
    assert rows[0]["position"].startswith("mad.conversations/")


def test_filters_and_as_of_are_those_of_the_other_commands(log: Path) -> None:
    rows = inside("search", "refund*", "-n", "1000", "--json", cwd=log).rows
    times = sorted(row["occurred_at"] for row in rows)
    middle = times[len(times) // 2]
    late = inside("search", "refund*", "--since", middle, "-n", "1000", "--json", cwd=log).rows
    soon = inside("search", "refund*", "--until", middle, "-n", "1000", "--json", cwd=log).rows
    assert late
    assert soon
    assert len(late) + len(soon) == len(rows)
    as_of = inside("search", "refund*", "--as-of", "1999-01-01", "--json", cwd=log)
    assert (as_of.code, as_of.out) == (0, "")
    assert "as of" in as_of.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (('"arrived',), "not closed"),
        (("",), "letter or a digit"),
        (("OR",), "OR stands between"),
        (("x" * 100_000,), "100,000 characters"),
        (("refund", "--since", "soon"), "is not a time"),
        (("refund", "--since", "2026-02-01", "--until", "2026-01-01"), "is not before"),
        (("refund", "--as-of", "mad.conversations/0@999999999"), "past the end"),
        (("refund", "--limit", "0"), "greater than or equal"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(
    log: Path, arguments: tuple[str, ...], says: str
) -> None:
    assert says in inside("search", *arguments, cwd=log).refused(2)


def test_a_damaged_index_is_made_anew_and_said_and_one_that_cannot_be_written_refused(
    log: Path,
) -> None:
    right = inside("search", "espresso", "--json", cwd=log)
    path = log / ".madlog" / "projections" / "search.sqlite"
    path.write_bytes(b"noise" * 5000)
    again = inside("search", "espresso", "--json", cwd=log)
    assert (again.code, again.out) == (0, right.out)
    assert "made anew" in again.err
    for made in path.parent.glob("search.sqlite*"):
        made.unlink()
    path.mkdir()
    assert "search.sqlite cannot be used" in inside("search", "espresso", cwd=log).refused(3)
    madlog("search", "espresso", "--log", "nowhere", cwd=log).refused(3)


def test_several_processes_make_one_index_of_a_damaged_one_at_once(log: Path) -> None:
    (log / ".madlog" / "projections").mkdir()
    (log / ".madlog" / "projections" / "search.sqlite").write_bytes(b"noise" * 5000)
    command = [sys.executable, "-m", "madlog", "search", "refund*", "--json"]
    running = [
        subprocess.Popen(command, cwd=log, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert ended[0][0].count(b"\n") == 20
    index = apsw.Connection(str(log / ".madlog" / "projections" / "search.sqlite"))
    count = index.execute("SELECT count(*), count(DISTINCT event_id) FROM turns").get
    index.execute("INSERT INTO words(words, rank) VALUES('integrity-check', 1)")
    index.close()
    (told,) = inside("sql", "select count(*) as n from turns", "--json", cwd=log).rows
    assert count == (told["n"], told["n"])


async def test_kafka_finds_the_same_in_the_same_order(
    log: Path, kafka_url: str, kafka_prefix: str
) -> None:
    on_kafka = f"{kafka_url}?prefix={kafka_prefix}"
    await fill(on_kafka)
    settings = Settings(kafka_folder=str(log / "kafka"))
    found = []
    for url in (str(log / ".madlog"), on_kafka):
        index = open_search(url, settings)
        async with opened(url, create=False) as opened_log:
            rows = [await index.rows(opened_log, one) for one in ("refund", "order* broken", "the")]
            best = await index.search(opened_log, "refund", limit=5)
        index.close()
        found.append((rows, [(hit.event_id, hit.turn_number) for hit in best.hits], best.matches))
    assert found[0] == found[1]
    assert all(found[0][0])


def test_the_benchmark_measures_and_turns_are_its_own_option(tmp_path: Path) -> None:
    ran = madlog("bench", "search", "--turns", "1000", "--rounds", "1", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert [row["unit"] for row in ran.rows] == ["ms", "ms", "/s"]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in ran.rows)
    refused = madlog("bench", "append", "--turns", "1000", cwd=tmp_path).refused(2)
    assert "--turns is for search" in refused


def test_sql_has_searches_as_a_table(log: Path) -> None:
    query = "select count(*) as n from search('espresso') join turns using (event_id)"
    like = "select count(*) as n from turns where text ilike '%espresso%'"
    by_search = inside("sql", query, "--json", cwd=log)
    assert by_search.rows == inside("sql", like, "--json", cwd=log).rows
    refused = inside("sql", "from search('\"espresso')", cwd=log).refused(2)
    assert "not closed" in refused
