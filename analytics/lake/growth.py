"""What each topic holds and how it grows, beside what of it is archived."""

from dataclasses import dataclass

from madlog.analytics.lake.manifest import Manifest, read_manifest
from madlog.topics import CATALOG, EventLog
from madlog.topics.catalog import topic
from madlog.topics.sizes import Growth, OnDisk, growth, measure

__all__ = ("TopicRetention", "retention")


@dataclass(frozen=True, slots=True)
class TopicRetention:
    """One topic: what the log holds of it, what the lake does, how both grow.

    `archived` and `waiting` are events in the lake and offsets that are not; bytes are those of
    keys and values in the log, of its pages on disk, and of the lake's files.
    """

    topic: str
    keeps: str
    records: int
    bytes: int
    disk_bytes: int | None
    archived: int
    lake_files: int
    lake_bytes: int
    waiting: int | None
    archived_to: str
    growth: Growth | None


async def retention(log: EventLog) -> list[TopicRetention]:
    """Return a row for each topic of the log; reads all of it."""
    manifest = await read_manifest(log)
    return [await _of(log, name, manifest) for name in sorted(await log.log.topics())]


async def _of(log: EventLog, name: str, manifest: Manifest) -> TopicRetention:
    place = topic(name)
    size = await measure(log.log, name)
    disk = await log.log.disk_bytes(name) if isinstance(log.log, OnDisk) else None
    ranges = [one for one in manifest if one.tp.topic == name]
    end = await log.log.end([name])
    to = {tp: manifest.archived_to(tp) for tp in end}
    archivable = name in CATALOG and place.keeps == "for ever"
    grown = None if place.compacted else growth(size, log.log.clock.now_us(), None)
    return TopicRetention(
        name,
        place.keeps,
        size.records,
        size.bytes,
        disk,
        sum(one.rows for one in ranges),
        sum(len(one.files) for one in ranges),
        sum(one.size for one in ranges),
        sum(at - to[tp] for tp, at in end.items()) if archivable else None,
        ",".join(f"{tp.partition}@{to[tp]}" for tp in sorted(end)) if ranges else "",
        grown,
    )
