"""Making a lake's files of decoded events, and one file of several."""

import asyncio
import hashlib
import inspect
from collections.abc import Iterable, Sequence
from functools import cache
from io import BytesIO
from itertools import groupby
from operator import attrgetter
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from madlog.analytics.lake import layout
from madlog.analytics.lake.manifest import File
from madlog.analytics.lake.store import LakeStore, footer_hash
from madlog.analytics.tables import TableBuilder
from madlog.schemas import Schemas
from madlog.topics import LogEvent, TopicPartition

__all__ = ("RangeWriter", "merged", "put")

_GROUP_ROWS = 131_072
# Few rows a page: who looks up one conversation reads, by the page index, one page of each column.
_PAGE_ROWS = 1_024
_SORTED = ("conversation_id", "offset")
_LOOKED_UP = ("event_id", "conversation_id")
# Distinct in nearly each row, so that a dictionary of them is only in the way.
_DISTINCT = ("event_id", "causation_id", "text", "payload", "offset", "appended_at", "occurred_at")


class RangeWriter:
    """The events of one range, as the tables of the files that they will be, packed by DuckDB."""

    def __init__(self, schemas: Schemas, con: duckdb.DuckDBPyConnection) -> None:
        self._schemas = schemas
        self._con = con
        self._builders: dict[str, TableBuilder] = {}

    def add(self, events: Iterable[LogEvent]) -> None:
        """Take up events."""
        for kind, some in groupby(events, attrgetter("kind")):
            table = layout.table_of(kind)
            builder = self._builders.get(table)
            if builder is None:
                builder = self._builders[table] = layout.new_builder(table, self._schemas)
            for event in some:
                builder.add(event)

    async def write(
        self, store: LakeStore, tp: TopicPartition, span: tuple[int, int]
    ) -> list[File]:
        """Write a file for each kind of event; raises LakeUnavailable."""
        tables = {name: builder.finish() for name, builder in self._builders.items()}
        return await asyncio.to_thread(_write, self._con, store, tp, span, tables)


def _write(
    con: duckdb.DuckDBPyConnection,
    store: LakeStore,
    tp: TopicPartition,
    span: tuple[int, int],
    tables: dict[str, Any],
) -> list[File]:
    return [
        put(store, tp, span, name, layout.packed(con, name, rows))
        for name, rows in sorted(tables.items())
    ]


def merged(
    store: LakeStore, tp: TopicPartition, span: tuple[int, int], files: Sequence[File]
) -> list[File]:
    """Write one file a kind of event in place of several; raises LakeDamaged, LakeUnavailable."""
    made = []
    for name in sorted({file.table for file in files}):
        rows = [pq.read_table(BytesIO(store.read(f))) for f in files if f.table == name]
        # Files that were written before a column came, or a field of one, have none of it.
        table = pa.concat_tables(rows, promote_options="permissive")
        table = table.sort_by([(column, "ascending") for column in _SORTED])
        made.append(put(store, tp, span, name, table))
    return made


def put(store: LakeStore, tp: TopicPartition, span: tuple[int, int], name: str, table: Any) -> File:
    """Write one file of rows that are packed; raises LakeUnavailable."""
    content = _parquet(table)
    sha256 = hashlib.sha256(content).hexdigest()
    path = f"{tp.topic}/{tp.partition}/{name}.{span[0]:015d}-{span[1]:015d}.{sha256[:12]}.parquet"
    store.write(path, content)
    columns = layout.columns_hash(table.schema)
    footer = footer_hash(content)
    return File(name, path, table.num_rows, len(content), sha256, footer, columns)


def _parquet(table: Any) -> bytes:
    out = BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=_GROUP_ROWS,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in _DISTINCT],
        write_page_index=True,
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(table.column_names.index(name)) for name in _SORTED],
        **_where_known(min(table.num_rows, _GROUP_ROWS)),
    )
    return out.getvalue()


def _where_known(group_rows: int) -> dict[str, Any]:
    """Return the options that only newer pyarrows know; files without are read just as well."""
    # Unless told how many values there are a filter is made for a million: 50 ms for any file.
    bloom = {"ndv": max(group_rows, 1), "fpp": 0.01}
    options = {
        "bloom_filter_options": dict.fromkeys(_LOOKED_UP, bloom),
        "max_rows_per_page": _PAGE_ROWS,
    }
    return {name: value for name, value in options.items() if name in _known()}


@cache
def _known() -> frozenset[str]:
    return frozenset(inspect.signature(pq.write_table).parameters)
