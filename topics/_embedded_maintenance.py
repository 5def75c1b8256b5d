"""What is done to an embedded log besides appending: topics, compaction, expiry, backup."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw

from madlog.topics._embedded_append import Appender
from madlog.topics._embedded_check import check_file
from madlog.topics._embedded_cold import packs_of
from madlog.topics._embedded_packs import PackDamaged, resolved, whole_pack
from madlog.topics._embedded_reading import PartitionPlace
from madlog.topics._embedded_storage import (
    CHAIN_START,
    FILE_NAME,
    Opening,
    StoredTopic,
    connect,
    create_partition_sql,
    record_table,
    sync_folder,
    wire,
)
from madlog.topics.catalog import Topic
from madlog.topics.catalog import topic as catalog_topic
from madlog.topics.errors import LogUnavailable, TopicMismatch, UnsupportedByBackend

__all__ = ("back_up", "compact_topic", "expire_partition", "make_topic", "page_bytes")

_PAGES = 1024


def make_topic(appender: Appender, topic: Topic) -> None:
    """Make a topic inside the writer's transaction; raises TopicMismatch, UnknownTopic."""
    catalog_topic(topic.name)
    connection = appender.connection
    there = connection.execute("SELECT partitions FROM topics WHERE name=?", (topic.name,)).get
    if there is not None:
        if there != topic.partitions:
            raise TopicMismatch(
                f"{topic.name} has {there} partitions here, not {topic.partitions}, which would "
                "break the order of its keys: use the number that it has"
            )
        return
    topic_id = connection.execute(
        "INSERT INTO topics(name, partitions, compacted) VALUES(?, ?, ?) RETURNING id",
        (topic.name, topic.partitions, topic.compacted),
    ).get
    for partition in range(topic.partitions):
        partition_id = connection.execute(
            "INSERT INTO partitions(topic_id, partition, next_offset, low_water, count, head, "
            "last_appended_at) VALUES(?, ?, 0, 0, 0, ?, 0) RETURNING id",
            (topic_id, partition, CHAIN_START),
        ).get
        connection.execute(
            create_partition_sql(
                partition_id, topic.name, partition, topic.partitions, topic.compacted
            )
        )


def compact_topic(appender: Appender, topic: StoredTopic) -> int:
    """Drop the superseded records of a compacted topic; return how many."""
    dropped = 0
    for partition_id in topic.ids:
        table = record_table(partition_id)
        appender.connection.execute(
            f"DELETE FROM {table} WHERE offset NOT IN (SELECT max(offset) FROM {table} "
            "GROUP BY key)"
        )
        dropped += appender.connection.changes()
        _chain_anew(appender.connection, partition_id)
    appender.forget()
    return dropped


def expire_partition(appender: Appender, place: PartitionPlace, before_offset: int) -> int:
    """Drop the records below an offset and raise the low-water mark; return how many."""
    if catalog_topic(place.topic).keeps != "for a time":
        raise UnsupportedByBackend(
            f"{place.topic} does not expire: only topics kept for a time, such as the inboxes, do"
        )
    connection = appender.connection
    before = min(before_offset, appender.partition(place.id).next_offset)
    connection.execute(f"DELETE FROM {record_table(place.id)} WHERE offset<?", (before,))
    dropped = connection.changes()
    connection.execute(
        "UPDATE partitions SET low_water=max(low_water, ?) WHERE id=?", (before, place.id)
    )
    _chain_anew(connection, place.id)
    appender.forget()
    return dropped


def _chain_anew(connection: apsw.Connection, partition_id: int) -> None:
    head, count = CHAIN_START, 0
    for offset, appended_at, key, headers, value in connection.execute(
        f"SELECT offset, appended_at, key, headers, value FROM {record_table(partition_id)} "
        "ORDER BY offset"
    ):
        head = hashlib.sha256(head + wire(offset, appended_at, key, headers, value)).digest()
        count += 1
    connection.execute(
        "UPDATE partitions SET head=?, count=? WHERE id=?", (head, count, partition_id)
    )


def page_bytes(connection: apsw.Connection, topic: StoredTopic) -> int | None:
    """Return what the pages of a topic's records take, None where SQLite does not count them."""
    total = 0
    try:
        for partition_id in topic.ids:
            name = record_table(partition_id)
            query = "SELECT sum(pgsize) FROM dbstat WHERE aggregate=1 AND name=?"
            total += connection.execute(query, (name,)).get or 0
    except (apsw.SQLError, apsw.CorruptError):  # built without it, or a page is damaged
        return None
    return total


def back_up(
    opening: Opening, folder: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Copy a log in use into a new folder, look for damage in the copy, then give it its name."""
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LogUnavailable(f"{folder} is not empty: name a new folder for the backup")
    partial = folder.with_name(folder.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        _copy(opening, partial / FILE_NAME, progress)
        _copy_packs(opening.path.parent, partial)
        blobs = opening.path.parent / "blobs"
        if blobs.is_dir():  # after the log: what it refers to was stored before
            shutil.copytree(blobs, partial / "blobs")
        damage = next(check_file(Opening(partial / FILE_NAME), None), None)
        if damage is not None:
            raise LogUnavailable(
                f"the copy in {partial} is damaged ({damage}): run `madlog check` on the log, and "
                "keep older backups"
            )
        for name in ("-wal", "-shm"):
            Path(f"{partial / FILE_NAME}{name}").unlink(missing_ok=True)
        sync_folder(partial)
        if folder.exists():
            folder.rmdir()
        os.rename(partial, folder)
        sync_folder(folder.parent)
    except (apsw.Error, OSError) as error:
        if isinstance(error, LogUnavailable):
            raise
        raise LogUnavailable(
            f"the backup into {folder} failed ({error}): check the disk, then try again"
        ) from error


def _copy(opening: Opening, target: Path, progress: Callable[[int, int], None] | None) -> None:
    source, copy = connect(opening), apsw.Connection(str(target))
    try:
        # One read transaction: the copy is the log at one moment, however long it takes.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM topics").fetchall()
        copy.execute("PRAGMA synchronous=FULL").fetchall()
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
                if progress is not None:
                    progress(backup.page_count - backup.remaining, backup.page_count)
        source.execute("ROLLBACK")
    finally:
        copy.close()
        source.close()


def _copy_packs(folder: Path, target: Path) -> None:
    """Copy the packs that a copied log names beside it, so that it needs nothing else."""
    copy = apsw.Connection(str(target / FILE_NAME))
    try:
        copy.execute("PRAGMA synchronous=FULL").fetchall()
        for pack in packs_of(copy):
            where = resolved(folder, pack.place)
            name = Path("cold", pack.tp.topic, str(pack.tp.partition), where.rsplit("/", 1)[-1])
            try:
                content = whole_pack(where)
            except PackDamaged as error:
                raise LogUnavailable(
                    f"{pack.tp}@{pack.offset} to @{pack.offset_end - 1} cannot be copied, since "
                    f"{error}: run `madlog check` on the log, and keep older backups"
                ) from error
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with (target / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sync_folder((target / name).parent)
            copy.execute("UPDATE packs SET place=? WHERE place=?", (str(name), pack.place))
    finally:
        copy.close()
