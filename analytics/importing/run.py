"""Runs an import: streams the file, appends its events in batches, says what happened.

Every event's id and idempotency key come from the source alone. So an import that was killed is
finished by running it again, and one that was finished adds nothing when it runs again.
Memory: one line, one batch on its way and one being filled; never the file.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from madlog.analytics.importing._errors import BadLine
from madlog.analytics.importing._format import Format, PutBlob, SourceObject
from madlog.analytics.importing._ordinals import Ordinals
from madlog.analytics.importing._reader import Line, SourceFile, document_objects
from madlog.analytics.importing.formats import format_named
from madlog.analytics.importing.redaction import Redactor
from madlog.schemas import Event, SchemaError
from madlog.topics.event_log import EventLog
from madlog.topics.log import Recall, Receipt

__all__ = ("ImportProgress", "ImportReport", "import_file")

BATCH_EVENTS_MAX = 500
BATCH_BYTES_MAX = 4 * 1024 * 1024
# As many bad lines are named, all are counted.
BAD_LINES_NAMED_MAX = 10_000
EVENT_BYTES_MAX = 1024 * 1024
# An event of a line that is this many times shorter than the limit need not be measured.
_GROWTH_MAX = 16
_RECORD_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is; the file is read twice, once for its hash, and counts twice."""

    phase: str
    bytes_done: int
    bytes_total: int
    lines: int = 0
    conversations: int = 0
    events: int = 0


@dataclass(slots=True)
class ImportReport:
    """What an import did: of `events`, `repeated` were in the log before, the rest is new."""

    format: str
    file_sha256: str
    dry_run: bool
    lines: int = 0
    conversations: int = 0
    events: int = 0
    repeated: int = 0
    bad_lines: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    redacted: dict[str, int] = field(default_factory=dict)

    @property
    def appended(self) -> int:
        """How many events are new in the log."""
        return 0 if self.dry_run else self.events - self.repeated


