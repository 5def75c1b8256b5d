"""kill -9 of an archiver at each kind of step: whole files or none, each event once, all mended."""

import asyncio
import random
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.unit.lake_scene import answers, mixed

from madlog.analytics.lake import Archiver, LakeStore, read_manifest
from madlog.topics import EventLog
from madlog.wiring import opened

# Each start of a process costs a second; the steps are spread over a whole run by the seed.
KILLS = 5


async def killed_at(folder: Path, step: int) -> bool:
    """Archive until the step; tells whether it came to the end before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.lake_archiver",
        str(folder),
        str(step),
        cwd=Path(__file__).resolve().parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode in (0, -9), err.decode()
    return out == b"done\n"


async def whole(log: EventLog, folder: Path) -> None:
    """Every file of a name is whole, and the views are those of the log."""
    for path in (folder / "lake").rglob("*.parquet"):
        assert pq.read_table(path).num_rows
    assert await answers(log, LakeStore(str(folder / "lake"))) == await answers(log)


@pytest.mark.timeout(240)
async def test_an_archiver_that_is_killed_leaves_whole_files_or_none(tmp_path: Path) -> None:
    rng = random.Random(7)
    folder = tmp_path / "log"
    async with opened(str(folder)) as log:
        await log.append(mixed(60))
    kills = 0
    # The first steps are those of a first file; later ones fall anywhere in a longer run.
    for step in (*range(1, 5), *(rng.randrange(5, 40) for _ in range(KILLS - 4))):
        kills += not await killed_at(folder, step)
        async with opened(str(folder), create=False) as log:
            await whole(log, folder)
            await log.append(mixed(30, first=100 * (step + 1)))
    assert kills >= KILLS - 1
    async with opened(str(folder), create=False) as log:
        store = LakeStore(str(folder / "lake"))
        archiver = Archiver(log, store)
        await archiver.run(until_idle=True)
        # What was left behind is swept once its time is over, and only that.
        await archiver.sweep(-60.0)
        assert not list((folder / "lake").rglob("*.partial"))
        there = {stored.path for stored in store.listed()}
        assert there == {file.path for one in await read_manifest(log) for file in one.files}
        await whole(log, folder)
