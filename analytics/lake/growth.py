"""What each topic holds and how it grows, what of it is archived, and what may be moved away."""

from dataclasses import dataclass

from madlog.analytics.lake.manifest import Manifest, read_manifest
from madlog.topics import CATALOG, EventLog, TopicPartition
from madlog.topics.catalog import kept_for_ever, topic
from madlog.topics.cold import ColdStorage, Pack
from madlog.topics.sizes import Growth, OnDisk, growth, measure

__all__ = ("ColdLimit", "TopicRetention", "cold_limits", "retention")


@dataclass(frozen=True, slots=True)
class TopicRetention:
    """One topic: what the log holds of it, what the lake does, how both grow.

    `archived` and `waiting` are events in the lake and offsets that are not; bytes are those of
    keys and values in the log, of all that holds it on disk, of the packs of it, which hold the
    `moved` records, and of the lake's files.
    """

    topic: str
    keeps: str
    records: int
    bytes: int
    disk_bytes: int | None
    moved: int
    pack_bytes: int
    archived: int
    lake_files: int
    lake_bytes: int
    waiting: int | None
    archived_to: str
    growth: Growth | None


async def retention(log: EventLog) -> list[TopicRetention]:
    """Return a row for each topic of the log; reads all of it."""
    manifest = await read_manifest(log)
    packs = await log.log.packs() if isinstance(log.log, ColdStorage) else []
    return [await _of(log, name, manifest, packs) for name in sorted(await log.log.topics())]


async def _of(log: EventLog, name: str, manifest: Manifest, packs: list[Pack]) -> TopicRetention:
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
        sum(one.records for one in packs if one.tp.topic == name),
        sum(one.size for one in packs if one.tp.topic == name),
        sum(one.rows for one in ranges),
        sum(len(one.files) for one in ranges),
        sum(one.size for one in ranges),
        sum(at - to[tp] for tp, at in end.items()) if archivable else None,
        ",".join(f"{tp.partition}@{to[tp]}" for tp in sorted(end)) if ranges else "",
        grown,
    )


@dataclass(frozen=True, slots=True)
class ColdLimit:
    """Up to which offset a partition's records may be moved away, and what keeps the next one."""

    tp: TopicPartition
    offset: int
    because: str


async def cold_limits(log: EventLog, before_us: int) -> list[ColdLimit]:
    """Return for each partition kept for ever what of it is cold.

    That is what was appended before a time, is archived, and has been read by every group.
    """
    manifest = await read_manifest(log)
    there = await log.log.topics()
    names = kept_for_ever(one for one in CATALOG.values() if one.name in there)
    start, aged = await log.log.start(names), await log.log.at_time(names, before_us)
    groups = await log.log.groups()
    limits = []
    for tp in sorted(aged):
        stops = {"not that old": aged[tp]}
        stops["not archived"] = _archived_from(manifest, tp, start[tp])
        for group in groups:
            if tp.topic in group.topics:
                stops[f"not read by group {group.group}"] = group.committed.get(tp, start[tp])
        because = min(stops, key=lambda one: stops[one])
        limits.append(ColdLimit(tp, stops[because], because))
    return limits


def _archived_from(manifest: Manifest, tp: TopicPartition, start: int) -> int:
    """Return up to where a partition is archived without a gap."""
    for one in manifest.ranges.get(tp, ()):
        if one.offset > start:
            break
        start = max(start, one.offset_end)
    return start
