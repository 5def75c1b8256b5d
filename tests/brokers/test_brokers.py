"""The test broker does what the tests of failures rely on."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context
from tests.brokers.cluster import Cluster
from tests.brokers.jars import BrokerUnavailable, find_java, kafka_jars
from tests.brokers.ports import reserve
from tests.brokers.probe import ask
from tests.brokers.source import broker, without_broker

Start = Callable[..., Cluster]
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # One a worker: each test that takes it gives it back running.
    try:
        with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
            yield cluster
    except BrokerUnavailable as error:
        without_broker(error)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def address(bootstrap: str) -> tuple[str, int]:
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    return host, int(port)


def client(cluster: Cluster) -> dict[str, Any]:
    """Return what a client of this cluster is made with."""
    options: dict[str, Any] = {"bootstrap_servers": cluster.bootstrap}
    if cluster.security in ("scram", "sasl_ssl"):
        options |= {
            "security_protocol": "SASL_PLAINTEXT" if cluster.security == "scram" else "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": cluster.user,
            "sasl_plain_password": cluster.password,
        }
    files = cluster.certificates
    if files is not None:
        shown = (files.client, files.client_key) if cluster.security == "mtls" else (None, None)
        options["ssl_context"] = create_ssl_context(
            cafile=str(files.ca),
            certfile=str(shown[0]) if shown[0] else None,
            keyfile=str(shown[1]) if shown[1] else None,
        )
        options.setdefault("security_protocol", "SSL")
    return options


async def create(options: dict[str, Any], topic: str, replicas: int = 1) -> None:
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, replicas)])
    finally:
        await admin.close()


async def send(options: dict[str, Any], topic: str, *values: bytes) -> None:
    producer = AIOKafkaProducer(**options, acks="all", enable_idempotence=True)
    try:
        await producer.start()
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def held(options: dict[str, Any], topic: str, count: int) -> list[bytes]:
    """Return the topic's values once there are so many."""
    async with AIOKafkaConsumer(**options) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        async with asyncio.timeout(DEADLINE_S):
            return [(await consumer.getone()).value for _ in range(count)]


