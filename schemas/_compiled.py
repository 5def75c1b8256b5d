"""Avro schemas compiled to Python functions: the codec's hot path.

fastavro walks a schema for every record, about 0.4 µs a field and direction; an event has some 30
fields, most of them null. Straight-line code made from the schema once does the same three to four
times faster, as dataclasses and namedtuple make theirs. fastavro stays the one that resolves old
schemas to new ones, and the oracle: tests hold both to the same bytes.
"""

import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ("NotCompilable", "compile_decoder", "compile_encoder")

_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "string", "bytes"))
_DEPTH_MAX = 12


class NotCompilable(Exception):
    """The schema refers to itself or uses what Avro has but madlog's schemas do not."""


def write_long(value: int) -> bytes:
    """Return the zigzag varint of a 64-bit integer (Avro specification, "int and long")."""
    if not -(2**63) <= value < 2**63:
        raise OverflowError(f"{value} does not fit 64 bits")
    rest = value << 1 ^ value >> 63
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Return (value, offset after it) of the zigzag varint at an offset."""
    rest = shift = 0
    while True:
        byte = data[at]
        at += 1
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
    return rest >> 1 ^ -(rest & 1), at


def _slice(data: bytes, at: int, size: int) -> bytes:
    if size < 0 or at + size > len(data):
        raise ValueError("a length points past the end")
    return data[at : at + size]


# Lengths and small numbers below this are looked up, not computed.
_TABLE_SIZE = 8192
_LENGTHS = tuple(write_long(number) for number in range(_TABLE_SIZE))


class _Source:
    """Collects lines of code, and the objects that they name."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "LENGTHS": _LENGTHS,
            "write_long": write_long,
            "read_long": read_long,
            "take": _slice,
            "pack_double": struct.Struct("<d").pack,
            "pack_float": struct.Struct("<f").pack,
            "unpack_double": struct.Struct("<d").unpack_from,
            "unpack_float": struct.Struct("<f").unpack_from,
        }
        self.types: dict[str, Any] = {}
        self.count = 0
        self.depth = 0
        self.schema = schema

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def line(self, indent: int, text: str) -> None:
        self.lines.append("    " * indent + text)

    def constant(self, value: Any) -> str:
        name = self.new("c")
        self.names[name] = value
        return name

    def resolve(self, schema: Any) -> Any:
        """Return a type's definition: named types are remembered at their first use."""
        if isinstance(schema, str) and schema not in _PRIMITIVES:
            if schema not in self.types:
                raise NotCompilable(schema)
            return self.types[schema]
        if isinstance(schema, dict):
            if schema["type"] in _PRIMITIVES:
                return schema["type"]
            if "name" in schema:
                self.types[schema["name"]] = schema
        return schema

    def function(self, head: str, tail: str) -> Callable[..., Any]:
        code = "\n".join([f"def made({head}):", *self.lines, f"    return {tail}"])
        namespace = dict(self.names)
        exec(compile(code, f"<avro {self.schema.get('name')}>", "exec"), namespace)
        made: Callable[..., Any] = namespace["made"]
        return made


def compile_encoder(
    schema: Mapping[str, Any], mark_before: int = 0
) -> Callable[[Mapping[str, Any], bytes], tuple[bytes, int]]:
    """Return a function (fields, head) -> (bytes, where field number `mark_before` begins).

    Nested records may be dicts or models. It raises KeyError, TypeError, ValueError,
    AttributeError or OverflowError on a misfit.
    """
    source = _Source(schema)
    source.resolve(schema)
    source.line(1, "o = bytearray(head)")
    source.line(1, "mark = len(o)")
    for number, field in enumerate(schema["fields"]):
        if number == mark_before:
            source.line(1, "mark = len(o)")
        held = source.new("v")
        source.line(1, f"{held} = d[{field['name']!r}]")
        _encode(source, 1, field["type"], held)
    return source.function("d, head", "bytes(o), mark")


def _number(name: str) -> str:
    return f"o += LENGTHS[{name}] if 0 <= {name} < {_TABLE_SIZE} else write_long({name})"


def _encode(source: _Source, at: int, schema: Any, value: str) -> None:
    schema = source.resolve(schema)
    kind = schema if isinstance(schema, str) else None
    if isinstance(schema, list):
        _encode_union(source, at, schema, value)
    elif kind in ("string", "bytes"):
        name = source.new("b")
        source.line(at, f"{name} = {value}" + (".encode()" if kind == "string" else ""))
        if kind == "bytes":
            source.line(at, f"if type({name}) is not bytes: raise TypeError('not bytes')")
        size = source.new("n")
        source.line(at, f"{size} = len({name})")
        source.line(at, _number(size))
        source.line(at, f"o += {name}")
    elif kind in ("int", "long"):
        source.line(at, _number(value))
    elif kind in ("float", "double"):
        source.line(at, f"o += pack_{kind}({value})")
    elif kind == "boolean":
        source.line(at, f"o.append(1 if {value} else 0)")
    elif kind == "null":
        source.line(at, f"if {value} is not None: raise TypeError('not null')")
    else:
        _encode_complex(source, at, schema, value)


