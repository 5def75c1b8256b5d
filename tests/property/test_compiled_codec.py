"""The compiled codec and fastavro agree byte for byte, and damage never passes for an event."""

import io
import struct
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madlog.schemas import Event, Undecodable
from madlog.schemas._compiled import compile_decoder, compile_encoder, read_long, write_long
from madlog.schemas.codec import MARKER, Schemas, fingerprint, released_schemas

LONGS = st.integers(-(2**63), 2**63 - 1)
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "madlog.Sample",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "maybe", "type": ["null", "string"], "default": None},
        {"name": "number", "type": "long"},
        {"name": "real", "type": "double"},
        {"name": "flag", "type": "boolean"},
        {"name": "raw", "type": "bytes"},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["red", "green"]}},
        {"name": "again", "type": "Colour"},
        {"name": "features", "type": {"type": "map", "values": ["long", "string"]}},
        {
            "name": "parts",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Part",
                    "fields": [{"name": "names", "type": {"type": "array", "items": "string"}}],
                },
            },
        },
    ],
}
VALUES = st.fixed_dictionaries(
    {
        "text": st.text(),
        "maybe": st.none() | st.text(),
        "number": LONGS,
        "real": st.floats(allow_nan=False),
        "flag": st.booleans(),
        "raw": st.binary(),
        "colour": st.sampled_from(["red", "green"]),
        "again": st.sampled_from(["red", "green"]),
        # Sorted, because madlog writes maps in the order of their keys, fastavro as they come.
        "features": st.dictionaries(st.text(), LONGS | st.text(), max_size=5).map(
            lambda made: dict(sorted(made.items()))
        ),
        "parts": st.lists(st.fixed_dictionaries({"names": st.lists(st.text(), max_size=3)})),
    }
)
ENCODE, DECODE = compile_encoder(SCHEMA), compile_decoder(SCHEMA)
SCHEMAS = Schemas()
PARSED = fastavro.parse_schema(SCHEMA)


@given(LONGS)
def test_numbers_come_back(number: int) -> None:
    assert read_long(write_long(number), 0) == (number, len(write_long(number)))


@settings(max_examples=150)
@given(VALUES)
def test_bytes_are_those_of_fastavro_and_come_back(fields: dict[str, Any]) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED, fields)
    assert ENCODE(fields, b"")[0] == out.getvalue()
    assert DECODE(out.getvalue(), 0) == (fields, len(out.getvalue()))


@settings(max_examples=150)
@given(VALUES, st.sets(st.sampled_from([field["name"] for field in SCHEMA["fields"]])))
def test_some_fields_are_those_of_all_and_end_where_they_end(
    fields: dict[str, Any], names: set[str]
) -> None:
    whole, _ = ENCODE(fields, b"")
    some = {name: value for name, value in fields.items() if name in names}
    # The second use of a named type is read also where its first was passed over.
    assert compile_decoder(SCHEMA, names)(whole, 0) == (some, len(whole))


@given(VALUES, st.data())
def test_some_fields_of_a_record_that_breaks_off_are_refused_or_end_past_it(
    fields: dict[str, Any], data: st.DataObject
) -> None:
    whole, _ = ENCODE(fields, b"")
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        _, end = compile_decoder(SCHEMA, {"number"})(cut, 0)
    except (IndexError, ValueError, struct.error):
        return
    assert end > len(cut)


@given(VALUES, st.data())
def test_a_record_that_breaks_off_is_refused(fields: dict[str, Any], data: st.DataObject) -> None:
    whole, _ = ENCODE(fields, b"")
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises((IndexError, ValueError, struct.error)):
        DECODE(cut, 0)


def test_blocks_with_their_size_are_read_as_other_writers_make_them() -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "a", "type": {"type": "array", "items": "long"}}],
    }
    sized = write_long(-2) + write_long(2) + write_long(5) + write_long(6)
    two = sized + write_long(1) + write_long(7) + write_long(0)
    assert compile_decoder(schema)(two, 0) == ({"a": [5, 6, 7]}, len(two))
    assert compile_decoder(schema, ())(two, 0) == ({}, len(two))


@pytest.mark.parametrize("kind", sorted(released_schemas()))
@settings(max_examples=60)
@given(body=st.binary(max_size=400))
def test_noise_is_undecodable_and_nothing_else(kind: str, body: bytes) -> None:
    value = MARKER + fingerprint(kind) + body
    for names in (None, frozenset({"event_id"})):
        try:
            SCHEMAS.decode_fields(value, names)
        except Undecodable:
            continue


def test_the_envelope_comes_first_in_every_schema() -> None:
    envelope = list(Event.model_fields)
    for kind, versions in released_schemas().items():
        names = [field["name"] for field in versions[-1]["fields"]]
        assert names[: len(envelope)] == envelope, kind
