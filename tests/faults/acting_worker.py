"""Workers that act on an embedded log, each a process of its own, which fault tests kill.

They are forked from a server that has imported this module, so that a start takes milliseconds.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.unit.acting_scene import Scene, agent

from madlog.processors.acting import Actor, Answer
from madlog.processors.acting.job import Done
from madlog.processors.ports import Action, Registry
from madlog.topics import EventLog
from madlog.topics.clock import SystemClock
from madlog.topics.embedded import EmbeddedLog

__all__ = ("ACTORS", "FileEngine", "LateClock", "act", "decided", "started", "work")

ACTORS = Registry([agent(Action("pay"), Action("note", idempotent=True))])
# Further than the time that an act may take: who works that much later finds it left behind.
LATER_S = 120


class LateClock(SystemClock):
    """The machine's clock some generations later, so that no test waits for a time-out."""

    def __init__(self, generation: int) -> None:
        self._ahead_us = generation * LATER_S * 1_000_000

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us


class Points:
    """The points at which a process can die; it does at one of them."""

    def __init__(self, fatal: int | None) -> None:
        self._left = fatal

    def cross(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left is not None:
            self._left -= 1


class MortalLog(EventLog):
    """A log whose writer may die right before and right after each write."""

    points = Points(None)

    async def append(self, events: Sequence[Any]) -> Any:
        self.points.cross()
        receipts = await super().append(events)
        self.points.cross()
        return receipts

    async def transact(self, events: Sequence[Any], *more: Any, **options: Any) -> Any:
        self.points.cross()
        receipts = await super().transact(events, *more, **options)
        self.points.cross()
        return receipts


class FileEngine:
    """`pay` appends a line whenever it is called; `note` drops a key that it has seen."""

    def __init__(self, folder: Path, points: Points | None = None) -> None:
        self._folder = folder
        self._points = points or Points(None)

    async def run(self, agent: str, action: str, arguments: str, key: str) -> Answer:
        self._points.cross()
        await asyncio.sleep(0)
        done = self._line(action, key)
        self._points.cross()
        return Answer(True, done)

    def _line(self, action: str, key: str) -> str:
        # One write is the effect: whoever is killed has done it or has not.
        with (self._folder / action).open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            line = f"{key}\n".encode()
            if action == "note" and line in file.readlines():
                return "done before"
            file.write(line)
        return "done"


async def decided(folder: Path, count: int) -> list[str]:
    """Put decisions on a new log, pay and note by turns; return their ids."""
    log = await EventLog.open(await EmbeddedLog.open(folder / "log", clock=SystemClock()))
    scene = Scene(log=log)
    scene.clock.us = SystemClock().now_us()
    found = []
    for number in range(count):
        action = ("pay", "note")[number % 2]
        found.append(await scene.decide(action, {}, conversation=f"c{number % 7}"))
    await log.close()
    return found


async def act(
    folder: Path, generation: int, worker: str, fatal: int | None = None
) -> tuple[Done, EventLog]:
    """Act until nothing moves; the log is left open."""
    MortalLog.points = points = Points(fatal)
    log = await EmbeddedLog.open(folder / "log", clock=LateClock(generation))
    events = await MortalLog.open(log)
    actor = Actor(events, ACTORS, FileEngine(folder, points), worker)
    return await actor.run(), events


def work(folder: Path, generation: int, worker: str, fatal: int | None) -> None:
    """What a worker's process runs."""
    asyncio.run(_work(folder, generation, worker, fatal))


async def _work(folder: Path, generation: int, worker: str, fatal: int | None) -> None:
    _, log = await act(folder, generation, worker, fatal)
    await log.close()


def started(
    folder: Path, generation: int, worker: str, fatal: int | None = None
) -> ForkServerProcess:
    """Start a worker; with `fatal` it kills itself at the point of that number."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.acting_worker"])
    process = context.Process(target=work, args=(folder, generation, worker, fatal), daemon=True)
    process.start()
    return process
