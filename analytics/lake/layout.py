"""What a lake's files hold: the columns of the kind's table, with nothing stored twice.

A turn's `text` stands there once: its `parts` are nested and say how many characters of it are
theirs, one after the other. `payload` (an event's own fields as JSON) is made again from the
columns by SQL; it is stored only for an event where that SQL gives another text, so that what is
read is what was archived whatever the event holds. The two are compared wherever they could
differ: in a batch that holds a number with a fraction, a control code that JSON has no letter for,
or fields that the columns do not have. Rows are sorted by conversation, then offset.
"""

import hashlib
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from madlog.analytics.columns import (
    ALL,
    COMMON,
    ENVELOPE,
    KINDS,
    Column,
    field_column,
    payload_of,
    schema_of,
)
from madlog.analytics.tables import Last, TableBuilder
from madlog.schemas import EVENT_KINDS, Part, Schemas
from madlog.topics import LogEvent

__all__ = (
    "FORM",
    "QUIET",
    "columns_hash",
    "event_select",
    "file_schema",
    "new_builder",
    "older",
    "packed",
    "select",
    "table_of",
)

# The form of the files: raised when readers of an older one would misread them.
FORM = 1

# Nothing is fetched, and nothing is left in the folder that somebody works in.
QUIET: dict[str, str | bool | int | float | list[str]] = {
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "binary": "BLOB",
    "timestamp[us]": "TIMESTAMP",
}
_PARTS = "parts"
_PART_FIELDS = tuple(Part.model_fields)
_NUMBERS = frozenset(("chars", "size"))
_PART_COLUMNS = tuple("chars" if name == "text" else name for name in _PART_FIELDS)
_PART = pa.struct(
    [pa.field(name, pa.int64() if name in _NUMBERS else pa.string()) for name in _PART_COLUMNS]
)


def _nested(events: list[LogEvent]) -> list[Any]:
    return [[_without_text(part) for part in event.fields[_PARTS]] for event in events]


def _without_text(part: Mapping[str, Any]) -> dict[str, Any]:
    text = part.get("text")
    return {**part, "chars": None if text is None else len(text)}


def _object(values: Mapping[str, str]) -> str:
    """Return the SQL of a JSON object, of SQL that gives each value's JSON or NULL."""
    pieces = [f"'\"{name}\":' || coalesce({value}, 'null')" for name, value in values.items()]
    return "'{' || " + " || ',' || ".join(pieces) + " || '}'"


_BEFORE = "coalesce(list_sum(list_transform(parts[1:i - 1], lambda q: coalesce(q.chars, 0))), 0)"
_SLICE = f"substring(text, ({_BEFORE} + 1)::BIGINT, p.chars)"
_TEXT = f"CASE WHEN p.chars IS NULL THEN NULL ELSE {_SLICE} END"
_PIECES = (f"{name}: {_TEXT if name == 'text' else 'p.' + name}" for name in _PART_FIELDS)
_PART_SQL = ", ".join(_PIECES)
_PARTS_SQL = f"to_json(list_transform(parts, lambda p, i: {{{_PART_SQL}}}))::VARCHAR"
_PAYLOAD = pa.field("payload", pa.string())
# Python and DuckDB write these in JSON each in its own way.
_ODD = r"[\x00-\x07\x0b\x0e-\x1f]"
_NESTED_PARTS = Column(_PARTS, pa.list_(_PART), _nested, _PARTS, _PARTS_SQL)


@cache
def _own(table: str) -> tuple[Column, ...]:
    """Return the columns of a file beyond those of all kinds, but for `payload`, made of them."""
    if table == ALL:
        return KINDS[ALL]
    shown = [_NESTED_PARTS if column.name == _PARTS else column for column in KINDS[table]]
    fields = {column.field for column in shown}
    more = [
        field_column(name, info.annotation)
        for name, info in EVENT_KINDS[table].model_fields.items()
        if name not in ENVELOPE and name not in fields
    ]
    return (*shown, *more)


def table_of(kind: str) -> str:
    """Return the table that events of a kind are filed under."""
    return kind if kind in KINDS and kind in EVENT_KINDS else ALL


def new_builder(table: str, schemas: Schemas) -> TableBuilder:
    """Return what makes an Arrow table of the events of one file, to be packed."""
    if table == ALL:
        return TableBuilder(_own(table), schemas)
    return TableBuilder(_own(table), schemas, Last(_PAYLOAD, partial(_payloads, table)))


def _payloads(table: str, events: list[LogEvent], batch: Any) -> Any:
    """Return the payloads of a batch; null of all where the other columns surely give them."""
    columns = [batch.column(column.name) for column in _own(table)]
    fields = EVENT_KINDS[table].model_fields.keys()
    known = all(event.fields.keys() == fields for event in events)
    if known and _can_make(table) and not any(_doubtful(column) for column in columns):
        return pa.nulls(len(events), pa.string())
    return pa.array([payload_of(event) for event in events], pa.string())