class _Writer:
    """Appends batches one after the other, while the next one is being made."""

    def __init__(self, log: EventLog, report: ImportReport) -> None:
        self._log = log
        self._report = report
        self._batch: list[Event] = []
        self._bytes = 0
        self._under_way: asyncio.Task[list[Receipt]] | None = None

    async def put(self, events: list[Event], size: int) -> None:
        self._batch += events
        self._bytes += size
        while len(self._batch) >= BATCH_EVENTS_MAX or self._bytes >= BATCH_BYTES_MAX:
            await self._send()

    async def _send(self) -> None:
        await self._settle()
        batch, self._batch = self._batch[:BATCH_EVENTS_MAX], self._batch[BATCH_EVENTS_MAX:]
        if not self._batch:
            self._bytes = 0
        if batch:
            self._under_way = asyncio.create_task(self._log.append(batch))
            await asyncio.sleep(0)

    async def _settle(self) -> None:
        task, self._under_way = self._under_way, None
        if task is not None:
            receipts = await task
            self._report.repeated += sum(receipt.repeated for receipt in receipts)

    async def finish(self) -> None:
        while self._batch:
            await self._send()
        await self._settle()

    async def stop(self) -> None:
        """Wait for what is under way, whatever becomes of it."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])


class _Import:
    """Turns the lines of one file into events and counts."""

    def __init__(
        self, log: EventLog, fmt: Format, report: ImportReport, redactor: Redactor | None
    ) -> None:
        self.log = log
        self.format = fmt
        self.report = report
        self.redactor = redactor
        self.ordinals = Ordinals()
        self.event_bytes_max = EVENT_BYTES_MAX
        self.put_blob: PutBlob | None = None

    def events_of(self, line: Line) -> list[Event]:
        """Return the events of a line, none if it is bad, which is then noted."""
        self.report.lines += 1
        try:
            if line.reason is not None:
                raise BadLine(line.reason)
            events = self._events(line)
        except BadLine as bad:
            self._bad(line.number, str(bad))
        except RecursionError:
            self._bad(line.number, "the JSON is nested too deeply to be read")
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(step) for step in first["loc"])
            self._bad(line.number, f"does not fit an event: {where}: {first['msg']}")
        except SchemaError as error:
            self._bad(line.number, f"does not fit an event: {error}")
        else:
            self.report.conversations += 1
            self.report.events += len(events)
            return events
        return []

    def _events(self, line: Line) -> list[Event]:
        value = self.format.check(line.value)
        if self.redactor is not None:
            value = self.format.check(self.redactor.value(value))
        name = self.format.conversation(value)
        if self.format.counts_equals and (ordinal := self.ordinals.next(name)):
            name = f"{name}/{ordinal}"
        report = self.report
        found = SourceObject(value, line.number, report.file_sha256, name, self.put_blob)
        events = self.format.events(found)
        if line.size * _GROWTH_MAX > self.event_bytes_max:
            self._refuse_too_large(events)
        return events

    def _refuse_too_large(self, events: Iterable[Event]) -> None:
        limit = self.event_bytes_max - _RECORD_OVERHEAD_BYTES
        for event in events:
            size = len(self.log.to_record(event).value)
            if size > limit:
                place = event.extra.get("message")
                where = f"message {int(place) + 1}" if place is not None else "its metadata"
                raise BadLine(
                    f"{where} is too large ({size} bytes, the limit is {limit}): "
                    "shorten it or refer to its content"
                )

    def _bad(self, number: int, reason: str) -> None:
        self.report.bad_lines += 1
        if len(self.report.bad) < BAD_LINES_NAMED_MAX:
            self.report.bad.append((number, reason))


async def _hash(file: SourceFile, progress: Callable[[ImportProgress], None]) -> str:
    for found in file.sha256():
        if found:
            return found
        progress(ImportProgress("hashing", file.bytes_done, 2 * file.size))
        await asyncio.sleep(0)
    raise AssertionError("the last value is the hash")


def _ignore(_: Any) -> None:
    """Tell nobody."""


def _sha256(data: bytes) -> str:
    """Name content as the blob store would, storing nothing."""
    return hashlib.sha256(data).hexdigest()


async def import_file(
    log: EventLog,
    path: Path,
    fmt: str,
    *,
    redact: bool = False,
    dry_run: bool = False,
    progress: Callable[[ImportProgress], None] | None = None,
    put_blob: PutBlob | None = None,
    event_bytes_max: int = EVENT_BYTES_MAX,
) -> ImportReport:
    """Import a file and return what was done; `dry_run` does all but write.

    With `put_blob`, content inside the file (data: URLs) goes to the blob store and is referred
    to; without it, it stays in its event. Import a file again as it was imported first: with
    blobs kept another way its events differ, which raises IdempotencyConflict; redacted events
    are other events. Raises UnknownFormat, UnreadableFile, and what EventLog.append raises.
    """
    found = format_named(fmt)
    tell = progress or _ignore
    file = SourceFile(path)
    report = ImportReport(found.name, await _hash(file, tell), dry_run)
    redactor = Redactor() if redact else None
    if isinstance(log.log, Recall) and not dry_run:
        # Importing a file again must add nothing, however much was appended since.
        await log.log.recall(lambda _: tell(ImportProgress("recalling", file.size, 2 * file.size)))
    work = _Import(log, found, report, redactor)
    work.event_bytes_max = event_bytes_max
    work.put_blob = _sha256 if dry_run and put_blob is not None else put_blob
    writer = _Writer(log, report)
    document = file.document() if found.documents else None
    lines = file.lines() if document is None else document_objects(document)
    try:
        for line in lines:
            events = work.events_of(line)
            if not dry_run:
                await writer.put(events, line.size)
            counts = (report.lines, report.conversations, report.events)
            tell(ImportProgress("importing", file.bytes_done, 2 * file.size, *counts))
            await asyncio.sleep(0)
        await writer.finish()
    finally:
        await writer.stop()
        work.ordinals.close()
    report.redacted = dict(sorted(redactor.counts.items())) if redactor else {}
    return report
