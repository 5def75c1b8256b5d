"""Which files a lake consists of: a fold of RangeArchived events, the same for every reader.

A range that overlaps one that came before it is ignored, unless it takes the place of all that it
overlaps and covers just what they cover; so each offset is in one range at most, whatever a
second archiver or a late one wrote. What no range covers is read from the log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from madlog.analytics.errors import LakeUnavailable
from madlog.analytics.lake.layout import FORM
from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.log import OnDamage, log_damage

__all__ = ("File", "Manifest", "Range", "read_manifest")

SYSTEM = "mad.system"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a range: see schemas.LakeFile."""

    table: str
    path: str
    rows: int
    size: int
    sha256: str
    footer_sha256: str
    columns: str


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets [offset, offset_end) of a partition that stand in files."""

    event_id: str
    tp: TopicPartition
    offset: int
    offset_end: int
    files: tuple[File, ...]
    unreadable: tuple[tuple[int, int, str], ...]
    archived_at: int

    @property
    def rows(self) -> int:
        """How many events stand in its files."""
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """How many bytes its files have."""
        return sum(file.size for file in self.files)


@dataclass(slots=True)
class Manifest:
    """The ranges of each partition in the order of their offsets; a lake's id once it has one."""

    lake: str | None = None
    ranges: dict[TopicPartition, list[Range]] = field(default_factory=dict)
    # Paths of files whose place others took, and when.
    superseded: dict[str, int] = field(default_factory=dict)
    read_to: Vector = field(default_factory=Vector)

    def fold(self, event: LogEvent) -> None:
        """Take up one event; raises LakeUnavailable where a newer madlog wrote it."""
        if event.kind != "RangeArchived":
            return
        fields = event.fields
        if fields["form"] > FORM:
            raise LakeUnavailable(
                f"the lake holds files of form {fields['form']}, made by a newer madlog, and this "
                f"one knows form {FORM}: upgrade madlog"
            )
        new = _range_of(event)
        if self.lake is None:
            self.lake = fields["lake"]
        if new.offset == new.offset_end:
            return  # it only says which lake is this log's
        held = self.ranges.get(new.tp, [])
        over = [one for one in held if one.offset < new.offset_end and new.offset < one.offset_end]
        if over:
            covered = (over[0].offset, over[-1].offset_end)
            replaced = {one.event_id for one in over}
            whole = covered == (new.offset, new.offset_end)
            if not whole or replaced != set(fields["supersedes"]):
                return
        kept = {file.path for file in new.files}
        for file in (file for one in over for file in one.files if file.path not in kept):
            self.superseded[file.path] = new.archived_at
        for path in kept:
            self.superseded.pop(path, None)
        self.ranges[new.tp] = sorted(
            [*(one for one in held if one not in over), new], key=lambda one: one.offset
        )

    def __iter__(self) -> Iterator[Range]:
        for tp in sorted(self.ranges):
            yield from self.ranges[tp]

    def archived_to(self, tp: TopicPartition) -> int:
        """Return the offset after the last that is archived, 0 where none is."""
        held = self.ranges.get(tp)
        return held[-1].offset_end if held else 0

    def uncovered(self, start: Mapping[TopicPartition, int], end: Vector) -> Iterator[Any]:
        """Yield (start, end) vectors that, read one after the other, are all that is not archived.

        Each partition of `end` is looked at from its low-water mark in `start`.
        """
        gaps = {tp: list(self.gaps(tp, start.get(tp, 0), to)) for tp, to in end.items()}
        for number in range(max(map(len, gaps.values()), default=0)):
            some = {tp: spans[number] for tp, spans in gaps.items() if number < len(spans)}
            yield (
                Vector({tp: span[0] for tp, span in some.items()}),
                Vector({tp: span[1] for tp, span in some.items()}),
            )

    def gaps(self, tp: TopicPartition, at: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the spans of a partition between two offsets that no range covers."""
        for one in self.ranges.get(tp, ()):
            if one.offset >= end:
                break
            if at < one.offset:
                yield at, one.offset
            at = max(at, one.offset_end)
        if at < end:
            yield at, end


def _range_of(event: LogEvent) -> Range:
    fields = event.fields
    return Range(
        event.event_id,
        TopicPartition(fields["topic"], fields["partition"]),
        fields["offset"],
        fields["offset_end"],
        tuple(File(**{name: file[name] for name in File.__slots__}) for file in fields["files"]),
        tuple((one["offset"], one["offset_end"], one["reason"]) for one in fields["unreadable"]),
        event.record.appended_at,
    )


async def read_manifest(
    log: EventLog, manifest: Manifest | None = None, on_damage: OnDamage = log_damage
) -> Manifest:
    """Return the manifest as it is now, going on from one that was read before."""
    manifest = Manifest() if manifest is None else manifest
    if SYSTEM not in await log.log.topics():
        return manifest
    end = await log.log.end([SYSTEM])
    start = await log.log.start([SYSTEM])
    since = Vector({tp: max(at, start[tp]) for tp, at in manifest.read_to.items()})
    async for events in log.read(since, end, on_damage=on_damage):
        for event in events:
            manifest.fold(event)
    manifest.read_to = end
    return manifest
