"""What a lake's files hold: the columns of the kind's table, with nothing stored twice.

A turn's `text` stands there once: its `parts` are nested and say how many characters of it are
theirs, one after the other. `payload` (an event's own fields as JSON) is made again from the
columns by SQL; it is stored only for an event where that SQL gives another text, so that what is
read is what was archived whatever the event holds. Rows are sorted by conversation, then offset.
"""

import hashlib
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

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
from madlog.analytics.tables import TableBuilder
from madlog.schemas import EVENT_KINDS, Part, Schemas
from madlog.topics import LogEvent

__all__ = (
    "FORM",
    "QUIET",
    "absent",
    "columns_hash",
    "event_select",
    "file_schema",
    "new_builder",
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
    nested = []
    for event in events:
        parts = []
        for part in event.fields[_PARTS]:
            made = {name: part.get(name) for name in _PART_FIELDS if name != "text"}
            text = part.get("text")
            made["chars"] = None if text is None else len(text)
            parts.append(made)
        nested.append(parts)
    return nested


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
_PAYLOAD = Column("payload", pa.string(), lambda events: [payload_of(event) for event in events])
_NESTED_PARTS = Column(_PARTS, pa.list_(_PART), _nested, _PARTS, _PARTS_SQL)


@cache
def _own(table: str) -> tuple[Column, ...]:
    """Return the columns of a file beyond those of all kinds: each of the event's own fields."""
    if table == ALL:
        return KINDS[ALL]
    shown = [_NESTED_PARTS if column.name == _PARTS else column for column in KINDS[table]]
    fields = {column.field for column in shown}
    more = [
        field_column(name, info.annotation)
        for name, info in EVENT_KINDS[table].model_fields.items()
        if name not in ENVELOPE and name not in fields
    ]
    return (*shown, *more, _PAYLOAD)


def table_of(kind: str) -> str:
    """Return the table that events of a kind are filed under."""
    return kind if kind in KINDS and kind in EVENT_KINDS else ALL


def new_builder(table: str, schemas: Schemas) -> TableBuilder:
    """Return what makes an Arrow table of the events of one file, to be packed."""
    return TableBuilder(_own(table), schemas)


def _payload_sql(table: str) -> str:
    """Return the SQL that makes `payload` of the other columns; NULL where it cannot."""
    by_field = {column.field: column.json for column in _own(table) if column.json}
    fields = [name for name in EVENT_KINDS[table].model_fields if name not in ENVELOPE]
    if not all(name in by_field for name in fields):
        return "NULL::VARCHAR"
    return _object({name: by_field[name] for name in fields})


def packed(con: duckdb.DuckDBPyConnection, table: str, rows: Any) -> Any:
    """Return the rows sorted, without each payload that the other columns give again."""
    kept = (
        ""
        if table == ALL
        else (
            f" REPLACE (CASE WHEN payload IS NOT DISTINCT FROM ({_payload_sql(table)}) THEN NULL "
            "ELSE payload END AS payload)"
        )
    )
    con.register("rows", rows)
    try:
        query = f'SELECT *{kept} FROM "rows" ORDER BY conversation_id, "offset"'
        return con.sql(query).to_arrow_table().cast(rows.schema)
    finally:
        con.unregister("rows")


def file_schema(table: str) -> Any:
    """Return the Arrow schema of a file."""
    return schema_of(_own(table))


def columns_hash(schema: Any) -> str:
    """Return a hash of the names and types of columns."""
    text = "\n".join(f"{column.name} {column.type}" for column in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def absent(table: str, there: Collection[str]) -> str:
    """Return what stands for the columns that came after a file was written: ', NULL AS …'."""
    missing = [field for field in file_schema(table) if field.name not in there]
    return "".join(f', NULL::{_sql_type(field.type)} AS "{field.name}"' for field in missing)


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
