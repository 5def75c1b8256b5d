"""The same events and the same worker on a folder and on Kafka: one content, one answer."""

import io
from pathlib import Path

import pytest
from tests.acceptance.answers import answers_of
from tests.acceptance.cli import madlog

from madlog.analytics.digest import digest
from madlog.analytics.questions import questions
from madlog.config import Settings
from madlog.mads.demo.writer import write
from madlog.wiring import faust_cluster, open_faust, open_learning, open_worker, opened

TURNS = 900
# What this traffic has nothing of.
EMPTY = {
    # Nobody publishes candidates, and too little was settled to be wrong or asked again.
    *("promoted", "regret", "rollouts", "contradicted", "irreproducible"),
    # All of it could be read, by people and by processors.
    *("dead-letters", "invalid-events", "unreadable", "leaks"),
    # Nobody gave orders, was refused or was alarmed, and no process was conducted.
    *("approvals", "budgets", "instances", "refusals", "security", "anomalies"),
    *(name for name, question in questions().items() if question.waits_for),
}


async def fill(url: str, folder: Path, engine: str = "transactional", turns: int = TURNS) -> None:
    settings = Settings(blobs=str(folder / "blobs"), kafka_folder=str(folder / "kafka"))
    async with opened(url) as log:
        await write(log, 1, turns, acknowledged=io.StringIO())
        worker = open_worker(log)
        if engine == "faust":
            worker = open_faust(log, faust_cluster(url, settings), settings)
        report = await worker.run(until_idle=True)
        await open_learning(log, url, settings).run(lambda _: None)
    assert (report.idle, report.dead_letters) == (True, 0)


async def test_digests_decisions_and_answers_are_those_of_a_folder(
    tmp_path: Path, kafka_url: str, kafka_prefix: str
) -> None:
    urls = [str(tmp_path / "log"), f"{kafka_url}?prefix={kafka_prefix}"]
    for url in urls:
        await fill(url, tmp_path)
    folder, kafka = [await answers_of(url, "order-4711") for url in urls]
    assert kafka.digests == folder.digests
    assert len(folder.decisions) > TURNS / 2
    assert kafka.decisions == folder.decisions
    for name, rows in folder.questions.items():
        assert kafka.questions[name] == rows, name
        assert rows or name in EMPTY, name


async def test_both_engines_make_the_same_of_the_same_log(
    tmp_path: Path, kafka_url: str, kafka_prefix: str
) -> None:
    digests, decisions = [], []
    for engine in ("transactional", "faust"):
        url = f"{kafka_url}?prefix={kafka_prefix}-{engine}-"
        await fill(url, tmp_path, engine, turns=300)
        async with opened(url, create=False) as log:
            digests.append(await digest(log))
            found = [event async for some in log.read_topics(["mad.decisions"]) for event in some]
            decisions.append({event.event_id: event.fields for event in found})
            assert len(decisions[-1]) == len(found) > 100
    assert digests[0] == digests[1]
    assert decisions[0] == decisions[1]


@pytest.mark.soak
def test_the_demo_runs_on_kafka_and_loses_nothing(
    tmp_path: Path, kafka_url: str, kafka_prefix: str
) -> None:
    url = f"{kafka_url}?prefix={kafka_prefix}"
    ran = madlog("demo", "--turns", "600", "--log", url, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "lost 0   twice 0" in ran.out
    assert "4711" in ran.out
    assert "0 damaged places found" in ran.out
    assert not (tmp_path / ".madlog-demo").exists()


def test_the_demo_takes_no_folder(tmp_path: Path) -> None:
    assert "folder of its own" in madlog("demo", "--log", "x", cwd=tmp_path).refused(2)
    assert not (tmp_path / "x").exists()
