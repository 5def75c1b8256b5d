"""SQL that comes from others, over the log: five walls, and a record of each question.

1. The parser: one SELECT whose tree names only views and functions of a reviewed list (_tree.py).
2. DuckDB's settings, locked: no files but the lake's, no network, no extensions (_child.py).
3. A process of its own for each query, which has given up the file system, the network, other
   processes and all but its memory, as far as the kernel has the means (_kernel.py).
4. Its time: when it is up the process is killed (_server.py).
5. Its output: rows and bytes (_child.py), which the kernel holds it to as well.

An AuditEntry with its principal is on the log before an answer, or a refusal, is given out.
"""

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa

from madlog.analytics.errors import SqlLimit, SqlRefused
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.sandbox._answer import answer_of, table_of
from madlog.analytics.sandbox._job import WALLS, Job
from madlog.analytics.sandbox._process import Children
from madlog.analytics.sandbox._tree import views_read
from madlog.analytics.sql import OWN_FUNCTIONS, Result, distinct, layout
from madlog.analytics.tables import LogSource, Source, Tables, topics_of
from madlog.analytics.views import VIEWS
from madlog.schemas import AuditEntry, MadlogError, Sender, new_event_id
from madlog.topics import Clock, EventLog, SystemClock, Vector
from madlog.topics.clock import system_random

__all__ = ("Limits", "Sandbox")

_T = TypeVar("_T")

