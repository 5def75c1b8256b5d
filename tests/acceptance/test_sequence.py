"""The main job on real conversations, each command in a row as a person would type it.

A part of them; `make soak` takes them all.
"""

import gzip
import json
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.acceptance.answers import answers_of
from tests.acceptance.cli import Ran, madlog

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RUNS = SHARED / "tau_bench_airline_gpt4o.jsonl.gz"
# The rounds of learning end at 20, 40, 80 and so on: a part has two models, the whole four.
PART, WHOLE = 45, 200
# The first test of a place waits for its import and its worker.
pytestmark = pytest.mark.timeout(300)


class Runs(NamedTuple):
    """The recorded runs that are imported, and the file that holds them."""

    file: Path
    runs: list[dict[str, Any]]

    @property
    def tool_calls(self) -> int:
        return sum(len(said.get("tool_calls") or ()) for run in self.runs for said in run["traj"])


class Place(NamedTuple):
    """Where the commands of one log are run, and what was imported there."""

    folder: Path
    log: str
    given: Runs


@pytest.fixture(scope="module", params=[PART, pytest.param(WHOLE, marks=pytest.mark.soak)])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    if not RUNS.is_file():
        pytest.skip(f"{RUNS.name} is not beside the checkout: put the shared data at ../shared")
    with gzip.open(RUNS, "rt", encoding="utf-8", newline="\n") as file:
        lines = [line for line in file.read().split("\n") if line][: request.param]
    part = tmp_path_factory.mktemp("runs") / "runs.jsonl"
    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return Runs(part, [json.loads(line) for line in lines])


def imported(folder: Path, log: str, runs: Runs, *engine: str) -> Place:
    place = Place(folder, log, runs)
    first = done(place, "import", str(runs.file), "--format", "tau-bench")
    assert first.json["conversations"] == len(runs.runs)
    assert (first.json["bad_lines"], first.json["repeated"]) == (0, 0)
    assert done(place, "worker", "--until-idle", *engine).json["dead_letters"] == 0
    return place


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, runs: Runs) -> Place:
    return imported(tmp_path_factory.mktemp("sequence"), ".madlog", runs)


@pytest.fixture(scope="module")
def on_kafka(tmp_path_factory: pytest.TempPathFactory, kafka_url: str, runs: Runs) -> Place:
    url = f"{kafka_url}?prefix=sequence-{uuid.uuid4().hex[:8]}-"
    return imported(tmp_path_factory.mktemp("sequence"), url, runs)


@pytest.fixture(scope="module")
def by_faust(tmp_path_factory: pytest.TempPathFactory, kafka_url: str, runs: Runs) -> Place:
    url = f"{kafka_url}?prefix=sequence-{uuid.uuid4().hex[:8]}-"
    return imported(tmp_path_factory.mktemp("sequence"), url, runs, "--engine", "faust")


@pytest.fixture(params=["embedded", "on_kafka"])
def place(request: pytest.FixtureRequest, runs: Runs) -> Place:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Place)
    return found


def done(place: Place, *arguments: str) -> Ran:
    ran = madlog(*arguments, "--json", cwd=place.folder, env={"MADLOG_LOG": place.log})
    assert ran.code == 0, ran.err
    return ran


async def test_kafka_holds_the_same_and_answers_the_same(embedded: Place, on_kafka: Place) -> None:
    assert done(on_kafka, "digest").json == done(embedded, "digest").json
    (first,) = done(embedded, "sql", "select min(conversation_id) as id from turns").rows
    folder = await answers_of(str(embedded.folder / embedded.log), first["id"])
    kafka = await answers_of(on_kafka.log, first["id"])
    assert (kafka.digests, kafka.decisions) == (folder.digests, folder.decisions)
    for name, rows in folder.questions.items():
        assert kafka.questions[name] == rows, name


@pytest.mark.soak
def test_faust_decides_the_same_by_event_id(embedded: Place, by_faust: Place) -> None:
    query = 'select * exclude (appended_at, partition, "offset", duration_us) from decisions'
    folder, faust = (done(at, "sql", f"{query} order by event_id") for at in (embedded, by_faust))
    assert len(folder.rows) > len(embedded.given.runs)
    assert faust.rows == folder.rows
    assert done(by_faust, "digest").json == done(embedded, "digest").json


def test_every_turn_to_the_agent_was_decided_once_and_in_retrospect(place: Place) -> None:
    query = """
    select
        count(*) as decisions,
        count(distinct turn_id) as decided,
        count(*) filter (mode = 'retrospective') as in_retrospect,
        count(*) filter (turn_id in (select event_id from turns)) as of_turns,
        -- The others are about results that the agent acted on.
        count(*) filter (turn_id in (select event_id from tool_results)) as of_results,
        (select count(*) from turns where list_contains(recipients, 'agent')) as to_agent
    from decisions
    """
    (told,) = done(place, "sql", query).rows
    assert told["of_turns"] == told["to_agent"]
    assert told["of_turns"] + told["of_results"] == told["decisions"] > len(place.given.runs)
    assert told["decided"] == told["in_retrospect"] == told["decisions"]


def test_nothing_was_delivered_and_each_call_has_its_result(place: Place) -> None:
    topics = [row["topic"] for row in done(place, "topics", "list").rows if row["in_log"]]
    assert not [name for name in topics if name.startswith("mad.inbox.")]
    query = "select count(*) as n, count(r.event_id) as answered from tool_calls c left join "
    query += "tool_results r on r.call_id = c.event_id"
    assert done(place, "sql", query).rows == [
        {"n": place.given.tool_calls, "answered": place.given.tool_calls}
    ]


