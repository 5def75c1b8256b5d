"""The warm process that children are forked from: for each job one, killed when its time is up.

It has Python, Arrow and an empty DuckDB loaded, and no threads but one of jemalloc, which knows of
forks; it never sees a query itself.
Started with the number of a socket, over which each job comes as its time limit and three
descriptors: the job's file, the answer's file, and a pipe that is told how the child ended. When
the other end of that pipe is closed nobody waits any more, and the child is killed.

A child says when it is done, and is killed then: to end takes a process longer than a small query.
A few children are forked before there is a job, and have run a query of ours: what a process has
to do first, its pages above all, is then done while nobody waits.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from madlog.analytics.sandbox._child import open_database, prepare, work
from madlog.analytics.sandbox._job import HEAD

__all__ = ("main",)

_FAILED = 70
# A query is two jobs: it is parsed, then run.
_SPARES = 4


@dataclass
class _Running:
    pid: int
    way: socket.socket
    told: int
    until: float
    overdue: bool = False
    done: bool = False


def main(number: int) -> None:
    """Serve jobs until the socket is closed; then no child is left."""
    con = open_database()
    woken, wakes = os.pipe()
    for fd in (woken, wakes):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    gc.collect()
    gc.freeze()
    server = _Server(con, socket.socket(fileno=number), woken, wakes)
    try:
        with contextlib.suppress(ConnectionError):  # who started us is gone, then so are we
            server.serve()
    finally:
        server.end()


class _Server:
    def __init__(
        self, con: duckdb.DuckDBPyConnection, control: socket.socket, woken: int, wakes: int
    ) -> None:
        self._con = con
        self._control = control
        self._woken, self._wakes = woken, wakes
        # By process id: those that wait for a job, by the socket that it comes by; those that work.
        self._spares: dict[int, socket.socket] = {}
        self._running: dict[int, _Running] = {}

    def serve(self) -> None:
        while len(self._spares) < _SPARES:
            self._spare()
        self._control.sendall(b"+")
        while self._step():
            pass

    def end(self) -> None:
        for pid in (*self._spares, *self._running):
            os.kill(pid, signal.SIGKILL)

    def _step(self) -> bool:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        for job in self._running.values():
            if not job.overdue and not job.done:
                poll.register(job.told, 0)
                poll.register(job.way, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self._wait_ms())}
        if not ready and len(self._spares) < _SPARES:
            self._spare()
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        self._kill(ready)
        self._reap()
        return self._take() if self._control.fileno() in ready else True

    def _wait_ms(self) -> float | None:
        if len(self._spares) < _SPARES:
            return 0.0
        working = [job for job in self._running.values() if not job.overdue and not job.done]
        until = min((job.until for job in working), default=float("inf"))
        return None if until == float("inf") else max(0.0, until - time.monotonic()) * 1000 + 1

    def _kill(self, ready: set[int]) -> None:
        now = time.monotonic()
        for job in self._running.values():
            if job.overdue or job.done:
                continue
            job.done = job.way.fileno() in ready and job.way.recv(1) != b""
            job.overdue = not job.done and (now >= job.until or job.told in ready)
            if job.done or job.overdue:
                os.kill(job.pid, signal.SIGKILL)
            if job.done:
                self._tell(job, 0)

    def _reap(self) -> None:
        while self._running or self._spares:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid not in self._running:
                raise SystemExit("a child died before it had a job")  # the next would too
            job = self._running.pop(pid)
            job.way.close()
            if not job.done:
                self._tell(job, os.waitstatus_to_exitcode(status))

    def _tell(self, job: _Running, code: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(job.told, json.dumps({"code": code, "overdue": job.overdue}).encode())
        os.close(job.told)

    def _take(self) -> bool:
        """Give the next job to a child; tell whether there was one."""
        head, fds, _, _ = socket.recv_fds(self._control, HEAD.size, 3)
        if len(head) < HEAD.size or len(fds) != 3:
            return False
        (limit_s,) = HEAD.unpack(head)
        job_fd, answer_fd, told = fds
        until = time.monotonic() + limit_s if limit_s else float("inf")
        if not self._spares:
            self._spare(fds)
        pid = next(iter(self._spares))  # the oldest, which is prepared
        way = self._spares.pop(pid)
        socket.send_fds(way, [b"+"], [job_fd, answer_fd])
        os.close(job_fd)
        os.close(answer_fd)
        self._running[pid] = _Running(pid, way, told, until)
        return True

    def _spare(self, also: Sequence[int] = ()) -> None:
        """Fork a child that waits for a job; it keeps nothing of others, nor of `also`."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            self._spares[pid] = ours
            return
        others = [self._control.fileno(), self._woken, self._wakes, ours.fileno(), *also]
        others += [way.fileno() for way in self._spares.values()]
        for job in self._running.values():
            others += [job.way.fileno()] if job.done else [job.way.fileno(), job.told]
        _child(self._con, theirs, others)


def _child(con: duckdb.DuckDBPyConnection, way: socket.socket, others: list[int]) -> None:
    code = _FAILED
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in others:
            os.close(fd)
        # What libraries print when they give up is for nobody.
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        prepare(con)
        _, fds, _, _ = socket.recv_fds(way, 1, 2)
        if len(fds) == 2:
            code = work(con, *fds)
            os.write(way.fileno(), b"+")  # of a socket's own calls it has none left
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
