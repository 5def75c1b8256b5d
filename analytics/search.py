"""Full-text search over turns, best first: an index beside the log, folded from it.

The index says up to which positions it is folded; a search takes up what came since. It can be
thrown away at any time: folded from zero it gives the same answers, whatever the batches, and
that is what happens when it is damaged, of another version, or of another log. Ranked by BM25;
equally good ones by time, the newest first.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from madlog.analytics._search_file import (
    DAMAGE,
    TOPIC,
    Folded,
    IndexFile,
    Row,
    add,
    folded,
    place_of,
    positions,
    row_id,
    tokens,
    upto,
)
from madlog.analytics.errors import IndexUnavailable
from madlog.analytics.search_words import expression
from madlog.topics import EventLog, LogEvent, Position, Vector
from madlog.topics.log import OnDamage, log_damage
from madlog.topics.positions import TopicPartition

__all__ = ("ANYTHING", "Filters", "Found", "Hit", "SearchIndex")

T = TypeVar("T")
OnProgress = Callable[[int, int], None]

# A transaction of the index holds this many turns, or bytes of records, and so does memory.
_ROWS = 20_000
_BYTES = 16 << 20
_RECORDS = 2_000
_ATTEMPTS = 4
_SNIPPET_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Filters:
    """What else must be so of a turn; times in µs, `since` inclusive, `until` exclusive."""

    sender: str | None = None
    recipient: str | None = None
    tag: str | None = None
    conversation: str | None = None
    since: int | None = None
    until: int | None = None


ANYTHING = Filters()


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn that was found. `snippet` is its text around the words, which stand in `marks`."""

    score: float
    conversation_id: str
    turn_number: int
    event_id: str
    position: Position
    sender: str
    recipients: tuple[str, ...]
    tags: tuple[str, ...]
    occurred_at: int
    snippet: str


@dataclass(frozen=True, slots=True)
class Found:
    """The best turns, how many match in all, and up to where the log was looked at."""

    hits: tuple[Hit, ...]
    matches: int
    as_of: Vector


class _Replaced(Exception):
    """The index holds what the log does not: it is of another log."""


