"""Workers on a Kafka log, each a process of its own, which fault tests kill and freeze.

They are forked from a server that has imported this module, so that a start takes milliseconds.
"""

import asyncio
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from tests.unit.counting import ORDERS, Counter

from madlog.processors import Engine, Options, Processor, Report, Router
from madlog.processors.faust import FaustCluster, FaustEngine
from madlog.topics import EventLog
from madlog.topics.kafka import KafkaLog

__all__ = ("PATIENCE_S", "EngineName", "Plan", "Told", "Worker", "started", "until")

EngineName = Literal["transactional", "faust"]

PATIENCE_S = 90.0
_LOOK_S = 0.005
_PROCESSORS: dict[str, Callable[[], Processor]] = {
    "counter": Counter,
    "router": lambda: Router(ORDERS),
}


@dataclass(frozen=True)
class Plan:
    """What a worker does."""

    url: str
    processor: str = "counter"
    batch_records_max: int = 10
    session_timeout_s: float = 1.0
    timeout_s: float = 15.0
    until_idle: bool = False
    engine: EngineName = "transactional"


class Told(NamedTuple):
    """What a worker says: `what` is begun, recovering, worked, ended or failed.

    `events` counts the input so far, `at` is the time that all processes of the machine share.
    """

    what: str
    events: int
    text: str
    at: float


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until a condition holds; `what` says it where that takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await holds():
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise AssertionError(f"for {PATIENCE_S:g} s it was not so that {what}") from None


class Worker:
    """A worker process as its test sees it."""

    def __init__(self, plan: Plan) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._hears, tells = context.Pipe(duplex=False)
        self.told: list[Told] = []
        self._news = asyncio.Event()
        self._process = context.Process(target=_run, args=(plan, tells), daemon=True)
        self._process.start()
        tells.close()
        # Read as it comes, since a worker that is not listened to would wait for its listener.
        asyncio.get_running_loop().add_reader(self._hears.fileno(), self._listen)

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._hears.closed

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process that is gone; -9 where it was killed."""
        self._process.join(PATIENCE_S)
        return self._process.exitcode

    @property
    def events(self) -> int:
        """How many events it has counted as done."""
        return self.told[-1].events if self.told else 0

    def times(self, what: str) -> int:
        """Return how often it said something."""
        return sum(told.what == what for told in self.told)

    async def says(self, what: str, times: int = 1) -> Told:
        """Wait until it has said a thing so often; an end before that is an error."""
        async with asyncio.timeout(PATIENCE_S):
            while self.times(what) < times:
                assert not self.ended, f"the worker ended ({self.told[-1:]}), never {what} {times}"
                await self._wait()
        return [told for told in self.told if told.what == what][times - 1]

    async def end(self) -> Told:
        """Wait until the process is gone and return the last that it said."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.ended:
                await self._wait()
        return self.told[-1]

    def kill(self) -> None:
        """End it without a word, in the middle of what it does."""
        self._process.kill()

    def freeze(self) -> None:
        """Let it do nothing any more, without its knowing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a frozen worker go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def _wait(self) -> None:
        self._news.clear()
        if not self.ended:
            await self._news.wait()

    def _listen(self) -> None:
        try:
            while self._hears.poll():
                self.told.append(self._hears.recv())
        except (EOFError, OSError):
            self.close()
        self._news.set()

    def close(self) -> None:
        """Stop listening."""
        if not self._hears.closed:
            asyncio.get_running_loop().remove_reader(self._hears.fileno())
            self._hears.close()


@asynccontextmanager
async def started(*plans: Plan) -> AsyncIterator[list[Worker]]:
    """Run workers while the block runs; what is left of them then is killed."""
    workers: list[Worker] = []
    try:
        for plan in plans:
            workers.append(Worker(plan))
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.close()
            await asyncio.to_thread(worker._process.join, PATIENCE_S)


def _run(plan: Plan, tells: Connection) -> None:
    asyncio.run(_work(plan, tells))


async def _work(plan: Plan, tells: Connection) -> None:
    report = Report()

    def tell(what: str, text: str = "") -> None:
        tells.send(Told(what, report.events, text, time.monotonic()))

    def progress(done: Report) -> None:
        report.events = done.events
        tell("worked")

    tell("begun")
    log = await KafkaLog.open(
        plan.url, session_timeout_s=plan.session_timeout_s, timeout_s=plan.timeout_s
    )
    try:
        with TemporaryDirectory() as folder:
            engine = _engine(plan, log, await EventLog.open(log), Path(folder))
            await engine.run(
                until_idle=plan.until_idle,
                progress=progress,
                recovering=lambda text: tell("recovering", text),
            )
    except Exception as error:
        tell("failed", "".join(traceback.format_exception(error)))
    else:
        tell("ended")
    await log.close()


def _engine(plan: Plan, kafka: KafkaLog, log: EventLog, folder: Path) -> Engine:
    processors = [_PROCESSORS[plan.processor]()]
    options = Options(batch_records_max=plan.batch_records_max)
    if plan.engine == "transactional":
        return Engine(log, processors, options=options)
    address = kafka.address
    cluster = FaustCluster(
        address.bootstrap, address.prefix, folder, session_timeout_s=plan.session_timeout_s
    )
    return FaustEngine(log, processors, cluster, options=options)
