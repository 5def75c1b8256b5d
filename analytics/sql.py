"""SQL over the log: one SELECT, run by DuckDB in memory over just the topics that it names.

Each call fills a database of its own and throws it away, so there is no file to lock, to repair
or to fall behind. Nothing outside the views can be reached: no files, no network, no extensions,
no variables of this program, and the settings are locked before the query runs. Beside DuckDB's
own functions there are `share_low(part, whole)` and `share_high(part, whole)`, the exact 95 %
interval of a share.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from madlog.analytics.columns import KINDS, schema_of
from madlog.analytics.errors import BadParameter, BadSql, LakeDamaged
from madlog.analytics.parsed import nodes
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.search_sql import Search, add_search
from madlog.analytics.sql_errors import told
from madlog.analytics.tables import LogSource, Source, Table, Tables, topics_of
from madlog.analytics.views import TABLE_PREFIX, VIEWS, numbers_turns
from madlog.processors.promise import interval
from madlog.topics import EventLog, Vector

__all__ = (
    "MEMORY_LIMIT",
    "OWN_FUNCTIONS",
    "Answer",
    "Result",
    "add_functions",
    "connect",
    "distinct",
    "layout",
    "query",
    "stream",
    "views_of",
)

T = TypeVar("T")

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
# A part of a streamed answer: what DuckDB makes at a time.
_BATCH_ROWS = 2048
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


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's answer as it comes: its columns and an empty table of them, then parts with rows.

    `parts` can be gone through once, while the `stream` that it comes from is open. Its errors are
    those of `query`.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    empty: Any
    parts: AsyncIterator[Result]
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
    `search` the table function search('words'). The answer is held in memory, beyond the limit,
    which is the query's own. Raises BadSql, BadParameter, SqlLimit, BadSearch.
    """
    given = parameters or {}
    async with _asked(log, sql, as_of, memory_limit, given, source, prices, search) as asked:
        columns, types, table = await asked.run(asked.whole)
    return Result(columns, types, table, asked.end, asked.unread)


@asynccontextmanager
async def stream(
    log: EventLog,
    sql: str,
    *,
    as_of: Vector | None = None,
    memory_limit: str = MEMORY_LIMIT,
    parameters: Mapping[str, Any] | None = None,
    source: Source | None = None,
    prices: PriceList = NO_PRICES,
    search: Search | None = None,
) -> AsyncIterator[Answer]:
    """Run one SELECT as `query` does, and give its answer in parts: it may be larger than memory.

    Raises BadSql, BadParameter, SqlLimit, BadSearch.
    """
    given = parameters or {}
    async with _asked(log, sql, as_of, memory_limit, given, source, prices, search) as asked:
        types, reader = await asked.run(asked.reader)
        columns = distinct(reader.schema.names)
        empty = reader.schema.empty_table().rename_columns(list(columns))
        parts = asked.parts(columns, types, reader)
        try:
            yield Answer(columns, types, empty, parts, asked.end, asked.unread)
        finally:
            await parts.aclose()
            reader.close()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query that is ready to run on a connection of its own."""

    con: duckdb.DuckDBPyConnection
    sql: str
    values: dict[str, Any]
    end: Vector
    unread: tuple[str, ...]
    tables: Tables
    failed: Callable[[], Exception | None] | None

    async def run(self, work: Callable[[], T]) -> T:
        """Do work on the connection in another thread, and end it when the caller is ended."""
        task = asyncio.get_running_loop().run_in_executor(None, self._guarded, work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.con.interrupt()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            # Once rows are on their way DuckDB's errors come as OSError.
            failed = self.failed and self.failed()
            raise failed or _of_a_file(error, self.tables) or self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
            try:
                # Only a statement that is run says where in its text it is wrong.
                self.con.execute(f"EXPLAIN\n{self.sql}", self.values)
            except duckdb.Error as placed:
                return told(placed, self.con, line_before=1)
        return told(error, self.con)

    def _relation(self) -> duckdb.DuckDBPyRelation:
        return self.con.sql(self.sql, params=self.values) if self.values else self.con.sql(self.sql)

    def whole(self) -> tuple[tuple[str, ...], tuple[str, ...], Any]:
        """Return the answer's columns, types and table."""
        relation = self._relation()
        types = tuple(str(type_) for type_ in relation.types)
        table = relation.to_arrow_table()
        columns = distinct(table.column_names)
        return columns, types, table.rename_columns(list(columns))

    def reader(self) -> tuple[tuple[str, ...], Any]:
        """Return the answer's types, and a reader of its batches."""
        relation = self._relation()
        return tuple(str(type_) for type_ in relation.types), relation.to_arrow_reader(_BATCH_ROWS)

    async def parts(
        self, columns: tuple[str, ...], types: tuple[str, ...], reader: Any
    ) -> AsyncGenerator[Result]:
        """Yield the answer's rows, a batch at a time."""
        while (batch := await self.run(partial(next, reader, None))) is not None:
            table = pa.Table.from_batches([batch]).rename_columns(list(columns))
            yield Result(columns, types, table, self.end, self.unread)


