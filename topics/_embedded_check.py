"""Looking for damage in everything that an embedded log stores."""

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial

import apsw

from madlog.topics._embedded_check_ahead import Ahead, Written, as_written, misplaced
from madlog.topics._embedded_cold import check_packs, cold_end
from madlog.topics._embedded_reading import PartitionPlace, read_batch
from madlog.topics._embedded_storage import (
    Opening,
    PartitionRow,
    StoredTopic,
    connect,
    encode_headers,
    partition_rows,
    record_table,
    stored_topics,
    wire,
)
from madlog.topics.catalog import topic as catalog_topic
from madlog.topics.errors import UnknownTopic
from madlog.topics.log import Damage

__all__ = ("check_file",)

_RECORDS = 1000
_sha256 = hashlib.sha256
_MESSAGES_MAX = 1000
_PAGE = re.compile(r"(?:Tree (\d+) )?page (\d+)")


def check_file(opening: Opening, progress: Callable[[int], None] | None) -> Iterator[Damage]:
    """Yield every damage in a log's file; `progress` is told how many records were looked at."""
    connection = connect(opening)
    try:
        with Ahead(opening, _rows(connection)) as ahead:
            yield from _check(connection, ahead, progress)
    finally:
        connection.close()


def _check(
    connection: apsw.Connection, ahead: Ahead, progress: Callable[[int], None] | None
) -> Iterator[Damage]:
    pages = _damaged_pages(connection)
    trees = _trees(connection)
    looked = 0
    named: set[int] = set()
    for row, keyed in _rows(connection):
        bad = [page for tree, page, _ in pages if trees.get(tree) == row.id]
        page = bad[0] if len(set(bad)) == 1 else None
        moved = _moved_to(connection, row)
        for damage, records in _check_partition(connection, row, keyed, ahead):
            looked += records
            if progress is not None and records:
                progress(looked)
            if damage is None:
                continue
            # What is in a pack is on no page.
            if page is not None and "checksum" not in damage.reason and damage.offset >= moved:
                named.add(page)
                damage = damage._replace(page=page)
            yield damage
    for _, page, message in pages:
        if page not in named:
            yield Damage("", 0, 0, 0, message, page or None)
        if page:
            named.add(page)


def _rows(connection: apsw.Connection) -> list[tuple[PartitionRow, int]]:
    """Return the partitions, each with how many its topic has if a key's place is computed."""
    topics = stored_topics(connection)
    return [(row, _keyed_partitions(topics[row.topic])) for row in partition_rows(connection)]


def _damaged_pages(connection: apsw.Connection) -> list[tuple[int, int, str]]:
    """Return (root page of the tree, page, message) of each thing wrong with the file's pages."""
    messages: list[str] = []
    try:
        # It may fail after some messages: those tell more than the failure.
        for (text,) in connection.execute(f"PRAGMA integrity_check({_MESSAGES_MAX})"):
            messages += [
                line
                for line in str(text).splitlines()
                if line not in ("ok", "") and not line.startswith("***")
            ]
    except apsw.CorruptError as error:
        if not messages:
            messages.append(f"the file's pages cannot be walked through ({error})")
    # Pages below a damaged one count as unused: a consequence, and there may be very many.
    messages = [line for line in messages if not line.endswith("never used")] or messages
    found = []
    for message in messages:
        match = _PAGE.search(message)
        tree, page = (int(match[1] or 0), int(match[2])) if match else (0, 0)
        found.append((tree, page, message))
    return found


def _trees(connection: apsw.Connection) -> dict[int, int]:
    """Return the id of the partition whose records are in the tree with that root page."""
    try:
        return {
            root: int(name[1:])
            for name, root in connection.execute(
                "SELECT name, rootpage FROM sqlite_schema WHERE name GLOB 'r[0-9]*'"
            )
        }
    except apsw.CorruptError:
        return {}


def _check_partition(
    connection: apsw.Connection, row: PartitionRow, keyed: int, ahead: Ahead
) -> Iterator[tuple[Damage | None, int]]:
    """Yield damages, and None with how many records were looked at since.

    `keyed` is the topic's partition count if a key's place is computed from it, else 0.
    """
    place = PartitionPlace(row.id, row.topic, row.partition, row.compacted)
    damaged = False
    known = ahead.written(row)
    if known is not None:
        yield None, known.records
        head, count, offset = known
    else:
        packs = check_packs(connection, row, partial(misplaced, row, keyed))
        head, count, offset = yield from packs
    while offset < row.next_offset:
        written = as_written(connection, row, Written(head, count, offset), keyed)
        if written is not None:
            yield None, written.records - count
            head, count, offset = written
            continue
        batch = read_batch(connection, place, offset, row.next_offset, _RECORDS)
        for damage in batch.damages:
            damaged = True
            yield damage, 0
        for record in batch.records:
            data = wire(
                record.offset,
                record.appended_at,
                record.key,
                encode_headers(record.headers),
                record.value,
            )
            head = _sha256(head + data).digest()
            if wrong := misplaced(row, keyed, record.key, record.offset):
                yield wrong, 0
        count += len(batch.records)
        yield None, len(batch.records) + len(batch.damages)
        if batch.next_offset <= offset:
            break
        offset = batch.next_offset
    for reason in _disagreements(connection, row, head, count, damaged):
        yield Damage(row.topic, row.partition, row.next_offset, row.next_offset, reason), 0


def _disagreements(
    connection: apsw.Connection, row: PartitionRow, head: bytes, count: int, damaged: bool
) -> Iterator[str]:
    try:
        last = connection.execute(f"SELECT max(offset) FROM {record_table(row.id)}").get
    except apsw.CorruptError:
        last = None
    if last is not None and last >= row.next_offset:
        yield f"the partition says that it ends here, and there are records up to @{last}"
    doubled = _doubled(connection, row)
    if doubled:
        yield doubled
    if damaged or not row.head:  # what is missing has been named, so the sums cannot agree
        return
    if count != row.records:
        yield f"the partition says that it holds {row.records} records, and {count} are there"
    elif head != row.head:
        yield "the records are not those that were appended: their chain of hashes differs"


def _doubled(connection: apsw.Connection, row: PartitionRow) -> str | None:
    """Name records that are in the file though a pack holds them too, if there are any."""
    moved = _moved_to(connection, row)
    try:
        first = connection.execute(f"SELECT min(offset) FROM {record_table(row.id)}").get
    except apsw.CorruptError:
        return None
    if first is None or first >= moved:
        return None
    return f"records from @{first} on are in the file, and in packs up to @{moved - 1}"


def _moved_to(connection: apsw.Connection, row: PartitionRow) -> int:
    """Return the offset after the last record that is in a pack, 0 where that cannot be read."""
    try:
        return cold_end(connection, row.id)
    except apsw.CorruptError:
        return 0


def _keyed_partitions(stored: StoredTopic) -> int:
    """Return the topic's partition count where a key's place is computed from it, else 0."""
    try:
        topic = catalog_topic(stored.name)
    except UnknownTopic:
        return 0
    return 0 if stored.compacted or topic.keeps != "for ever" else stored.partitions
