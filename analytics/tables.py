"""Decoded topics as tables: one a kind of event, and `Event` for all of them.

A `Source` gives the tables up to a vector: what stands in a lake as Parquet files to scan, what is
decoded now as an Arrow table. Both together are the table; no event is in both.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from madlog.analytics.columns import ALL, COMMON, KINDS, Column, schema_of
from madlog.schemas import EVENT_KINDS, Schemas
from madlog.schemas.framing import head_of
from madlog.topics import CATALOG, EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import partition_for, topic
from madlog.topics.log import OnDamage, log_damage

__all__ = (
    "Last",
    "LogSource",
    "Once",
    "Scan",
    "Source",
    "Table",
    "TableBuilder",
    "Tables",
    "topics_of",
)

# A chunk of a table is built when it has this many rows, or this many bytes of records.
_ROWS = 2048
_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Scan:
    """Parquet files of equal columns, and the SELECT list that makes a table's columns of them.

    Rows at or past `offset_end` are not part of the table, where one is given. `older` makes up for
    columns that the files do not have, or have with fewer fields.
    """

    paths: tuple[str, ...]
    select: str
    offset_end: int | None = None
    older: str = ""

    @property
    def sql(self) -> str:
        """The scan as a SELECT."""
        paths = ", ".join("'" + path.replace("'", "''") + "'" for path in self.paths)
        bound = "" if self.offset_end is None else f' WHERE "offset" < {self.offset_end}'
        # A folder that is called NAME=VALUE is no column.
        rows = f"read_parquet([{paths}], hive_partitioning = false)"
        if self.older:
            rows = f"(SELECT *{self.older} FROM {rows})"
        return f"SELECT {self.select} FROM {rows}{bound}"


@dataclass(frozen=True, slots=True)
class Table:
    """The events of one kind: scans of files, and an Arrow table of all others."""

    rows: Any
    scans: tuple[Scan, ...] = ()


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables by kind; `files` opens the paths of their scans where they are not this machine's."""

    kinds: Mapping[str, Table]
    files: Any = None
    paths: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        scans = (scan for table in self.kinds.values() for scan in table.scans)
        paths = sorted({path for scan in scans for path in scan.paths})
        object.__setattr__(self, "paths", paths)


def topics_of(names: Collection[str], present: Collection[str]) -> list[str]:
    """Return the topics, of those present, that hold what the named tables are made of."""
    if ALL in names:
        return sorted(topic for topic in present if not topic.startswith("mad.state."))
    wanted = set(names)
    return sorted(name for name in present if name in CATALOG and wanted & set(CATALOG[name].holds))


class Last(NamedTuple):
    """A column that is made of events and of the Arrow batch of their other columns."""

    field: Any
    values: Callable[[list[LogEvent], Any], Any]


class TableBuilder:
    """An Arrow table while it is being filled: the columns of all kinds, then `own`.

    `last` makes a further column of some events and of their other columns.
    """

    def __init__(self, own: Sequence[Column], schemas: Schemas, last: Last | None = None) -> None:
        self._schema = schema_of(own)
        self._own = own
        self._last = last
        self._schemas = schemas
        self._versions: dict[bytes, int] = {}
        self._events: list[LogEvent] = []
        self._bytes = 0
        self._batches: list[Any] = []

    def add(self, event: LogEvent) -> None:
        """Take up one event."""
        self._events.append(event)
        self._bytes += len(event.record.value)
        if len(self._events) >= _ROWS or self._bytes >= _BYTES:
            self._flush()

    def _version(self, value: bytes) -> int:
        name = head_of(value)
        if name not in self._versions:
            self._versions[name] = self._schemas.version(value)
        return self._versions[name]

    def _flush(self) -> None:
        events = self._events
        columns = [column.values(events) for column in (*COMMON, *self._own)]
        columns.insert(len(COMMON), [self._version(event.record.value) for event in events])
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        if self._last is not None:
            batch = batch.append_column(self._last.field, self._last.values(events, batch))
        self._batches.append(batch)
        self._events, self._bytes = [], 0

    def finish(self) -> Any:
        """Return the table of all that was taken up."""
        if self._events:
            self._flush()
        schema = self._schema if self._last is None else self._schema.append(self._last.field)
        return pa.Table.from_batches(self._batches, schema=schema)


class Source(Protocol):
    """Where a query's tables come from."""

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the table of each named kind, of the events before `end`."""


class Once:
    """A source that makes each table once: the queries of a page read the same ones, to one end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._made: dict[str, Table] = {}
        self._files: Any = None

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the tables of kinds, those not made before made now."""
        missing = set(names) - set(self._made)
        if missing:
            made = await self._source.tables(missing, end)
            self._made.update(made.kinds)
            self._files = self._files or made.files
        return Tables({name: self._made[name] for name in names}, self._files)


class LogSource:
    """The tables of a log, decoded now; of one conversation only where one is named.

    Topics that are not keyed by the conversation are read whole all the same.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        conversation: str | None = None,
        on_damage: OnDamage = log_damage,
    ) -> None:
        self._log = log
        self._key = None if conversation is None else conversation.encode()
        self._on_damage = on_damage

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the table of each named kind, of the events before `end`."""
        rows = await self.rows(names, [(Vector(), end)])
        return Tables({name: Table(table) for name, table in rows.items()})

    async def rows(
        self, names: Collection[str], spans: Sequence[tuple[Vector, Vector]]
    ) -> dict[str, Any]:
        """Return an Arrow table of each named kind, of the events between (start, end) pairs."""
        tables = {name: TableBuilder(KINDS[name], self._log.schemas) for name in names}
        everything = tables.get(ALL)
        for start, end in spans:
            async for events in self._events(start, end):
                for event in events:
                    # A kind that is in no table, or of a newer program, is in `ALL` alone.
                    own = tables.get(event.kind) if event.kind in EVENT_KINDS else None
                    if own is not None:
                        own.add(event)
                    if everything is not None:
                        everything.add(event)
        return {name: table.finish() for name, table in tables.items()}

    async def _events(self, start: Vector, end: Vector) -> AsyncIterator[list[LogEvent]]:
        if self._key is None:
            async for events in self._log.read(start, end, on_damage=self._on_damage):
                yield events
            return
        partitions = await self._log.log.topics()
        keyed: dict[TopicPartition, int] = {}
        whole: dict[TopicPartition, int] = {}
        for tp, at in end.items():
            if topic(tp.topic).key != "conversation_id":
                whole[tp] = at
            elif tp.partition == partition_for(self._key, partitions[tp.topic]):
                keyed[tp] = at
        async for events in self._log.read(start, Vector(whole), on_damage=self._on_damage):
            yield events
        records_of = self._log.log.read(start, Vector(keyed), on_damage=self._on_damage)
        async for records in records_of:
            wanted = [record for record in records if record.key == self._key]
            yield await self._log.decode_all(wanted, self._on_damage)
