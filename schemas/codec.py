"""Events to bytes and back: a head that names the schema (madlog.schemas.framing), an Avro body.

Validation happens once, when a model is made at the edge; decoding trusts what the log's checksum
vouches for and builds no model until somebody asks for one.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Any, TypeVar, cast

import fastavro
import fastavro.schema
from pydantic import BaseModel

from madlog.schemas._compiled import NotCompilable, compile_decoder, compile_encoder
from madlog.schemas.errors import InvalidEvent, SchemaError, Undecodable, UnknownSchema
from madlog.schemas.events import (
    EVENT_KINDS,
    Candidate,
    Event,
    LakeFile,
    Part,
    SchemaRegistered,
    Sender,
    Source,
    Unreadable,
)
from madlog.schemas.framing import (
    CONFLUENT,
    CONFLUENT_SIZE,
    MARKER,
    SINGLE_OBJECT_SIZE,
    head_of,
    schema_id,
)
from madlog.schemas.ids import content_id_and_time

__all__ = (
    "MARKER",
    "Schemas",
    "Upcaster",
    "build",
    "canonical",
    "content_digest",
    "encode",
    "encode_with_content",
    "fields_of",
    "fingerprint",
    "fingerprint_of",
    "released_schemas",
    "schema_events",
    "single_object_heads",
)

_NAMESPACE = "madlog."
_ENVELOPE = tuple(Event.model_fields)
_MISFITS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, struct.error)
_NESTED: dict[str, tuple[type[BaseModel], bool]] = {
    "sender": (Sender, False),
    "source": (Source, False),
    "parts": (Part, True),
    "candidates": (Candidate, True),
    "files": (LakeFile, True),
    "unreadable": (Unreadable, True),
}

Fields = dict[str, Any]
Heads = Mapping[str, bytes]
M = TypeVar("M", bound=BaseModel)
Upcaster = Callable[[Fields], Fields]


def released_schemas() -> dict[str, list[dict[str, Any]]]:
    """Return every schema that ships with this program, by kind, oldest version first."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for path in resources.files("madlog.schemas").joinpath("avro").iterdir():
        if path.name.endswith(".avsc"):
            kind, version, _ = path.name.split(".")
            schema = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(kind, []).append((int(version[1:]), schema))
    return {kind: [schema for _, schema in sorted(found[kind], key=_first)] for kind in found}


def _first(pair: tuple[int, dict[str, Any]]) -> int:
    return pair[0]


def fingerprint_of(schema: dict[str, Any]) -> bytes:
    """Return the 8 bytes that name a schema on the wire."""
    form = fastavro.schema.to_parsing_canonical_form(schema)
    return bytes.fromhex(fastavro.schema.fingerprint(form, "CRC-64-AVRO"))


def _plain(schema: Any) -> Any:
    """Drop logical types, which change no byte but would make fastavro build datetimes."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _parse(schema: dict[str, Any]) -> Any:
    try:
        return fastavro.parse_schema(_plain(schema), _force=True)
    except Exception as error:  # fastavro raises many kinds for a bad schema
        raise SchemaError(f"this is not an Avro schema: {error}") from error


class _Released:
    """The newest shipped schema of each kind, parsed once a process."""

    def __init__(self) -> None:
        self.all = released_schemas()
        self.parsed = {kind: _parse(versions[-1]) for kind, versions in self.all.items()}
        self.encoders = {
            kind: compile_encoder(_plain(versions[-1]), len(_ENVELOPE))
            for kind, versions in self.all.items()
        }
        self.heads = {
            kind: MARKER + fingerprint_of(versions[-1]) for kind, versions in self.all.items()
        }


@cache
def _released() -> _Released:
    return _Released()


def fingerprint(kind: str) -> bytes:
    """Return the fingerprint of the schema that this program writes `kind` with."""
    return _released().heads[kind][len(MARKER) :]


def single_object_heads() -> Heads:
    """Return the head of each kind's wire bytes that needs no schema registry."""
    return _released().heads


