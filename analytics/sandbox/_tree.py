"""Wall 1: what a parsed SELECT may name. Whatever is not known here is refused.

The tree is DuckDB's own, as json_serialize_sql gives it. A child makes it, so that text that harms
the parser harms nobody else; the judgement is made here.
"""

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from madlog.analytics.errors import BadSql, SqlRefused

__all__ = ("Functions", "functions", "place", "views_read")

_NAME = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)
# Names that stand for functions without their brackets.
_SESSION = frozenset(
    {"current_catalog", "current_database", "current_role", "current_schema", "current_user"}
    | {"session_user", "user"}
)
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EXPRESSION_LIST", "TABLE_FUNCTION", "PIVOT"}
)
_PARTS = frozenset(
    {"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
    | {"ORDER_DEFAULT", "ORDER_ASCENDING", "ORDER_DESCENDING", "ASCENDING", "DESCENDING"}
)
_EXPRESSIONS = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"}
    | {"DEFAULT", "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER"}
    | {"POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
)
_TOLD = {
    "SHOW_REF": "SHOW, DESCRIBE and SUMMARIZE tell of more than the views",
    "INSERT_QUERY_NODE": "INSERT writes, and the log is read, not changed",
    "UPDATE_QUERY_NODE": "UPDATE writes, and the log is read, not changed",
    "DELETE_QUERY_NODE": "DELETE writes, and the log is read, not changed",
    "COPY_QUERY_NODE": "COPY writes files",
}


class Functions:
    """The functions that may be called, and why others may not: functions.toml."""

    def __init__(self, text: str, own: Collection[str] = ()) -> None:
        found = tomllib.loads(text)
        self.reviewed: str = found["reviewed"]
        self.tables = frozenset(found["tables"].split())
        self.allowed = self.tables | set(own)
        for names in found["allowed"].values():
            self.allowed |= {_word(name) for name in names.split()}
        self.refused = {
            _word(name): reason
            for reason, names in found["refused"].items()
            for name in names.split()
        }

    def refusal(self, name: str, *, in_from: bool) -> str | None:
        """Return why a function may not be called, None where it may."""
        if in_from:
            return None if name in self.tables else self.refused.get(name, _IN_FROM)
        return None if name in self.allowed else self.refused.get(name, self._near(name))

    def _near(self, name: str) -> str:
        near = get_close_matches(name, self.allowed, 3)
        return "is not known here" + (f" (near: {', '.join(near)})" if near else "")


_IN_FROM = "is not one of range, generate_series and unnest, which alone may stand in FROM"


def _lower(name: str) -> str:
    """Return a name as DuckDB compares it, whose capitals are those of ASCII.

    To Python the sign of Kelvin is a capital k too, and would make one name of two.
    """
    return name.lower() if name.isascii() else name


def _word(name: str) -> str:
    return name.replace("_", " ").lower() if name.isupper() else name.lower()


@lru_cache(maxsize=1)
def functions() -> Functions:
    """Return the functions that SQL of others may call; made once."""
    from madlog.analytics.sql import OWN_FUNCTIONS

    return Functions(Path(__file__).with_name("functions.toml").read_text("utf-8"), OWN_FUNCTIONS)


def place(sql: str, offset: Any) -> str:
    """Return where in the text a byte offset is, in words; nothing where there is no such place."""
    data = sql.encode()
    if not isinstance(offset, int) or not 0 <= offset <= len(data):
        return ""
    before = data[:offset].decode(errors="replace")
    line = before.count("\n") + 1
    column = len(before) - before.rfind("\n")
    return f" (line {line}, column {column})"


def views_read(sql: str, tree: str, views: Collection[str]) -> frozenset[str]:
    """Return the views that a parsed text reads; raises BadSql unless it is one allowed SELECT."""
    try:
        found = json.loads(tree)
        statements = found["statements"] if not found.get("error") else _not_parsed(sql, found)
        if len(statements) != 1:
            count = len(statements) or "no"
            raise SqlRefused(
                f"the text holds {count} statement{'s' * (len(statements) != 1)}: "
                "write exactly one SELECT"
            )
        return _Walk(sql, views).walk(statements[0]["node"])
    except RecursionError:
        raise SqlRefused("the query is nested too deeply: write it flatter") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, BadSql):
            raise
        raise SqlRefused(
            f"the parser's answer is not a tree that is known here ({error!r:.80})"
        ) from error


def _not_parsed(sql: str, found: Mapping[str, Any]) -> Any:
    message = " ".join(str(found.get("error_message", "")).split())[:300]
    if found.get("error_type") == "not implemented" and message.startswith("Only SELECT"):
        raise SqlRefused("only a SELECT can be asked: the log is read, not changed")
    position = str(found.get("position", ""))
    where = place(sql, int(position)) if position.isdigit() else ""
    raise BadSql(f"the query cannot be read: {message}{where}")


