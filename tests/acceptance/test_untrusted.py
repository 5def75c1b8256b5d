"""madlog sql --untrusted: the sandbox as a person meets it, and what doctor says of it."""

from pathlib import Path

import pytest
from tests.acceptance.inside import inside

APPEND = ("append", "-c", "c1", "-s", "ada", "-t", "shop", "where is my parcel?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert inside(*APPEND, cwd=tmp_path).code == 0
    return tmp_path


def test_sql_of_others_is_answered_and_recorded_with_its_principal(folder: Path) -> None:
    sql = "select text from turns"
    ran = inside("sql", "--untrusted", "--principal", "mallory", "--json", sql, cwd=folder)
    assert (ran.code, ran.rows) == (0, [{"text": "where is my parcel?"}]), ran
    refused = inside("sql", "--untrusted", "from read_text('/etc/passwd')", cwd=folder)
    assert "read_text() may not be asked for" in refused.refused(2)
    slow = "select count(*) from range(1000000000000000) where random() < 0"
    stopped = inside("sql", "--untrusted", "--timeout", "0.3", slow, cwd=folder)
    assert "took longer than 0.3 s" in stopped.refused(3)
    seen = inside(
        "sql", "--json", 'from audit select principal, verdict order by "offset"', cwd=folder
    )
    assert [row["verdict"] for row in seen.rows] == ["answered", "refused", "limited"]
    assert seen.rows[0]["principal"] == "mallory"
    assert seen.rows[1]["principal"] not in ("", "none", "mallory")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--principal", "ada"), "add it"),
        (("--timeout", "5"), "add it"),
        (("--untrusted", "--timeout", "0"), "seconds from 0.1"),
        (("--untrusted", "--timeout", "nan"), "seconds from 0.1"),
        (("--untrusted", "--principal", " "), "name who asks"),
    ],
)
def test_wrong_options_are_refused(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    assert says in inside("sql", *arguments, "select 1", cwd=tmp_path).refused(2)


def test_doctor_says_what_holds_sql_of_others_here(tmp_path: Path) -> None:
    rows = {row["what"]: row for row in inside("doctor", "--json", cwd=tmp_path).rows}
    for name in ("sandbox: landlock", "sandbox: seccomp"):
        assert rows[name]["ok"]
        assert (rows[name]["found"] == "none") == bool(rows[name]["advice"])


def test_on_kafka_it_is_the_same(kafka_url: str, kafka_prefix: str, tmp_path: Path) -> None:
    at = ("--log", f"{kafka_url}?prefix={kafka_prefix}-")
    assert inside(*APPEND, *at, cwd=tmp_path).code == 0
    ran = inside("sql", "--untrusted", "--json", "select text from turns", *at, cwd=tmp_path)
    assert (ran.code, ran.rows) == (0, [{"text": "where is my parcel?"}]), ran
    seen = inside("sql", "--json", "select verdict, reads from audit", *at, cwd=tmp_path)
    assert seen.rows == [{"verdict": "answered", "reads": ["turns"]}]
