"""Decoded topics as Arrow tables: one table a kind of event, and `Event` for all of them.

A `Source` gives the tables; today it is the log itself. What holds the decoded past elsewhere
(Parquet files) takes its place by giving the same tables up to the same vector.
"""

import json
import math
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from madlog.schemas import EVENT_KINDS, Event, Schemas
from madlog.schemas.framing import head_of
from madlog.topics import CATALOG, EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import partition_for, topic
from madlog.topics.log import OnDamage, log_damage

__all__ = ("ALL", "LogSource", "Source", "schema_of", "topics_of")

ALL = "Event"

# A chunk of a table is built when it has this many rows, or this many bytes of records.
_ROWS = 2048
_BYTES = 32 << 20
# Years 1 to 9999: what Python, Arrow and DuckDB can all show.
_TIME_MIN_US = -62_135_596_800_000_000
_TIME_MAX_US = 253_402_300_799_999_999
_ENVELOPE = frozenset(Event.model_fields)

_STRING = pa.string()
_STRINGS = pa.list_(pa.string())
_TIME = pa.timestamp("us")

# A column of many events at once: a call for each of its cells would cost more than the cell.
Values = Callable[[list[LogEvent]], list[Any]]


@dataclass(frozen=True)
class _Column:
    name: str
    type: Any
    values: Values


def _column(name: str, type_: Any, value: Callable[[LogEvent], Any]) -> _Column:
    return _Column(name, type_, lambda events: [value(event) for event in events])


def _field(name: str, type_: Any = _STRING, column: str | None = None) -> _Column:
    return _Column(column or name, type_, lambda events: [e.fields.get(name) for e in events])


def _list(name: str) -> _Column:
    return _Column(name, _STRINGS, lambda events: [e.fields.get(name) or [] for e in events])


def _json_field(name: str) -> _Column:
    return _Column(name, _STRING, lambda events: [_json(e.fields.get(name)) for e in events])


def _sender(name: str, column: str) -> _Column:
    return _Column(column, _STRING, lambda events: [e.fields["sender"][name] for e in events])


