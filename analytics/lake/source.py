"""A log's tables by way of its lake: files for what is archived, the log itself for the rest."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import duckdb
import pyarrow.parquet as pq

from madlog.analytics.as_of import Place, event_topics, find_event
from madlog.analytics.columns import ALL
from madlog.analytics.errors import LakeDamaged
from madlog.analytics.lake import layout
from madlog.analytics.lake.archiver import check_lake
from madlog.analytics.lake.manifest import File, Manifest, Range, read_manifest
from madlog.analytics.lake.store import LakeStore
from madlog.analytics.tables import LogSource, Scan, Table, Tables
from madlog.topics import Damage, EventLog, TopicPartition, Vector
from madlog.topics.catalog import partition_for, topic
from madlog.topics.log import OnDamage, log_damage

__all__ = ("LakeSource",)

_FIND = """
SELECT topic, partition, "offset", epoch_us(appended_at)
FROM read_parquet($1, hive_partitioning = false) WHERE event_id = $2 ORDER BY ALL LIMIT 1
"""


class LakeSource:
    """The tables of a log that has a lake; of one conversation's partitions where one is named.

    What is archived after the manifest was read is read from the log, which still holds it, so no
    event is in a table twice or not at all, however much is written and archived meanwhile.
    """

    def __init__(
        self,
        log: EventLog,
        store: LakeStore,
        manifest: Manifest | None = None,
        *,
        conversation: str | None = None,
        on_damage: OnDamage = log_damage,
    ) -> None:
        self._log = log
        self.store = store
        self._key = None if conversation is None else conversation.encode()
        self._rows = LogSource(log, conversation=conversation, on_damage=on_damage)
        self._on_damage = on_damage
        self._manifest = manifest or Manifest()
        # By the hash of their names and types.
        self._schemas: dict[str, Any] = {}
        self._checked = False

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the table of each named kind, of the events before `end`.

        Raises LakeUnavailable, and LakeDamaged where a file is not what was archived.
        """
        start = await self._log.log.start({tp.topic for tp in end})
        counts = await self._log.log.topics()
        manifest = await self._read_manifest()
        # From here to the rows nothing is awaited: another query may read the manifest on, and what
        # is in files and what is in the log are to be of one state of it.
        ranges = [one for one in self._wanted(manifest, counts, end) if one.offset < end[one.tp]]
        uncovered = list(manifest.uncovered(start, end))
        for one in ranges:
            for at, to, reason in one.unreadable:
                if at < end[one.tp]:
                    self._on_damage(Damage(*one.tp, at, to, reason))
        rows = await self._rows.rows(names, uncovered)
        kinds = {
            name: Table(rows[name], await asyncio.to_thread(self._scans, name, ranges, end))
            for name in names
        }
        return Tables(kinds, self.store.filesystem)

    async def _read_manifest(self) -> Manifest:
        manifest = await read_manifest(self._log, self._manifest)
        if any(manifest) and not self._checked:
            await check_lake(self.store, manifest)
            self._checked = True
        return manifest

    async def find(self, event_id: str) -> Place | None:
        """Return where an event stands, None where nowhere."""
        topics = await event_topics(self._log)
        start, end = await self._log.log.start(topics), await self._log.log.end(topics)
        manifest = await self._read_manifest()
        files = [file for one in manifest for file in one.files]
        uncovered = list(manifest.uncovered(start, end))
        found = await asyncio.to_thread(self._find, files, event_id)
        return found or await find_event(self._log, event_id, uncovered)

    def _find(self, files: list[File], event_id: str) -> Place | None:
        if not files:
            return None
        for file in files:
            self.store.look_at(file)
        paths = [self.store.place(file.path) for file in files]
        with duckdb.connect(":memory:", config=layout.QUIET) as con:
            if self.store.filesystem is not None:
                con.register_filesystem(self.store.filesystem)
            try:
                row = con.execute(_FIND, [paths, event_id]).fetchone()
            except duckdb.Error as error:
                raise LakeDamaged(
                    f"a file of the lake {self.store.url} cannot be read "
                    f"({str(error).partition(chr(10))[0]}): `madlog lake check` names all such "
                    "files, `madlog lake repair` archives them again"
                ) from error
        return None if row is None else Place(TopicPartition(*row[:2]), *row[2:])

    def _wanted(self, manifest: Manifest, counts: Mapping[str, int], end: Vector) -> list[Range]:
        return [
            one
            for one in manifest
            if one.tp in end
            and (self._key is None or _may_hold(one.tp, self._key, counts[one.tp.topic]))
        ]

    def _scans(self, name: str, ranges: list[Range], end: Vector) -> tuple[Scan, ...]:
        """Return how the files that hold a table's events are scanned."""
        together: dict[tuple[str, str, int | None], list[str]] = {}
        for one in ranges:
            bound = end[one.tp] if end[one.tp] < one.offset_end else None
            for file in self._files(name, one):
                self.store.look_at(file)
                self._learn(file)
                place = self.store.place(file.path)
                together.setdefault((file.table, file.columns, bound), []).append(place)
        return tuple(
            Scan(
                tuple(paths),
                layout.event_select(table) if name == ALL else layout.select(table),
                bound,
                layout.older(table, self._schemas[columns]),
            )
            for (table, columns, bound), paths in together.items()
        )

    def _files(self, name: str, one: Range) -> Iterator[File]:
        return (file for file in one.files if name in (ALL, file.table))

    def _learn(self, file: File) -> None:
        """Learn what columns there are in files like this one."""
        if file.columns not in self._schemas:
            with self.store.open(file.path) as opened:
                self._schemas[file.columns] = pq.read_schema(opened)


def _may_hold(tp: TopicPartition, key: bytes, partitions: int) -> bool:
    if topic(tp.topic).key != "conversation_id":
        return True
    return tp.partition == partition_for(key, partitions)
