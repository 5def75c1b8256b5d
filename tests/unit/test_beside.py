"""A second process computes beside this one; what becomes of it changes no answer."""

import asyncio
import os
import signal

import pytest

from madlog import beside as module
from madlog.beside import Beside


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


async def test_it_is_another_process_that_ends_with_the_block() -> None:
    async with Beside() as beside:
        other = await beside.run(os.getpid)
        assert other != os.getpid()
        assert await beside.run(os.getpid) == other
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)


async def test_where_it_is_killed_or_fails_the_work_is_done_here() -> None:
    async with Beside() as beside:
        os.kill(await beside.run(os.getpid), signal.SIGKILL)
        assert await beside.run(os.getpid) == os.getpid()
    async with Beside() as beside:
        with pytest.raises(ValueError, match="invalid literal"):
            await beside.run(int, "no number")


async def test_an_answer_that_nobody_waits_for_is_no_answer_to_the_next_question() -> None:
    async with Beside() as beside:
        other = await beside.run(os.getpid)
        long = asyncio.ensure_future(beside.run(sum, range(1_000_000_000)))
        await asyncio.wait([long], timeout=0.05)
        long.cancel()
        assert await beside.run(os.getpid) != other


async def test_with_one_core_a_thread_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    async with module.Beside() as beside:
        assert await beside.run(os.getpid) == os.getpid()