def test_the_transcript_of_the_newest_is_told(place: Place) -> None:
    assert len(done(place, "ask", "transcript").rows) > 5
    assert "outcomes" in done(place, "show", "latest").json


def test_the_tiers_are_told_and_each_decision_comes_out_again(place: Place) -> None:
    rows = done(place, "ask", "tiers").rows
    assert {row["promised_error"] for row in rows} == {0.05}
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    verified = done(place, "replay", "verify").json
    assert verified["differences"] == []
    assert verified["decisions"] == sum(row["decisions"] for row in rows)
    assert verified["decisions"] > len(place.given.runs)
    learned = done(place, "ask", "learned").rows
    assert [row["conversations_seen"] for row in learned] == [
        None,
        *(first for first in (20, 40, 80, 160) if first < len(place.given.runs)),
    ]


def test_what_if_says_the_same_on_kafka_and_in_a_folder(embedded: Place, on_kafka: Place) -> None:
    guard = (
        "call.action = 'cancel_reservation' and exists (from past where "
        "past.conversation_id = call.conversation_id and past.action = 'get_user_details')"
    )
    asked = ("replay", "what-if", "--max-error", "0.5", "--guard", guard)
    told = []
    for place in (embedded, on_kafka):
        found = done(place, *asked).json
        assert found["decisions"] > len(place.given.runs)
        assert found["guard"]["acts"] > len(place.given.runs)
        assert found["guard"]["blocked"] > 0
        # What the log itself counts, in the order of its partitions.
        for name in ("seconds", "events", "from", "to", "rows"):
            del found[name]
        told.append(found)
    assert told[0] == told[1]


def test_replay_agrees_nothing_is_damaged_and_a_second_import_adds_nothing(place: Place) -> None:
    assert done(place, "replay", "rebuild").json["equal"] is True
    assert done(place, "check").json["damage"] == []
    before = done(place, "digest").json
    again = done(place, "import", str(place.given.file), "--format", "tau-bench")
    assert again.json["repeated"] == again.json["events"] > 0
    assert done(place, "digest").json == before


def test_the_export_gives_back_what_was_imported(place: Place) -> None:
    done(place, "export", "tau-bench", "--out", "out.jsonl")
    text = (place.folder / "out.jsonl").read_text(encoding="utf-8")
    back = [json.loads(line) for line in text.split("\n") if line]

    def order(run: dict[str, object]) -> str:
        return json.dumps(run, sort_keys=True)

    assert sorted(back, key=order) == sorted(place.given.runs, key=order)


def test_a_backup_restores_to_the_same_digests(embedded: Place) -> None:
    done(embedded, "backup", "copy")
    again = embedded._replace(log="again")
    done(again, "restore", "copy")
    assert done(again, "digest").json == done(embedded, "digest").json
    refused = madlog("restore", "copy", "--log", "again", cwd=embedded.folder).refused(2)
    assert "holds something already" in refused


def test_what_was_asked_then_is_answered_the_same_later(tmp_path: Path) -> None:
    said = madlog("append", "-c", "c", "-s", "ada", "-t", "bob", "one", "--json", cwd=tmp_path)
    topic_partition, offset = said.json["position"].split("@")
    madlog("append", "-c", "c", "-s", "bob", "two", cwd=tmp_path)
    then = f"{topic_partition}@{int(offset) + 1}"
    query = "select text from turns"
    ran = madlog("sql", query, "--as-of", then, "--json", cwd=tmp_path)
    assert ran.rows == [{"text": "one"}]
    assert then in ran.err
    assert len(madlog("sql", query, "--json", cwd=tmp_path).rows) == 2


def test_the_same_key_appends_once_and_other_content_is_refused(tmp_path: Path) -> None:
    turn = ("append", "-c", "c", "-s", "ada", "--key", "k1", "--json")
    first = madlog(*turn, "pay", cwd=tmp_path).json
    again = madlog(*turn, "pay", cwd=tmp_path).json
    assert again == {**first, "repeated": True}
    assert "k1" in madlog(*turn, "pay more", cwd=tmp_path).refused(2)


@pytest.mark.parametrize("fmt", ["csv", "parquet"])
def test_answers_come_as_files_too(tmp_path: Path, fmt: str) -> None:
    import subprocess
    import sys

    import pyarrow.csv
    import pyarrow.parquet

    madlog("append", "-c", "c", "-s", "ada", "one", cwd=tmp_path)
    with (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-m", "madlog", "sql", "select text from turns", "--format", fmt]
        subprocess.run(command, cwd=tmp_path, stdout=out, check=True, timeout=60)
    read = pyarrow.csv.read_csv if fmt == "csv" else pyarrow.parquet.read_table
    assert read(tmp_path / "out").to_pylist() == [{"text": "one"}]


def test_tail_follows_what_another_process_appends(tmp_path: Path) -> None:
    import subprocess
    import sys

    madlog("append", "-c", "c", "-s", "ada", "one", cwd=tmp_path)
    command = [sys.executable, "-m", "madlog", "tail", "--follow", "--limit", "4", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as tail:
        madlog("append", "-c", "c", "-s", "ada", "two", cwd=tmp_path)
        out, _ = tail.communicate(timeout=60)
    texts = [json.loads(line).get("parts") for line in out.splitlines()]
    assert [parts[0]["text"] for parts in texts if parts] == ["one", "two"]
