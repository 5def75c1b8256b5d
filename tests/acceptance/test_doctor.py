"""doctor says what this machine has, and fails only for what a log needs."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.cli import madlog


@pytest.fixture
def closed_port() -> Iterator[int]:
    # Held and not listening: every connection is refused.
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def program(tmp_path: Path) -> "Programs":
    return Programs(tmp_path / "bin")


class Programs:
    """A PATH that holds only programs of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, does: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": str(self.folder), "MADLOG_KAFKA": ""}


def test_a_machine_without_java_is_no_failure(tmp_path: Path, program: Programs) -> None:
    ran = madlog("doctor", "--json", cwd=tmp_path, env=program.env)
    rows = {row["what"]: row for row in ran.rows}
    assert ran.code == 0, ran
    for tool in ("java", "maven", "docker"):
        assert rows[tool]["found"].startswith("none"), rows[tool]
        assert rows[tool]["advice"]
    assert rows["file system"]["ok"]


def test_java_maven_and_docker_are_named(tmp_path: Path, program: Programs) -> None:
    program.add("java", "echo 'openjdk version \"21.0.2\" 2024-01-16' >&2")
    program.add("mvn", "exit 1")
    program.add("docker", "echo 28.2.2")
    ran = madlog("doctor", "--json", cwd=tmp_path, env=program.env)
    found = {row["what"]: row["found"] for row in ran.rows}
    assert found["java"] == "21.0.2"
    assert found["maven"] == str(program.folder / "mvn")
    assert found["docker"] == "daemon 28.2.2"


def test_an_old_java_and_a_docker_without_daemon_are_told_apart(
    tmp_path: Path, program: Programs
) -> None:
    program.add("java", "echo 'java version \"1.8.0_292\"' >&2")
    program.add("docker", "echo; echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    ran = madlog("doctor", "--json", cwd=tmp_path, env=program.env)
    rows = {row["what"]: row for row in ran.rows}
    assert rows["java"]["found"] == "1.8.0_292, the tests need 17"
    assert "daemon" in rows["docker"]["advice"]
    assert rows["docker"]["found"].startswith("none")


def test_a_named_broker_that_is_away_is_a_failure(tmp_path: Path, closed_port: int) -> None:
    away = f"127.0.0.1:{closed_port}"
    ran = madlog("doctor", "--log", f"kafka://{away}?prefix=x", "--json", cwd=tmp_path)
    rows = {row["what"]: row for row in ran.rows}
    assert ran.code == 1, ran
    assert rows["broker"]["found"].startswith(f"{away} no connection")
    assert "make kafka" in rows["broker"]["advice"]
    assert "file system" not in rows, "a log on Kafka has no folder"
    ran = madlog("doctor", cwd=tmp_path, env={"MADLOG_KAFKA": away})
    assert ran.code == 1
    assert "MADLOG_KAFKA" in ran.out


def test_another_program_on_the_port_is_no_broker(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ran = madlog("doctor", "--log", f"kafka://127.0.0.1:{port}", "--json", cwd=tmp_path)
    rows = {row["what"]: row for row in ran.rows}
    assert "does not answer plain Kafka" in rows["broker"]["found"]


def test_a_password_in_the_address_is_not_shown(tmp_path: Path, closed_port: int) -> None:
    url = f"kafka://ada:secret@127.0.0.1:{closed_port}?sasl_password=secret"
    ran = madlog("doctor", "--log", url, cwd=tmp_path)
    assert f"127.0.0.1:{closed_port} no connection" in ran.out
    assert "secret" not in ran.out + ran.err


def test_an_address_that_names_no_port_is_told(tmp_path: Path) -> None:
    ran = madlog("doctor", "--log", "kafka://localhost", "--json", cwd=tmp_path)
    rows = {row["what"]: row for row in ran.rows}
    assert ran.code == 1
    assert "HOST:PORT" in rows["broker"]["advice"]


def test_a_broker_that_answers_is_found(tmp_path: Path, kafka_bootstrap: str) -> None:
    ran = madlog("doctor", "--log", f"kafka://{kafka_bootstrap}?prefix=x", "--json", cwd=tmp_path)
    rows = {row["what"]: row for row in ran.rows}
    assert ran.code == 0, ran
    assert rows["broker"]["found"] == f"{kafka_bootstrap} answers"
