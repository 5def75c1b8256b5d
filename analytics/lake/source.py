"""A log's tables by way of its lake: files for what is archived, the log itself for the rest."""

import asyncio
from collections.abc import Collection, Iterator

import duckdb
import pyarrow.parquet as pq

from madlog.analytics.as_of import Place, event_topics, find_event
from madlog.analytics.columns import ALL
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
SELECT topic, partition, "offset", epoch_us(appended_at) FROM read_parquet($1)
WHERE event_id = $2 ORDER BY ALL LIMIT 1
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
        self._store = store
        self._key = None if conversation is None else conversation.encode()
        self._rows = LogSource(log, conversation=conversation, on_damage=on_damage)
        self._on_damage = on_damage
        self._manifest = manifest or Manifest()
        self._columns: dict[tuple[str, str], list[str]] = {}
        self._checked = False

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the table of each named kind, of the events before `end`.

        Raises LakeUnavailable, and LakeDamaged where a file is not what was archived.
        """
        self._manifest = manifest = await read_manifest(self._log, self._manifest)
        if any(manifest) and not self._checked:
            await check_lake(self._store, manifest)
            self._checked = True
        ranges = [one for one in await self._wanted(end) if one.offset < end[one.tp]]
        for one in ranges:
            for at, to, reason in one.unreadable:
                if at < end[one.tp]:
                    self._on_damage(Damage(*one.tp, at, to, reason))
        start = await self._log.log.start({tp.topic for tp in end})
        rows = await self._rows.rows(names, list(manifest.uncovered(start, end)))
        kinds = {
            name: Table(rows[name], await asyncio.to_thread(self._scans, name, ranges, end))
            for name in names
        }
        return Tables(kinds, self._store.filesystem)

    async def find(self, event_id: str) -> Place | None:
        """Return where an event stands, None where nowhere."""
        self._manifest = manifest = await read_manifest(self._log, self._manifest)
        found = await asyncio.to_thread(self._find, event_id)
        if found is not None:
            return found
        topics = await event_topics(self._log)
        start, end = await self._log.log.start(topics), await self._log.log.end(topics)
        return await find_event(self._log, event_id, manifest.uncovered(start, end))

    def _find(self, event_id: str) -> Place | None:
        files = [file for one in self._manifest for file in one.files]
        if not files:
            return None
        for file in files:
            self._store.look_at(file)
        with duckdb.connect(":memory:", config=layout.QUIET) as con:
            if self._store.filesystem is not None:
                con.register_filesystem(self._store.filesystem)
            rows = con.execute(_FIND, [[self._store.place(f.path) for f in files], event_id])
            row = rows.fetchone()
        return None if row is None else Place(TopicPartition(*row[:2]), *row[2:])

    async def _wanted(self, end: Vector) -> list[Range]:
        if self._key is None:
            return [one for one in self._manifest if one.tp in end]
        counts = await self._log.log.topics()
        return [
            one
            for one in self._manifest
            if one.tp in end and _may_hold(one.tp, self._key, counts[one.tp.topic])
        ]

    def _scans(self, name: str, ranges: list[Range], end: Vector) -> tuple[Scan, ...]:
        """Return how the files that hold a table's events are scanned."""
        together: dict[tuple[str, str, int | None], list[str]] = {}
        for one in ranges:
            bound = end[one.tp] if end[one.tp] < one.offset_end else None
            for file in self._files(name, one):
                self._store.look_at(file)
                self._learn(file)
                place = self._store.place(file.path)
                together.setdefault((file.table, file.columns, bound), []).append(place)
        return tuple(
            Scan(
                tuple(paths),
                layout.event_select(table) if name == ALL else layout.select(table),
                bound,
                layout.absent(table, self._columns[table, columns]),
            )
            for (table, columns, bound), paths in together.items()
        )

    def _files(self, name: str, one: Range) -> Iterator[File]:
        return (file for file in one.files if name in (ALL, file.table))

    def _learn(self, file: File) -> None:
        """Learn what columns there are in files like this one."""
        if (file.table, file.columns) not in self._columns:
            with self._store.open(file.path) as opened:
                self._columns[file.table, file.columns] = pq.read_schema(opened).names


def _may_hold(tp: TopicPartition, key: bytes, partitions: int) -> bool:
    if topic(tp.topic).key != "conversation_id":
        return True
    return tp.partition == partition_for(key, partitions)
