"""Outcomes from outside: a CSV whose rows say how conversations or decisions ended.

A row finds what it is about by the conversation's id, a correlation id, a decision's id, or a key
of the metadata that the conversation was created with. Where the log's newest outcome of the same
judge says the same already, nothing is appended: a file that comes twice adds nothing, and a row
that changed since is a correction. Memory: the rows, and what the log says of what they name.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from madlog.analytics.errors import AnalyticsError
from madlog.processors.outcomes import RULES
from madlog.schemas import Outcome, Sender, Source, derived_event_id
from madlog.topics import EventLog
from madlog.topics.log import OnDamage, log_damage

__all__ = ("RESULTS", "BadCsv", "CsvReport", "CsvRow", "Join", "Result", "import_csv", "read_csv")

Result = Literal["success", "failure", "partial", "novel"]
RESULTS: tuple[Result, ...] = get_args(Result)
BATCH_EVENTS_MAX = 500
UNJOINED_NAMED_MAX = 10_000
_SENDER = Sender(name="outcomes", kind="import")
_COLUMNS = {
    "conversation": "conversation_id",
    "correlation": "correlation_id",
    "decision": "decision_id",
}
_AGENTS = ("mad", "emad")
# Rules that conclude from the log: an outside judge of their name would argue with them for ever.
_TAKEN = frozenset(name for name, rule in RULES.items() if rule.judge is not None)


class BadCsv(AnalyticsError, ValueError):
    """The file is not a CSV of outcomes: RFC 4180, UTF-8, the first line names the columns."""


@dataclass(frozen=True, slots=True)
class Join:
    """How rows are read: `by` is conversation, correlation, decision, or a metadata key."""

    by: str
    column: str | None = None
    result_column: str | None = None
    as_result: Result | None = None
    quality_column: str | None = None
    judged_by: str | None = None
    mad: str | None = None


class CsvRow(NamedTuple):
    """One row: where it stands, what it names, how that ended."""

    line: int
    value: str
    result: Result
    quality: float | None


@dataclass(slots=True)
class CsvReport:
    """What an import of outcomes did: `joined` = appended + corrected + unchanged + superseded."""

    judged_by: str
    dry_run: bool
    rows: int = 0
    joined: int = 0
    appended: int = 0
    corrected: int = 0
    unchanged: int = 0
    superseded: int = 0
    unknown: int = 0
    ambiguous: int = 0
    unjoined: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Target:
    """What an outcome can be about, and the newest outcome of this judge about it."""

    about: Literal["conversation", "decision"]
    about_id: str
    conversation_id: str
    anchor: Mapping[str, Any]
    mad: str | None = None
    held: tuple[tuple[int, int, int], str, str, float | None] | None = None


def _text_of(data: bytes, path: Path) -> str:
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise BadCsv(f"{path.name}:{line} holds a NUL byte: this is no CSV; export it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadCsv(f"{path.name}:{line} is not UTF-8: save the file as UTF-8") from error


def _column(path: Path, header: list[str], name: str, option: str) -> int:
    found = header.count(name)
    if found == 1:
        return header.index(name)
    there = ", ".join(header)
    if found:
        raise BadCsv(f"{path.name} has {found} columns {name!r}: name each once")
    raise BadCsv(f"{path.name} has no column {name!r}; it has: {there[:500]} (see {option})")


def read_csv(path: Path, join: Join) -> tuple[list[CsvRow], str]:
    """Return the rows of a file and its SHA-256; raises BadCsv, OSError."""
    data = path.read_bytes()
    text = _text_of(data, path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[CsvRow] = []
    try:
        header = next(reader, None)
        if not header:
            raise BadCsv(f"{path.name} is empty: its first line names the columns")
        header = [name.strip() for name in header]
        at = _column(path, header, join.column or _COLUMNS.get(join.by, join.by), "--column")
        result_at = quality_at = None
        if join.as_result is None:
            result_at = _column(path, header, join.result_column or "result", "--result or --as")
        if join.quality_column is not None:
            quality_at = _column(path, header, join.quality_column, "--quality")
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path.name}:{line}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                raise BadCsv(
                    f"{where} has {len(cells)} fields where the first line has {len(header)}: "
                    "quote fields that hold commas"
                )
            result = join.as_result or _result(cells[result_at or 0], where)
            quality = None if quality_at is None else _quality(cells[quality_at], where)
            number = int(where.rpartition(":")[2])
            rows.append(CsvRow(number, cells[at].strip(), result, quality))
    except csv.Error as error:
        raise BadCsv(f"{path.name}:{reader.line_num} is no CSV ({error}): RFC 4180") from error
    return rows, hashlib.sha256(data).hexdigest()


def _result(cell: str, where: str) -> Result:
    text = cell.strip().lower()
    if text not in RESULTS:
        raise BadCsv(
            f"{where}: the result {cell[:60]!r} is none of {', '.join(RESULTS)}: correct it, or "
            "give all rows one with --as"
        )
    return text


def _quality(cell: str, where: str) -> float | None:
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadCsv(f"{where}: the quality {cell[:60]!r} is no number from 0 to 1")
    return value


class _Index:
    """What the log says of the values that the rows name."""

    def __init__(self, join: Join, judged_by: str, values: set[str]) -> None:
        self._join = join
        self._judged_by = judged_by
        self._values = values
        self.targets: dict[str, _Target] = {}
        self.found: dict[str, dict[str, None]] = {}

    async def read(self, log: EventLog, on_damage: OnDamage) -> None:
        said = "mad.decisions" if self._join.by == "decision" else "mad.conversations"
        take = self._decision if self._join.by == "decision" else self._said
        for name in (said, "mad.outcomes"):
            async for events in log.read_topics([name], on_damage=on_damage):
                for event in events:
                    if name == "mad.outcomes":
                        self._outcome(event.fields, event.record)
                    else:
                        take(event.kind, event.fields)

    def _decision(self, kind: str, fields: Mapping[str, Any]) -> None:
        name = fields["event_id"]
        if name in self._values:
            conversation = fields["conversation_id"]
            self.targets[name] = _Target(
                "decision", name, conversation, fields, fields["recipient"]
            )
            self.found[name] = {name: None}

    def _said(self, kind: str, fields: Mapping[str, Any]) -> None:
        name = fields["conversation_id"]
        for value in self._named(kind, fields):
            if value in self._values:
                self.found.setdefault(value, {})[name] = None
                self.targets.setdefault(name, _Target("conversation", name, name, fields))
        target = self.targets.get(name)
        if target is not None:
            target.anchor = fields
            if kind != "ConversationChanged" and fields["sender"]["kind"] in _AGENTS:
                target.mad = fields["sender"]["name"]

    def _named(self, kind: str, fields: Mapping[str, Any]) -> Iterator[str]:
        """Yield the values by which a row may name the conversation of an event."""
        by = self._join.by
        if by == "conversation":
            yield fields["conversation_id"]
        elif by == "correlation":
            if fields["correlation_id"] is not None:
                yield fields["correlation_id"]
        elif kind == "ConversationChanged" and fields["change"] == "created":
            yield from _metadata_values(fields["metadata"], by)

    def _outcome(self, fields: Mapping[str, Any], record: Any) -> None:
        target = self.targets.get(fields["about_id"])
        if target is None or fields["judged_by"] != self._judged_by:
            return
        order = (record.appended_at, record.partition, record.offset)
        if fields["about"] == target.about and (target.held is None or target.held[0] < order):
            target.held = (order, fields["event_id"], fields["result"], fields["quality"])


def _metadata_values(metadata: Mapping[str, str], key: str) -> Iterator[str]:
    """Yield a key's value as it stands and as the JSON that importers write says it."""
    text = metadata.get(key)
    if text is not None:
        yield text
        value = _json(text)
    else:
        other = _json(metadata.get("other_fields", ""))
        value = other.get(key) if isinstance(other, dict) else None
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)):
        yield json.dumps(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _named(path: Path, join: Join) -> str:
    name = join.judged_by or f"csv:{path.stem}"
    if name in _TAKEN:
        raise BadCsv(
            f"{name} is a rule that judges from the log: name who judged these rows otherwise with "
            "--judged-by"
        )
    return name


async def import_csv(
    log: EventLog,
    path: Path,
    join: Join,
    *,
    dry_run: bool = False,
    on_damage: OnDamage = log_damage,
) -> CsvReport:
    """Append an outcome for each row that finds what it is about, and say what was done.

    Of several rows about one thing the last one counts. Raises BadCsv before anything is
    appended, OSError, and what EventLog.append raises.
    """
    rows, sha256 = read_csv(path, join)
    report = CsvReport(_named(path, join), dry_run, rows=len(rows))
    index = _Index(join, report.judged_by, {row.value for row in rows})
    await index.read(log, on_damage)
    wanted: dict[str, CsvRow] = {}
    for row in rows:
        about = _joined(row, index, join, report)
        if about is not None:
            report.superseded += about in wanted
            wanted[about] = row
    outcomes: list[Outcome] = []
    for about, row in wanted.items():
        target = index.targets[about]
        if target.held is not None and target.held[2:] == (row.result, row.quality):
            report.unchanged += 1
            continue
        report.appended += target.held is None
        report.corrected += target.held is not None
        source = Source(format="csv", sha256=sha256, line=row.line)
        outcomes.append(_outcome(target, row, report.judged_by, join.mad, source))
    if not dry_run:
        for at in range(0, len(outcomes), BATCH_EVENTS_MAX):
            await log.append(outcomes[at : at + BATCH_EVENTS_MAX])
    return report


def _joined(row: CsvRow, index: _Index, join: Join, report: CsvReport) -> str | None:
    """Return what a row is about, None where that is not one thing, which is then noted."""
    found = list(index.found.get(row.value, ()))
    reason = None
    if not found:
        report.unknown += 1
        what = "decision" if join.by == "decision" else f"conversation with this {join.by}"
        if join.by == "conversation":
            what = "conversation of this name"
        reason = f"the log holds no {what}" if row.value else "the cell is empty"
    elif len(found) > 1:
        report.ambiguous += 1
        reason = f"{len(found)} conversations have this {join.by}: {', '.join(found)[:200]}"
    elif join.mad is None and index.targets[found[0]].mad is None:
        report.unknown += 1
        reason = "no agent spoke in this conversation: name whom it is about with --mad"
    if reason is None:
        report.joined += 1
        return found[0]
    if len(report.unjoined) < UNJOINED_NAMED_MAX:
        report.unjoined.append((row.line, row.value, reason))
    return None


def _outcome(
    target: _Target, row: CsvRow, judged_by: str, mad: str | None, source: Source
) -> Outcome:
    anchor = target.anchor
    held = target.held[1] if target.held is not None else ""
    said = "/".join((judged_by, target.about_id, held, row.result, repr(row.quality)))
    event_id = derived_event_id(anchor["event_id"], f"{_SENDER.name}/{said}", 0)
    return Outcome(
        event_id=event_id,
        conversation_id=target.conversation_id,
        correlation_id=anchor["correlation_id"],
        causation_id=anchor["event_id"],
        sender=_SENDER,
        occurred_at=anchor["occurred_at"],
        time_source=anchor["time_source"],
        # Of the row, not of where the conversation stands: appended twice at once it is one.
        idempotency_key=said,
        source=source,
        subject=anchor["subject"],
        mad=mad or target.mad or "unknown",
        result=row.result,
        quality=row.quality,
        judged_by=judged_by,
        about=target.about,
        about_id=target.about_id,
    )
