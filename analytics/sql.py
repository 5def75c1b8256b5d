"""SQL over the log: one SELECT, run by DuckDB in memory over just the topics that it names.

Each call fills a database of its own and throws it away, so there is no file to lock, to repair
or to fall behind. Nothing outside the views can be reached: no files, no network, no extensions,
no variables of this program, and the settings are locked before the query runs. Beside DuckDB's
own functions there are `share_low(part, whole)` and `share_high(part, whole)`, the exact 95 %
interval of a share.
"""

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb

from madlog.analytics.columns import KINDS, schema_of
from madlog.analytics.errors import BadParameter, BadSql, LakeDamaged, SqlLimit
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.search_sql import Search, add_search
from madlog.analytics.tables import LogSource, Source, Table, Tables, topics_of
from madlog.analytics.views import TABLE_PREFIX, VIEWS
from madlog.processors.promise import interval
from madlog.topics import EventLog, Vector

__all__ = (
    "MEMORY_LIMIT",
    "OWN_FUNCTIONS",
    "Result",
    "add_functions",
    "connect",
    "distinct",
    "layout",
    "query",
    "views_of",
)

MEMORY_LIMIT = "2GB"
OWN_FUNCTIONS = ("share_low", "share_high")

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
}
# These run SQL or name tables that stand in a string, where the parser does not show them.
_INDIRECT = frozenset({"query", "query_table"})
# Table functions that look at no table.
_HARMLESS = frozenset({"generate_series", "range", "search", "unnest"})


@dataclass(frozen=True, slots=True)
class Result:
    """A query's answer: an Arrow table, its columns' DuckDB types, and how far it saw the log.

    `unread` names the topics that the query reads and that `as_of` leaves out.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    table: Any
    as_of: Vector
    unread: tuple[str, ...] = ()


async def query(
    log: EventLog,
    sql: str,
    *,
    as_of: Vector | None = None,
    memory_limit: str = MEMORY_LIMIT,
    parameters: Mapping[str, Any] | None = None,
    source: Source | None = None,
    prices: PriceList = NO_PRICES,
    search: Search | None = None,
) -> Result:
    """Run one SELECT over the log up to `as_of` (exclusive), by default its end now.

    Beside the log's views there is the table `prices`, which holds the price list, and with a
    `search` the table function search('words'). Raises BadSql, BadParameter, SqlLimit, BadSearch.
    """
    with duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": memory_limit}) as con:
        values = _values(_one_select(con, sql), parameters or {})
        kinds = {kind for name in views_of(con, sql) for kind in VIEWS[name].kinds}
        searched = search is not None and "search" in _table_functions(con, sql)
        present = await log.log.topics()
        topics = topics_of(kinds, present)
        looked_at = {*topics, *topics_of(["Turn"] if searched else [], present)}
        end = await log.log.end(sorted(looked_at)) if as_of is None else as_of.only(looked_at)
        unread = tuple(sorted(looked_at - {tp.topic for tp in end}))
        tables = await (source or LogSource(log)).tables(kinds, end.only(topics))
        con.register("prices", prices.table())
        failed = None
        if search is not None and searched:
            await search.take_up(log)
            failed = add_search(con, search, end)
        define(con, tables, _to_define(con, sql))
        work = asyncio.get_running_loop().run_in_executor(None, _run, con, sql, values)
        try:
            columns, types, table = await asyncio.shield(work)
        except BadSql as error:
            raise (failed and failed()) or _of_a_file(error, tables) or error from error
        except asyncio.CancelledError:
            con.interrupt()
            await asyncio.wait([work])
            raise
    return Result(columns, types, table, end, unread)


async def connect(
    log: EventLog,
    *,
    as_of: Vector | None = None,
    source: Source | None = None,
    prices: PriceList = NO_PRICES,
    memory_limit: str = MEMORY_LIMIT,
) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection with all views of the log up to `as_of`, by default its end now.

    The connection is the caller's to use and to close. It can open the lake's files and no others;
    what no lake holds is in its memory, decoded. Raises LakeUnavailable.
    """
    kinds = {kind for view in VIEWS.values() for kind in view.kinds}
    topics = topics_of(kinds, await log.log.topics())
    end = await log.log.end(topics) if as_of is None else as_of.only(topics)
    tables = await (source or LogSource(log)).tables(kinds, end)
    con = duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": memory_limit})
    con.register("prices", prices.table())
    define(con, tables)
    return con