async def test_the_shared_broker_takes_and_gives_records(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    options = {"bootstrap_servers": kafka_bootstrap}
    await create(options, kafka_prefix)
    await send(options, kafka_prefix, b"one", b"two")
    assert await held(options, kafka_prefix, 2) == [b"one", b"two"]


def test_all_tests_of_a_run_share_one_broker(
    kafka_bootstrap: str, kafka_url: str, request: pytest.FixtureRequest
) -> None:
    assert kafka_url == f"kafka://{kafka_bootstrap}"
    assert ask(*address(kafka_bootstrap)) is not None


async def test_a_killed_broker_comes_back_with_what_it_acknowledged(cluster: Cluster) -> None:
    options = client(cluster)
    await create(options, "kept")
    await send(options, "kept", b"before")
    before = cluster.pids[1]
    cluster.kill(1)
    assert cluster.pids == {}
    assert ask(*address(cluster.bootstrap)) is None
    cluster.start_node(1)
    cluster.wait_ready()
    assert cluster.pids[1] != before
    await send(options, "kept", b"after")
    assert await held(options, "kept", 2) == [b"before", b"after"]


def test_a_frozen_broker_is_silent_and_goes_on_where_it_was(cluster: Cluster) -> None:
    before = cluster.pids
    cluster.pause(1)
    host, port = address(cluster.bootstrap)
    assert ask(host, port, timeout_s=0.3) is None
    # Unlike a dead one it still takes connections.
    socket.create_connection((host, port), 1).close()
    cluster.resume(1)
    cluster.wait_ready()
    assert cluster.pids == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be held so")
def test_a_stopped_broker_leaves_its_port_to_nobody(cluster: Cluster) -> None:
    cluster.stop(1)
    with pytest.raises(OSError, match="in use"):
        reserve(address(cluster.bootstrap)[1])
    cluster.start_node(1)
    cluster.wait_ready()


@pytest.mark.soak
async def test_three_nodes_carry_on_without_one(kafka_cluster: Start) -> None:
    cluster = kafka_cluster(nodes=3)
    options = client(cluster)
    await create(options, "kept", replicas=3)
    await send(options, "kept", b"one")
    cluster.kill(1)
    until(lambda: 1 not in getattr(ask(*address_of(cluster, 2)), "brokers", {1}))
    await send(options, "kept", b"two")
    assert await held(options, "kept", 2) == [b"one", b"two"]
    cluster.start_node(1)
    cluster.wait_ready()
    answer = ask(*address_of(cluster, 1))
    assert answer is not None
    assert answer.brokers == {1, 2, 3}


def address_of(cluster: Cluster, node: int) -> tuple[str, int]:
    return address(cluster.bootstrap.split(",")[node - 1])


@pytest.mark.parametrize("security", ["scram", "sasl_ssl", "mtls"])
async def test_a_secured_broker_serves_only_who_may(kafka_cluster: Start, security: str) -> None:
    cluster = kafka_cluster(security=security)
    options = client(cluster)
    await create(options, "kept")
    await send(options, "kept", b"one")
    assert await held(options, "kept", 1) == [b"one"]
    # A stranger: a wrong password, or no certificate of this authority's.
    if security == "mtls":
        assert cluster.certificates is not None
        options["ssl_context"] = create_ssl_context(cafile=str(cluster.certificates.ca))
    else:
        options["sasl_plain_password"] = "wrong"
    with pytest.raises(KafkaError):
        await send(options, "kept", b"two")


def test_brokers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, pathlib\n"
        "from tests.brokers.cluster import Cluster\n"
        "cluster = Cluster(pathlib.Path(sys.argv[1]))\n"
        "cluster.start()\n"
        "print(cluster.pids[1], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    if sys.platform != "linux":
        pytest.skip("only Linux ends the children of a process that was killed")
    try:
        find_java()
        kafka_jars()
    except BrokerUnavailable as error:
        without_broker(error)
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    until(lambda: not alive(int(killed.stdout)))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_that_is_killed_leaves_no_broker(tmp_path: Path, kafka_bootstrap: str) -> None:
    if os.environ.get("MADLOG_KAFKA"):
        pytest.skip("MADLOG_KAFKA names the broker here: unset it to test the tests' own")
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    program = (
        "import pathlib, sys\n"
        "from tests.brokers.shared import shared_broker\n"
        "print(shared_broker(pathlib.Path(sys.argv[1]), int(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(owner.pid)]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    first, second = (worker.communicate(timeout=60)[0].strip() for worker in workers)
    assert first == second != kafka_bootstrap
    assert ask(*address(first)) is not None, "it must outlive the worker that started it"
    owner.kill()
    owner.communicate()
    until(lambda: ask(*address(first), timeout_s=0.3) is None)


def test_a_broker_that_was_named_must_answer(tmp_path: Path) -> None:
    port = reserve()
    named = {"MADLOG_KAFKA": f"127.0.0.1:{port.port}"}
    with pytest.raises(BrokerUnavailable, match="unset MADLOG_KAFKA"), broker(tmp_path, named):
        pass
    port.release()


def test_a_missing_broker_skips_unless_it_is_required() -> None:
    missing = BrokerUnavailable("no Java: apt-get install it")
    with pytest.raises(pytest.skip.Exception, match="apt-get install it"):
        without_broker(missing, {})
    with pytest.raises(pytest.fail.Exception, match="apt-get install it"):
        without_broker(missing, {"MADLOG_REQUIRE_KAFKA": "1"})


def test_what_is_missing_is_named_with_its_cure(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(BrokerUnavailable, match="apt-get install maven"):
        kafka_jars(nothing)
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(BrokerUnavailable, match=r"is Java 11\): apt-get install openjdk-17"):
        find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})