def _encode_complex(source: _Source, at: int, schema: Any, value: str) -> None:
    source.depth += 1
    if source.depth > _DEPTH_MAX:
        raise NotCompilable("too deep")
    kind = schema["type"]
    if kind == "record":
        name = source.new("r")
        source.line(at, f"{name} = {value}")
        source.line(at, f"if type({name}) is not dict: {name} = {name}.__dict__")
        for field in schema["fields"]:
            held = source.new("v")
            source.line(at, f"{held} = {name}[{field['name']!r}]")
            _encode(source, at, field["type"], held)
    elif kind == "enum":
        numbers = {symbol: write_long(i) for i, symbol in enumerate(schema["symbols"])}
        source.line(at, f"o += {source.constant(numbers)}[{value}]")
    elif kind in ("array", "map"):
        source.line(at, f"if {value}:")
        count = source.new("n")
        source.line(at + 1, f"{count} = len({value})")
        source.line(at + 1, _number(count))
        item = source.new("i")
        if kind == "array":
            source.line(at + 1, f"for {item} in {value}:")
            _encode(source, at + 2, schema["items"], item)
        else:
            key = source.new("k")
            # In the order of the keys, so that equal maps are equal bytes.
            source.line(at + 1, f"for {key}, {item} in sorted({value}.items()):")
            _encode(source, at + 2, "string", key)
            _encode(source, at + 2, schema["values"], item)
        source.line(at, "o.append(0)")
    else:
        raise NotCompilable(kind)
    source.depth -= 1


_PYTHON_TYPES = {"string": "str", "bytes": "bytes", "long": "int", "int": "int", "double": "float"}


def _encode_union(source: _Source, at: int, branches: list[Any], value: str) -> None:
    resolved = [source.resolve(branch) for branch in branches]
    if len(resolved) == 2 and resolved[0] == "null":
        source.line(at, f"if {value} is None: o.append(0)")
        source.line(at, "else:")
        source.line(at + 1, "o.append(2)")
        _encode(source, at + 1, resolved[1], value)
        return
    # bool is an int to Python and a boolean to Avro, so types are compared exactly.
    word = "if"
    for number, branch in enumerate(resolved):
        if not isinstance(branch, str) or branch not in _PYTHON_TYPES:
            raise NotCompilable("a union of more than null and one type")
        source.line(at, f"{word} type({value}) is {_PYTHON_TYPES[branch]}:")
        source.line(at + 1, f"o.append({number << 1})")
        _encode(source, at + 1, branch, value)
        word = "elif"
    source.line(at, "else: raise TypeError('no branch of the union fits')")


def compile_decoder(
    schema: Mapping[str, Any], only: Collection[str] | None = None
) -> Callable[[bytes, int], tuple[Any, int]]:
    """Return a function (data, offset) -> (fields, offset after them), of all or `only` some.

    It raises IndexError, ValueError or struct.error on bytes that break off or make no sense.
    """
    source = _Source(schema)
    if only is None:
        value = _decode(source, 1, schema)
        return source.function("b, p", f"{value}, p")
    source.resolve(schema)
    held = []
    for field in schema["fields"]:
        if field["name"] in only:
            held.append(f"{field['name']!r}: {_decode(source, 1, field['type'])}")
        else:
            _skip(source, 1, field["type"])
    return source.function("b, p", f"{{{', '.join(held)}}}, p")


def _read_long(source: _Source, at: int, name: str) -> None:
    source.line(at, f"{name} = b[p]")
    source.line(at, f"if {name} < 128: {name} = {name} >> 1 ^ -({name} & 1); p += 1")
    source.line(at, f"else: {name}, p = read_long(b, p)")


def _decode(source: _Source, at: int, schema: Any) -> str:
    """Emit the code that reads a value; returns the expression that holds it after."""
    schema = source.resolve(schema)
    if isinstance(schema, list):
        return _decode_union(source, at, schema)
    if not isinstance(schema, str):
        return _decode_complex(source, at, schema)
    if schema == "null":
        return "None"
    name = source.new("v")
    if schema in ("int", "long"):
        _read_long(source, at, name)
    elif schema in ("string", "bytes"):
        size = source.new("n")
        source.line(at, f"{size} = b[p]")
        # Even and one byte: a length below 64. The check of the end finds a slice cut short.
        source.line(at, f"if {size} < 128 and not {size} & 1: {size} >>= 1; p += 1")
        source.line(at, f"else: {size}, p = read_long(b, p)")
        source.line(at, f"if {size} < 0: raise ValueError('a negative length')")
        source.line(at, f"e = p + {size}")
        source.line(at, "if e > len(b): raise ValueError('a length points past the end')")
        source.line(at, f"{name} = b[p:e]" + (".decode()" if schema == "string" else ""))
        source.line(at, "p = e")
    elif schema in ("float", "double"):
        source.line(at, f"{name} = unpack_{schema}(b, p)[0]; p += {4 if schema == 'float' else 8}")
    else:
        source.line(at, f"{name} = b[p]; p += 1")
        source.line(at, f"if {name} > 1: raise ValueError('no boolean')")
        source.line(at, f"{name} = {name} == 1")
    return name


