"""May a schema be released? Full-transitive compatibility with every version before it.

The new schema must read what every released one wrote, and every released one what it writes:
old programs go on reading while new ones are rolled out, and the log stays readable for ever.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from madlog.schemas.codec import fingerprint_of

__all__ = ("check_released", "compatible")

_PRIMITIVES = frozenset(
    {"null", "boolean", "int", "long", "float", "double", "bytes", "string"},
)
# reader -> writers that Avro promotes to it
_PROMOTED = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def compatible(new: dict[str, Any], released: Sequence[dict[str, Any]]) -> list[str]:
    """Return why `new` cannot follow the `released` versions, one sentence each, [] if it can."""
    problems: dict[str, None] = {}
    for number, old in enumerate(released, start=1):
        forward = _Reads(new, old, f"the new schema cannot read what version {number} wrote")
        backward = _Reads(old, new, f"version {number} cannot read what the new schema writes")
        problems |= dict.fromkeys(forward.problems() + backward.problems())
    return list(problems)


def check_released(schemas: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Return what is wrong with released schemas (by kind, oldest first), [] if nothing is.

    Equal fingerprints are refused because events name their schema by it alone, and the
    canonical form behind it drops defaults and logical types.
    """
    problems: list[str] = []
    named: dict[bytes, str] = {}
    for kind, versions in schemas.items():
        for index, schema in enumerate(versions):
            where = f"{kind}.v{index + 1}"
            name = fingerprint_of(schema)
            if name in named:
                problems.append(
                    f"{where} has the fingerprint of {named[name]} ({name.hex()}), events could "
                    "not say which one they were written with: change more than defaults, docs "
                    "and logical types, or drop it"
                )
            named.setdefault(name, where)
            problems += [f"{where}: {problem}" for problem in compatible(schema, versions[:index])]
    return problems


class _Types:
    """The named types of one schema, by full name."""

    def __init__(self, schema: Any) -> None:
        self._named: dict[str, dict[str, Any]] = {}
        self._collect(schema, "")

    def _collect(self, schema: Any, namespace: str) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._collect(branch, namespace)
        elif isinstance(schema, dict):
            if "name" in schema and schema.get("type") in ("record", "enum", "fixed", "error"):
                name = str(schema["name"])
                if "." not in name:
                    space = schema.get("namespace", namespace)
                    name = f"{space}.{name}" if space else name
                namespace = name.rpartition(".")[0]
                self._named[name] = {**schema, "name": name}
                self._named.setdefault(name.rpartition(".")[2], self._named[name])
            for inner in _inner(schema):
                self._collect(inner, namespace)

    def plain(self, schema: Any) -> dict[str, Any]:
        """Return a type (no union) as a dict with `type`, named types with their full name."""
        if isinstance(schema, str):
            return {"type": schema} if schema in _PRIMITIVES else self._named[schema]
        if isinstance(schema["type"], dict):
            return {
                **self.plain(schema["type"]),
                **{k: v for k, v in schema.items() if k != "type"},
            }
        return self._named[schema["name"]] if "name" in schema else dict(schema)


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    yield from (field["type"] for field in schema.get("fields", ()))
    yield from (schema[key] for key in ("items", "values") if key in schema)
    if isinstance(schema.get("type"), (dict, list)):
        yield schema["type"]


class _Reads:
    """Avro's schema resolution of one reader with one writer, telling what it would refuse."""

    def __init__(self, reader: dict[str, Any], writer: dict[str, Any], consequence: str) -> None:
        self._reader, self._writer = reader, writer
        self._readers, self._writers = _Types(reader), _Types(writer)
        self._consequence = consequence
        self._met: set[tuple[str, str]] = set()

    def problems(self) -> list[str]:
        self._met.clear()
        return list(self._check(self._reader, self._writer, str(self._reader["name"])))

    def _check(self, reader: Any, writer: Any, where: str) -> Iterator[str]:
        if isinstance(writer, list):
            for branch in writer:
                yield from self._check(reader, branch, where)
            return
        if isinstance(reader, list):
            # Avro reads with the first branch that can; records and enums match by name.
            answers = [list(self._check(branch, writer, where)) for branch in reader]
            if [] in answers:
                return
            same = self._named_branch(reader, writer)
            yield from (
                answers[same] if same is not None else (self._changed(where, reader, writer),)
            )
            return
        r, w = self._readers.plain(reader), self._writers.plain(writer)
        if r["type"] != w["type"] and w["type"] not in _PROMOTED.get(r["type"], ()):
            yield self._changed(where, reader, writer)
        elif r.get("logicalType") != w.get("logicalType"):
            yield (
                f"{where}: the logical type is {w.get('logicalType')} when written and "
                f"{r.get('logicalType')} when read, so the value would mean something else: "
                f"add a field instead"
            )
        else:
            yield from self._inside(r, w, where)

    def _named_branch(self, reader: list[Any], writer: Any) -> int | None:
        name = self._writers.plain(writer).get("name")
        if name is None:
            return None
        for index, branch in enumerate(reader):
            if self._readers.plain(branch).get("name") == name:
                return index
        return None

    def _inside(self, r: dict[str, Any], w: dict[str, Any], where: str) -> Iterator[str]:
        if r["type"] in ("record", "error"):
            yield from self._record(r, w, where)
        elif r["type"] == "enum":
            yield from self._enum(r, w, where)
        elif r["type"] == "fixed":
            if (r["name"], r["size"]) != (w["name"], w["size"]):
                yield self._changed(where, r["name"], w["name"])
        elif r["type"] == "array":
            yield from self._check(r["items"], w["items"], f"{where}[]")
        elif r["type"] == "map":
            yield from self._check(r["values"], w["values"], f"{where}{{}}")

    def _record(self, r: dict[str, Any], w: dict[str, Any], where: str) -> Iterator[str]:
        if r["name"] != w["name"]:
            yield self._renamed("record", r, w, where)
            return
        if (r["name"], w["name"]) in self._met:
            return
        self._met.add((r["name"], w["name"]))
        written = {field["name"]: field for field in w["fields"]}
        for field in r["fields"]:
            name = field["name"]
            if name in written:
                yield from self._check(field["type"], written[name]["type"], f"{where}.{name}")
            elif "default" not in field:
                yield (
                    f"{where}.{name}: the field is missing from what is written and has no "
                    f"default where it is read, so {self._consequence}: keep fields, and add "
                    "new ones with a default"
                )

    def _enum(self, r: dict[str, Any], w: dict[str, Any], where: str) -> Iterator[str]:
        if r["name"] != w["name"]:
            yield self._renamed("enum", r, w, where)
            return
        unknown = [symbol for symbol in w["symbols"] if symbol not in r["symbols"]]
        if unknown and "default" not in r:
            yield (
                f"{where}: the reader's enum {r['name']} lacks {', '.join(unknown)} and has no "
                f"default symbol, so {self._consequence}: keep every symbol"
            )

    def _renamed(self, what: str, r: dict[str, Any], w: dict[str, Any], where: str) -> str:
        return (
            f"{where}: the {what} is named {w['name']} when written and {r['name']} when read, "
            f"so {self._consequence}: keep its name"
        )

    def _changed(self, where: str, reader: Any, writer: Any) -> str:
        return (
            f"{where}: the type is {_type_name(writer)} when written and {_type_name(reader)} "
            f"when read, so {self._consequence}: keep the type and add another field"
        )


def _type_name(schema: Any) -> str:
    if isinstance(schema, list):
        return " or ".join(_type_name(branch) for branch in schema)
    if isinstance(schema, dict):
        return str(schema.get("name") or _type_name(schema["type"]))
    return str(schema)
