"""All named questions: on recorded runs, as of a position, over a lake, in the docs, as a list."""

import asyncio
import gzip
import json
import re
import shlex
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.inside import inside
from tests.unit.lake_scene import NOW, archive
from tests.unit.test_questions import TAU, call, eid, log_of, turn

from madlog.analytics.columns import KINDS
from madlog.analytics.importing import import_file
from madlog.analytics.lake import LakeSource, LakeStore
from madlog.analytics.output import rows
from madlog.analytics.questions import GROUPS, Question, ask, question, questions
from madlog.analytics.tables import LogSource, Tables
from madlog.topics import EventLog, Vector
from madlog.topics.memory import MemoryLog

PAGE = Path(__file__).resolve().parents[2] / "docs" / "questions.md"
GIVEN = {
    "conversation": "c1",
    "agent": "bot",
    "role": "bot",
    "person": "anna",
    "event": eid(1),
    "correlation": "r1",
}


class Kept:
    """Tables that were read once, for every question."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def column(self, name: str) -> list[Any]:
        """Return a column of the turns."""
        return list(self._tables.kinds["Turn"].rows[name].to_pylist())

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        kinds = {name: self._tables.kinds[name] for name in names}
        return replace(self._tables, kinds=kinds)


@pytest.fixture(scope="session")
def recorded() -> Kept:
    if not TAU.exists():
        pytest.skip(f"{TAU.name} is not here: put the shared data folder beside the project")

    async def read() -> Kept:
        log = await EventLog.open(MemoryLog())
        await import_file(log, TAU, "tau-bench")
        end = await log.log.end(await log.log.topics())
        tables = await LogSource(log).tables(KINDS, end)
        return Kept(tables)

    return asyncio.run(read())


def of(group: str) -> list[Question]:
    return [asked for asked in questions().values() if asked.group == group]


def needed(asked: Question, **given: str) -> dict[str, str]:
    return {
        one.name: {**GIVEN, **given}[one.name]
        for one in asked.parameters
        if one.default is None or one.name in given
    }


async def small() -> tuple[EventLog, Vector]:
    log = await log_of(turn(1, "anna", "bot", "hi"), *call(2, "refund", {"order": 1}))
    at = await log.log.end(await log.log.topics())
    await log.append([turn(5, "zoe", "bot", "later"), *call(6, "refund", {"order": 1})])
    return log, at


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """The tables of a small log as its lake has them, as of before its newest events."""

    async def read() -> Kept:
        log, at = await small()
        store = LakeStore(str(tmp_path_factory.mktemp("lake")))
        await archive(log, store, NOW)
        return Kept(await LakeSource(log, store).tables(KINDS, at))

    return asyncio.run(read())


@pytest.mark.parametrize("group", GROUPS)
async def test_every_question_can_be_asked_as_of_a_position_and_over_a_lake(
    group: str, archived: Kept
) -> None:
    log, at = await small()
    for one in of(group):
        plain = await ask(log, one.name, needed(one), as_of=at)
        over_it = await ask(log, one.name, needed(one), as_of=at, source=archived)
        assert over_it.table.to_pylist() == plain.table.to_pylist(), one.name


# The recorded runs hold no models, decisions, tokens or faults, and nobody gave orders in them.
SILENT = {
    "conversations": {"trace", "unacknowledged"},
    "agents": {"agent-state", "instances"},
    "routing": {one.name for one in of("routing")},
    "learning": {one.name for one in of("learning")} - {"sequences", "training-data"},
    "cost": {"budgets", "cost", "gates", "latency", "savings", "slowest"},
    "faults": {"dead-letters", "failed-decisions", "heartbeats", "invalid-events", "repairs"},
    "security": {one.name for one in of("security")} - {"about-person", "bulk-reads"},
    "proof": {"checkpoints", "gaps"},
}


@pytest.mark.parametrize("group", GROUPS)
async def test_every_question_runs_on_recorded_runs(recorded: Kept, group: str) -> None:
    log = await EventLog.open(MemoryLog())
    given = {
        "conversation": min(recorded.column("conversation_id")),
        "agent": "agent",
        "role": "agent",
        "person": "user",
        "event": recorded.column("event_id")[0],
    }
    silent = set()
    for one in of(group):
        named = {p.name for p in one.parameters}
        params = needed(one, **{name: given[name] for name in named & given.keys()})
        if one.name == "invocations":
            params = {}
        result = await ask(log, one.name, params, source=recorded)
        assert result.columns
        if result.table.num_rows == 0:
            silent.add(one.name)
    assert silent == SILENT[group]


async def recalled(recorded: Kept, name: str, **params: str) -> list[dict[str, Any]]:
    log = await EventLog.open(MemoryLog())
    return list(rows(await ask(log, name, params, source=recorded)))


async def test_recorded_runs_are_counted_as_their_file_is(recorded: Kept) -> None:
    with gzip.open(TAU, "rt", encoding="utf-8") as file:
        runs = [json.loads(line)["traj"] for line in file]
    messages = [message for run in runs for message in run]
    answers = [one["content"] for one in messages if one["role"] == "tool"]
    failed = sum(answer.startswith("Error") for answer in answers)
    (agent,) = await recalled(recorded, "errors")
    calls = sum(len(one.get("tool_calls") or ()) for one in messages)
    spoken = sum(one["role"] == "assistant" and bool(one["content"]) for one in messages)
    assert (agent["acts"], agent["errors"]) == (calls + spoken, failed)
    assert len(await recalled(recorded, "role-conversations", role="agent")) == len(runs) == 200
    counted = await recalled(recorded, "answer-times")
    people = sum(one["role"] == "user" for one in messages)
    assert {one["recipient"]: one["requests"] for one in counted} == {
        "agent": people,
        "user": spoken,
    }
    whole = await recalled(recorded, "completeness")
    assert {one["verdict"] for one in whole} == {"nothing is missing"}


def test_the_table_in_the_docs_is_what_the_files_say() -> None:
    lines = re.findall(
        r"^\| ([0-9, ]+|–) \| `(.+?)` \| (.*?) \| (.*?) \| (.*?) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.M,
    )
    told = {name: (sentence, parameters, waits) for _, name, sentence, parameters, waits in lines}
    assert len(told) == len(lines)
    assert told == {
        one.name: (
            one.sentence,
            ", ".join(
                p.name if p.default is None else f"{p.name}={p.default}" for p in one.parameters
            )
            or "–",
            one.waits_for or "–",
        )
        for one in questions().values()
    }
    numbers = {int(number) for line in lines for number in re.findall(r"\d+", line[0])}
    assert numbers == set(range(1, 53))


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        ran = inside(*arguments, cwd=tmp_path)
        assert (program, ran.code) == ("madlog", 0), ran.err


def test_every_question_is_of_a_group_and_in_a_total_order() -> None:
    for one in questions().values():
        assert one.group in GROUPS, one.name
        assert re.search(r"^ORDER BY ", one.sql, re.M), one.name
        if one.waits_for:
            assert re.match(r"([A-Z]\w+ )?events\b", one.waits_for), one.name


def test_the_list_fits_80_columns_and_holds_every_question(tmp_path: Path) -> None:
    ran = inside("ask", cwd=tmp_path, env={"COLUMNS": "80"})
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if not line.startswith(" ")] == list(GROUPS)
    assert {line.split()[0] for line in lines if re.match(r"  \S", line)} == set(questions())
    text = " ".join(ran.out.split())
    assert question("errors").sentence in text
    assert "Waits for Heartbeat events." in text


def test_the_list_for_programs_has_a_line_for_each_question(tmp_path: Path) -> None:
    told = inside("ask", "--json", cwd=tmp_path).rows
    assert {one["name"] for one in told} == set(questions())
    (heartbeats,) = [one for one in told if one["name"] == "heartbeats"]
    assert (heartbeats["group"], heartbeats["waits_for"]) == ("faults", "Heartbeat events")


def test_a_question_is_explained_by_its_select_and_its_parameters(tmp_path: Path) -> None:
    ran = inside("ask", "heartbeats", "--sql", cwd=tmp_path)
    assert ran.out.strip() == question("heartbeats").sql.strip()
    assert ran.err == "heartbeats waits for Heartbeat events\n"
    told = inside("ask", "trace", "--sql", "--json", cwd=tmp_path).json
    assert (told["parameters"], told["sql"]) == ("correlation", question("trace").sql.strip())


def test_a_question_that_waits_says_so_beside_its_answer(tmp_path: Path) -> None:
    assert inside("append", "-c", "c1", "-s", "ann", "hi", cwd=tmp_path).code == 0
    ran = inside("ask", "heartbeats", "--json", cwd=tmp_path)
    assert (ran.code, ran.out) == (0, "")
    assert "heartbeats waits for Heartbeat events" in ran.err
    assert "waits" not in inside("ask", "errors", "--json", cwd=tmp_path).err