def _decode_complex(source: _Source, at: int, schema: Any) -> str:
    source.depth += 1
    if source.depth > _DEPTH_MAX:
        raise NotCompilable("too deep")
    kind = schema["type"]
    name = source.new("v")
    if kind == "record":
        held = []
        for field in schema["fields"]:
            held.append(f"{field['name']!r}: {_decode(source, at, field['type'])}")
        source.line(at, f"{name} = {{{', '.join(held)}}}")
    elif kind == "enum":
        _read_long(source, at, name)
        source.line(at, f"if {name} < 0: raise ValueError('no symbol')")
        source.line(at, f"{name} = {source.constant(tuple(schema['symbols']))}[{name}]")
    elif kind == "fixed":
        source.line(at, f"{name} = take(b, p, {schema['size']}); p += {schema['size']}")
    elif kind in ("array", "map"):
        count = source.new("n")
        source.line(at, f"{name} = {'[]' if kind == 'array' else '{}'}")
        source.line(at, "while True:")
        _read_long(source, at + 1, count)
        source.line(at + 1, f"if not {count}: break")
        # A negative count comes with the block's size in bytes, which a reader may skip by.
        source.line(at + 1, f"if {count} < 0: {count} = -{count}; _, p = read_long(b, p)")
        source.line(at + 1, f"for _ in range({count}):")
        if kind == "array":
            item = _decode(source, at + 2, schema["items"])
            source.line(at + 2, f"{name}.append({item})")
        else:
            key = _decode(source, at + 2, "string")
            item = _decode(source, at + 2, schema["values"])
            source.line(at + 2, f"{name}[{key}] = {item}")
    else:
        raise NotCompilable(kind)
    source.depth -= 1
    return name


def _decode_union(source: _Source, at: int, branches: list[Any]) -> str:
    name, branch = source.new("v"), source.new("u")
    _read_long(source, at, branch)
    word = "if"
    for number, schema in enumerate(branches):
        source.line(at, f"{word} {branch} == {number}:")
        held = _decode(source, at + 1, schema)
        source.line(at + 1, f"{name} = {held}")
        word = "elif"
    source.line(at, "else: raise ValueError('no branch of the union')")
    return name


def _skip(source: _Source, at: int, schema: Any) -> None:
    """Emit the code that passes over a value."""
    schema = source.resolve(schema)
    kind = schema if isinstance(schema, str) else "union"
    if isinstance(schema, dict):
        kind = schema["type"]
    if kind == "null":
        source.line(at, "pass")
    elif kind in ("int", "long", "enum"):
        source.line(at, "if b[p] < 128: p += 1")
        source.line(at, "else: _, p = read_long(b, p)")
    elif kind in ("string", "bytes"):
        size = source.new("n")
        _read_long(source, at, size)
        source.line(at, f"if {size} < 0: raise ValueError('a negative length')")
        source.line(at, f"p += {size}")
    elif kind in _SIZES:
        # Looked at, so that a made-up count of them ends where the bytes do.
        source.line(at, f"b[p + {_SIZES[kind] - 1}]; p += {_SIZES[kind]}")
    elif kind == "fixed":
        source.line(at, f"take(b, p, {schema['size']}); p += {schema['size']}")
    elif kind == "record":
        for field in schema["fields"]:
            _skip(source, at, field["type"])
    elif kind == "union":
        _skip_union(source, at, schema)
    else:
        _skip_blocks(source, at, schema)


_SIZES = {"boolean": 1, "float": 4, "double": 8}


def _skip_union(source: _Source, at: int, branches: list[Any]) -> None:
    branch = source.new("u")
    _read_long(source, at, branch)
    word = "if"
    for number, schema in enumerate(branches):
        source.line(at, f"{word} {branch} == {number}:")
        _skip(source, at + 1, schema)
        word = "elif"
    source.line(at, "else: raise ValueError('no branch of the union')")


def _skip_blocks(source: _Source, at: int, schema: Mapping[str, Any]) -> None:
    source.depth += 1
    if source.depth > _DEPTH_MAX or schema["type"] not in ("array", "map"):
        raise NotCompilable(schema["type"])
    count, size = source.new("n"), source.new("n")
    source.line(at, "while True:")
    _read_long(source, at + 1, count)
    source.line(at + 1, f"if not {count}: break")
    source.line(at + 1, f"if {count} < 0:")
    source.line(at + 2, f"{size}, p = read_long(b, p)")
    source.line(at + 2, f"if {size} < 0: raise ValueError('a negative length')")
    source.line(at + 2, f"p += {size}; continue")
    source.line(at + 1, f"for _ in range({count}):")
    if schema["type"] == "map":
        _skip(source, at + 2, "string")
    _skip(source, at + 2, schema["items" if schema["type"] == "array" else "values"])
    source.depth -= 1
