"""A failed fsync: the outcome is unknown, nothing acknowledged is lost, the log goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.crash_vfs import CrashVfs, Step, io_error
from tests.faults.history import value_of
from tests.faults.writer import TOPIC, new_record, open_log

from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import LogUnavailable, NotWritten, OutcomeUnknown
from madlog.topics.log import Record
from madlog.topics.positions import Vector

ROOT = Path(__file__).resolve().parents[2]
KEY = "w0-0"


async def everything(log: EmbeddedLog) -> list[Record]:
    found: list[Record] = []
    async for records in log.read(Vector(), await log.end([TOPIC])):
        found += records
    return found


async def test_a_failed_fsync_ends_in_outcome_unknown_and_the_same_log_goes_on(
    tmp_path: Path,
) -> None:
    vfs = CrashVfs()
    log = await open_log(tmp_path, vfs=vfs.name)
    await log.create_topic(CATALOG[TOPIC])
    for number in range(10):
        await log.append([new_record(KEY, number)])
    failed: list[Step] = []

    def fail_once(step: Step) -> None:
        if step.what == "sync" and not failed:
            failed.append(step)
            raise io_error()

    vfs.fault = fail_once
    with pytest.raises(OutcomeUnknown):
        await log.append([new_record(KEY, 10)])
    assert vfs.faults == 1
    failed_at = len(vfs.steps)

    for number in range(10, 20):  # the first of them repeats what was unknown
        await log.append([new_record(KEY, number)])
    later = [step for step in vfs.steps[failed_at:] if step.handle == failed[0].handle]
    assert [step for step in later if step.what in ("write", "sync")] == []
    assert [record.value for record in await everything(log)] == [
        value_of(KEY, number) for number in range(20)
    ]
    await log.close()

    log = await open_log(tmp_path)
    assert [damage async for damage in log.check()] == []
    assert len(await everything(log)) == 20
    await log.close()


async def test_while_every_fsync_fails_nothing_is_acknowledged(tmp_path: Path) -> None:
    vfs = CrashVfs()
    log = await open_log(tmp_path, vfs=vfs.name)
    await log.create_topic(CATALOG[TOPIC])
    for number in range(5):
        await log.append([new_record(KEY, number)])

    def fail(step: Step) -> None:
        if step.what == "sync":
            raise io_error()

    vfs.fault = fail
    for _ in range(3):
        with pytest.raises((OutcomeUnknown, NotWritten, LogUnavailable)):
            await log.append([new_record(KEY, 5)])
    assert vfs.faults >= 1
    vfs.fault = None
    await log.append([new_record(KEY, 5)])
    assert [record.value for record in await everything(log)] == [
        value_of(KEY, number) for number in range(6)
    ]
    await log.close()


def run_with_failing_fsync(folder: Path, when: str) -> tuple[list[list[str]], int]:
    """Append 100 records in a process whose fsync the kernel fails; its lines, and how often."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: `apt-get install strace` (or your system's way)")
    trace = folder / "trace"
    inject = f"inject=fdatasync,fsync:error=EIO:when={when}"
    tracing = [strace, "-f", "-o", str(trace), "-e", "trace=fdatasync,fsync", "-e", inject]
    ran = subprocess.run(
        [*tracing, sys.executable, "-m", "tests.faults.writer", str(folder / "log"), "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if not trace.exists() or "ptrace" in ran.stderr:
        pytest.skip(f"strace may not trace here: allow ptrace ({ran.stderr.strip()[:100]})")
    assert "Traceback" not in ran.stderr, ran.stderr
    return [line.split() for line in ran.stdout.splitlines()], trace.read_text().count("INJECTED")


async def check_acks(folder: Path, lines: list[list[str]]) -> int:
    log = await open_log(folder)
    assert [damage async for damage in log.check()] == []
    found = await everything(log)
    acked = [int(number) for what, *_, number, _ in (ln for ln in lines if ln[0] == "ack")]
    assert acked == list(range(len(acked)))
    assert [r.value for r in found[: len(acked)]] == [value_of(KEY, number) for number in acked]
    assert len(found) <= len(acked) + 1
    await log.append([new_record(KEY, len(acked))])
    assert len(await everything(log)) == len(acked) + 1
    await log.close()
    return len(acked)


async def test_an_fsync_failed_by_the_kernel_is_unknown_then_repeated_safely(
    tmp_path: Path,
) -> None:
    lines, injected = run_with_failing_fsync(tmp_path, "40")
    unknown = [line for line in lines if line[0] == "unknown"]
    acked = await check_acks(tmp_path / "log", lines)
    print(f"{injected} fsyncs INJECTED, {len(unknown)} appends unknown, {acked} acknowledged")
    assert injected > 0
    assert unknown
    assert acked == 100


async def test_when_the_kernel_fails_every_fsync_the_acks_before_are_kept(tmp_path: Path) -> None:
    lines, injected = run_with_failing_fsync(tmp_path, "40+")
    acked = await check_acks(tmp_path / "log", lines)
    print(f"{injected} fsyncs INJECTED, {acked} acknowledged before")
    assert injected > 0
    assert 0 < acked < 100
    assert any(line[0] == "unknown" for line in lines)
