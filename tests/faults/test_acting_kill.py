"""kill -9 of workers that act: no act happens twice, and none is forgotten.

What is not idempotent happens at most once: where the worker died while it ran, the log says that
nobody knows. What is idempotent by its key happens exactly once.
"""

import asyncio
import random
import secrets
import signal
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from tests.faults.acting_worker import act, decided, started

from madlog.topics import EventLog

LIFE_S_MAX = 0.06


def effects(folder: Path, action: str) -> Counter[str]:
    path = folder / action
    return Counter(path.read_text().split()) if path.exists() else Counter()


async def settle(folder: Path, decisions: list[str], generation: int) -> dict[str, str]:
    """Let a last worker do the rest, then return how each decision ended, as the log has it."""
    done, log = await act(folder, generation, "last")
    assert done.waiting == {}
    ended = await endings(log)
    assert set(ended) == set(decisions)
    await log.close()
    return ended


async def endings(log: EventLog) -> dict[str, str]:
    calls, ended = {}, {}
    async for events in log.read_topics(["mad.conversations"]):
        for event in events:
            fields = event.fields
            if event.kind == "ToolCall":
                calls[event.event_id] = fields["causation_id"]
            elif event.kind == "ToolResult" and "void" not in fields["extra"]:
                assert calls[fields["call_id"]] not in ended, "two results of one act"
                ended[calls[fields["call_id"]]] = "ok" if fields["ok"] else str(fields["error"])
    return ended


def check(folder: Path, decisions: list[str], ended: dict[str, str]) -> Counter[str]:
    """Hold the effects against what the log says of them."""
    pays, notes = effects(folder, "pay"), effects(folder, "note")
    told: Counter[str] = Counter()
    for number, decision in enumerate(decisions):
        if number % 2:
            assert (notes[decision], ended[decision]) == (1, "ok")
        elif ended[decision] == "ok":
            assert pays[decision] == 1
        else:
            assert ended[decision] == "outcome unknown: the worker died while it ran"
            assert pays[decision] <= 1
            told["unknown, and it had happened" if pays[decision] else "unknown, and not"] += 1
    assert set(pays) | set(notes) <= set(decisions)
    return told


async def joined(process: ForkServerProcess) -> int:
    """Wait for a process without standing in the way of anything else."""
    await asyncio.to_thread(process.join)
    code = process.exitcode
    process.close()
    assert code is not None
    return code


async def test_a_worker_that_dies_at_any_point_does_nothing_twice(tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    for point in range(40):
        folder = tmp_path / str(point)
        folder.mkdir()
        decisions = await decided(folder, 2)
        code = await joined(started(folder, 0, "first", point))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        told += check(folder, decisions, await settle(folder, decisions, 1))
    # Each act has six: around the announcement, the effect and the result.
    assert point == 12
    # Both were met, or the points would not be where they are said to be.
    assert min(told["unknown, and it had happened"], told["unknown, and not"]) > 0


def done_so_far(folder: Path) -> int:
    return sum((effects(folder, "pay") + effects(folder, "note")).values())


async def kill_often(folder: Path, acts: int, seed: int) -> None:
    rng = random.Random(seed)
    decisions = await decided(folder, acts)
    kills = generation = 0
    ended_by_itself = False
    while not ended_by_itself:
        # Two at work at once, as two machines would be: an act is the one's or the other's.
        workers = [started(folder, generation, f"{generation}-{name}") for name in "ab"]
        lives = [rng.random() * LIFE_S_MAX for _ in workers]
        codes = await asyncio.gather(*map(killed, [folder] * 2, workers, lives))
        kills += sum(code == -signal.SIGKILL for code in codes)
        ended_by_itself = 0 in codes
        assert set(codes) <= {0, -signal.SIGKILL}
        generation += 1
    ended = await settle(folder, decisions, generation + 1)
    told = check(folder, decisions, ended)
    print(f"{kills} kills over {acts} acts, {dict(told)}: none twice, none forgotten")
    assert kills > 0, f"seed {seed}"


async def killed(folder: Path, process: ForkServerProcess, life_s: float) -> int:
    """Let a worker live until something was done, and then a random time; return how it ended."""
    before = done_so_far(folder)
    ended = asyncio.create_task(asyncio.to_thread(process.join))
    while not ended.done() and done_so_far(folder) == before:
        await asyncio.wait([ended], timeout=0.002)
    await asyncio.wait([ended], timeout=life_s)
    if not ended.done():
        process.kill()
    await ended
    code = process.exitcode
    process.close()
    assert code is not None
    return code


async def test_no_kill_of_two_workers_at_once_lets_an_act_happen_twice(tmp_path: Path) -> None:
    await kill_often(tmp_path, acts=120, seed=secrets.randbits(32))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_no_kill_of_many_lets_an_act_happen_twice(tmp_path: Path) -> None:
    await kill_often(tmp_path, acts=600, seed=secrets.randbits(32))
