"""A guard in SQL: one boolean expression, true where a tool call is to be blocked.

It may use `call`, the tool call that is asked about, and in subqueries `past`, the calls that were
answered before it, and `begun`, those that were made before it, answered or not. That nothing later
is seen is put into the expression's own parsed tree, so no guard can leave it out.

call    event_id conversation_id agent action arguments (JSON) occurred_at caused_by number
begun   the same
past    the same, and ok result error answered
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from madlog.analytics.errors import SqlLimit
from madlog.analytics.parsed import nodes
from madlog.analytics.what_if.acts import Act, Acts
from madlog.analytics.what_if.errors import BadGuard, GuardFailed, GuardTooSlow

__all__ = ("COLUMNS", "SqlGuard")

COLUMNS: Final = (
    "event_id",
    "conversation_id",
    "agent",
    "action",
    "arguments",
    "occurred_at",
    "caused_by",
    "number",
)
_BEGINNING: Final = "SELECT call.event_id FROM call WHERE (\n"
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "memory_limit": "2GB",
}
_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("conversation_id", pa.string()),
        ("agent", pa.string()),
        ("action", pa.string()),
        ("arguments", pa.string()),
        ("occurred_at", pa.timestamp("us")),
        ("caused_by", pa.string()),
        ("number", pa.int64()),
        ("ok", pa.bool_()),
        ("result", pa.string()),
        ("error", pa.string()),
        ("answered", pa.int64()),
        ("counted", pa.bool_()),
    ]
)
# The relations of the past, and the column whose number lies before the call's own.
_BEFORE = {"past": "answered", "begun": "number"}
_BATCH = 4096
_SECONDS_MAX = 600.0
_OF_CALLS = ", ".join(COLUMNS)
_TABLES = f"""
CREATE TABLE _calls AS SELECT * REPLACE (
    CASE WHEN json_valid(arguments) THEN arguments ELSE to_json(arguments)::VARCHAR END::JSON
    AS arguments
) FROM _acts;
CREATE VIEW call AS SELECT {_OF_CALLS} FROM _calls WHERE counted;
CREATE VIEW begun AS SELECT {_OF_CALLS} FROM _calls;
CREATE VIEW past AS SELECT {_OF_CALLS}, ok, result, error, answered FROM _calls
WHERE answered IS NOT NULL;
SET lock_configuration = true;
"""
_TIME_MAX_US = 253_402_300_799_999_999


@dataclass(frozen=True)
class SqlGuard:
    """A boolean expression; `named` is how it was given."""

    named: str
    predicate: str

    async def blocked(self, acts: Acts) -> Mapping[str, str]:
        """Return the event_ids of the calls that it blocks, with why.

        Raises BadGuard where it is no expression over calls, GuardFailed where a value stops it,
        SqlLimit where it takes too much memory, GuardTooSlow where it takes too long.
        """
        with duckdb.connect(":memory:", config=_SETTINGS) as con:
            sql = _causal(con, self.predicate)
            con.register("_acts", pa.Table.from_batches(_batches(acts), schema=_SCHEMA))
            con.execute(_TABLES)
            work = asyncio.get_running_loop().run_in_executor(None, _run, con, sql)
            try:
                rows = await asyncio.wait_for(asyncio.shield(work), _SECONDS_MAX)
            except (asyncio.CancelledError, TimeoutError) as error:
                con.interrupt()
                await asyncio.wait([work])
                work.exception()  # that it was interrupted, which nobody need be told
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise GuardTooSlow(
                    f"the guard took more than {_SECONDS_MAX:g} s: it goes on for ever, or "
                    "compares all calls with all, where an equality of past and call makes it fast"
                ) from error
        return {event_id: "blocked" for (event_id,) in rows}


def _run(con: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    try:
        return con.execute(sql).fetchall()
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        raise BadGuard(
            f"the guard is no predicate over calls: {_line(error)}; call has {', '.join(COLUMNS)}, "
            "past also ok, result, error, answered"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise SqlLimit(
            f"the guard ran out of memory: compare past and call by =; {_line(error)}"
        ) from error
    except duckdb.Error as error:
        raise GuardFailed(f"the guard failed on the log's calls: {_line(error)}") from error


def _causal(con: duckdb.DuckDBPyConnection, predicate: str) -> str:
    """Return the SELECT of the calls that are blocked, each subquery bound to the call's past."""
    if not predicate.strip():
        raise BadGuard("the guard is empty: write what is true where a call is blocked")
    sql = f"{_BEGINNING}{predicate}\n)"
    ((answer,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(answer)
    if tree.get("error"):
        where = _where(predicate, int(tree.get("position", len(_BEGINNING))) - len(_BEGINNING))
        raise BadGuard(
            f"the guard is no SQL expression: {_line(tree.get('error_message', ''))}, {where}"
        )
    if len(tree["statements"]) != 1:
        raise BadGuard("the guard is more than one SQL expression: write one that is true or false")
    outer = tree["statements"][0]["node"]
    if outer["type"] != "SELECT_NODE" or outer["from_table"].get("table_name") != "call":
        raise BadGuard("the guard is no SQL expression that is true or false for a call")
    bound: list[int] = []
    for node in nodes(outer["where_clause"]):
        if node.get("type") == "SELECT_NODE":
            bound += [id(source) for source in _bind(node)]
        elif node.get("type") == "TABLE_FUNCTION" and _function(node) not in ("unnest", "range"):
            raise BadGuard(f"a guard reads past and begun, and not {_function(node)}()")
    tables = [node for node in nodes(outer["where_clause"]) if node.get("type") == "BASE_TABLE"]
    if len(bound) != len(tables):
        raise BadGuard("a guard reads past and begun in plain subqueries only: SELECT … FROM past")
    # Deserialised by the same version that parsed it, so the text is what was checked.
    ((made,),) = con.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()
    return str(made)


def _where(predicate: str, place: int) -> str:
    """Say where in a guard the parser stopped."""
    if place >= len(predicate.rstrip()):
        return "which is after its end: something is missing there"
    line, column = predicate.count("\n", 0, place) + 1, place - predicate.rfind("\n", 0, place)
    return f"in line {line}, column {column}"


def _function(node: Mapping[str, Any]) -> str:
    return str(node.get("function", {}).get("function_name", "")).lower()


def _bind(select: dict[str, Any]) -> list[dict[str, Any]]:
    """Let a SELECT see of `past` and `begun` only what lies before the call; return its tables."""
    own = {str(entry["key"]).lower() for entry in select["cte_map"]["map"]}
    if own & (_BEFORE.keys() | {"call"}):
        raise BadGuard("a guard cannot give past, begun or call another meaning: name it otherwise")
    sources = list(_sources(select["from_table"]))
    for source in sources:
        name = source["table_name"].lower()
        if name == "call":
            raise BadGuard("a guard is about one call: its subqueries read past and begun")
        alias = source.get("alias") or source["table_name"]
        if alias.lower() == "call" or source["column_name_alias"]:
            raise BadGuard("in a guard no table is named call, and none gives columns other names")
        if name not in _BEFORE:
            continue
        before = {
            "class": "COMPARISON",
            "type": "COMPARE_LESSTHAN",
            "alias": "",
            "left": _column(alias, _BEFORE[name]),
            "right": _column("call", "number"),
        }
        where = select.get("where_clause")
        both = {
            "class": "CONJUNCTION",
            "type": "CONJUNCTION_AND",
            "alias": "",
            "children": [before, where],
        }
        select["where_clause"] = before if where is None else both
    return sources


def _sources(source: Any) -> Iterator[dict[str, Any]]:
    """Yield the tables that a FROM names; raises BadGuard where one could not be bound."""
    stack = [source]
    while stack:
        node = stack.pop()
        kind = node.get("type") if isinstance(node, dict) else None
        if kind == "BASE_TABLE":
            if node["table_name"].startswith("_") or node.get("schema_name"):
                raise BadGuard(f"a guard reads past and begun, and not {node['table_name']!r}")
            yield node
        elif kind == "JOIN":
            if node.get("join_type") != "INNER":
                raise BadGuard("in a guard past and begun are joined by inner joins only")
            stack += [node["left"], node["right"]]


def _column(table: str, name: str) -> dict[str, Any]:
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "column_names": [table, name],
    }


def _batches(acts: Acts) -> Iterator[Any]:
    for first in range(0, len(acts.all), _BATCH):
        some = acts.all[first : first + _BATCH]
        rows = [_row(act, act.event_id in acts.counted) for act in some]
        yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)


def _row(act: Act, counted: bool) -> dict[str, Any]:
    known = 0 <= act.occurred_at <= _TIME_MAX_US
    at = datetime.fromtimestamp(act.occurred_at / 1e6, UTC) if known else None
    return {
        "event_id": act.event_id,
        "conversation_id": act.conversation_id,
        "agent": act.agent,
        "action": act.action,
        "arguments": act.text,
        "occurred_at": at,
        "caused_by": act.caused_by,
        "number": act.number,
        "ok": act.ok,
        "result": act.result,
        "error": act.error,
        "answered": act.answered,
        "counted": counted,
    }


def _line(error: Any) -> str:
    return " ".join(str(error).partition("\n\nLINE")[0].split())[:300]
