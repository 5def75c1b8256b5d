"""The lake by the command line: made by hand and by the worker, asked over, read by others."""

import json
from pathlib import Path

import duckdb
import polars as pl
import pytest
from tests.acceptance.answers import answers_of
from tests.acceptance.cli import madlog
from tests.acceptance.test_kafka_equal import fill

from madlog.analytics.lake import Archiver, ArchiverOptions, LakeStore
from madlog.wiring import opened

SQL = "select event_id, sender, text, tags, parts from turns order by event_id"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lake")
    lines = [
        json.dumps({"conversation_id": f"c{n % 5}", "sender": "ada", "text": f"please #parcel {n}"})
        for n in range(40)
    ]
    ran = madlog("append", "--log", "log", "-", cwd=made, stdin="\n".join(lines).encode())
    assert ran.code == 0, ran.err
    return made


def test_a_lake_is_made_asked_over_checked_and_mended(folder: Path) -> None:
    assert madlog("lake", "--log", "log", "--json", cwd=folder).json["lake"] is None
    before = madlog("sql", SQL, "--log", "log", "--json", cwd=folder).rows
    count = "select count(*) n from turns"
    as_of = ("sql", count, "--as-of", before[7]["event_id"], "--log", "log")
    then = madlog(*as_of, cwd=folder).out
    made = madlog("lake", "archive", "--log", "log", "--json", cwd=folder).json
    assert made["events"] >= 40
    shown = madlog("lake", "--log", "log", "--json", cwd=folder).json
    assert (shown["not_archived"], shown["events"]) == (0, made["events"])
    assert madlog("sql", SQL, "--log", "log", "--json", cwd=folder).rows == before
    assert madlog(*as_of, cwd=folder).out == then
    files = madlog("lake", "files", "--log", "log", "--json", cwd=folder).rows
    turns = [Path(file["place"]) for file in files if file["holds"] == "Turn"]
    turns[0].write_bytes(turns[0].read_bytes()[:-9])
    said = madlog("sql", SQL, "--log", "log", cwd=folder).refused(3)
    assert turns[0].name in said
    checked = madlog("lake", "check", "--log", "log", "--json", cwd=folder)
    assert (checked.code, len(checked.rows)) == (1, 1)
    mended = madlog("lake", "repair", "--log", "log", "--json", cwd=folder)
    assert mended.json == {"ranges_archived_again": 1}
    assert madlog("sql", SQL, "--log", "log", "--json", cwd=folder).rows == before


def test_others_read_the_files_without_us(folder: Path) -> None:
    madlog("lake", "archive", "--log", "log", cwd=folder)
    files = madlog("lake", "files", "--log", "log", "--json", cwd=folder).rows
    turns = [file["place"] for file in files if file["holds"] == "Turn"]
    frame = pl.read_parquet(turns)
    assert frame.height == 40
    assert set(frame["sender"]) == {"ada"}
    assert set(frame["parts"].explode().struct.field("content_class")) == {"prose"}
    found = duckdb.execute("SELECT count(*), min(text) FROM read_parquet($1)", [turns])
    assert found.fetchall() == [(40, "please #parcel 0")]


def test_the_worker_archives_where_a_lake_is_named(tmp_path: Path) -> None:
    for number in range(3):
        madlog("append", "--log", "log", "-c", "c", "-s", "ada", f"hello {number}", cwd=tmp_path)
    place = tmp_path / "elsewhere"
    env = {"MADLOG_LAKE": place.as_uri()}
    ran = madlog("worker", "--until-idle", "--log", "log", cwd=tmp_path, env=env)
    assert ran.code == 0, ran.err
    assert list(place.rglob("Turn.*.parquet"))
    said = madlog("sql", "from turns", "--log", "log", cwd=tmp_path).refused(3)
    assert "MADLOG_LAKE" in said
    ran = madlog("sql", "select count(*) n from turns", "--log", "log", cwd=tmp_path, env=env)
    assert ran.out.split() == ["n", "3"]
    rows = madlog("retention", "--log", "log", "--json", cwd=tmp_path).rows
    (turns,) = [row for row in rows if row["topic"] == "mad.conversations"]
    assert turns["archived"] == turns["records"] > 0
    assert turns["waiting"] == 0


@pytest.mark.soak
async def test_every_question_has_over_the_lake_the_answer_of_the_log(tmp_path: Path) -> None:
    url = str(tmp_path / "log")
    await fill(url, tmp_path, turns=300)
    store = LakeStore(str(tmp_path / "lake"))
    async with opened(url) as log:
        await Archiver(log, store, ArchiverOptions(records_max=200)).run(until_idle=True)
    log_says = await answers_of(url, "order-4711")
    lake_says = await answers_of(url, "order-4711", store)
    assert lake_says.decisions == log_says.decisions
    for name, rows in log_says.questions.items():
        assert lake_says.questions[name] == rows, name
