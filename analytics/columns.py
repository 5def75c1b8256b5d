"""The columns of each kind's table: their Arrow types, and how they come from decoded events."""

import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa

from madlog.schemas import Event
from madlog.topics import LogEvent

__all__ = (
    "ALL",
    "COMMON",
    "ENVELOPE",
    "KINDS",
    "Column",
    "field_column",
    "payload_of",
    "schema_of",
)

# The table that holds events of every kind.
ALL = "Event"

# Years 1 to 9999: what Python, Arrow and DuckDB can all show.
_TIME_MIN_US = -62_135_596_800_000_000
_TIME_MAX_US = 253_402_300_799_999_999
ENVELOPE = frozenset(Event.model_fields)

_STRING = pa.string()
_STRINGS = pa.list_(pa.string())
_TIME = pa.timestamp("us")

# A column of many events at once: a call for each of its cells would cost more than the cell.
Values = Callable[[list[LogEvent]], list[Any]]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Where it is one of the event's own fields, `field` names it, and `json` is the SQL that makes
    the field's JSON text of the column again.
    """

    name: str
    type: Any
    values: Values
    field: str | None = None
    json: str | None = None


def _column(
    name: str, type_: Any, value: Callable[[LogEvent], Any], json: str | None = None
) -> Column:
    return Column(name, type_, lambda events: [value(event) for event in events], name, json)


def _field(name: str, type_: Any = _STRING, column: str | None = None) -> Column:
    shown = column or name
    json = f'to_json("{shown}")::VARCHAR'
    if type_ == pa.float64():  # JSON has no number for what is not finite
        json = f'CASE WHEN isfinite("{shown}") THEN {json} END'
    if type_ == pa.binary():
        return Column(shown, type_, lambda events: [e.fields.get(name) for e in events], name)
    return Column(shown, type_, lambda events: [e.fields.get(name) for e in events], name, json)


def _list(name: str) -> Column:
    return Column(
        name,
        _STRINGS,
        lambda events: [e.fields.get(name) or [] for e in events],
        name,
        f'to_json("{name}")::VARCHAR',
    )


def _json_field(name: str) -> Column:
    return Column(
        name, _STRING, lambda events: [_json(e.fields.get(name)) for e in events], name, f'"{name}"'
    )


def field_column(name: str, annotation: Any) -> Column:
    """Return the column of a field of this type; JSON text where no simple type stands for it."""
    kinds = {get_origin(kind) or kind for kind in _branches(annotation)} - {type(None)}
    if kinds == {tuple} and str in _branches(get_args(annotation)[0]):
        return _list(name)
    simple = kinds.pop() if len(kinds) == 1 else None
    return _field(name, _SIMPLE[simple]) if simple in _SIMPLE else _json_field(name)


def _branches(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, a literal as the type of its values."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _branches(args[0])
    if origin in (Union, types.UnionType):
        return [branch for arg in args for branch in _branches(arg)]
    return [type(arg) for arg in args] if origin is Literal else [annotation]


_SIMPLE = {str: _STRING, int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _sender(name: str, column: str) -> Column:
    return Column(column, _STRING, lambda events: [e.fields["sender"][name] for e in events])


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


def _time_field(name: str) -> Column:
    def value(event: LogEvent) -> int | None:
        us = event.fields.get(name)
        return None if us is None else _time(us)

    return _column(name, _TIME, value, f'epoch_us("{name}")::VARCHAR')


def payload_of(event: LogEvent) -> str | None:
    """Return an event's own fields, those beyond the envelope, as JSON."""
    return _json({key: val for key, val in event.fields.items() if key not in ENVELOPE})


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


COMMON = (
    Column("topic", _STRING, lambda events: [e.record.topic for e in events]),
    Column("partition", pa.int32(), lambda events: [e.record.partition for e in events]),
    Column("offset", pa.int64(), lambda events: [e.record.offset for e in events]),
    _field("event_id"),
    _field("conversation_id"),
    _field("correlation_id"),
    _field("causation_id"),
    _sender("name", "sender"),
    _sender("kind", "sender_kind"),
    _column("occurred_at", _TIME, lambda event: _time(event.fields["occurred_at"])),
    _column("appended_at", _TIME, lambda event: _time(event.record.appended_at)),
    _field("subject"),
    _field("idempotency_key"),
)

KINDS: dict[str, tuple[Column, ...]] = {
    ALL: (
        Column("kind", _STRING, lambda events: [e.kind for e in events]),
        _column("payload", _STRING, payload_of),
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
        _time_field("deadline"),
        _field("reason"),
    ),
    "Control": (
        _field("target"),
        _field("command"),
        _field("tier"),
        _field("value"),
        _field("name"),
        _field("about_id"),
        _time_field("expires_at"),
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


def schema_of(own: Sequence[Column]) -> Any:
    """Return the Arrow schema of a table: the columns of all kinds, then its own."""
    columns = [pa.field(column.name, column.type) for column in (*COMMON, *own)]
    columns.insert(len(COMMON), pa.field("schema_version", pa.int64()))
    return pa.schema(columns)