def fields_of(event: Event) -> Fields:
    """Return an event's fields as plain dicts and lists, unknown ones of newer programs too."""
    fields = dict(event.__dict__)
    if event.__pydantic_extra__:
        fields.update(event.__pydantic_extra__)
    for name, (_, many) in _NESTED.items():
        value = fields.get(name)
        if value is not None:
            fields[name] = [_flat(item) for item in value] if many else _flat(value)
    return fields


def _flat(model: BaseModel) -> Fields:
    extra = model.__pydantic_extra__
    return {**model.__dict__, **extra} if extra else model.__dict__


def _trusted(model: type[M], fields: Fields) -> M:
    """Make a model without validating: its fields come from a validated one's bytes."""
    made = model.__new__(model)
    known = model.__pydantic_fields__
    extra = {name: fields[name] for name in fields.keys() - known.keys()}
    values = {name: value for name, value in fields.items() if name in known} if extra else fields
    if len(values) < len(known):
        values = {
            name: fields[name] if name in fields else field.get_default(call_default_factory=True)
            for name, field in known.items()
        }
    object.__setattr__(made, "__dict__", values)
    object.__setattr__(made, "__pydantic_fields_set__", set(values))
    object.__setattr__(made, "__pydantic_extra__", extra)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


def build(kind: str, fields: Mapping[str, Any]) -> Event:
    """Return the typed event of fields that are known to be valid; validates nothing."""
    values = dict(fields)
    for name, (model, many) in _NESTED.items():
        value = values.get(name)
        if value is None:
            continue
        if many:
            values[name] = tuple(_trusted(model, dict(item)) for item in value)
        else:
            values[name] = _trusted(model, dict(value))
    for name, value in values.items():
        if type(value) is list:
            values[name] = tuple(value)
    return _trusted(EVENT_KINDS[kind], values)


def encode(event: Event, schema: dict[str, Any] | None = None, heads: Heads | None = None) -> bytes:
    """Return an event's wire bytes, with `schema` in place of the newest released one.

    `heads` names the newest released schemas another way than by fingerprint. Raises InvalidEvent
    when a field does not fit the schema.
    """
    if schema is None:
        return _encode(event, heads)[0]
    out = BytesIO()
    out.write(MARKER + fingerprint_of(schema))
    try:
        fastavro.schemaless_writer(out, _parse(schema), fields_of(event))
    except _MISFITS as error:
        raise InvalidEvent(f"a {event.kind} could not be encoded: {error!r}") from error
    return out.getvalue()


def _encode(event: Event, heads: Heads | None) -> tuple[bytes, int]:
    released = _released()
    kind = event.kind
    try:
        return released.encoders[kind](event.__dict__, (heads or released.heads)[kind])
    except _MISFITS as error:
        raise InvalidEvent(f"a {kind} could not be encoded: {error!r}") from error


def _text_of_bytes(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # as Avro's own JSON encoding writes bytes
    raise TypeError(f"{type(value).__name__} has no canonical form")


# Made once: json.dumps with options builds an encoder for every call.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_text_of_bytes
)


