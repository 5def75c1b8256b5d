"""Programs of others on a real broker: what they say is routed, what was decided they read."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.acceptance.cli import madlog as cli
from tests.brokers.jars import BrokerUnavailable, find_java, kafka_jars
from tests.brokers.source import without_broker
from tests.interop.strangers import EXAMPLES, JavaClient, PythonClient, Stranger, compiled_java

import madlog
from madlog.config import Settings
from madlog.mads.ecosystem import Ecosystem
from madlog.processors import Report, dead_letters
from madlog.schemas.framing import schema_id
from madlog.topics import EventLog
from madlog.topics.catalog import partition_for
from madlog.wiring import open_worker, opened

# The first time, broker, registry and jars are fetched.
pytestmark = [pytest.mark.xdist_group("registry"), pytest.mark.timeout(400)]

CONVERSATIONS, DECISIONS = "mad.conversations", "mad.decisions"


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example in Java, compiled."""
    try:
        return compiled_java(tmp_path_factory.mktemp("java"))
    except BrokerUnavailable as error:
        without_broker(error)


@pytest.fixture(params=["by fingerprint", "by registry"])
def registry(request: pytest.FixtureRequest) -> str | None:
    """The schema registry that all sides use, or none."""
    return None if request.param == "by fingerprint" else request.getfixturevalue("registry_url")


@pytest.fixture(params=["python", "java"])
def stranger(
    request: pytest.FixtureRequest, kafka_bootstrap: str, kafka_prefix: str, registry: str | None
) -> Stranger:
    """One of the examples, on this test's own topics."""
    if request.param == "python":
        return PythonClient(kafka_bootstrap, f"{kafka_prefix}.", registry)
    folder = request.getfixturevalue("java")
    return JavaClient(folder, kafka_bootstrap, f"{kafka_prefix}.", registry)


@pytest.fixture
def url(kafka_url: str, kafka_prefix: str) -> str:
    """The address of this test's own log."""
    return f"{kafka_url}?prefix={kafka_prefix}."


async def begin(log: EventLog) -> None:
    """Let the log hold topics and schemas, as `madlog append` would."""
    await Ecosystem(log).conversation("first", sender="ada")


async def route(log: EventLog) -> Report:
    return await open_worker(log).run(until_idle=True)


async def framed(log: EventLog, topic: str) -> set[bool]:
    """Tell how the records of a topic are framed: True with a schema id."""
    found = set()
    async for records in log.log.read(await log.log.start([topic]), await log.log.end([topic])):
        found |= {schema_id(record.value) is not None for record in records}
    return found


async def test_a_strangers_turn_is_routed_and_the_stranger_reads_the_decision(
    stranger: Stranger, registry: str | None, url: str
) -> None:
    async with opened(url, Settings(schema_registry_url=registry)) as log:
        await begin(log)
        turn_id = await stranger.say("order-4711", "@shop where is my parcel?")
        report = await route(log)
        assert report.dead_letters == 0
        (decision,) = await stranger.decisions("order-4711", 1)
        assert (decision["turn_id"], decision["recipient"]) == (turn_id, "shop")
        assert await framed(log, CONVERSATIONS) == {registry is not None}
        assert await framed(log, DECISIONS) == {registry is not None}
        async for events in log.read_topics([CONVERSATIONS]):
            for event in events:  # decoding trusts the writer: what models demand is asked here
                type(event.event).model_validate(event.event.model_dump())
        one = await Ecosystem(log).conversation("order-4711", sender="shop", kind="mad")
        (heard,) = (await one.history()).turns
        assert heard.turn.text == "@shop where is my parcel?"
        assert (heard.turn.sender.name, heard.event_id) == ("ada", turn_id)
        assert heard.turn.causation_id is not None
        assert heard.turn.correlation_id != heard.turn.causation_id
        assert await one.participants() == {"ada": "human", "shop": "mad"}


async def test_one_log_holds_both_formats_and_every_side_reads_both(
    kafka_bootstrap: str, kafka_prefix: str, registry_url: str, java: Path, url: str
) -> None:
    prefix = f"{kafka_prefix}."
    plain = PythonClient(kafka_bootstrap, prefix)
    framing = JavaClient(java, kafka_bootstrap, prefix, registry_url)
    async with opened(url) as log:
        await begin(log)
        first = await plain.say("both", "@shop one")
    # The second side has the registry: from here on decisions name their schema by id.
    async with opened(url, Settings(schema_registry_url=registry_url)) as log:
        await log.ensure_topics([CONVERSATIONS])
        second = await framing.say("both", "@shop two")
        assert await framed(log, CONVERSATIONS) == {True, False}
        assert (await route(log)).dead_letters == 0
    async with opened(url) as log:
        third = await plain.say("both", "@shop three")
    async with opened(url, Settings(schema_registry_url=registry_url)) as log:
        await route(log)
    reader = PythonClient(kafka_bootstrap, prefix, registry_url)
    for decided in (await reader.decisions("both", 3), await framing.decisions("both", 3)):
        assert [one["turn_id"] for one in decided] == [first, second, third]


