"""madlog replay what-if as a person runs it: answers, files, exit codes; the log stays as it is."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.inside import inside

from madlog.mads.demo.traffic import traffic
from madlog.topics import EventLog
from madlog.wiring import opened

GUARD = (
    "call.action = 'refund' and exists (from past where past.action = 'refund' and past.ok "
    "and past.arguments->>'order_id' = call.arguments->>'order_id')"
)


async def _append(log: EventLog) -> None:
    for events in traffic(1, 240):
        await log.append(events)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of scripted traffic, decided in retrospect."""
    import asyncio

    path = tmp_path_factory.mktemp("what-if")

    async def made() -> None:
        async with opened(str(path / "log")) as log:
            await _append(log)

    asyncio.run(made())
    assert inside("worker", "--until-idle", "--log", "log", cwd=path).code == 0
    return path


@pytest.fixture
def read_only(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the log whose files nobody may write."""
    copy = tmp_path / "log"
    shutil.copytree(folder / "log", copy)
    files = [copy, *copy.rglob("*")]
    for path in files:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    yield tmp_path
    for path in files:
        path.chmod(stat.S_IRWXU)


def sums(folder: Path) -> object:
    """Return a digest of each topic and the positions where they end."""
    rows = inside("topics", "list", "--json", "--log", "log", cwd=folder).rows
    return inside("digest", "--json", "--log", "log", cwd=folder).json, rows


def test_the_guard_against_second_refunds_blocks_the_duplicates_and_nothing_else(
    folder: Path,
) -> None:
    before = sums(folder)
    ran = inside("replay", "what-if", "--guard", GUARD, "--json", "--log", "log", cwd=folder)
    assert ran.code == 0, ran.err
    guard = ran.json["guard"]
    assert (guard["blocked"], guard["duplicate"], guard["legitimate"]) == (3, 3, 0)
    assert guard["amounts"] == {"amount_eur": 1310}
    assert [one["conversation_id"] for one in ran.json["conversations"]] == [
        "order-4711",
        "order-5208",
        "order-6033",
    ]
    assert sums(folder) == before


def test_the_screen_says_what_the_page_and_the_rows_say(folder: Path, tmp_path: Path) -> None:
    page, rows = tmp_path / "what-if.html", tmp_path / "what-if.jsonl"
    asked = ("--max-error", "0.001", "--guard", GUARD, "--out", str(page), "--out", str(rows))
    ran = inside("replay", "what-if", *asked, "--log", "log", cwd=folder)
    assert ran.code == 0, ran.err
    assert "3 blocked: 3 duplicate, 0 failed, 0 unsure, 0 legitimate" in ran.out
    assert "≠ payments: refund(" in ran.out
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    acts = [row for row in told if row["what"] == "act"]
    decisions = [row for row in told if row["what"] == "decision"]
    assert len(acts) == 3
    assert f"{len(decisions):,} come out otherwise" in ran.out
    html = page.read_text()
    assert "<b>3</b>blocked" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in html
    assert not rows.with_name(rows.name + ".part").exists()


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_copy_that_nobody_may_write_answers_or_says_in_one_line_why_not(
    read_only: Path, folder: Path
) -> None:
    held = {path: path.read_bytes() for path in (read_only / "log").rglob("*") if path.is_file()}
    ran = inside("replay", "what-if", "--guard", GUARD, "--json", "--log", "log", cwd=read_only)
    if ran.code == 0:
        assert ran.json["guard"]["blocked"] == 3
    else:
        ran.refused(3)
    after = {path: path.read_bytes() for path in held}
    assert after == held


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Say what is to be otherwise"),
        (("--model", "no-such"), "no model 'no-such'"),
        (("--without", "llm"), "no tier to switch off"),
        (("--guard", "true and"), "no SQL expression"),
        (("--guard", "none.py:guard"), "no file none.py"),
        (("--guard", "(call.arguments->>'order_id')::INT / 'x'::INT > 0"), "failed on the log"),
        (("--guard", "true", "--to", "mad.conversations/0@999999"), "past the end"),
        (("--guard", "true", "--from", "no-such-case"), "no conversation of this log"),
        (
            ("--guard", "true", "--from", "01702e5f-87a3-7069-a6e6-1a31cfac11d5"),
            "holds no event 01702e5f",
        ),
        (("--max-error", "0.01", "--prices", "none.csv"), "none.csv cannot be read"),
        (("--max-error", "0.01", "--out", "page.pdf"), "must end in .html"),
        (("--max-error", "0.01", "--out", "none/page.html"), "is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    ran = inside("replay", "what-if", *arguments, "--log", "log", cwd=folder)
    assert words in ran.refused(2)
    assert ran.out == ""


def test_a_log_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    inside("replay", "what-if", "--max-error", "0.1", "--log", "none", cwd=tmp_path).refused(3)


def test_interrupted_it_ends_with_130_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    asked = ("replay", "what-if", "--without", "dtr", "--out", str(rows), "--log", "log")
    whole = inside(*asked, "--json", cwd=folder)
    told = rows.read_bytes()
    rows.unlink()
    resume = tmp_path / "stopped.json"
    # A process that interrupts itself once it has decided, as Ctrl-C does from outside.
    program = (
        "import os, signal, sys\n"
        "from madlog.analytics.what_if import routes\n"
        "from madlog import cli\n"
        "routes._RECORDS = 50\n"
        "batch = routes._Partition._batch\n"
        "def stopping(self, *more):\n"
        "    batch(self, *more)\n"
        "    if self._now.events > 200:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "routes._Partition._batch = stopping\n"
        f"sys.argv = ['madlog', *{[*asked, '--resume', str(resume)]!r}]\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130, done.stderr
    assert "goes on from" in done.stderr
    assert resume.exists()
    again = inside(*asked, "--resume", str(resume), "--json", cwd=folder)
    assert again.code == 0, again.err
    assert {**again.json, "seconds": 0} == {**whole.json, "seconds": 0}
    assert rows.read_bytes() == told
    assert not resume.exists()