class SearchIndex:
    """The index in one file; several processes may use it at once.

    `tell` hears in a sentence when the index had to be made anew.
    """

    def __init__(self, path: Path, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell or logging.getLogger("madlog").warning
        self._file = IndexFile(path, self._tell)
        self._lock = asyncio.Lock()

    async def search(
        self,
        log: EventLog,
        words: str,
        filters: Filters = ANYTHING,
        *,
        limit: int = 20,
        as_of: Vector | None = None,
        marks: tuple[str, str] = ("[", "]"),
        progress: OnProgress | None = None,
        on_damage: OnDamage = log_damage,
    ) -> Found:
        """Return the turns that have these words, best first, after taking up the log's tail.

        `words` as in madlog.analytics.search_words. With `as_of` only turns before it are found;
        how rare a word is, is counted over the whole index. Raises BadSearch, IndexUnavailable.
        """
        where = _where(words, filters, as_of)

        def best(connection: apsw.Connection) -> Found:
            return _best(connection, where, limit, marks, as_of)

        return await self._asked(log, best, progress, on_damage)

    async def rows(
        self, log: EventLog, words: str, *, as_of: Vector | None = None
    ) -> list[tuple[Any, ...]]:
        """Return (event_id, conversation_id, sender, occurred_at, score) of all that match.

        The best first, after taking up the log's tail. Raises BadSearch, IndexUnavailable.
        """
        where = _where(words, ANYTHING, as_of)
        return await self._asked(log, partial(_every, where), None, log_damage)

    def folded_rows(self, words: str, *, as_of: Vector | None = None) -> list[tuple[Any, ...]]:
        """Return the same of what was taken up before, now and in this thread."""
        where = _where(words, ANYTHING, as_of)
        apart = IndexFile(self._file.path, self._tell)
        try:
            return list(apart.guarded(partial(_every, where)))
        except DAMAGE as error:
            raise self._file.unavailable(error) from error
        finally:
            apart.close()

    async def take_up(
        self,
        log: EventLog,
        *,
        progress: OnProgress | None = None,
        on_damage: OnDamage = log_damage,
    ) -> Vector:
        """Fold what the log holds more than the index; returns up to where that is."""
        return await self._asked(
            log, lambda connection: positions(folded(connection)), progress, on_damage
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def _asked(
        self,
        log: EventLog,
        work: Callable[[apsw.Connection], T],
        progress: OnProgress | None,
        on_damage: OnDamage,
    ) -> T:
        """Take up the tail, then do the work; makes the index anew where that must be."""
        async with self._lock:
            last: Exception | None = None
            for _ in range(_ATTEMPTS):
                try:
                    await self._take_up(log, progress, on_damage)
                    return await self._in_thread(lambda one: _read(one, work))
                except (_Replaced, *DAMAGE) as error:
                    last = error
                if await asyncio.to_thread(self._file.throw_away):
                    why = "the index of another log"
                    why = why if isinstance(last, _Replaced) else f"damaged ({last})"
                    self._tell(f"{self._file.path} is {why}: it is made anew")
            raise self._file.unavailable(last or IndexUnavailable())

    async def _take_up(
        self, log: EventLog, progress: OnProgress | None, on_damage: OnDamage
    ) -> None:
        there = TOPIC in await log.log.topics()
        upto: Vector | None = None
        total = 0
        while True:
            # The index first: it is never ahead of a log that is looked at after it.
            held = await self._in_thread(folded)
            at = positions(held)
            end = await log.log.end([TOPIC]) if there else Vector()
            if any(at[tp] > end.get(tp, 0) for tp in at):
                raise _Replaced
            upto = end if upto is None else upto
            behind = Vector({tp: upto[tp] for tp in upto if at.get(tp, -1) < upto[tp]})
            if not behind:
                return
            left = sum(behind[tp] - at.get(tp, 0) for tp in behind)
            total = total or left
            shown = None if progress is None else partial(_told, progress, total - left, total)
            await _Fold(held, behind, shown).run(log, self._in_thread, on_damage)

    async def _in_thread(self, work: Callable[[apsw.Connection], T]) -> T:
        task: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(
            None, self._file.guarded, work
        )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._file.interrupt()
            await asyncio.gather(task, return_exceptions=True)
            raise


def _told(progress: OnProgress, before: int, total: int, done: int) -> None:
    progress(min(before + done, total), total)


class _Fold:
    """One pass over the log's tail, a transaction of the index at a time."""

    def __init__(
        self, held: dict[int, Folded], end: Vector, progress: Callable[[int], None] | None
    ) -> None:
        self._before = held
        self._after = dict(held)
        self._end = end
        # Partitions whose last known event has not been met again yet.
        self._unmet = {
            tp.partition
            for tp in self._end
            if tp.partition in held and held[tp.partition].last_offset >= 0
        }
        self._rows: list[Row] = []
        self._bytes = 0
        self._progress = progress
        self._done = 0

    async def run(
        self,
        log: EventLog,
        in_thread: Callable[[Callable[[apsw.Connection], bool]], Any],
        on_damage: OnDamage,
    ) -> None:
        """Fold up to the end, or until another process was faster; raises _Replaced."""
        start = Vector({tp: self._start(tp) for tp in self._end})
        batches = log.read(start, self._end, records_max=_RECORDS, on_damage=on_damage)
        async for events in batches:
            self._take(events)
            if len(self._rows) >= _ROWS or self._bytes >= _BYTES:
                if not await in_thread(self._add):
                    return
                self._rows, self._bytes, self._before = [], 0, dict(self._after)
        if self._unmet:
            raise _Replaced
        # What was read ends where the log does, though the last offsets may hold nothing.
        for tp, offset in self._end.items():
            one = self._after.get(tp.partition, Folded(0, -1, ""))
            self._after[tp.partition] = one._replace(next_offset=offset)
        await in_thread(self._add)

    def _start(self, tp: TopicPartition) -> int:
        # The event that was read last is read again, to see that this is still the same log.
        if tp.partition in self._unmet:
            return self._before[tp.partition].last_offset
        return self._before[tp.partition].next_offset if tp.partition in self._before else 0

    def _take(self, events: Sequence[LogEvent]) -> None:
        if not events:
            return
        partition, first = events[0].record.partition, events[0]
        if partition in self._unmet:
            self._unmet.remove(partition)
            known = self._before[partition]
            if (first.record.offset, first.event_id) != (known.last_offset, known.last_event):
                raise _Replaced
            events = events[1:]
        self._rows += [_row(event) for event in events if event.kind == "Turn"]
        self._bytes += sum(len(event.record.value) for event in events)
        if events:
            last = events[-1]
            at = last.record.offset
            self._after[partition] = Folded(at + 1, at, last.event_id)
        self._done += len(events)
        if self._progress is not None:
            self._progress(self._done)

    def _add(self, connection: apsw.Connection) -> bool:
        return add(connection, self._rows, self._before, self._after)


@lru_cache(maxsize=4096)
def _array(names: tuple[str, ...]) -> str:
    return json.dumps(names, ensure_ascii=False)


def _row(event: LogEvent) -> Row:
    fields = event.fields
    return Row(
        row_id(event.record.partition, event.record.offset),
        event.event_id,
        fields["occurred_at"],
        fields["conversation_id"],
        fields["sender"]["name"],
        _array(tuple(fields["recipients"])),
        _array(tuple(fields["tags"])),
        "".join([part["text"] or "" for part in fields["parts"]]),
    )


_FROM = "FROM words CROSS JOIN turns AS t ON t.id = words.rowid"
# By data alone: ids differ between backends.
_ORDER = "ORDER BY score DESC, t.occurred_at DESC, t.event_id, t.id"
_CONDITIONS = {
    "sender": "t.sender = ?",
    "recipient": "EXISTS (SELECT 1 FROM json_each(t.recipients) WHERE value = ?)",
    "tag": "EXISTS (SELECT 1 FROM json_each(t.tags) WHERE value = ?)",
    "conversation": "t.conversation_id = ?",
    "since": "t.occurred_at >= ?",
    "until": "t.occurred_at < ?",
}

_Where = tuple[str, list[Any]]


def _where(words: str, filters: Filters, as_of: Vector | None) -> _Where:
    apart = apsw.Connection(":memory:")
    try:
        values: list[Any] = [expression(words, lambda text: tokens(apart, text))]
    finally:
        apart.close()
    pieces = ["words MATCH ?"]
    for name, condition in _CONDITIONS.items():
        value = getattr(filters, name)
        if value is not None:
            pieces.append(condition)
            values.append(value)
    if as_of is not None:
        condition, ends = upto(as_of)
        pieces.append(condition)
        values += ends
    return " AND ".join(pieces), values


def _read(connection: apsw.Connection, work: Callable[[apsw.Connection], T]) -> T:
    """Read in one transaction, so that what is said about the index is so of what was found."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _every(where: _Where, connection: apsw.Connection) -> list[tuple[Any, ...]]:
    condition, values = where
    query = (
        "SELECT t.event_id, t.conversation_id, t.sender, t.occurred_at, "
        f"-bm25(words) AS score {_FROM} WHERE {condition} {_ORDER}"
    )
    return list(connection.execute(query, values))


def _best(
    connection: apsw.Connection,
    where: _Where,
    limit: int,
    marks: tuple[str, str],
    as_of: Vector | None,
) -> Found:
    condition, values = where
    query = f"SELECT t.id, -bm25(words) AS score {_FROM} WHERE {condition} {_ORDER} LIMIT ?"
    best = list(connection.execute(query, (*values, limit)))
    matches = len(best)
    if matches == limit:
        among = "FROM words" if len(values) == 1 else _FROM
        [(matches,)] = connection.execute(f"SELECT count(*) {among} WHERE {condition}", values)
    hits = tuple(_hit(connection, values[0], id_, score, marks) for id_, score in best)
    return Found(hits, matches, positions(folded(connection)) if as_of is None else as_of)


# Only for what is shown: a snippet costs as much as finding the turn.
_HIT = f"""
SELECT t.conversation_id,
    (SELECT count(*) FROM turns AS o WHERE o.conversation_id = t.conversation_id AND o.id <= t.id),
    t.event_id, t.sender, t.recipients, t.tags, t.occurred_at,
    snippet(words, 0, ?, ?, '…', {_SNIPPET_TOKENS})
{_FROM} WHERE words MATCH ? AND words.rowid = ?
"""


def _hit(
    connection: apsw.Connection, words: str, id_: int, score: float, marks: tuple[str, str]
) -> Hit:
    [row] = connection.execute(_HIT, (*marks, words, id_))
    conversation, number, event_id, sender, recipients, tags, occurred_at, snippet = row
    return Hit(
        score=score,
        conversation_id=conversation,
        turn_number=number,
        event_id=event_id,
        position=Position(TOPIC, *place_of(id_)),
        sender=sender,
        recipients=tuple(json.loads(recipients)),
        tags=tuple(json.loads(tags)),
        occurred_at=occurred_at,
        snippet=" ".join(snippet.split()),
    )