class _Walk:
    """One walk over a tree, kept as a stack: long expressions nest deep."""

    def __init__(self, sql: str, views: Collection[str]) -> None:
        self._sql = sql
        self._views = views
        self._functions = functions()
        self._reads: set[str] = set()
        # A node, and the names that WITH gave before it.
        self._stack: list[tuple[Any, frozenset[str]]] = []

    def walk(self, tree: Any) -> frozenset[str]:
        if not isinstance(tree, dict) or tree.get("type") not in _NODES:
            raise self._not_known(tree if isinstance(tree, dict) else {})
        self._stack.append((tree, frozenset()))
        while self._stack:
            node, scope = self._stack.pop()
            if isinstance(node, list):
                self._stack += [(item, scope) for item in node]
            elif isinstance(node, dict):
                self._node(node, scope)
        return frozenset(self._reads)

    def _node(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        kind = node.get("type")
        if "class" in node:
            self._expression(node)
        elif isinstance(kind, str):
            if kind == "BASE_TABLE":
                self._table(node, scope)
            elif kind == "TABLE_FUNCTION":
                self._in_from(node["function"], scope)
                node = {key: value for key, value in node.items() if key != "function"}
            elif kind not in _NODES | _TABLES | _PARTS and not kind.endswith("_TYPE_INFO"):
                raise self._not_known(node)
        if "cte_map" in node:
            scope = self._with(node["cte_map"]["map"], scope)
        if kind == "RECURSIVE_CTE_NODE":
            # Only its second half sees what it defines; in the first the name is another's.
            name = self._plain(node["cte_name"])
            self._stack.append((node["right"], scope | {name}))
            node = {key: value for key, value in node.items() if key != "right"}
        self._stack += [(value, scope) for key, value in node.items() if key != "cte_map"]

    def _with(self, entries: list[dict[str, Any]], scope: frozenset[str]) -> frozenset[str]:
        for entry in entries:
            self._stack.append((entry["value"], scope))
            scope |= {self._plain(entry["key"])}
        return scope

    def _plain(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SqlRefused(
                f"WITH names a table {name[:60]!r}: give it a name of letters, digits and _"
            )
        return _lower(name)

    def _table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        name = str(node["table_name"])
        path = node.get("qualified_name", {}).get("path", [name])
        whole = ".".join(filter(None, (node["catalog_name"], node["schema_name"], name)))
        if node.get("at_clause"):
            raise self._refused(
                f"{name} AT", "is no part of a view; --as-of is outside of SQL", node
            )
        if path != [name] or whole != name:
            raise self._no_view(whole, node)
        if _lower(name) in scope:
            return
        if _lower(name) not in self._views:
            raise self._no_view(name, node)
        self._reads.add(_lower(name))

    def _no_view(self, name: str, node: dict[str, Any]) -> SqlRefused:
        near = get_close_matches(name.lower(), self._views, 3, 0.5)
        names = f"near: {', '.join(near)}" if near else f"the views are {', '.join(self._views)}"
        return SqlRefused(f"there is no view {name[:60]!r}{self._at(node)}: {names}")

    def _in_from(self, call: dict[str, Any], scope: frozenset[str]) -> None:
        if call.get("class") != "FUNCTION":
            raise self._not_known(call)
        self._call(call, in_from=True)
        self._stack += [(value, scope) for value in call.values()]

    def _expression(self, node: dict[str, Any]) -> None:
        kind = node["class"]
        if kind not in _EXPRESSIONS:
            raise self._not_known(node)
        if kind in ("FUNCTION", "WINDOW"):
            self._call(node, in_from=False)
        elif kind == "COLUMN_REF":
            names = node["column_names"]
            if len(names) == 1 and str(names[0]).lower() in _SESSION:
                raise self._refused(names[0], self._functions.refused["current_user"], node)

    def _call(self, node: dict[str, Any], *, in_from: bool) -> None:
        name = str(node["function_name"])
        reason = self._functions.refusal(_lower(name), in_from=in_from)
        if reason is not None:
            raise self._refused(name + "()", reason, node)

    def _refused(self, name: str, reason: str, node: dict[str, Any]) -> SqlRefused:
        return SqlRefused(f"{name[:60]} may not be asked for{self._at(node)}: it {reason}")

    def _not_known(self, node: dict[str, Any]) -> SqlRefused:
        name = str(node.get("class", node.get("type", "this")))
        told = _TOLD.get(name, f"{name[:60]} is not allowed in SQL of others")
        return SqlRefused(f"{told}{self._at(node)}: write one SELECT over the views")

    def _at(self, node: dict[str, Any]) -> str:
        return place(self._sql, node.get("query_location"))
