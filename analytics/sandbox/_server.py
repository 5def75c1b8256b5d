"""The warm process that children are forked from: for each job one, killed when its time is up.

It has Python, Arrow and an empty DuckDB loaded, and no threads; it never sees a query itself.
Started with the number of a socket, over which each job comes as its time limit and three
descriptors: the job's file, the answer's file, and a pipe that is told how the child ended. When
the other end of that pipe is closed nobody waits any more, and the child is killed.
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
from dataclasses import dataclass

from madlog.analytics.sandbox._child import open_database, work
from madlog.analytics.sandbox._job import HEAD

__all__ = ("main",)

_FAILED = 70


@dataclass
class _Running:
    pid: int
    told: int
    until: float
    overdue: bool = False


def main(number: int) -> None:
    """Serve jobs until the socket is closed; then no child is left."""
    con = open_database()
    control = socket.socket(fileno=number)
    woken, wakes = os.pipe()
    for fd in (woken, wakes):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    gc.collect()
    gc.freeze()
    control.sendall(b"+")
    running: dict[int, _Running] = {}
    try:
        while _step(con, control, woken, running):
            pass
    finally:
        for job in running.values():
            os.kill(job.pid, signal.SIGKILL)


def _step(con: object, control: socket.socket, woken: int, running: dict[int, _Running]) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    for job in running.values():
        poll.register(job.told, 0)
    now = time.monotonic()
    next_us = min((job.until - now for job in running.values() if not job.overdue), default=None)
    wait_ms = None if next_us is None or next_us == float("inf") else max(0.0, next_us * 1000) + 1
    ready = {fd for fd, _ in poll.poll(wait_ms)}
    if woken in ready:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
    _kill(running, ready)
    _reap(running)
    return _take(con, control, running) if control.fileno() in ready else True


def _kill(running: dict[int, _Running], ready: set[int]) -> None:
    now = time.monotonic()
    for job in running.values():
        if not job.overdue and (now >= job.until or job.told in ready):
            job.overdue = True
            os.kill(job.pid, signal.SIGKILL)


def _reap(running: dict[int, _Running]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        job = running.pop(pid)
        told = {"code": os.waitstatus_to_exitcode(status), "overdue": job.overdue}
        with contextlib.suppress(BrokenPipeError):
            os.write(job.told, json.dumps(told).encode())
        os.close(job.told)


def _take(con: object, control: socket.socket, running: dict[int, _Running]) -> bool:
    head, fds, _, _ = socket.recv_fds(control, HEAD.size, 3)
    if len(head) < HEAD.size or len(fds) != 3:
        return False
    (limit_s,) = HEAD.unpack(head)
    job_fd, answer_fd, told = fds
    pid = os.fork()
    if not pid:
        _child(
            con, job_fd, answer_fd, [control.fileno(), told, *(j.told for j in running.values())]
        )
    os.close(job_fd)
    os.close(answer_fd)
    until = time.monotonic() + limit_s if limit_s else float("inf")
    running[pid] = _Running(pid, told, until)
    return True


def _child(con: object, job_fd: int, answer_fd: int, others: list[int]) -> None:
    code = _FAILED
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in others:
            os.close(fd)
        # What libraries print when they give up is for nobody.
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        code = work(con, job_fd, answer_fd)  # type: ignore[arg-type]
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
