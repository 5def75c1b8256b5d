"""Outcomes from the command line: the page's example, judging twice, what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.acceptance.inside import inside as madlog

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8")
CHAT = (
    '{"ticket_id": "T-1", "messages": [{"role": "user", "content": "Cancel order 17"}, '
    '{"role": "assistant", "content": "It is cancelled."}]}\n'
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a log of one conversation that was decided."""
    (tmp_path / "chats.jsonl").write_text(CHAT, encoding="utf-8")
    for command in (
        ("import", "chats.jsonl", "--format", "openai-chat"),
        ("worker", "--until-idle"),
    ):
        ran = madlog(*command, cwd=tmp_path)
        assert ran.code == 0, ran.err
    return tmp_path


def csv(shop: Path, text: str | bytes, *arguments: str) -> tuple[str, ...]:
    data = text if isinstance(text, bytes) else text.encode()
    (shop / "tickets.csv").write_bytes(data)
    return ("outcomes", "import", "tickets.csv", *(arguments or ("--by", "ticket_id")))


def test_the_page_s_example_runs_and_says_what_it_says(tmp_path: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    script = f'madlog() {{ {sys.executable} -m madlog "$@"; }}\nset -e\n{block}'
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    table = [line.split() for line in done.stdout.splitlines()[-4:]]
    assert table == [
        ["credit", "decision", "failure", "1"],
        ["credit", "decision", "success", "1"],
        ["csv:tickets", "conversation", "failure", "1"],
        ["csv:tickets", "conversation", "success", "1"],
    ]


def test_the_page_names_each_rule_with_its_weight() -> None:
    from madlog.processors.outcomes import RULES

    rows = re.findall(r"^\| `([a-z]+)` \| ([0-9.]+)", PAGE, re.MULTILINE)
    assert [(name, float(weight)) for name, weight in rows] == [
        (rule.name, rule.weight) for rule in RULES.values()
    ]


def test_judging_twice_adds_nothing(shop: Path) -> None:
    assert madlog(*csv(shop, "ticket_id,result\nT-1,failure\n"), cwd=shop).code == 0
    first = madlog("outcomes", "judge", "--json", cwd=shop).json
    assert (first["outcomes"], first["by_rule"]) == (1, {"credit": 1})
    second = madlog("outcomes", "judge", "--json", cwd=shop).json
    assert (second["conversations"], second["outcomes"]) == (1, 0)


def test_rules_are_switched_by_option_and_by_setting(shop: Path) -> None:
    madlog(*csv(shop, "ticket_id,result\nT-1,failure\n"), cwd=shop)
    off = madlog("outcomes", "judge", "--rules=-credit", "--json", cwd=shop).json
    env = {"MADLOG_OUTCOME_RULES": "-credit"}
    also = madlog("outcomes", "judge", "--json", cwd=shop, env=env).json
    assert (off["outcomes"], also["outcomes"]) == (0, 0)
    refused = madlog("outcomes", "judge", "--rules", "tols", cwd=shop).refused(2)
    assert "no rule 'tols'" in refused


def test_conversations_that_are_not_judged_are_counted(shop: Path) -> None:
    (shop / "more.jsonl").write_text(CHAT.replace("T-1", "T-2"), encoding="utf-8")
    madlog("import", "more.jsonl", "--format", "openai-chat", cwd=shop)
    env = {"MADLOG_OUTCOME_CONVERSATIONS_MAX": "1"}
    ran = madlog("outcomes", "judge", "--json", cwd=shop, env=env)
    assert ran.json["not_judged"] > 0
    assert "MADLOG_OUTCOME_CONVERSATIONS_MAX" in ran.err


def test_rows_that_are_not_joined_are_named_and_the_exit_code_is_1(shop: Path) -> None:
    ran = madlog(*csv(shop, "ticket_id,result\nT-9,failure\nT-1,success\n"), cwd=shop)
    assert ran.code == 1
    assert "tickets.csv:2: 'T-9': the log holds no conversation with this ticket_id" in ran.err
    again = madlog(*csv(shop, "ticket_id,result\nT-9,failure\nT-1,success\n"), "--json", cwd=shop)
    assert again.code == 1
    assert again.json["unchanged"] == 1
    assert [row["line"] for row in again.json["unjoined"]] == [2]


def test_an_outcome_about_an_unknown_decision_is_refused_with_its_line(shop: Path) -> None:
    ran = madlog(*csv(shop, "decision_id\n0189\n", "--by", "decision", "--as", "failure"), cwd=shop)
    assert ran.code == 1
    assert "tickets.csv:2: '0189': the log holds no decision" in ran.err


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("a,b\n1,2\n", ("--by", "ticket_id"), "no column 'ticket_id'; it has: a, b"),
        ("ticket_id\nT-1\n", ("--by", "ticket_id"), "no column 'result'"),
        ("", ("--by", "ticket_id"), "is empty"),
        (b"ticket_id,result\n\0,success\n", ("--by", "ticket_id"), "tickets.csv:2 holds a NUL"),
        ("ticket_id,result\nT-1,fine\n", ("--by", "ticket_id"), "tickets.csv:2: the result 'fine'"),
        ("ticket_id\nT-1\n", ("--by", "ticket_id", "--as", "fine"), "--as 'fine' is none of"),
        (
            "ticket_id,result\nT-1,success\n",
            ("--by", "ticket_id", "--as", "failure", "--result", "result"),
            "exclude each other",
        ),
        ("ticket_id,result\nT-1,success\n", ("--by", "ticket_id", "--mad", "No one"), "mad"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    shop: Path, text: str | bytes, arguments: tuple[str, ...], said: str
) -> None:
    assert said in madlog(*csv(shop, text, *arguments), cwd=shop).refused(2)
    held = madlog("sql", "select count(*) as n from outcomes", "--format", "json", cwd=shop)
    assert '"n": 0' in held.out or '"n":0' in held.out


def test_a_file_or_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    ran = madlog("outcomes", "import", "none.csv", "--by", "ticket_id", cwd=tmp_path)
    assert "none.csv is not a file" in ran.refused(2)
    madlog("outcomes", "judge", cwd=tmp_path).refused(3)
    assert not (tmp_path / ".madlog").exists()