_PRICES = "prices"
_SENDER = Sender(name="sandbox", kind="system")
_CONVERSATION = "audit"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use."""

    timeout_s: float = 10.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 64 << 20
    rows_max: int = 1_000_000
    sql_bytes_max: int = 64 << 10
    threads: int = 2
    # At once; more wait.
    queries_max: int = 4
    # Of the text that an AuditEntry keeps.
    audit_chars_max: int = 4_000


class Sandbox:
    """Answers SQL of others over one log; an async context manager, whose process stays warm."""

    def __init__(
        self,
        log: EventLog,
        *,
        limits: Limits = Limits(),
        source: Source | None = None,
        prices: PriceList = NO_PRICES,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
        walls: frozenset[str] = WALLS,
    ) -> None:
        """Take a log; `walls` leaves some out, which is for tests of the others alone."""
        self._log = log
        self._limits = limits
        self._source = source or LogSource(log)
        self._prices = prices
        self._clock = clock or SystemClock()
        self._random = random
        self._walls = walls
        self._children = Children()
        self._places = asyncio.Semaphore(limits.queries_max)

    async def __aenter__(self) -> Self:
        await self._children.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._children.close()

    async def query(self, sql: str, *, principal: str, as_of: Vector | None = None) -> Result:
        """Answer one SELECT over the log up to `as_of`, by default its end now.

        Raises BadSql where it asks for what is not allowed or cannot be run, SqlLimit where it
        takes more than it may, LakeDamaged, and what Log.append raises, since without a record
        there is no answer.
        """
        asked = _Asked(sql, principal)
        try:
            result = await self._answer(asked, as_of)
        except MadlogError as error:
            await self._record(asked, _verdict(error), str(error))
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._record(asked, "interrupted", None))
            raise
        await self._record(asked, "answered", None, result)
        return result

    async def _answer(self, asked: "_Asked", as_of: Vector | None) -> Result:
        _readable(asked.sql, self._limits.sql_bytes_max)
        async with self._places:
            await self._children.start()
            begun = self._clock.monotonic_ns()
            await self._look(asked)
            left_s = self._limits.timeout_s - (self._clock.monotonic_ns() - begun) / 1e9
            kinds = {kind for view in asked.reads & set(VIEWS) for kind in VIEWS[view].kinds}
            topics = topics_of(kinds, await self._log.log.topics())
            end = await self._log.log.end(topics) if as_of is None else as_of.only(topics)
            tables = await self._source.tables(kinds, end)
            if tables.files is not None:
                # Files that are not on this machine: a child has no network to read them by.
                tables = await LogSource(self._log).tables(kinds, end)
            job, given = self._job(asked, tables)
            types, table = await self._child(job, given, max(left_s, 0.001), _table)
        unread = tuple(sorted(set(topics) - {tp.topic for tp in end}))
        return Result(tuple(table.column_names), types, table, end, unread)

    async def _look(self, asked: "_Asked") -> None:
        """Wall 1: parse in a child that has nothing, judge here. Raises BadSql, SqlLimit."""
        if "parser" not in self._walls:
            asked.reads, asked.functions = frozenset(VIEWS) | {_PRICES}, True
            return
        job = replace(self._job(asked, Tables({}))[0], parse_only=True, threads=1)
        tree = await self._child(job, {}, self._limits.timeout_s, _tree)
        asked.reads = views_read(asked.sql, tree, [*VIEWS, _PRICES])
        asked.functions = any(name in tree.lower() for name in OWN_FUNCTIONS)

    def _job(self, asked: "_Asked", tables: Tables) -> tuple[Job, dict[str, pa.Table]]:
        limits = self._limits
        given: dict[str, pa.Table] = {}
        setup: list[str] = []
        for kind, table in tables.kinds.items():
            name, statement = layout(kind, table)
            given[name] = table.rows
            setup += filter(None, [statement])
        if _PRICES in asked.reads:
            given[_PRICES] = self._prices.table()
        views = [view for name, view in VIEWS.items() if name in asked.reads]
        setup += [f'CREATE VIEW "{view.name}" AS {view.sql}' for view in views]
        job = Job(
            asked.sql,
            self._walls,
            setup=tuple(setup),
            functions=asked.functions,
            files=tuple(tables.paths),
            threads=limits.threads,
            cpu_s=math.ceil(limits.timeout_s * limits.threads) + 1,
            memory_bytes=limits.memory_bytes,
            output_bytes=limits.output_bytes,
            rows_max=limits.rows_max,
        )
        return job, given

    async def _child(
        self,
        job: Job,
        tables: Mapping[str, pa.Table],
        limit_s: float,
        read: "Callable[[dict[str, Any], int, Job], _T]",
    ) -> "_T":
        with self._children.files(job, tables) as (job_fd, answer_fd):
            end = await self._children.run(
                job_fd, answer_fd, limit_s if "clock" in self._walls else 0.0
            )
            answer = answer_of(end, answer_fd, job, self._limits.timeout_s)
            return read(answer, answer_fd, job)

    async def _record(
        self, asked: "_Asked", verdict: str, reason: str | None, result: Result | None = None
    ) -> None:
        now = self._clock.now_us()
        entry = AuditEntry(
            event_id=new_event_id(now, self._random(10)),
            conversation_id=_CONVERSATION,
            sender=_SENDER,
            principal=asked.principal,
            occurred_at=now,
            action="sql",
            text=_kept(asked.sql, self._limits.audit_chars_max),
            text_sha256=hashlib.sha256(asked.sql.encode("utf-8", "surrogatepass")).hexdigest(),
            reads=tuple(sorted(asked.reads)),
            verdict=verdict,
            reason=None if reason is None else _kept(reason, self._limits.audit_chars_max),
            rows=None if result is None else result.table.num_rows,
            size=None if result is None else result.table.nbytes,
        )
        await self._log.append([entry])


@dataclass(slots=True)
class _Asked:
    """One question, and what is known of it so far."""

    sql: str
    principal: str
    reads: frozenset[str] = frozenset()
    functions: bool = False


def _tree(answer: dict[str, Any], answer_fd: int, job: Job) -> str:
    return str(answer.get("tree"))


def _table(answer: dict[str, Any], answer_fd: int, job: Job) -> tuple[tuple[str, ...], pa.Table]:
    table = table_of(answer, answer_fd, job.rows_max)
    names = distinct(table.column_names)
    return tuple(map(str, answer["types"])), table.rename_columns(list(names))


def _readable(sql: str, bytes_max: int) -> None:
    if len(sql) > bytes_max or len(sql.encode("utf-8", "surrogatepass")) > bytes_max:
        raise SqlRefused(f"the text is longer than {bytes_max:,} bytes: write it shorter")
    if "\x00" in sql or any("\ud800" <= char <= "\udfff" for char in sql):
        raise SqlRefused("the text holds a NUL or is not UTF-8: write one SELECT as plain text")


def _kept(text: str, chars_max: int) -> str:
    """Return a text as an event can hold it: without NUL and half characters, and not too long."""
    text = text[:chars_max].encode("utf-8", "backslashreplace").decode()
    return text.replace("\x00", "\\x00")


def _verdict(error: MadlogError) -> str:
    if isinstance(error, SqlRefused):
        return "refused"
    return "limited" if isinstance(error, SqlLimit) else "failed"
