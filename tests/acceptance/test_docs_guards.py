"""docs/guards.md: its file is read, its commands run, and its tables name what there is."""

import re
import subprocess
import sys
from pathlib import Path

from madlog.processors.acting import CONSTITUTION
from madlog.processors.acting.rules import parse_rule
from madlog.processors.registry_file import parse_registry

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guards.md").read_text(encoding="utf-8")
(FILE,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
(SCRIPT,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_s_file_of_agents_is_read_as_the_page_says() -> None:
    file = parse_registry(FILE, toml=True)
    shop = file.registry["shop"]
    assert shop.contract("refund").risk == "high"
    assert shop.contract("lookup_order").idempotent
    assert set(file.terms.budgets["shop"]) == {"refunds-an-hour", "money-a-day"}
    # What it gives as the defaults are the defaults.
    assert (
        parse_registry("{}").terms
        == parse_registry("\n".join(FILE.splitlines()[1:3]), toml=True).terms
    )


def test_the_page_s_commands_run(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text(FILE, encoding="utf-8")
    script = f'madlog() {{ {sys.executable} -m madlog "$@"; }}\nset -e\n{SCRIPT}madlog control list'
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    for shown in ("stopped   shop/dtr", "override  shop", "flag      all/acting", "budget    shop"):
        assert shown in done.stdout
    # All of it was taken back, and a flag that is on stays said.
    assert [line.split() for line in done.stdout.splitlines()[-1:]] == [
        ["flag", "all/acting", "on", "–", "–"]
    ]
    assert done.stdout.splitlines()[-2].startswith("what")


def test_the_page_names_each_rule() -> None:
    for article in CONSTITUTION:
        assert f"| `{article.name}` |" in PAGE
    table = PAGE.split("## Preconditions")[1].split("## The constitution")[0]
    named = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    assert len(named) == 6
    for example in named:
        parse_rule(example.replace("[+ARG…]", "+ARG").replace("NUMBER", "5"))