def _doubtful(column: Any) -> bool:
    """Tell whether the JSON of a column's values may be written in more than one way."""
    types = pa.types
    if types.is_string(column.type):
        return bool(pc.any(pc.match_substring_regex(column, _ODD)).as_py())
    if types.is_list(column.type):
        return bool(_doubtful(column.flatten()))
    if types.is_struct(column.type):
        return any(_doubtful(field) for field in column.flatten())
    if types.is_timestamp(column.type):
        return bool(column.null_count > 0)  # none, or one that is out of bounds
    return not bool(types.is_integer(column.type) or types.is_boolean(column.type))


def _payload_sql(table: str) -> str:
    """Return the SQL that makes `payload` of the other columns; NULL where it cannot."""
    if not _can_make(table):
        return "NULL::VARCHAR"
    by_field = {column.field: column.json for column in _own(table) if column.json}
    fields = [name for name in EVENT_KINDS[table].model_fields if name not in ENVELOPE]
    return _object({name: by_field[name] for name in fields})


@cache
def _can_make(table: str) -> bool:
    """Tell whether there is SQL that makes each of a kind's own fields of its columns."""
    made = {column.field for column in _own(table) if column.json}
    return EVENT_KINDS[table].model_fields.keys() - ENVELOPE <= made


def packed(con: duckdb.DuckDBPyConnection, table: str, rows: Any) -> Any:
    """Return the rows sorted, without each payload that the other columns give again."""
    if table != ALL and rows["payload"].null_count < len(rows):
        con.register("rows", rows)
        try:
            kept = con.sql(
                f"SELECT CASE WHEN payload IS DISTINCT FROM ({_payload_sql(table)}) THEN payload "
                'END AS payload FROM "rows"'
            ).to_arrow_table()
        finally:
            con.unregister("rows")
        place = rows.column_names.index("payload")
        rows = rows.set_column(place, _PAYLOAD, kept["payload"].cast(pa.string()))
    return rows.sort_by([("conversation_id", "ascending"), ("offset", "ascending")])


def file_schema(table: str) -> Any:
    """Return the Arrow schema of a file."""
    schema = schema_of(_own(table))
    return schema if table == ALL else schema.append(_PAYLOAD)


def columns_hash(schema: Any) -> str:
    """Return a hash of the names and types of columns."""
    text = "\n".join(f"{column.name} {column.type}" for column in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def older(table: str, there: Any) -> str:
    """Return what makes up for what came after files of a schema: ' REPLACE (…), NULL::… AS …'."""
    columns = {field.name: field.type for field in there}
    known = file_schema(table)
    fewer = [field for field in known if columns.get(field.name, field.type) != field.type]
    # A field that a struct has not yet is null in it.
    casts = ", ".join(f'"{one.name}"::{_sql_type(one.type)} AS "{one.name}"' for one in fewer)
    absent = [field for field in known if field.name not in columns]
    nulls = [f', {_none(one.type)}::{_sql_type(one.type)} AS "{one.name}"' for one in absent]
    return (f" REPLACE ({casts})" if casts else "") + "".join(nulls)


def _none(type_: Any) -> str:
    return "[]" if pa.types.is_list(type_) else "NULL"


def _sql_type(arrow: Any) -> str:
    if pa.types.is_list(arrow):
        return f"{_sql_type(arrow.value_type)}[]"
    if pa.types.is_struct(arrow):
        fields = (f'"{field.name}" {_sql_type(field.type)}' for field in arrow)
        return f"STRUCT({', '.join(fields)})"
    return _SQL_TYPES[str(arrow)]


def select(table: str) -> str:
    """Return the SELECT list that makes the columns of a kind's table of its files' columns."""
    made = [f'"{name}"' for name in schema_of(KINDS[table]).names]
    if table == "Turn":
        kept = "(payload -> 'parts')::VARCHAR"
        parts = f"CASE WHEN payload IS NULL THEN {_PARTS_SQL} ELSE {kept} END AS parts"
        made[made.index('"parts"')] = parts
    return ", ".join(made)


def event_select(table: str) -> str:
    """Return the SELECT list that makes the columns of the table of all kinds of a file's."""
    common = [f'"{column.name}"' for column in COMMON] + ["schema_version"]
    if table == ALL:
        return ", ".join([*common, "kind", "payload"])
    payload = f"coalesce(payload, {_payload_sql(table)})"
    return ", ".join([*common, f"'{table}' AS kind", f"{payload} AS payload"])
