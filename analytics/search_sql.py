"""`search('words')` in SQL: the turns that a search finds, as a table to select and to join."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from madlog.schemas import MadlogError
from madlog.topics import EventLog, Vector

if TYPE_CHECKING:
    import duckdb

__all__ = ("Search", "add_search")

_COLUMNS = (
    ("event_id", pa.string(), "VARCHAR"),
    ("conversation_id", pa.string(), "VARCHAR"),
    ("sender", pa.string(), "VARCHAR"),
    ("occurred_at", pa.timestamp("us"), "TIMESTAMP"),
    ("score", pa.float64(), "DOUBLE"),
)
_TYPE = "STRUCT(" + ", ".join(f"{name} {type_}" for name, _, type_ in _COLUMNS) + ")[]"
_FOUND = "_log_search"
_MACRO = (
    "CREATE MACRO search(words) AS TABLE "
    f"SELECT unnest({_FOUND}(words::VARCHAR), recursive := true)"
)


class Search(Protocol):
    """What finds turns by their words: madlog.analytics.search.SearchIndex."""

    async def take_up(self, log: EventLog) -> Vector:
        """Fold what the log holds more than the index."""

    def folded_rows(self, words: str, *, as_of: Vector | None = None) -> list[tuple[Any, ...]]:
        """Return (event_id, conversation_id, sender, occurred_at, score) of all that match."""


def add_search(
    con: "duckdb.DuckDBPyConnection", search: Search, as_of: Vector | None
) -> Callable[[], MadlogError | None]:
    """Give a connection the table function `search`, over what the index has taken up.

    Returns what tells the error that a search ended with: DuckDB keeps only its text.
    """
    failed: list[MadlogError] = []

    def found(asked: Any) -> Any:
        ends, rows = [0], []
        for words in asked.to_pylist():
            try:
                rows += [] if words is None else search.folded_rows(words, as_of=as_of)
            except MadlogError as error:
                failed.append(error)
                raise
            ends.append(len(rows))
        arrays = [
            pa.array([row[at] for row in rows], type_) for at, (_, type_, _) in enumerate(_COLUMNS)
        ]
        names = [name for name, _, _ in _COLUMNS]
        table = pa.StructArray.from_arrays(arrays, names)
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), table)

    types: Any = ["VARCHAR"]
    kind: Any = "arrow"
    con.create_function(_FOUND, found, types, _TYPE, type=kind)
    con.execute(_MACRO)
    return lambda: failed[-1] if failed else None
