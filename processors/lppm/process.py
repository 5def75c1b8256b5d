"""A process: its steps, what follows what and when, and the conversations that show it.

A model file is canonical JSON with exactly these fields: format "process-1", name, steps, edges,
starts, ends, conversations, judged. `version` is computed from the rest, so equal processes have
equal versions.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm._facts import facts
from madlog.processors.lppm._trace import START, trace
from madlog.processors.lppm.cases import ACTION, ASK, SAY, Act
from madlog.processors.lppm.values import canonical

__all__ = ("FORMAT", "NOT", "READY_MIN", "Edge", "Process", "Slot", "Step")

FORMAT = "process-1"
NOT = "not "  # begins a condition that asks for the absence of a fact
READY_MIN = 20  # a process seen in fewer conversations is not conducted
_WHATS = (ASK, SAY)


@dataclass(frozen=True)
class Slot:
    """A parameter of a step: in how many calls it was given, and where its value stands."""

    parameter: str
    given: int
    source: str | None


@dataclass(frozen=True)
class Step:
    """Something that one actor does.

    `precondition` held before each time, `effect` after each time; `timeout_ms` is None where the
    log's times are made up; `compensation` is what agents did when it failed.
    """

    key: str
    actor: str
    what: str
    slots: tuple[Slot, ...]
    precondition: tuple[str, ...]
    effect: tuple[str, ...]
    timeout_ms: int | None
    compensation: str | None
    needs_llm: bool
    confidence: float
    count: int
    conversations: int


@dataclass(frozen=True)
class Edge:
    """One step follows another when all of `when` holds; `confidence` bounds how seldom not."""

    after: str
    step: str
    when: tuple[str, ...]
    confidence: float
    count: int
    conversations: int


@dataclass(frozen=True)
class Process:
    """A process as mined from `conversations`, the ones of `judged` that ended well."""

    name: str
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]
    starts: Mapping[str, int]
    ends: Mapping[str, int]
    conversations: tuple[str, ...]
    judged: int

    @property
    def ready(self) -> bool:
        """Whether enough conversations show it to conduct it."""
        return bool(self.steps) and len(self.conversations) >= READY_MIN

    @cached_property
    def version(self) -> str:
        """What the process is, as 16 hexadecimal digits."""
        return hashlib.sha256(canonical(self.to_document()).encode()).hexdigest()[:16]

    def step(self, key: str) -> Step:
        """Return the step of a key; raises KeyError."""
        return self._by_key[key]

    def following(self, past: Sequence[Act]) -> tuple[Edge, ...]:
        """Return what may follow a conversation so far, the surest first."""
        known = [visit.key for visit in trace(past) if visit.key in self._by_key]
        last, seen = known[-1] if known else START, facts(past)
        found = [
            edge
            for edge in self.edges
            if edge.after == last and all(_holds(condition, seen) for condition in edge.when)
        ]
        return tuple(sorted(found, key=lambda edge: (-edge.confidence, edge.step)))

    def to_document(self) -> dict[str, Any]:
        """Return the process as an object that JSON can hold."""
        return {
            "format": FORMAT,
            "name": self.name,
            "steps": [_plain(step) for step in self.steps],
            "edges": [_plain(edge) for edge in self.edges],
            "starts": dict(self.starts),
            "ends": dict(self.ends),
            "conversations": list(self.conversations),
            "judged": self.judged,
        }

    @classmethod
    def from_document(cls, document: Any) -> "Process":
        """Check a process from a file; raises InvalidModel naming what is wrong."""
        names = {"format", *(one.name for one in fields(cls))}
        if not isinstance(document, dict) or document.keys() != names:
            raise InvalidModel(f"a process must have exactly {', '.join(sorted(names))}")
        if document["format"] != FORMAT:
            raise InvalidModel(f"the process's format is {document['format']!r}, not {FORMAT!r}")
        if not isinstance(document["name"], str) or not document["name"]:
            raise InvalidModel("name must be a text")
        steps = tuple(_step(one, f"steps[{at}]") for at, one in _each(document, "steps"))
        edges = tuple(_read(Edge, one, f"edges[{at}]") for at, one in _each(document, "edges"))
        keys = {step.key for step in steps}
        if len(keys) < len(steps):
            raise InvalidModel("steps: two have the same key")
        for at, edge in enumerate(edges):
            for key in (edge.after, edge.step):
                if key not in keys and not (key == START and key == edge.after):
                    raise InvalidModel(f"edges[{at}]: there is no step {key!r}")
        for name in ("starts", "ends"):
            counts = document[name]
            if not isinstance(counts, dict) or not all(map(_natural, counts.values())):
                raise InvalidModel(f"{name} must be an object of counts")
            if unknown := counts.keys() - keys:
                raise InvalidModel(f"{name}: there is no step {min(unknown)!r}")
        conversations = document["conversations"]
        if not _texts(conversations) or not _natural(document["judged"]):
            raise InvalidModel("conversations must be a list of ids, judged a count")
        return cls(
            document["name"],
            steps,
            edges,
            document["starts"],
            document["ends"],
            tuple(conversations),
            document["judged"],
        )

    @cached_property
    def _by_key(self) -> dict[str, Step]:
        return {step.key: step for step in self.steps}


def _holds(condition: str, seen: frozenset[str]) -> bool:
    if condition.startswith(NOT):
        return condition[len(NOT) :] not in seen
    return condition in seen


def _plain(value: Step | Edge) -> dict[str, Any]:
    return {
        name: list(one) if isinstance(one, tuple) else one for name, one in asdict(value).items()
    }


def _each(document: Mapping[str, Any], name: str) -> list[tuple[int, Any]]:
    if not isinstance(document[name], list):
        raise InvalidModel(f"{name} must be a list")
    return list(enumerate(document[name]))


def _step(value: Any, where: str) -> Step:
    if not isinstance(value, dict) or not isinstance(value.get("slots"), list):
        raise InvalidModel(f"{where} must be an object whose slots are a list")
    slots = [_read(Slot, one, f"{where}.slots[{at}]") for at, one in enumerate(value["slots"])]
    step = _read(Step, {**value, "slots": slots}, where)
    if step.what not in _WHATS and not step.what.startswith(ACTION):
        raise InvalidModel(f"{where}.what: {step.what!r} is neither ask, say nor action:NAME")
    return step


_Part = TypeVar("_Part", Slot, Step, Edge)


def _read(kind: type[_Part], value: Any, where: str) -> _Part:
    names = [one.name for one in fields(kind)]
    if not isinstance(value, dict) or value.keys() != set(names):
        raise InvalidModel(f"{where} must be an object with exactly {', '.join(sorted(names))}")
    for one in fields(kind):
        if not _CHECKS[str(one.type)](value[one.name]):
            raise InvalidModel(f"{where}.{one.name}: {value[one.name]!r} will not do")
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in value.items()}
    return kind(**given)


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    str(str): lambda value: isinstance(value, str) and value != "",
    str(int): _natural,
    str(bool): lambda value: isinstance(value, bool),
    str(float): lambda value: type(value) in (int, float) and 0 <= value <= 1,
    str(str | None): lambda value: value is None or isinstance(value, str),
    str(int | None): lambda value: value is None or _natural(value),
    str(tuple[str, ...]): _texts,
    # Slots were read before their step.
    str(tuple[Slot, ...]): lambda value: True,
}