@asynccontextmanager
async def _asked(
    log: EventLog,
    sql: str,
    as_of: Vector | None,
    memory_limit: str,
    parameters: Mapping[str, Any],
    source: Source | None,
    prices: PriceList,
    search: Search | None,
) -> AsyncIterator[_Asked]:
    with duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": memory_limit}) as con:
        values = _values(_one_select(con, sql), parameters)
        named = _named(con, sql)
        kinds = {kind for name in named.views for kind in VIEWS[name].kinds}
        searched = search is not None and named.searches
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
        define(con, tables, named.there, numbers=named.numbers)
        yield _Asked(con, sql, values, end, unread, tables, failed)


async def connect(
    log: EventLog,
    *,
    as_of: Vector | None = None,
    source: Source | None = None,
    prices: PriceList = NO_PRICES,
    memory_limit: str = MEMORY_LIMIT,
    search: Search | None = None,
) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection with all views of the log up to `as_of`, by default its end now.

    The connection is the caller's to use and to close, and outlives the log. It can open the lake's
    files and no others; what no lake holds is in its memory, decoded. With a `search` it has the
    table function search('words'), of the same turns. Raises LakeUnavailable, IndexUnavailable.
    """
    kinds = {kind for view in VIEWS.values() for kind in view.kinds}
    topics = topics_of(kinds, await log.log.topics())
    end = await log.log.end(topics) if as_of is None else as_of.only(topics)
    tables = await (source or LogSource(log)).tables(kinds, end)
    if search is not None:
        await search.take_up(log)
    con = duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": memory_limit})
    con.register("prices", prices.table())
    if search is not None:
        add_search(con, search, end)
    define(con, tables)
    return con


def _one_select(con: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    if "\x00" in sql or any("\ud800" <= char <= "\udfff" for char in sql):
        raise BadSql("the text holds a NUL or is not UTF-8: write one SELECT as plain text")
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise told(error, con) from error
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
    return _named(con, sql).views


@dataclass(frozen=True, slots=True)
class _Named:
    """What one SELECT names: the views that it reads, and those that must be there when it runs."""

    views: set[str]
    there: set[str]
    searches: bool
    numbers: bool


def _named(con: duckdb.DuckDBPyConnection, sql: str) -> _Named:
    ((answer,),) = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(answer)
    tables: set[str] = set()
    functions: set[str] = set()
    own: set[str] = set()
    _collect(tree, tables, functions, own)
    hidden = sorted(name for name in tables if name.startswith(TABLE_PREFIX))
    if hidden:
        raise BadSql(f"there is no view {hidden[0]!r}; the views are {', '.join(VIEWS)}")
    unclear = bool(tree.get("error")) or bool(functions & _INDIRECT)
    views = set(VIEWS) if unclear else tables & set(VIEWS)
    # All where it may look at what there is.
    plain = tables <= {*VIEWS, *own, "prices"} and functions <= _HARMLESS
    there = views if plain and "SHOW_REF" not in answer else set(VIEWS)
    numbers = unclear or there != views or numbers_turns(tree)
    return _Named(views, there, "search" in functions, numbers)


def _collect(tree: Any, tables: set[str], functions: set[str], own: set[str]) -> None:
    """Gather the tables and table functions that a tree names, and the tables of its WITHs."""
    for node in nodes(tree):
        if isinstance(node.get("table_name"), str):
            tables.add(node["table_name"].lower().strip('"'))
        if node.get("type") == "TABLE_FUNCTION":
            functions.add(str(node.get("function", {}).get("function_name", "")).lower())
        if node.get("cte_map"):
            own |= {one["key"].lower() for one in node["cte_map"]["map"]}


def define(
    con: duckdb.DuckDBPyConnection,
    tables: Tables,
    names: Collection[str] = tuple(VIEWS),
    *,
    numbers: bool = True,
) -> None:
    """Make the views, over empty tables where none is given, and shut out everything else.

    The files that the tables scan, and no others, can be read. `numbers` tells whether turns have
    their turn_number.
    """
    if tables.files is not None:
        con.register_filesystem(tables.files)
    if tables.paths:
        # Each view that is made, and the query, look at the same files; none ever changes.
        con.execute("SET parquet_metadata_cache = true")
    con.execute("SET allowed_paths = $paths", {"paths": list(tables.paths)})
    con.execute("SET enable_external_access = false")
    views = [view for view in VIEWS.values() if view.name in names]
    for kind in sorted({kind for view in views for kind in view.kinds}):
        _table(con, kind, tables.kinds.get(kind) or Table(schema_of(KINDS[kind]).empty_table()))
    add_functions(con)
    for view in views:
        made = view.sql if numbers else view.unnumbered
        con.execute(f'CREATE VIEW "{view.name}" AS {made}')
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


def distinct(names: Collection[str]) -> tuple[str, ...]:
    """Make column names unique, as rows of JSON and Parquet files need them."""
    made: list[str] = []
    for name in names:
        new, count = name, 1
        while new in made:
            new, count = f"{name}_{count}", count + 1
        made.append(new)
    return tuple(made)


def _of_a_file(error: Exception, tables: Tables) -> LakeDamaged | None:
    """Return what is wrong with a lake's file, where that is why a query could not be run."""
    damaged = next((path for path in tables.paths if path in str(error)), None)
    if damaged is None:
        return None
    return LakeDamaged(
        f"the lake's file {damaged} cannot be read, its bytes are not those that were archived: "
        "`madlog lake check` names all such files, `madlog lake repair` archives them again"
    )
