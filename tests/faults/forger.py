"""A forger: changes the records of an embedded log and makes checksums, chain and counts right."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import apsw

from madlog.topics._embedded_storage import (
    CHAIN_START,
    fetch,
    partition_rows,
    record_table,
    wire,
)
from madlog.topics.positions import TopicPartition

__all__ = ("Stored", "forge")


class Stored(NamedTuple):
    """A record as its table holds it, without what is computed from it."""

    key: bytes
    value: bytes
    headers: bytes
    appended_at: int


def forge(
    folder: Path,
    tp: TopicPartition,
    change: Callable[[list[Stored]], list[Stored]],
    first: int = 0,
) -> None:
    """Put other records in the place of a partition's, as if they had been appended so.

    `first` is the offset of the first, as if those before had expired.
    """
    connection = apsw.Connection(str(folder / "log.sqlite"))
    (row,) = [one for one in partition_rows(connection) if one[1:3] == tuple(tp)]
    table = record_table(row.id)
    columns = "key, value, headers, appended_at"
    stored = fetch(connection, f"SELECT {columns} FROM {table} ORDER BY offset")
    head, forged = CHAIN_START, []
    records = change([Stored(*one) for one in stored])
    for offset, one in enumerate(records, first):
        data = wire(offset, one.appended_at, one.key, one.headers, one.value)
        head = hashlib.sha256(head + data).digest()
        forged.append((offset, one.key, one.value, one.headers, one.appended_at, crc32(data)))
    with connection:
        connection.execute(f"DELETE FROM {table}")
        connection.executemany(f"INSERT INTO {table} VALUES(?, ?, ?, ?, ?, ?)", forged)
        connection.execute(
            "UPDATE partitions SET low_water=?, next_offset=?, count=?, head=? WHERE id=?",
            (first, first + len(forged), len(forged), head, row.id),
        )
    connection.close()
