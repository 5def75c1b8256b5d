"""The decision tree as a model file: canonical JSON, checked once, walked in plain Python.

{"format": "tree-1", "root": NODE}, where NODE is
{"feature": NAME, "op": "==" or "<=", "value": VALUE, "yes": NODE, "no": NODE} or
{"route": ROUTE, "confidence": 0..1}. Routes: ack, health, imperator, action:NAME, and
action:{verb}, which stands for the command that the turn itself names.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from madlog.processors.errors import InvalidModel
from madlog.processors.dtr.features import FEATURES

__all__ = ("ACTION_PREFIX", "FORMAT", "IMPERATOR", "Leaf", "Tree")

FORMAT = "tree-1"
IMPERATOR = "imperator"
ACTION_PREFIX = "action:"
_FIXED_ROUTES = frozenset(("ack", "health", IMPERATOR))
_ROUTE = re.compile(r"action:(\{verb\}|[A-Za-z_][A-Za-z0-9_.-]{0,127})")
_DEPTH_MAX = 64
_NODES_MAX = 100_000


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

    @classmethod
    def parse(cls, text: str) -> "Tree":
        """Read and check a model file; raises InvalidModel naming the node."""
        try:
            document = json.loads(text, object_pairs_hook=_unique)
        except RecursionError as error:
            raise InvalidModel(f"the tree is deeper than {_DEPTH_MAX} levels") from error
        except ValueError as error:
            raise InvalidModel(f"the tree is not JSON: {error}") from error
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> "Tree":
        """Check a parsed model file; raises InvalidModel naming the node."""
        _keys(document, {"format", "root"}, "the model")
        if document["format"] != FORMAT:
            raise InvalidModel(f"the model's format is {document['format']!r}, not {FORMAT!r}")
        root = _read(document["root"], "root", 1, [0])
        return cls(json.dumps(document, sort_keys=True, separators=(",", ":")), root)

    def walk(self, features: Mapping[str, int | str]) -> Leaf:
        """Return the leaf that a turn with these features ends in."""
        node = self._root
        while isinstance(node, _Node):
            value = features[node.feature]
            passed = value == node.value if node.equal else value <= node.value
            node = node.yes if passed else node.no
        return node


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _keys(value: Any, keys: set[str], where: str) -> None:
    if not isinstance(value, dict) or value.keys() != keys:
        raise InvalidModel(f"{where} must be an object with exactly {', '.join(sorted(keys))}")


def _read(value: Any, where: str, depth: int, count: list[int]) -> _Node | Leaf:
    count[0] += 1
    if depth > _DEPTH_MAX or count[0] > _NODES_MAX:
        raise InvalidModel(f"{where}: over {_DEPTH_MAX} levels or {_NODES_MAX} nodes")
    if isinstance(value, dict) and "route" in value:
        return _read_leaf(value, where)
    _keys(value, {"feature", "op", "value", "yes", "no"}, where)
    name, op, limit = value["feature"], value["op"], value["value"]
    feature = FEATURES.get(name) if isinstance(name, str) else None
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
        _read(value["yes"], f"{where}.yes", depth + 1, count),
        _read(value["no"], f"{where}.no", depth + 1, count),
    )


def _read_leaf(value: dict[str, Any], where: str) -> Leaf:
    _keys(value, {"route", "confidence"}, where)
    route, confidence = value["route"], value["confidence"]
    if not isinstance(route, str) or not (route in _FIXED_ROUTES or _ROUTE.fullmatch(route)):
        raise InvalidModel(f"{where}: {route!r} is no route: ack, health, imperator, action:NAME")
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
        raise InvalidModel(f"{where}: confidence {confidence!r} is not a number from 0 to 1")
    return Leaf(route, float(confidence))
