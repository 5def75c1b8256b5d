"""What DuckDB says of a query, in our words: a sentence, near names, the place in the text."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

import duckdb

from madlog.analytics.columns import COMMON, KINDS
from madlog.analytics.errors import BadSql, SqlLimit
from madlog.analytics.views import VIEWS

__all__ = ("told",)

_NEAR = 0.7
_PLACE = re.compile(r"\n+LINE (\d+): (.*)\n( *\^\^*)")
_KIND = re.compile(r"[A-Z][\w -]{1,30} Error: ", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_SYNTAX = re.compile(r'syntax error at or near "(.*)"')
_COLUMN = re.compile(r'(?:column|Column|named) "([^"]+)"(?: not found| in |$|\n)')
_TABLE = re.compile(r"Table with name (.+?) does not exist")
_FUNCTION = re.compile(r"(?:Table |Scalar |Aggregate )*Function with name (\S+) does not exist")
_OFFERED = re.compile(r'\n\n?(?:Candidate [\w ]+:[ :]*|Did you mean )((?:"[^"]*"(?:, )?)+)')
# A text that cannot be read is looked at before there are views.
_COLUMNS = frozenset(column.name for own in (COMMON, *KINDS.values()) for column in own)
# What stands below the sentence: overloads of a function, and what DuckDB advises about itself.
_BELOW = re.compile(r"\n\s*(Candidate |Did you mean|Database is launched|Unused blocks)")


def told(error: Exception, con: duckdb.DuckDBPyConnection, line_before: int = 0) -> Exception:
    """Return our error for DuckDB's: SqlLimit where memory ran out, else BadSql.

    `con` knows the names that could have been meant; `line_before` is how many lines DuckDB was
    given before the query's own.
    """
    message = _KIND.sub("", str(error), count=1)
    if isinstance(error, duckdb.OutOfMemoryException) or str(error).startswith("Out of Memory"):
        had = re.search(r"/([\d.]+ \w+) used", message)
        of = f" of {had[1]}" if had else ""
        return SqlLimit(
            f"the query ran out of memory{of}: select fewer rows or columns, or count them"
        )
    place = _PLACE.search(message)
    sentence, near = _sentence(message, place, con)
    if near:
        sentence = f"{sentence.rstrip('!.')}: did you mean {' or '.join(near)}?"
    return BadSql(f"{sentence}{_shown(place, line_before)}")


def _sentence(
    message: str, place: re.Match[str] | None, con: duckdb.DuckDBPyConnection
) -> tuple[str, list[str]]:
    """Return what is wrong, and the names that are near to what was written."""
    bare = message[: place.start()] if place else message
    offered = _WORD.findall(match[1]) if (match := _OFFERED.search(bare)) else []
    if match := _SYNTAX.search(bare):
        return f"this is not SQL at {match[1]!r}", _meant(place, con) if place else []
    if match := _TABLE.search(bare):
        near = get_close_matches(match[1].lower(), [*VIEWS, "prices"], 2, _NEAR)
        if near:
            return f"there is no view {match[1]!r}", near
        return f"there is no view {match[1]!r}; the views are {', '.join(VIEWS)}", []
    if match := _FUNCTION.search(bare):
        names = _names(con, "SELECT DISTINCT function_name FROM duckdb_functions()")
        near = get_close_matches(match[1].lower(), [*names, "search"], 2, _NEAR)
        return f"there is no function {match[1]!r}", near
    if match := _COLUMN.search(bare):
        names = _names(con, "SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal")
        near = get_close_matches(match[1].lower(), dict.fromkeys([*offered, *names]), 3, _NEAR)
        if near:
            return f"there is no column {match[1]!r}", near
        if "not found" in bare:
            return f"there is no column {match[1]!r}; DESCRIBE turns lists those of turns", []
    said = " ".join(_BELOW.split(bare, maxsplit=1)[0].split())
    return f"the query cannot be run: {said}", offered[:3]


def _meant(place: re.Match[str], con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the keyword that was meant where a text could not be read, or just before.

    A keyword that is written wrong is often taken for a name, so that the next word is in its way.
    """
    line, at = place[2], place[3].index("^") - len(f"LINE {place[1]}: ")
    before = [match[0].lower() for match in _WORD.finditer(line) if match.start() <= at]
    rank = "SELECT keyword_name FROM duckdb_keywords() ORDER BY keyword_category <> 'reserved'"
    keywords = _names(con, rank)
    known = {*keywords, *VIEWS, *_COLUMNS}
    for back, word in enumerate(reversed(before[-2:])):
        near = [] if word in known else get_close_matches(word, keywords, 1, _NEAR)
        if near:
            return [f"{near[0]} instead of {word}"] if back else near
    return []


def _names(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, None]:
    """Return names in their order; none where the connection can answer no more."""
    try:
        rows: Iterable[tuple[str]] = con.execute(sql).fetchall()
    except duckdb.Error:
        return {}
    return {name: None for (name,) in rows if _WORD.fullmatch(name) and not name.startswith("_")}


def _shown(place: re.Match[str] | None, line_before: int) -> str:
    """Return the line that is meant, with marks under the place."""
    if place is None:
        return ""
    number = int(place[1])
    head, marks = f"line {number - line_before}: ", place[3][len(f"LINE {number}: ") :]
    # A control character would move the marks, or the terminal's colours.
    line = "".join(char if char.isprintable() else " " for char in place[2])
    return f"\n  {head}{line}\n  {' ' * len(head)}{marks}"
