"""A full disk: the append is refused, everything acknowledged is there, and it goes on."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.crash_vfs import CrashVfs, Step, full_disk
from tests.faults.writer import TOPIC, new_record, open_log

from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import NotWritten
from madlog.topics.log import Idempotency, NewRecord, Record
from madlog.topics.positions import Vector

SIZE = 20_000


def big_record(number: int) -> NewRecord:
    value = number.to_bytes(4) * (SIZE // 4)
    return NewRecord(TOPIC, b"key", value, idempotency=Idempotency("big", str(number), b"\0" * 32))


async def values(log: EmbeddedLog) -> list[bytes]:
    found: list[Record] = []
    async for records in log.read(Vector(), await log.end([TOPIC])):
        found += records
    return [record.value for record in found]


async def append_until_refused(log: EmbeddedLog) -> list[NewRecord]:
    acked: list[NewRecord] = []
    while len(acked) < 1000:
        record = big_record(len(acked))
        try:
            await log.append([record])
        except NotWritten:
            return acked
        acked.append(record)
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("writes", [1, 2, 3, 7, 20])
async def test_a_full_disk_refuses_the_append_keeps_the_acks_and_goes_on_with_space(
    writes: int, tmp_path: Path
) -> None:
    vfs = CrashVfs()
    log = await open_log(tmp_path, vfs=vfs.name)
    await log.create_topic(CATALOG[TOPIC])
    left = [writes]

    def fill(step: Step) -> None:
        if step.what == "write":
            left[0] -= 1
            if left[0] < 0:
                raise full_disk()

    vfs.fault = fill
    acked = await append_until_refused(log)
    assert vfs.faults > 0
    assert await values(log) == [record.value for record in acked]

    vfs.fault = None
    receipts = await log.append([big_record(len(acked))])
    assert not receipts[0].repeated, "what was refused was not there"
    assert await values(log) == [big_record(number).value for number in range(len(acked) + 1)]
    await log.close()


async def test_of_many_writers_on_a_full_disk_each_is_acknowledged_or_refused(
    tmp_path: Path,
) -> None:
    vfs = CrashVfs()
    log = await open_log(tmp_path, vfs=vfs.name)
    await log.create_topic(CATALOG[TOPIC])
    full = False

    def fill(step: Step) -> None:
        if step.what == "write" and full and len(vfs.steps) > 3:
            raise full_disk()

    vfs.fault = fill
    acked: set[bytes] = set()
    refused = 0
    for first in range(0, 64, 8):
        full = first % 16 == 8
        vfs.steps.clear()
        records = [new_record(f"w{number % 8}", number) for number in range(first, first + 8)]
        results = await asyncio.gather(
            *(log.append([record]) for record in records), return_exceptions=True
        )
        for record, result in zip(records, results, strict=True):
            if isinstance(result, BaseException):
                assert isinstance(result, NotWritten)
                refused += 1
            else:
                acked.add(record.value)
    vfs.fault = None
    print(f"{len(acked)} acknowledged, {refused} refused")
    assert set(await values(log)) == acked
    assert acked
    assert refused
    await log.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root: run the tests as root to see this one")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: allow mount ({mounted.stderr.strip()[:100]})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_really_full_disk_refuses_keeps_the_acks_and_goes_on_with_space(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    log = await open_log(small_disk / "log")
    await log.create_topic(CATALOG[TOPIC])
    acked = await append_until_refused(log)
    assert await values(log) == [record.value for record in acked]

    ballast.unlink()
    more = [big_record(number) for number in range(len(acked), len(acked) + 3)]
    for record in more:
        await log.append([record])
    assert await values(log) == [record.value for record in acked + more]
    await log.close()

    log = await open_log(small_disk / "log")
    assert [damage async for damage in log.check()] == []
    assert len(await values(log)) == len(acked) + 3
    await log.close()
    print(f"{len(acked)} records of {SIZE} bytes acknowledged before the disk was full")