def _one_select(con: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    if "\x00" in sql or any("\ud800" <= char <= "\udfff" for char in sql):
        raise BadSql("the text holds a NUL or is not UTF-8: write one SELECT as plain text")
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise _told(error) from error
    if len(statements) != 1:
        raise BadSql(
            f"the text holds {len(statements)} statements: write exactly one SELECT"
            if statements
            else "the text holds no statement: write one SELECT"
        )
    statement = statements[0]
    if statement.type != duckdb.StatementType.SELECT:
        name = str(statement.type).rpartition(".")[2]
        what = "PIVOT, or another of several steps" if name == "MULTI" else name.replace("_", " ")
        raise BadSql(
            f"only a SELECT can be asked, and this is {what}: the log is read, not changed"
        )
    return statement


def _values(statement: duckdb.Statement, given: Mapping[str, Any]) -> dict[str, Any]:
    wanted = statement.named_parameters
    missing = sorted(wanted - set(given))
    if missing:
        raise BadParameter(f"the query needs a value for ${missing[0]}, which was not given")
    return {name: given[name] for name in wanted}


def views_of(con: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """Return the views that one SELECT reads, by DuckDB's own parser; more when it cannot tell."""
    ((answer,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(answer)
    if tree.get("error"):
        return set(VIEWS)
    tables: set[str] = set()
    functions: set[str] = set()
    _collect(tree, tables, functions)
    hidden = sorted(name for name in tables if name.startswith(TABLE_PREFIX))
    if hidden:
        raise BadSql(f"there is no view {hidden[0]!r}; the views are {', '.join(VIEWS)}")
    return set(VIEWS) if functions & _INDIRECT else tables & set(VIEWS)


def _table_functions(con: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """Return the names of the table functions that one SELECT reads."""
    ((answer,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    functions: set[str] = set()
    _collect(json.loads(answer), set(), functions)
    return functions


def _collect(tree: Any, tables: set[str], functions: set[str]) -> None:
    # Kept as a stack: an expression of some thousand terms nests as deep.
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if isinstance(node.get("table_name"), str):
                tables.add(node["table_name"].lower().strip('"'))
            if node.get("type") == "TABLE_FUNCTION":
                functions.add(str(node.get("function", {}).get("function_name", "")).lower())
            stack.extend(node.values())


def _to_define(con: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """Return the views that are there for one SELECT: all where it may look at what there is."""
    ((answer,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tables: set[str] = set()
    functions: set[str] = set()
    _collect(json.loads(answer), tables, functions)
    known = tables <= {*VIEWS, "prices"} and functions <= _HARMLESS
    return views_of(con, sql) if known and "SHOW_REF" not in answer else set(VIEWS)


def define(
    con: duckdb.DuckDBPyConnection, tables: Tables, names: Collection[str] = tuple(VIEWS)
) -> None:
    """Make the views, over empty tables where none is given, and shut out everything else.

    The files that the tables scan, and no others, can be read.
    """
    if tables.files is not None:
        con.register_filesystem(tables.files)
    con.execute("SET allowed_paths = $paths", {"paths": list(tables.paths)})
    con.execute("SET enable_external_access = false")
    views = [view for view in VIEWS.values() if view.name in names]
    for kind in sorted({kind for view in views for kind in view.kinds}):
        _table(con, kind, tables.kinds.get(kind) or Table(schema_of(KINDS[kind]).empty_table()))
    add_functions(con)
    for view in views:
        con.execute(f'CREATE VIEW "{view.name}" AS {view.sql}')
    con.execute("SET lock_configuration = true")


def _table(con: duckdb.DuckDBPyConnection, kind: str, table: Table) -> None:
    name, statement = layout(kind, table)
    con.register(name, table.rows)
    if statement:
        con.execute(statement)


def layout(kind: str, table: Table) -> tuple[str, str]:
    """Return the name that a kind's rows stand under, and the view of rows and files, if any."""
    name = f"{TABLE_PREFIX}{kind}"
    if not table.scans:
        return name, ""
    parts = [scan.sql for scan in table.scans]
    if table.rows.num_rows:
        parts.append(f'SELECT * FROM "{name}_rows"')
    columns = ", ".join(f'"{column}"' for column in table.rows.column_names)
    both = " UNION ALL BY NAME ".join(parts)
    return f"{name}_rows", f'CREATE VIEW "{name}" AS SELECT {columns} FROM ({both})'


def add_functions(con: duckdb.DuckDBPyConnection) -> None:
    """Add the functions that queries have beside DuckDB's own."""
    for place, name in enumerate(OWN_FUNCTIONS):
        types: Any = ["BIGINT", "BIGINT"]
        nulls: Any = "special"
        con.create_function(name, partial(_bound, place), types, "DOUBLE", null_handling=nulls)


def _bound(place: int, part: int | None, whole: int | None) -> float | None:
    """Return an end of a share's interval; None where there is no such share."""
    if part is None or not whole or not 0 <= part <= whole:
        return None
    return interval(part, whole)[place]


def _run(
    con: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], Any]:
    try:
        relation = con.sql(sql, params=values) if values else con.sql(sql)
        types = tuple(str(type_) for type_ in relation.types)
        table = relation.to_arrow_table()
    except duckdb.Error as error:
        raise _told(error) from error
    columns = distinct(table.column_names)
    return columns, types, table.rename_columns(list(columns))


def distinct(names: Collection[str]) -> tuple[str, ...]:
    """Make column names unique, as rows of JSON and Parquet files need them."""
    made: list[str] = []
    for name in names:
        new, count = name, 1
        while new in made:
            new, count = f"{name}_{count}", count + 1
        made.append(new)
    return tuple(made)


def _of_a_file(error: BadSql, tables: Tables) -> LakeDamaged | None:
    """Return what is wrong with a lake's file, where that is why a query could not be run."""
    damaged = next((path for path in tables.paths if path in str(error)), None)
    if damaged is None:
        return None
    return LakeDamaged(
        f"the lake's file {damaged} cannot be read, its bytes are not those that were archived: "
        "`madlog lake check` names all such files, `madlog lake repair` archives them again"
    )


def _told(error: Exception) -> Exception:
    """Return our error for DuckDB's: its message in one line, and what to do."""
    message = " ".join(str(error).partition("\n\nLINE")[0].split())
    if isinstance(error, duckdb.OutOfMemoryException):
        return SqlLimit(f"the query ran out of memory: select fewer rows or columns ({message})")
    if isinstance(error, duckdb.CatalogException) and message.startswith("Catalog Error: Table"):
        message = message.partition("!")[0].removeprefix("Catalog Error: ")
        return BadSql(f"{message}: the views are {', '.join(VIEWS)}")
    return BadSql(f"the query cannot be run: {message}")
