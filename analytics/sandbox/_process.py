"""The parent's side of the warm process: starts it, hands it jobs, waits for their end."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from madlog.analytics.errors import SqlLimit
from madlog.analytics.sandbox._job import HEAD, Job, nameless_file, write_index

__all__ = ("Children", "End")

_SERVER = "madlog.analytics.sandbox._server"
# Python 3.12 warns of forks beside threads; the one there is, jemalloc's, knows of forks.
_NO_WARNING = ("-W", "ignore::DeprecationWarning")
_START_S = 60.0
# A warm process that does not answer so long after a child's time is taken for dead.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: its exit code, below 0 a signal's number; and whether it was overdue."""

    code: int
    overdue: bool


class Children:
    """Forks a child for each job from one warm process, which is started when first needed."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the warm process, unless it is there. Raises SqlLimit."""
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return
            await self.close()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            # Nothing of this program's environment: there may be secrets in it.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", *_NO_WARNING, "-m", _SERVER, str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )  # fmt: skip
            theirs.close()
            self._control = ours
            loop = asyncio.get_running_loop()
            with contextlib.suppress(TimeoutError, OSError):
                if await asyncio.wait_for(loop.sock_recv(ours, 1), _START_S) == b"+":
                    return
            await self.close()
            raise SqlLimit("the process that SQL of others runs in did not start: ask again")

    async def close(self) -> None:
        """End the warm process and all its children."""
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    @contextlib.contextmanager
    def files(self, job: Job, tables: Mapping[str, pa.Table]) -> Iterator[tuple[int, int]]:
        """Give the file of a job, filled, and an empty one for its answer."""
        job_fd, answer_fd = nameless_file("job"), nameless_file("answer")
        try:
            _fill(job_fd, job, tables)
            yield job_fd, answer_fd
        finally:
            os.close(job_fd)
            os.close(answer_fd)

    async def run(self, job_fd: int, answer_fd: int, limit_s: float) -> End:
        """Have a child do a job within a time (0: any) and return how it ended. Raises SqlLimit."""
        await self.start()
        process = self._process
        told, tells = os.pipe()
        try:
            try:
                assert self._control is not None
                socket.send_fds(self._control, [HEAD.pack(limit_s)], [job_fd, answer_fd, tells])
            finally:
                os.close(tells)
            text = await asyncio.wait_for(_text(told), limit_s + _GRACE_S if limit_s else None)
            return End(**json.loads(text))
        except (OSError, TimeoutError, ValueError) as error:
            # It does not answer, or it is gone; another query may have started a new one.
            if self._process is process:
                await self.close()
            raise SqlLimit("the process that ran the query is gone: ask again, or less") from error
        finally:
            os.close(told)


async def _text(fd: int) -> bytes:
    """Return what one writer wrote to a pipe before it closed it."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 4096)


def _fill(fd: int, job: Job, tables: Mapping[str, pa.Table]) -> None:
    places = {}
    with open(fd, "wb", closefd=False) as file:
        for name, table in tables.items():
            start = file.tell()
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            places[name] = (start, file.tell() - start)
    write_index(fd, {**dataclasses.asdict(job), "walls": sorted(job.walls), "tables": places})
