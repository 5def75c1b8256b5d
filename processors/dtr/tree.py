"""The decision tree as a model file: canonical JSON, checked once, walked in plain Python.

{"format": "tree-1", "root": NODE}, where NODE is
{"feature": NAME, "op": "==" or "<=", "value": VALUE, "yes": NODE, "no": NODE} or
{"route": ROUTE, "confidence": 0..1}. Routes: ack, health, imperator, process, action:NAME, and
action:{verb}, which stands for the command that the turn itself names.

{"format": "dtr-1", "memo": {"features": [NAME, ...], "rows": [[VALUES, ROUTE, 0..1], ...]},
"root": NODE} also has a memo, which answers first: where a row has exactly the turn's values.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from madlog.processors.dtr.features import FEATURES, Feature
from madlog.processors.errors import InvalidModel

__all__ = (
    "ACTION_PREFIX",
    "FORMAT",
    "IMPERATOR",
    "MEMO_FORMAT",
    "PROCESS",
    "VERB_ROUTE",
    "Leaf",
    "Tree",
    "is_route",
)

FORMAT = "tree-1"
MEMO_FORMAT = "dtr-1"
IMPERATOR = "imperator"
PROCESS = "process"
ACTION_PREFIX = "action:"
VERB_ROUTE = "action:{verb}"
_FIXED_ROUTES = frozenset(("ack", "health", IMPERATOR, PROCESS))
_ROUTE = re.compile(r"action:(\{verb\}|[A-Za-z_][A-Za-z0-9_.-]{0,127})")
_DEPTH_MAX = 64
_NODES_MAX = 100_000
_ROWS_MAX = 10_000


class Leaf(NamedTuple):
    """Where a walk ends."""

    route: str
    confidence: float


class _Node(NamedTuple):
    feature: str
    equal: bool
    value: Any
    yes: "_Node | Leaf"
    no: "_Node | Leaf"


@dataclass(frozen=True)
class Tree:
    """A decision tree that was found valid; `text` is its canonical JSON."""

    text: str
    _root: _Node | Leaf
    _memo: Mapping[Any, Leaf] = field(default_factory=dict)
    _key: Callable[[Mapping[str, Any]], Any] | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str, features: Mapping[str, Feature] = FEATURES) -> "Tree":
        """Read and check a model file; raises InvalidModel naming the node."""
        try:
            document = json.loads(text, object_pairs_hook=_unique)
        except RecursionError as error:
            raise InvalidModel(f"the tree is deeper than {_DEPTH_MAX} levels") from error
        except ValueError as error:
            raise InvalidModel(f"the tree is not JSON: {error}") from error
        return cls.from_document(document, features)

    @classmethod
    def from_document(cls, document: Any, features: Mapping[str, Feature] = FEATURES) -> "Tree":
        """Check a parsed model file; raises InvalidModel naming the node."""
        has_memo = isinstance(document, dict) and document.get("format") == MEMO_FORMAT
        _keys(document, {"format", "root", "memo"} if has_memo else {"format", "root"}, "the model")
        if not has_memo and document["format"] != FORMAT:
            raise InvalidModel(f"the model's format is {document['format']!r}, not {FORMAT!r}")
        root = _read(document["root"], "root", 1, [0], features)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        if not has_memo:
            return cls(text, root)
        key, memo = _read_memo(document["memo"], features)
        return cls(text, root, memo, key)

    def walk(self, features: Mapping[str, int | str]) -> Leaf:
        """Return the leaf that a turn with these features ends in."""
        if self._key is not None:
            found = self._memo.get(self._key(features))
            if found is not None:
                return found
        node = self._root
        while isinstance(node, _Node):
            value = features[node.feature]
            passed = value == node.value if node.equal else value <= node.value
            node = node.yes if passed else node.no
        return node


def is_route(value: object) -> bool:
    """Tell whether this names a route."""
    return isinstance(value, str) and (
        value in _FIXED_ROUTES or _ROUTE.fullmatch(value) is not None
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _keys(value: Any, keys: set[str], where: str) -> None:
    if not isinstance(value, dict) or value.keys() != keys:
        raise InvalidModel(f"{where} must be an object with exactly {', '.join(sorted(keys))}")


def _read_memo(
    value: Any, features: Mapping[str, Feature]
) -> tuple[Callable[[Mapping[str, Any]], Any], Mapping[Any, Leaf]]:
    _keys(value, {"features", "rows"}, "memo")
    names, rows = value["features"], value["rows"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidModel("memo.features is a list of names")
    unknown = sorted(set(names) - set(features))
    if unknown or not 2 <= len(set(names)) == len(names):
        raise InvalidModel(f"memo.features: two or more, each once, none of {unknown}")
    if not isinstance(rows, list) or len(rows) > _ROWS_MAX:
        raise InvalidModel(f"memo.rows is a list of at most {_ROWS_MAX}")
    types = [features[name].type for name in names]
    memo: dict[Any, Leaf] = {}
    for number, row in enumerate(rows):
        where = f"memo.rows[{number}]"
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], list):
            raise InvalidModel(f"{where} is a list of values, route and confidence")
        if [type(one) for one in row[0]] != types:
            raise InvalidModel(f"{where}: its values are not of memo.features' types")
        memo[tuple(row[0])] = _read_leaf({"route": row[1], "confidence": row[2]}, where)
    if len(memo) < len(rows):
        raise InvalidModel("memo.rows has the same values twice")
    return itemgetter(*names), memo


def _read(
    value: Any, where: str, depth: int, count: list[int], features: Mapping[str, Feature]
) -> _Node | Leaf:
    count[0] += 1
    if depth > _DEPTH_MAX or count[0] > _NODES_MAX:
        raise InvalidModel(f"{where}: over {_DEPTH_MAX} levels or {_NODES_MAX} nodes")
    if isinstance(value, dict) and "route" in value:
        return _read_leaf(value, where)
    _keys(value, {"feature", "op", "value", "yes", "no"}, where)
    name, op, limit = value["feature"], value["op"], value["value"]
    feature = features.get(name) if isinstance(name, str) else None
    if feature is None:
        raise InvalidModel(f"{where}: there is no feature {name!r}")
    if op not in ("==", "<="):
        raise InvalidModel(f"{where}: {op!r} is not an operator: use == or <=")
    if type(limit) is not feature.type:
        raise InvalidModel(f"{where}: {name} is {feature.type.__name__}, its value {limit!r} not")
    if op == "<=" and feature.type is not int:
        raise InvalidModel(f"{where}: {name} is a category and has no order: use ==")
    return _Node(
        name,
        op == "==",
        limit,
        _read(value["yes"], f"{where}.yes", depth + 1, count, features),
        _read(value["no"], f"{where}.no", depth + 1, count, features),
    )


def _read_leaf(value: dict[str, Any], where: str) -> Leaf:
    _keys(value, {"route", "confidence"}, where)
    route, confidence = value["route"], value["confidence"]
    if not is_route(route):
        raise InvalidModel(
            f"{where}: {route!r} is no route: ack, health, imperator, process, action:NAME"
        )
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
        raise InvalidModel(f"{where}: confidence {confidence!r} is not a number from 0 to 1")
    return Leaf(route, float(confidence))
