"""The pass over records that are as they were written, and a second process that makes it too.

Both cores of a machine then check one log. The process takes partitions from the last one on while
`check` takes them from the first one on, and says of each how far all is as written, or nothing:
whatever it has not said `check` looks at by itself, so what is found never depends on it. It is
asked only where there are so many records that its start is soon made up for.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple
from zlib import crc32

import apsw

from madlog.topics._embedded_cold import check_packs
from madlog.topics._embedded_storage import (
    Opening,
    PartitionRow,
    connect,
    partition_of_key,
    record_table,
    wire,
)
from madlog.topics.log import Damage

__all__ = ("Ahead", "Written", "as_written", "misplaced")

_MODULE = "madlog.topics._embedded_check_ahead"
_RECORDS = 1000
# Its start takes as long as a look at some 100,000 records.
_WORTH = 300_000
_sha256 = hashlib.sha256


class Written(NamedTuple):
    """How far a partition is as it was written: the chain's head there, and records looked at."""

    head: bytes
    records: int
    offset: int


def misplaced(row: PartitionRow, keyed: int, key: bytes, offset: int) -> Damage | None:
    """Name a record whose key belongs in another of `keyed` partitions, if it does."""
    if not keyed or partition_of_key(key, keyed) == row.partition:
        return None
    where = partition_of_key(key, keyed)
    reason = f"its key belongs in partition {where}, so its order is not kept"
    return Damage(row.topic, row.partition, offset, offset + 1, reason)


def as_written(
    connection: apsw.Connection, row: PartitionRow, since: Written, keyed: int
) -> Written | None:
    """Take the next records of a partition; None where any is not as it was written.

    What is wrong, and where, is then to be read slowly.
    """
    head, found, offset = since
    stop = min(row.next_offset, offset + _RECORDS)
    before = found
    try:
        for at, key, value, headers, appended_at, crc in connection.execute(
            f"SELECT offset, key, value, headers, appended_at, crc FROM {record_table(row.id)} "
            "WHERE offset>=? AND offset<? ORDER BY offset",
            (offset, stop),
        ):
            data = wire(at, appended_at, key, headers, value)
            if crc32(data) != crc or (keyed and partition_of_key(key, keyed) != row.partition):
                return None
            head = _sha256(head + data).digest()
            found += 1
    except Exception:  # a damaged page, or a column that is no longer what it was
        return None
    if found - before < stop - offset and not row.compacted:
        return None
    return Written(head, found, stop)


class Ahead:
    """The second process, as `check` sees it; a context manager that ends it."""

    def __init__(self, opening: Opening, rows: Sequence[tuple[PartitionRow, int]]) -> None:
        """Start it over partitions with their `keyed`, if that is worth it and can be done."""
        self._rows = {row.id: row for row, _ in rows}
        self._begun: set[int] = set()
        self._told: dict[int, Written | None] = {}
        self._changed = threading.Condition()
        self._ended = True
        self._process: subprocess.Popen[bytes] | None = None
        # A file system that a test put in its place is in this process only.
        if opening.vfs is None and sum(row.records for row, _ in rows) >= _WORTH:
            with suppress(OSError):
                self._start(opening, rows)

    def _start(self, opening: Opening, rows: Sequence[tuple[PartitionRow, int]]) -> None:
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", _MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._process, self._ended = process, False
        assert process.stdin is not None
        task = {
            "opening": {**opening._asdict(), "path": str(opening.path)},
            "rows": [[row._asdict() | {"head": row.head.hex()}, keyed] for row, keyed in rows],
        }
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(json.dumps(task).encode())
        threading.Thread(target=self._listen, args=(process.stdout,), daemon=True).start()

    def _listen(self, pipe: IO[bytes]) -> None:
        """Take what the process says: the id of a partition it begins, then also what it found."""
        try:
            with pipe:
                for line in pipe:
                    number, *told = json.loads(line)
                    with self._changed:
                        self._begun.add(number)
                        if told:
                            self._told[number] = _read(told[0])
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def written(self, row: PartitionRow) -> Written | None:
        """Return how far a partition was found as written, None where that is not known.

        Waits where the other process is at it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or row.id in self._told or row.id not in self._begun
            )
            told = self._told.get(row.id)
        before = self._rows.get(row.id)
        # What was appended since is still to be looked at; what is gone since changes all.
        same = before is not None and before.low_water == row.low_water and not row.compacted
        return told if same else None


def _whole(connection: apsw.Connection, row: PartitionRow, keyed: int) -> Written | None:
    packs = check_packs(connection, row, partial(misplaced, row, keyed))
    try:
        while True:
            damage, _ = next(packs)
            if damage is not None:
                return None
    except StopIteration as end:
        found: Written | None = Written(*end.value)
    except Exception:  # whoever asked will meet it too, and say what it is
        return None
    while found is not None and found.offset < row.next_offset:
        found = as_written(connection, row, found, keyed)
    return found


def _read(told: list[Any] | None) -> Written | None:
    return Written(bytes.fromhex(told[0]), told[1], told[2]) if told else None


def _main() -> None:
    task = json.load(sys.stdin)
    opening = Opening(**task["opening"] | {"path": Path(task["opening"]["path"])})
    connection = connect(opening)
    for given, keyed in reversed(task["rows"]):
        row = PartitionRow(**given | {"head": bytes.fromhex(given["head"])})
        print(json.dumps([row.id]), flush=True)
        found = _whole(connection, row, keyed)
        told = [found.head.hex(), found.records, found.offset] if found else None
        print(json.dumps([row.id, told]), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked ends it
    with suppress(BrokenPipeError):
        _main()
