"""The one thread that writes to the embedded log: group commit, back-pressure, failures.

Callers queue requests; the thread takes what waits, does it in one transaction and answers all of
it after one fsync. A handle on which a commit failed is never used again.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import apsw

from madlog.topics._embedded_append import Appender, Request
from madlog.topics._embedded_storage import Opening, connect, fetch, record_table
from madlog.topics.clock import Clock
from madlog.topics.errors import LogError, LogUnavailable, NotWritten, OutcomeUnknown

__all__ = ("Writer", "heads_disagreement")

_RECORDS_MAX = 2000
_BYTES_MAX = 4 << 20
_CHECKPOINT_FRAMES = 2000
_FRAME_BYTES = 4096 + 24


class Writer:
    """Accepts requests from event loops, writes them from its own thread."""

    def __init__(
        self,
        opening: Opening,
        clock: Clock,
        *,
        queue_bytes_max: int,
        wal_bytes_max: int,
        committed: Callable[[], None],
        poisoned: Callable[[], None],
    ) -> None:
        self._opening = opening
        self._clock = clock
        self._queue_bytes_max = queue_bytes_max
        self._wal_frames_max = wal_bytes_max // _FRAME_BYTES
        self._committed = committed
        self._poisoned = poisoned
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._queue: deque[Request] = deque()
        self._queued_bytes = 0
        self._senders: deque[tuple[asyncio.Future[None], Request]] = deque()
        self._kicked = False
        self._closing = False
        self._failure: BaseException | None = None
        self._wal_frames = 0
        self._data_version = -1
        self._connection: apsw.Connection | None = None
        self._appender: Appender | None = None
        self._use(connect(opening))
        self._thread = threading.Thread(target=self._run, name="madlog-writer", daemon=True)
        self._thread.start()

    async def submit(self, request: Request) -> Any:
        """Queue a request, waiting while the queue is full, and return what it came to."""
        with self._lock:
            self._refuse_if_closed()
            # One request larger than the queue goes in when the queue is empty.
            if not self._senders and (
                not self._queue or self._queued_bytes + request.size <= self._queue_bytes_max
            ):
                self._put(request)
                turn = None
            else:
                turn = request.loop.create_future()
                self._senders.append((turn, request))
        if turn is not None:
            await turn
        # Everything that this turn of the event loop appends shall be in the same commit.
        if not self._kicked:
            self._kicked = True
            request.loop.call_soon(self._kick)
        return await request.future

    def call(self, function: Callable[[Appender], Any]) -> "asyncio.Future[Any]":
        """Run `function` in a transaction of the writer."""
        loop = asyncio.get_running_loop()
        request = Request(loop.create_future(), loop, call=function)
        return asyncio.ensure_future(self.submit(request))

    def close(self) -> None:
        """Write what was accepted, then let go of the file; blocks until that is done."""
        with self._lock:
            self._closing = True
        self._work.set()
        self._thread.join()

    def _refuse_if_closed(self) -> None:
        if self._closing or self._failure is not None:
            why = f" ({self._failure})" if self._failure else ""
            raise LogUnavailable(
                f"the log {self._opening.path.parent} is closed{why}: open it again"
            )

    def _put(self, request: Request) -> None:
        self._queue.append(request)
        self._queued_bytes += request.size

    def _kick(self) -> None:
        self._kicked = False
        self._work.set()

    def _run(self) -> None:
        batch: list[Request] = []
        try:
            while True:
                self._work.wait()
                self._work.clear()
                while batch := self._take():
                    self._write(batch)
                    self._answer(batch)
                    self._checkpoint()
                if self._closing and not self._queue and not self._senders:
                    break
        except BaseException as error:
            self._give_up(batch, error)
            raise
        finally:
            self._let_go()

    def _take(self) -> list[Request]:
        batch: list[Request] = []
        records = size = 0
        admitted: list[asyncio.Future[None]] = []
        with self._lock:
            while self._queue and records < _RECORDS_MAX and size < _BYTES_MAX:
                request = self._queue.popleft()
                batch.append(request)
                records += len(request.rows) + 1
                size += request.size
            self._queued_bytes -= size
            while self._senders:
                turn, request = self._senders[0]
                if turn.cancelled():  # its caller has gone before it was accepted
                    self._senders.popleft()
                    continue
                if self._queue and self._queued_bytes + request.size > self._queue_bytes_max:
                    break
                self._senders.popleft()
                self._put(request)
                admitted.append(turn)
        for turn in admitted:
            _tell(turn.get_loop(), [(turn, None, None)])
        return batch

    def _answer(self, batch: list[Request]) -> None:
        answers: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        for request in batch:
            answers.setdefault(request.loop, []).append(
                (request.future, request.result, request.error)
            )
        for loop, each in answers.items():
            _tell(loop, each)

    def _give_up(self, batch: list[Request], error: BaseException) -> None:
        with self._lock:
            self._failure = error
            waiting = [*batch, *self._queue]
            waiting += [request for _, request in self._senders]
            turns = [turn for turn, _ in self._senders]
            self._queue.clear()
            self._senders.clear()
        for request in waiting:
            request.error = OutcomeUnknown(
                f"the log's writer stopped ({error!r}): open the log again and repeat the append"
            )
        for turn in turns:
            _tell(turn.get_loop(), [(turn, None, None)])
        self._answer(waiting)

    def _write(self, batch: list[Request]) -> None:
        """Do a batch; afterwards each of its requests has a result or an error."""
        try:
            appender = self._ready()
            connection = appender.connection
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA data_version").get
            if version != self._data_version:
                appender.forget()
                self._data_version = version
            for request in batch:
                try:
                    appender.apply(request)
                except LogError as error:
                    request.error = error
            appender.flush()
        except Exception as error:
            self._undo(batch, error)
            return
        try:
            connection.execute("COMMIT")
        except (apsw.BusyError, apsw.FullError) as error:
            self._undo(batch, error)
        except Exception as error:
            self._poison()
            for request in batch:
                request.error = request.error or OutcomeUnknown(
                    f"the commit to {self._opening.path} failed ({error}), so the append may or "
                    "may not be in the log: repeat it with the same idempotency key"
                )
        else:
            self._committed()

    def _undo(self, batch: list[Request], error: Exception) -> None:
        """Roll a failed transaction back and say why, to the request that caused it if known."""
        connection, appender = self._connection, self._appender
        if appender is not None:
            appender.forget()
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except Exception:
            self._poison()
        if isinstance(error, apsw.BusyError | apsw.FullError | LogError):
            for request in batch:
                request.error = request.error or self._not_written(error)
        elif isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.NotADBError | OSError):
            self._poison()
            for request in batch:
                request.error = request.error or self._not_written(error)
        elif len(batch) == 1:
            storage = isinstance(error, apsw.Error)
            batch[0].error = self._not_written(error) if storage else error
        else:
            # One request's records met a damaged page, or are no records: the others go on.
            for request in batch:
                request.error = request.result = None
                self._write([request])

    def _not_written(self, error: Exception) -> Exception:
        if isinstance(error, LogError):
            return error
        where = self._opening.path
        if isinstance(error, apsw.BusyError):
            return NotWritten(
                f"another process kept {where} to itself for too long: try again, and look for a "
                "process that hangs"
            )
        if isinstance(error, apsw.FullError):
            return NotWritten(f"the disk that holds {where} is full: free space, then try again")
        if isinstance(error, apsw.CorruptError):
            return NotWritten(
                f"the part of {where} that this append needs is damaged: run `madlog check`, then "
                "restore a backup"
            )
        return NotWritten(
            f"writing to {where} failed ({error}): check the disk, then try the append again"
        )

    def _ready(self) -> Appender:
        """Return the appender, opening the file anew after a failure and emptying a large WAL."""
        if self._appender is None:
            connection = connect(self._opening)
            try:
                # After a failed fsync the kernel may hold pages of the WAL that are not on disk
                # and never will be: copy them out, so that nothing later stands behind them.
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                wrong = heads_disagreement(connection)
                if wrong:
                    raise NotWritten(
                        f"{wrong} after the log was opened again: run `madlog check`, then "
                        "restore a backup"
                    )
            except BaseException:
                _abandon(connection)
                raise
            self._use(connection)
        assert self._appender is not None
        if self._wal_frames > self._wal_frames_max:
            try:
                self._appender.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except apsw.BusyError as error:
                raise NotWritten(
                    f"the write-ahead log of {self._opening.path} is full, because a reader holds "
                    "an old state of the log: stop that reader, then try again"
                ) from error
            self._wal_frames = 0
        return self._appender

    def _use(self, connection: apsw.Connection) -> None:
        connection.set_wal_hook(self._wal_grew)
        self._connection = connection
        self._appender = Appender(connection, self._clock)
        self._wal_frames = 0

    def _wal_grew(self, connection: apsw.Connection, name: str, frames: int) -> int:
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        # Instead of SQLite's automatic one, which hides a failed fsync.
        if self._wal_frames < _CHECKPOINT_FRAMES or self._connection is None:
            return
        try:
            frames, done = self._connection.wal_checkpoint()
        except apsw.BusyError:
            return
        except Exception:
            logging.getLogger("madlog").exception("a checkpoint of %s failed", self._opening.path)
            self._poison()
            return
        if frames == done:
            self._wal_frames = 0

    def _poison(self) -> None:
        connection, self._connection, self._appender = self._connection, None, None
        if connection is not None:
            _abandon(connection)
        self._poisoned()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.set_wal_hook(None)
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = self._appender = None


_Answer = tuple["asyncio.Future[Any]", Any, Exception | None]


def _tell(loop: asyncio.AbstractEventLoop, answers: list[_Answer]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[_Answer]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _abandon(connection: apsw.Connection) -> None:
    """Close a connection without letting it write or sync once more."""
    with contextlib.suppress(Exception):
        connection.set_wal_hook(None)
    with contextlib.suppress(Exception):
        connection.close(True)


def heads_disagreement(connection: apsw.Connection) -> str | None:
    """Say which partition's last record is not where the partition says that it ends, if any."""
    for partition_id, next_offset, count in fetch(
        connection, "SELECT id, next_offset, count FROM partitions"
    ):
        [(last,)] = fetch(connection, f"SELECT max(offset) FROM {record_table(partition_id)}")
        if count and last != next_offset - 1:
            return f"partition {partition_id} ends at {next_offset} but its last record is {last}"
    return None
