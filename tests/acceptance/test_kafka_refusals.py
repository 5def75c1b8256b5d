"""What Kafka cannot do, or does not answer, is said in one sentence by every command."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.inside import inside


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a cluster that is not there: a port that is taken, and does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"kafka://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (("backup", "copy", "--log", "kafka://h:1"), ("replicas", "MirrorMaker", "madlog export")),
        (("restore", "copy", "--log", "kafka://h:1"), ("a folder", "madlog import")),
        (("restore", "kafka://h:1", "--log", "new"), ("to be a folder",)),
        (("backup", "kafka://h:1", "--log", "old"), ("to be a folder",)),
    ],
)
def test_copies_of_files_are_refused_with_what_to_do_instead(
    arguments: tuple[str, ...],
    instead: tuple[str, ...],
    tmp_path: Path,
) -> None:
    ran = inside(*arguments, cwd=tmp_path)
    said = ran.refused(2)
    assert ran.err.count("\n") == 1
    assert all(word in said for word in instead), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "append -c c -s ada hello",
        "ask turns-per-day",
        "check",
        "dead-letters list",
        "dead-letters retry all",
        "dead-letters show 1",
        "digest",
        "export openai",
        "groups",
        "groups reset router --to start",
        "import turns.jsonl --format openai-chat",
        "replay rebuild",
        "show latest",
        "sql select(1)",
        "tail",
        "topics apply",
        "topics apply --dry-run",
        "topics list",
        "topics show mad.llm",
        "worker --until-idle",
    ],
)
def test_a_cluster_that_is_not_there_is_said_so_and_is_exit_code_3(
    command: str,
    nowhere: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "turns.jsonl").write_text("{}\n")
    ran = inside(*command.split(), "--log", nowhere, cwd=tmp_path)
    said = ran.refused(3)
    assert said.startswith("madlog: we could not connect to the Kafka cluster")
    assert nowhere in said
    assert ran.err.count("\n") == 1, ran.err


def test_an_address_of_an_unknown_kind_is_told_which_kinds_there_are(tmp_path: Path) -> None:
    said = inside("groups", "--log", "kafka+ssl://127.0.0.1:9092", cwd=tmp_path).refused(2)
    assert "name a folder, file:///FOLDER or kafka://HOST:PORT" in said
