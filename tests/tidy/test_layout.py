"""The repository's own text, held to the rules of CONTRIBUTING.md."""

import ast
import importlib
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import madlog

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("topics", "processors", "mads", "schemas", "analytics")
LINES_MAX = 500
FUNCTION_LINES_MAX = 60

# What must not be called, and what takes its place.
BANNED = {
    "datetime.now": "take a Clock",
    "datetime.utcnow": "take a Clock",
    "import random": "from random import Random, and take one as an argument",
    "os.urandom": "take `random` as an argument",
    "uuid.uuid4": "schemas.ids.new_event_id",
    "os.environ": "config.Settings",
    "time.time": "take a Clock",
}
CORE = ("schemas", "processors", "mads", "analytics")


def tracked(suffix: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"*{suffix}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(madlog.__path__, "madlog."):
        if not found.name.rsplit(".", 1)[1].startswith("_"):
            yield found.name


@pytest.mark.parametrize("room", ROOMS)
def test_the_import_root_is_made_of_relative_links(room: str) -> None:
    link = ROOT / "infra" / "madlog" / room
    assert link.is_symlink(), "check out with core.symlinks=true"
    assert str(link.readlink()) == f"../../{room}"


def test_no_python_file_is_longer_than_the_limit() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked(".py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert long == {}, f"split them by what they do: {long}"


def test_no_function_is_longer_than_the_limit() -> None:
    long = []
    for path in tracked(".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_no_file_is_named_for_being_shared() -> None:
    vague = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert [path for path in tracked(".py") if path.name in vague] == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_public_module_says_what_it_exports(name: str) -> None:
    if name == "madlog.__main__":
        return
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} needs a first sentence"
    exported = module.__all__
    assert isinstance(exported, tuple), f"{name}.__all__ is a tuple"
    assert len(set(exported)) == len(exported)
    for item in exported:
        assert hasattr(module, item), f"{name}.__all__ names {item}, which is not there"


def test_the_core_takes_time_and_randomness_as_arguments() -> None:
    found = []
    for room in CORE:
        for path in sorted((ROOT / room).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                code = line.split("#")[0]
                for banned, instead in BANNED.items():
                    if re.search(rf"(?<![\w.]){re.escape(banned)}", code):
                        where = f"{path.relative_to(ROOT)}:{number}"
                        found.append(f"{where}: {banned} (instead: {instead})")
    assert found == []


def test_nothing_is_left_over() -> None:
    marks = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")
    left = [
        f"{path.relative_to(ROOT)}:{number}"
        for suffix in (".py", ".md", ".sql")
        for path in tracked(suffix)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert left == []


def test_the_lock_file_has_hashes_and_names_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "--hash=sha256:" in lock
    assert "://" not in lock
    assert "index-url" not in lock


def test_tests_do_not_sleep() -> None:
    # Waiting for a real process polls in steps below a tenth of a second, never for a guess.
    call = re.compile(r"\bsleep\((\d+(?:\.\d+)?)\)")
    slow = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked(".py")
        if path.is_relative_to(ROOT / "tests")
        for match in call.finditer(path.read_text(encoding="utf-8"))
        if float(match[1]) > 0.1
    ]
    assert slow == []


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in readme
    assert "make test" in readme
