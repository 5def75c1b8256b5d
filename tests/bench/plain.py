"""The baselines: the best plain loops an expert writes, over the same SQLite and the same bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import apsw
import fastavro

__all__ = ("append_batches", "connect", "route_loop", "scan_decoded")


def connect(path: Path) -> apsw.Connection:
    """Open a database as the embedded log does: WAL, every commit synced."""
    connection = apsw.Connection(str(path))
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute(
        "create table if not exists r(offset integer primary key, key blob, value blob)"
    )
    return connection


def append_batches(
    connection: apsw.Connection, batches: Iterable[Sequence[tuple[bytes, bytes]]]
) -> None:
    """Insert (key, value) pairs, one transaction a batch."""
    for batch in batches:
        with connection:
            connection.executemany("insert into r(key, value) values (?, ?)", batch)


def scan_decoded(connection: apsw.Connection, table: str, schemas: dict[bytes, Any]) -> int:
    """Read every value of a table in order and decode it; returns how many."""
    count = 0
    query = f"select value from {table} order by offset"
    for (value,) in connection.execute(query):
        fastavro.schemaless_reader(BytesIO(value[10:]), schemas[value[2:10]], None)
        count += 1
    return count


def route_loop(
    values: Iterator[bytes],
    schemas: dict[bytes, Any],
    outputs: Callable[[dict[str, Any]], Sequence[tuple[bytes, bytes]]],
    connection: apsw.Connection,
    batch_size: int,
) -> int:
    """Decode turns, make their output records, write them in one transaction a batch."""
    count = 0
    rows: list[tuple[bytes, bytes]] = []
    for value in values:
        turn: Any = fastavro.schemaless_reader(BytesIO(value[10:]), schemas[value[2:10]], None)
        rows += outputs(turn)
        count += 1
        if count % batch_size == 0:
            append_batches(connection, [rows])
            rows = []
    if rows:
        append_batches(connection, [rows])
    return count