# Made once: json.dumps makes a new encoder at each call.
_encode = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    separators=(",", ":"),
    default=lambda value: value.decode("latin-1"),
).encode


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _json(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return _encode(value)
    except ValueError:
        return _encode(_plain(value))


def _time(us: int) -> int | None:
    return us if _TIME_MIN_US <= us <= _TIME_MAX_US else None


def _time_of(event: LogEvent, name: str) -> int | None:
    us = event.fields.get(name)
    return None if us is None else _time(us)


def _payload(event: LogEvent) -> str | None:
    return _json({key: val for key, val in event.fields.items() if key not in _ENVELOPE})


def _text(event: LogEvent) -> str:
    return "".join([part.get("text") or "" for part in event.fields["parts"]])


def _content_class(event: LogEvent) -> str | None:
    parts = event.fields["parts"]
    if len(parts) == 1:
        return str(parts[0]["content_class"])
    classes = {
        part["content_class"]
        for part in parts
        # White space between a command and a code block makes no turn mixed.
        if part["content_class"] != "prose" or (part.get("text") or "").strip()
    }
    if len(classes) == 1:
        return str(classes.pop())
    return "mixed" if classes else ("prose" if parts else None)


def _traffic(event: LogEvent) -> str:
    """Return whether a turn was lived here, brought in from elsewhere, or made up by a script."""
    if event.fields["source"] is not None:
        return "imported"
    return {"observed": "live", "synthetic": "scripted"}.get(
        event.fields["time_source"], "imported"
    )


def _duration(event: LogEvent) -> int | None:
    value = event.header("duration-us")
    return int(value) if value is not None and value.isdigit() else None


_COMMON = (
    _Column("topic", _STRING, lambda events: [e.record.topic for e in events]),
    _Column("partition", pa.int32(), lambda events: [e.record.partition for e in events]),
    _Column("offset", pa.int64(), lambda events: [e.record.offset for e in events]),
    _field("event_id"),
    _field("conversation_id"),
    _field("correlation_id"),
    _field("causation_id"),
    _sender("name", "sender"),
    _sender("kind", "sender_kind"),
    _column("occurred_at", _TIME, lambda event: _time(event.fields["occurred_at"])),
    _column("appended_at", _TIME, lambda event: _time(event.record.appended_at)),
)

_KINDS: dict[str, tuple[_Column, ...]] = {
    ALL: (
        _Column("kind", _STRING, lambda events: [e.kind for e in events]),
        _column("payload", _STRING, _payload),
    ),
    "Turn": (
        _list("recipients"),
        _list("mentions"),
        _list("tags"),
        _field("intent"),
        _column("content_class", _STRING, _content_class),
        _column("text", _STRING, _text),
        _json_field("parts"),
        _column("traffic", _STRING, _traffic),
    ),
    "ConversationChanged": (
        _field("change"),
        _field("participant"),
        _field("participant_kind"),
        _field("title"),
        _json_field("metadata"),
    ),
    "ToolCall": (_field("action"), _field("arguments"), _field("source_call_id")),
    "ToolResult": (
        _field("call_id"),
        _field("ok", pa.bool_()),
        _field("result"),
        _field("error"),
        _field("duration_ms", pa.float64()),
    ),
    "Decision": (
        _field("turn_id"),
        _field("recipient"),
        _field("mode"),
        _field("tier"),
        _field("route"),
        _field("confidence", pa.float64()),
        _field("max_error", pa.float64()),
        _field("audited", pa.bool_()),
        _field("propensity", pa.float64()),
        _field("model_id"),
        _field("model_version"),
        _field("arguments"),
        _field("escalation"),
        _field("control_id"),
        _json_field("features"),
        _json_field("candidates"),
        _field("reason"),
        _column("duration_us", pa.int64(), _duration),
    ),
    "LlmCall": (
        _field("provider"),
        _field("model"),
        _field("tokens_in", pa.int64()),
        _field("tokens_out", pa.int64()),
        _field("cost_usd", pa.float64()),
        _field("latency_ms", pa.float64()),
        _json_field("parameters"),
        _field("answer_id"),
        _json_field("extra"),
    ),
    "Outcome": (
        _field("result"),
        _field("quality", pa.float64()),
        _field("judged_by"),
        _field("about"),
        _field("about_id"),
        _json_field("extra"),
    ),
    "ModelPublished": (
        _field("component"),
        _field("mad"),
        _field("version"),
        _field("parameters_sha256"),
        _field("parameters"),
        _field("parameters_uri"),
        _json_field("trained_on"),
        _json_field("metrics"),
        _json_field("hyper_parameters"),
        _field("code_version"),
    ),
    "ProcessStep": (
        _field("instance_id"),
        _field("mad"),
        _field("process"),
        _field("state"),
        _field("step", pa.int64()),
        _field("action"),
        _field("arguments"),
        _field("decision_id"),
        _column("deadline", _TIME, lambda event: _time_of(event, "deadline")),
        _field("reason"),
    ),
    "Control": (
        _field("target"),
        _field("command"),
        _field("tier"),
        _field("value"),
        _field("name"),
        _field("about_id"),
        _column("expires_at", _TIME, lambda event: _time_of(event, "expires_at")),
        _field("reason"),
    ),
    "AuditEntry": (
        _field("principal"),
        _field("action"),
        _field("text"),
        _field("text_sha256"),
        _list("reads"),
        _field("verdict"),
        _field("reason"),
        _field("rows", pa.int64()),
        _field("size", pa.int64()),
    ),
    "SchemaRegistered": (
        _field("subject_name"),
        _field("version", pa.int64()),
        _field("fingerprint"),
        _field("schema_text"),
    ),
    "DeadLetter": (
        _field("processor"),
        _field("topic", column="record_topic"),
        _field("partition", pa.int64(), "record_partition"),
        _field("offset", pa.int64(), "record_offset"),
        _field("record_key", pa.binary()),
        _field("record_value", pa.binary()),
        _json_field("record_headers"),
        _field("error_type"),
        _field("error"),
        _field("attempts", pa.int64()),
    ),
}


def schema_of(name: str) -> Any:
    """Return the Arrow schema of a kind's table, or of `ALL`."""
    columns = [pa.field(column.name, column.type) for column in (*_COMMON, *_KINDS[name])]
    columns.insert(len(_COMMON), pa.field("schema_version", pa.int64()))
    return pa.schema(columns)


def topics_of(names: Collection[str], present: Collection[str]) -> list[str]:
    """Return the topics, of those present, that hold what the named tables are made of."""
    if ALL in names:
        return sorted(topic for topic in present if not topic.startswith("mad.state."))
    wanted = set(names)
    return sorted(name for name in present if name in CATALOG and wanted & set(CATALOG[name].holds))


class _Table:
    """One table while it is being filled."""

    def __init__(self, name: str, schemas: Schemas) -> None:
        self._schema = schema_of(name)
        self._own = _KINDS[name]
        self._schemas = schemas
        self._versions: dict[bytes, int] = {}
        self._events: list[LogEvent] = []
        self._bytes = 0
        self._batches: list[Any] = []

    def add(self, event: LogEvent) -> None:
        self._events.append(event)
        self._bytes += len(event.record.value)
        if len(self._events) >= _ROWS or self._bytes >= _BYTES:
            self._flush()

    def _version(self, value: bytes) -> int:
        name = head_of(value)
        if name not in self._versions:
            self._versions[name] = self._schemas.version(value)
        return self._versions[name]

    def _flush(self) -> None:
        events = self._events
        columns = [column.values(events) for column in (*_COMMON, *self._own)]
        columns.insert(len(_COMMON), [self._version(event.record.value) for event in events])
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._events, self._bytes = [], 0

    def finish(self) -> Any:
        if self._events:
            self._flush()
        return pa.Table.from_batches(self._batches, schema=self._schema)


class Source(Protocol):
    """Where a query's tables come from."""

    async def tables(self, names: Collection[str], end: Vector) -> dict[str, Any]:
        """Return an Arrow table of each named kind, of the events before `end`."""


class LogSource:
    """The tables of a log, decoded now; of one conversation only where one is named.

    Topics that are not keyed by the conversation are read whole all the same.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        conversation: str | None = None,
        on_damage: OnDamage = log_damage,
    ) -> None:
        self._log = log
        self._key = None if conversation is None else conversation.encode()
        self._on_damage = on_damage

    async def tables(self, names: Collection[str], end: Vector) -> dict[str, Any]:
        """Return an Arrow table of each named kind, of the events before `end`."""
        tables = {name: _Table(name, self._log.schemas) for name in names}
        everything = tables.get(ALL)
        async for events in self._events(end):
            for event in events:
                # A kind that is in no table, or of a newer program, is in `ALL` alone.
                own = tables.get(event.kind) if event.kind in EVENT_KINDS else None
                if own is not None:
                    own.add(event)
                if everything is not None:
                    everything.add(event)
        return {name: table.finish() for name, table in tables.items()}

    async def _events(self, end: Vector) -> AsyncIterator[list[LogEvent]]:
        if self._key is None:
            async for events in self._log.read(Vector(), end, on_damage=self._on_damage):
                yield events
            return
        partitions = await self._log.log.topics()
        keyed: dict[TopicPartition, int] = {}
        whole: dict[TopicPartition, int] = {}
        for tp, at in end.items():
            if topic(tp.topic).key != "conversation_id":
                whole[tp] = at
            elif tp.partition == partition_for(self._key, partitions[tp.topic]):
                keyed[tp] = at
        async for events in self._log.read(Vector(), Vector(whole), on_damage=self._on_damage):
            yield events
        records_of = self._log.log.read(Vector(), Vector(keyed), on_damage=self._on_damage)
        async for records in records_of:
            wanted = [record for record in records if record.key == self._key]
            yield await self._log.decode_all(wanted, self._on_damage)