async def test_what_a_stranger_says_twice_with_one_key_is_heard_and_decided_once(
    kafka_bootstrap: str, kafka_prefix: str, url: str
) -> None:
    client = PythonClient(kafka_bootstrap, f"{kafka_prefix}.", options=("--key", "web-1"))
    async with opened(url) as log:
        await begin(log)
        turn_id = await client.say("order-4711", "@shop where is my parcel?")
        again = await client.say("order-4711", "@shop where is my parcel?")
        assert again != turn_id
        await route(log)
        (decision,) = await PythonClient(kafka_bootstrap, f"{kafka_prefix}.").decisions(
            "order-4711", 1
        )
        one = await Ecosystem(log).conversation("order-4711", sender="shop", kind="mad")
        assert [said.event_id for said in (await one.history()).turns] == [turn_id]
        assert decision["turn_id"] == turn_id


def conversation_where(differs: Callable[[bytes], bool]) -> str:
    names = (f"order-{number}" for number in range(100))
    return next(name for name in names if differs(name.encode()))


async def test_a_stranger_with_librdkafkas_own_partitioner_is_found_out(
    kafka_bootstrap: str, kafka_prefix: str, url: str, tmp_path: Path
) -> None:
    options = ("--partitioner", "consistent_random")
    client = PythonClient(kafka_bootstrap, f"{kafka_prefix}.", options=options)
    conversation = conversation_where(lambda key: zlib.crc32(key) % 4 != partition_for(key, 4))
    async with opened(url) as log:
        await begin(log)
        await client.say(conversation, "@shop where is my parcel?")
        report = await route(log)
        letters = await dead_letters(log)
    assert report.dead_letters == len(letters) == 4  # created, two joined, the turn
    assert {letter.fields["error_type"] for letter in letters} == {"WrongPartition"}
    assert all("murmur2" in letter.fields["error"] for letter in letters)
    done = cli("check", "--log", url, "--json", cwd=tmp_path)
    assert done.code == 1, done.err
    wrong, right = zlib.crc32(conversation.encode()) % 4, partition_for(conversation.encode(), 4)
    named = {(damage["position"], damage["reason"]) for damage in done.json["damage"]}
    assert named == {
        (
            f"{CONVERSATIONS}/{wrong}@{offset}",
            f"its key belongs in partition {right}: its writer must use murmur2 partitioning",
        )
        for offset in {letter.fields["offset"] for letter in letters}
    }


def test_the_example_in_python_imports_nothing_of_ours() -> None:
    tree = ast.parse((EXAMPLES / "python_client.py").read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert {"confluent_kafka", "fastavro"} <= imported
    assert imported.isdisjoint({"madlog", "tests", "topics", "schemas"})


def test_the_schema_beside_the_examples_is_the_released_one() -> None:
    ours = Path(madlog.__path__[0]) / "schemas" / "avro" / "SchemaRegistered.v1.avsc"
    beside = EXAMPLES / "SchemaRegistered.v1.avsc"
    assert json.loads(beside.read_text()) == json.loads(ours.read_text())


def console_consumer(folder: Path) -> Path:
    """Make Kafka's own program available under its usual name; return the folder it is in."""
    try:
        jars = kafka_jars()
        java = find_java()
    except BrokerUnavailable as error:
        without_broker(error)
    folder.mkdir()
    program = folder / "kafka-console-consumer.sh"
    main = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    program.write_text(f'#!/bin/sh\nexec "{java}" -cp "{jars}/*" {main} "$@"\n')
    program.chmod(0o755)
    return folder


def test_the_commands_of_the_page_run_and_headers_can_be_read(
    kafka_bootstrap: str, kafka_prefix: str, java: Path, tmp_path: Path
) -> None:
    page = (EXAMPLES.parent / "interop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S)
    assert {language for language, _ in blocks} == {"sh"}
    leave = shutil.ignore_patterns("jars", "classes")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=leave)
    path = [console_consumer(tmp_path / "bin"), Path(sys.executable).parent]
    done = subprocess.run(
        ["bash", "-euc", "\n".join(text for _, text in blocks)],
        cwd=tmp_path / "examples",
        env={
            **os.environ,
            "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
            "KAFKA": kafka_bootstrap,
            "PREFIX": f"{kafka_prefix}.",
        },
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    headers = [line for line in lines if line.startswith("kind:")]
    assert "kind:Turn,sender:ada,conversation:order-4711\torder-4711" in headers
    assert "kind:ConversationChanged,sender:ada,conversation:hello\thello" in headers
    said = re.findall(r'\{"turn_id": ?"([^"]+)"', done.stdout)
    by_python, decided_python, by_java, decided_java = said
    assert (by_python, by_java) == (decided_python, decided_java)