def _without_none(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if kind is list or kind is tuple:
        return [_without_none(item) for item in value]
    return value


def canonical(fields: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of decoded fields, equal however the event was framed.

    Keys sorted, absent and None alike left out, so that a nullable field added later changes no
    digest of older events.
    """
    return _CANONICAL.encode(_without_none(dict(fields))).encode("utf-8", "surrogatepass")


def encode_with_content(event: Event, key: str, heads: Heads | None = None) -> tuple[bytes, bytes]:
    """Return an event's wire bytes and the SHA-256 of what its idempotency key stands for.

    That is kind, topic key, sender's name and payload; not ids, times, source, headers or how the
    bytes name their schema. The payload is its Avro bytes (maps in the order of their keys)
    without the zero bytes at their end: a field that is added to a kind later is null or empty
    there, so a retry by a newer program still has the same content. (Two payloads of one schema
    never differ in these zeros alone: the shorter would be a whole record that the longer begins
    with.)
    """
    value, mark = _encode(event, heads)
    head = f"{event.kind}\0{key}\0{event.sender.name}\0".encode()
    return value, hashlib.sha256(head + value[mark:].rstrip(b"\0")).digest()


def content_digest(event: Event, key: str) -> bytes:
    """Return the SHA-256 of what a repeated idempotency key must bring again."""
    return encode_with_content(event, key)[1]


_Reader = Callable[[bytes, int], tuple[Fields, int]]


def _reader(writer: dict[str, Any], target: Any) -> _Reader:
    """Return how to read what `writer` wrote: compiled, or resolved by fastavro to `target`."""
    if target is None:
        try:
            return compile_decoder(_plain(writer))
        except NotCompilable:
            pass
    parsed = _parse(writer)

    def resolved(value: bytes, at: int) -> tuple[Fields, int]:
        body = BytesIO(value)
        body.seek(at)
        return cast(Fields, fastavro.schemaless_reader(body, parsed, target)), body.tell()

    return resolved


def _event_schema(schema_json: str) -> tuple[str, dict[str, Any]]:
    """Return (kind, schema) of a schema's text; raises SchemaError."""
    try:
        schema = json.loads(schema_json)
        if schema["type"] != "record":
            raise ValueError(f"an event is a record, not {str(schema['type'])[:40]!r}")
        kind, space = schema["name"], schema.get("namespace")
        if space and "." not in kind:
            kind = f"{space}.{kind}"
        kind = kind.removeprefix(_NAMESPACE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"this is not the Avro schema of an event: {error}") from error
    _parse(schema)  # refuses what is no schema, before anything is made of it
    return kind, schema


# kind, how to read it, version, upcaster
_Entry = tuple[str, _Reader, int, Upcaster | None]


class Schemas:
    """The schemas that can be read: those shipped, those the log holds, those of a registry."""

    def __init__(self, upcasters: Mapping[tuple[str, str], Upcaster] | None = None) -> None:
        released = _released()
        # by fingerprint
        self._readers: dict[bytes, _Entry] = {}
        self._ids: dict[bytes, bytes] = {}  # schema id as it stands on the wire -> fingerprint
        # Schemas whose records are read as they were written, and readers of some of their fields.
        self._written: dict[_Reader, dict[str, Any]] = {}
        self._some: dict[tuple[_Reader, frozenset[str]], _Reader] = {}
        self._upcasters = dict(upcasters or {})
        for kind, versions in released.all.items():
            for number, schema in enumerate(versions, start=1):
                newest = number == len(versions)
                self._put(kind, schema, number, None if newest else released.parsed[kind])

    def _put(self, kind: str, schema: dict[str, Any], version: int, reader: Any) -> None:
        name = fingerprint_of(schema)
        upcaster = self._upcasters.get((kind, name.hex()))
        # An upcaster sees the record as it was written; Avro resolution would refuse it first.
        read = _reader(schema, None if upcaster else reader)
        if upcaster is None and reader is None:
            self._written[read] = schema
        self._readers[name] = (kind, read, version, upcaster)

    def _of_some(self, read: _Reader, names: frozenset[str]) -> _Reader:
        """Return a reader of some fields, of all where the schema must be resolved or lifted."""
        some = self._some.get((read, names))
        if some is None:
            some = read
            if read in self._written:
                with suppress(NotCompilable):
                    some = compile_decoder(_plain(self._written[read]), names)
            self._some[read, names] = some
        return some

    def __contains__(self, name: bytes) -> bool:
        return name in self._readers

    def add(self, schema_json: str, version: int = 0) -> str:
        """Learn a schema that the log holds; returns its kind. Raises SchemaError.

        An event of a newer program is decoded with its own schema and keeps its new fields.
        """
        kind, schema = _event_schema(schema_json)
        if fingerprint_of(schema) not in self._readers:
            self._put(kind, schema, version, None)
        return kind

    def add_id(self, number: int, schema_json: str) -> None:
        """Learn the schema that a registry names by an id; raises SchemaError.

        One that neither this program nor the log holds is a stranger's: its records are read as
        the newest released schema of their kind.
        """
        kind, schema = _event_schema(schema_json)
        name = fingerprint_of(schema)
        if name not in self._readers:
            target = _released().parsed.get(kind)
            if target is None:
                raise SchemaError(f"{kind[:80]!r} is no kind of event: {', '.join(EVENT_KINDS)}")
            self._put(kind, schema, 0, target)
        self._ids[number.to_bytes(4, "big")] = name

    def knows_id(self, number: int) -> bool:
        """Tell whether the schema of an id is known."""
        return number.to_bytes(4, "big") in self._ids

    def _entry(self, value: bytes) -> tuple[_Entry, int]:
        """Return how to read wire bytes, and where their body begins."""
        if value[:1] == CONFLUENT and len(value) >= CONFLUENT_SIZE:
            name = self._ids.get(value[1:CONFLUENT_SIZE])
            if name is None:
                raise UnknownSchema(
                    f"schema id {schema_id(value)} is unknown: set MADLOG_SCHEMA_REGISTRY_URL to "
                    "the schema registry that the record's writer uses"
                )
            return self._readers[name], CONFLUENT_SIZE
        name = head_of(value)[len(MARKER) :]
        if name not in self._readers:
            raise UnknownSchema(
                f"schema {name.hex()} is in neither this program nor the log's mad.schemas: "
                "read it with the version of madlog that wrote it, or a newer one"
            )
        return self._readers[name], SINGLE_OBJECT_SIZE

    def decode_fields(
        self, value: bytes, names: frozenset[str] | None = None
    ) -> tuple[str, Fields]:
        """Return (kind, fields) of wire bytes; raises Undecodable, UnknownSchema.

        With `names` at least these fields, as far as the kind has them: what is passed over costs
        a fraction of what is read.
        """
        at = SINGLE_OBJECT_SIZE
        entry = self._readers.get(value[2:at]) if value[:2] == MARKER else None
        if entry is None:
            entry, at = self._entry(value)
        kind, read, _, upcaster = entry
        if names is not None:
            read = self._of_some(read, names)
        try:
            fields, end = read(value, at)
        except Exception as error:  # fastavro raises many kinds for bad bytes
            size = len(value) - at  # of the body: however it is framed, the same is said of it
            raise Undecodable(f"a {kind} of {size} bytes breaks off or is damaged") from error
        if end != len(value):
            raise Undecodable(f"a {kind} has {len(value) - end} bytes too many at its end")
        return kind, upcaster(fields) if upcaster else fields

    def decode(self, value: bytes) -> Event:
        """Return the typed event of wire bytes; raises Undecodable, UnknownSchema."""
        kind, fields = self.decode_fields(value)
        if kind not in EVENT_KINDS:
            raise UnknownSchema(f"{kind!r} is a kind of event of a newer madlog: upgrade to use it")
        return build(kind, fields)

    def version(self, value: bytes) -> int:
        """Return the version of the schema that wire bytes were written with."""
        return self._entry(value)[0][2]

    def single_object(self, value: bytes) -> bytes:
        """Return wire bytes with their schema named by fingerprint, where its id is known."""
        name = self._ids.get(value[1:CONFLUENT_SIZE]) if value[:1] == CONFLUENT else None
        return value if name is None else MARKER + name + value[CONFLUENT_SIZE:]


@cache
def schema_events() -> tuple[SchemaRegistered, ...]:
    """Return the events that register what this program writes with; same bytes everywhere."""
    made = []
    for kind, versions in sorted(_released().all.items()):
        text = json.dumps(versions[-1], sort_keys=True, separators=(",", ":"))
        event_id, occurred_at = content_id_and_time("SchemaRegistered", kind, text)
        made.append(
            SchemaRegistered(
                event_id=event_id,
                conversation_id="mad.schemas",
                sender=Sender(name="madlog", kind="system"),
                occurred_at=occurred_at,
                time_source="synthetic",
                idempotency_key=fingerprint(kind).hex(),
                subject_name=kind,
                version=len(versions),
                fingerprint=fingerprint(kind).hex(),
                schema_text=text,
            )
        )
    # SchemaRegistered first: whoever reads from zero meets the schema of schemas before others.
    return tuple(sorted(made, key=lambda event: event.subject_name != "SchemaRegistered"))
