"""Each code block of the README runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
)
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "100",
}


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "console"}


@pytest.mark.parametrize("text", blocks("console"))
def test_console_blocks_name_targets_of_the_makefile(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in text.splitlines():
        command = line.removeprefix("$ ").split()
        assert command[0] == "make"
        assert re.search(rf"^{command[1]}:", makefile, re.M)


@pytest.mark.parametrize("text", blocks("sh"))
def test_shell_blocks_run(text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "get_order" in done.stdout
    assert "0 damaged places" in done.stdout


@pytest.mark.parametrize("text", blocks("python"))
def test_python_blocks_run(text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ada @shop where is my parcel?\n"


def test_the_first_screen_has_no_private_word() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").split("## The words")[0]
    for word in ("MAD", "DTR", "LPPM", "CET", "Imperator", "Rogers"):
        assert not re.search(rf"\b{word}\b", first), word
