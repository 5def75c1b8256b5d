"""The conformance suite finds out a log that breaks a guarantee: a test of that number fails."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.conformance.test_memory import TestMemory as Whole

from madlog.topics.log import Log
from madlog.topics.memory import MemoryLog
from madlog.topics.testing import LogMachine, ManualClock, broken
from madlog.topics.testing.broken import BROKEN
from madlog.topics.testing.log_machine import MACHINE_SETTINGS

GUARANTEES = range(1, 13)
EACH = [
    pytest.param(guarantee, log, id=f"g{guarantee}-{log.__name__}")
    for guarantee in sorted(BROKEN)
    for log in BROKEN[guarantee]
]
# What the state machine against a list must find out by itself, in its usual number of runs.
FOUND_BY_MACHINE = (
    broken.ForgetsOnReopening,
    broken.LagsBehind,
    broken.ReadsBackwards,
    broken.CommitsPositionsAlone,
    broken.LosesOutputs,
    broken.AppendsRepeats,
    broken.TakesOtherContent,
    broken.IncludesTheEnd,
)


def numbered(suite: object, guarantee: int) -> dict[str, Callable[..., Coroutine[Any, Any, None]]]:
    prefix = f"test_g{guarantee}_"
    return {name: getattr(suite, name) for name in dir(suite) if name.startswith(prefix)}


def broken_suite(log: type[MemoryLog]) -> type[Whole]:
    class Broken(Whole):
        # What never comes is not waited for as long as on a slow disk.
        patience_s = 1.0

        async def make_log(self, tmp_path: Path, clock: ManualClock) -> Log:
            return log(clock)

        async def make_small_log(self, tmp_path: Path, clock: ManualClock) -> Log:
            return log(clock, bytes_max=10_000)

    return Broken


async def failures(suite: Whole, guarantee: int, tmp_path: Path) -> set[str]:
    """Return the names of the tests of a number that failed."""
    found = set()
    for name, test in numbered(suite, guarantee).items():
        place = tmp_path / name
        place.mkdir(parents=True)
        try:
            await test(place)
        except (Exception, pytest.fail.Exception):
            found.add(name)
    return found


@pytest.mark.parametrize("guarantee", GUARANTEES)
async def test_a_whole_log_passes_the_tests_of_each_number(guarantee: int, tmp_path: Path) -> None:
    assert numbered(Whole(), guarantee)
    assert await failures(Whole(), guarantee, tmp_path) == set()


@pytest.mark.parametrize(("guarantee", "log"), EACH)
async def test_a_broken_log_fails_a_test_of_its_number(
    guarantee: int, log: type[MemoryLog], tmp_path: Path
) -> None:
    assert await failures(broken_suite(log)(), guarantee, tmp_path), "it was not found out"


@pytest.mark.parametrize("guarantee", GUARANTEES)
async def test_no_test_of_a_number_is_passed_by_every_broken_log(
    guarantee: int, tmp_path: Path
) -> None:
    failed = set()
    for log in BROKEN[guarantee]:
        failed |= await failures(broken_suite(log)(), guarantee, tmp_path / log.__name__)
    assert set(numbered(Whole(), guarantee)) - failed == set()


@pytest.mark.parametrize("log", FOUND_BY_MACHINE, ids=lambda log: log.__name__)
def test_the_state_machine_finds_what_a_list_can_show(log: type[MemoryLog]) -> None:
    class Machine(LogMachine):
        suite = broken_suite(log)

    # Found is enough: no time goes into making the example small, none is kept. The same runs
    # each time, since chance runs may now and then find nothing.
    quick = settings(MACHINE_SETTINGS, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=quick)
