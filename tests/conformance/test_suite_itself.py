"""The conformance suite finds out a log that breaks a guarantee: the test of that number fails."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.test_memory import TestMemory as Whole

from madlog.topics.log import Log
from madlog.topics.memory import MemoryLog
from madlog.topics.testing import ManualClock
from madlog.topics.testing.broken import BROKEN

GUARANTEES = range(1, 13)


def numbered(suite: object, guarantee: int) -> dict[str, Callable[..., Coroutine[Any, Any, None]]]:
    prefix = f"test_g{guarantee}_"
    return {name: getattr(suite, name) for name in dir(suite) if name.startswith(prefix)}


def broken_suite(log: type[MemoryLog]) -> Whole:
    class Broken(Whole):
        async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
            return log(clock)

        async def make_small_log(self, tmp_path: Path, clock: ManualClock) -> Log:
            return log(clock, bytes_max=10_000)

    return Broken()


async def verdicts(suite: Whole, guarantee: int, tmp_path: Path) -> dict[str, bool]:
    """Return for each test of a number whether it passed."""
    found = {}
    for name, test in numbered(suite, guarantee).items():
        place = tmp_path / name
        place.mkdir()
        try:
            await test(place)
        except (Exception, pytest.fail.Exception):
            found[name] = False
        else:
            found[name] = True
    return found


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_each_guarantee_has_a_test_of_its_number_and_a_log_that_breaks_it(guarantee: int) -> None:
    assert numbered(Whole(), guarantee)
    assert guarantee in BROKEN


@pytest.mark.parametrize("guarantee", GUARANTEES)
async def test_a_log_that_breaks_it_fails_and_a_whole_one_passes(
    guarantee: int, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = await verdicts(Whole(), guarantee, tmp_path / "whole")
    assert all(whole.values()), whole
    broken = await verdicts(broken_suite(BROKEN[guarantee]), guarantee, tmp_path / "broken")
    assert not all(broken.values()), f"{BROKEN[guarantee].__name__} was not found out: {broken}"
