import copy
import json
from typing import Any

import fastavro.schema
import pytest

from madlog.schemas import (
    EVENT_KINDS,
    InvalidEvent,
    Part,
    SchemaError,
    Schemas,
    Sender,
    Turn,
    Undecodable,
    UnknownSchema,
    canonical,
    content_digest,
    encode,
    fields_of,
    new_event_id,
)
from madlog.schemas.codec import (
    fingerprint,
    fingerprint_of,
    released_schemas,
    schema_events,
)

TURN = Turn(
    event_id=new_event_id(1_700_000_000_000_000, b"0123456789"),
    conversation_id="c1",
    sender=Sender(name="dewey", kind="mad"),
    occurred_at=1_700_000_000_000_000,
    recipients=("fiedler",),
    parts=(Part(content_class="prose", text="grüß dich"),),
)


def newer_turn() -> dict[str, Any]:
    """Return the Turn schema of a later program: one more field, and one more in each part."""
    schema = copy.deepcopy(released_schemas()["Turn"][-1])
    later = {"name": "later", "type": ["null", "string"], "default": None}
    schema["fields"].append(later)
    parts = next(field for field in schema["fields"] if field["name"] == "parts")
    parts["type"]["items"]["fields"].append(later)
    return schema


def written_by_a_newer_program() -> bytes:
    part = Part.model_validate({"content_class": "prose", "text": "hi", "later": "inside"})
    event = Turn.model_validate({**fields_of(TURN), "parts": (part,), "later": "outside"})
    return encode(event, newer_turn())


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_an_event_names_its_schema_as_the_avro_specification_says(kind: str) -> None:
    form = fastavro.schema.to_parsing_canonical_form(released_schemas()[kind][-1])
    crc = fastavro.schema.fingerprint(form, "CRC-64-AVRO")
    assert fingerprint(kind) == bytes.fromhex(crc)


def test_the_fingerprint_stands_on_the_wire_with_its_lowest_byte_first() -> None:
    # From the Avro project's own test data: the schema "null" has this CRC-64-AVRO.
    assert int.from_bytes(fingerprint_of("null"), "little") == 0x63DD24E7CC258F8A  # type: ignore[arg-type]
    value = encode(TURN)
    assert value[:2] == b"\xc3\x01"
    assert value[2:10] == fingerprint("Turn")


def test_an_event_comes_back_equal() -> None:
    assert Schemas().decode(encode(TURN)) == TURN
    kind, fields = Schemas().decode_fields(encode(TURN))
    assert kind == "Turn"
    assert fields["occurred_at"] == TURN.occurred_at


def test_every_shorter_prefix_of_an_event_is_undecodable() -> None:
    value, schemas = encode(TURN), Schemas()
    for length in range(len(value)):
        with pytest.raises(Undecodable):
            schemas.decode(value[:length])
    with pytest.raises(Undecodable, match="too many"):
        schemas.decode(value + b"\x00")


def test_bytes_that_were_never_an_event_are_undecodable() -> None:
    with pytest.raises(Undecodable, match="c301"):
        Schemas().decode(b'{"json": "is not an event"}')


def test_an_unknown_fingerprint_is_named() -> None:
    name = fingerprint_of(newer_turn())
    with pytest.raises(UnknownSchema, match=name.hex()):
        Schemas().decode(written_by_a_newer_program())


def test_an_event_of_a_future_version_decodes_once_its_schema_was_added() -> None:
    schemas = Schemas()
    assert schemas.add(json.dumps(newer_turn()), version=2) == "Turn"
    value = written_by_a_newer_program()
    event = schemas.decode(value)
    assert isinstance(event, Turn)
    assert event.text == "hi"
    assert schemas.version(value) == 2
    assert schemas.version(encode(TURN)) == 1


def test_fields_of_a_newer_program_survive_a_round_trip() -> None:
    schemas = Schemas()
    schemas.add(json.dumps(newer_turn()))
    value = written_by_a_newer_program()
    event = schemas.decode(value)
    assert isinstance(event, Turn)
    assert event.model_extra == {"later": "outside"}
    assert event.parts[0].model_extra == {"later": "inside"}
    assert encode(event, newer_turn()) == value


def test_a_kind_of_a_newer_program_is_named() -> None:
    schema = {"type": "record", "name": "madlog.Novelty", "fields": []}
    schemas = Schemas()
    schemas.add(json.dumps(schema))
    with pytest.raises(UnknownSchema, match="Novelty"):
        schemas.decode(b"\xc3\x01" + fingerprint_of(schema))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "record"}'])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        Schemas().add(text)


def test_a_field_that_does_not_fit_the_schema_is_an_invalid_event() -> None:
    with pytest.raises(InvalidEvent):
        encode(TURN.model_copy(update={"occurred_at": "yesterday"}))


def test_a_nullable_field_added_later_changes_no_digest() -> None:
    fields = fields_of(TURN)
    assert canonical({**fields, "later": None}) == canonical(fields)
    assert canonical({"b": b"\xff", "a": 1}) == '{"a":1,"b":"ÿ"}'.encode()


def test_a_retry_has_the_same_content_and_another_text_has_not() -> None:
    retry = TURN.model_copy(
        update={"event_id": new_event_id(2_000_000, b"9876543210"), "occurred_at": 2_000_000}
    )
    assert content_digest(retry, "c1") == content_digest(TURN, "c1")
    other = TURN.model_copy(update={"parts": ()})
    assert content_digest(other, "c1") != content_digest(TURN, "c1")
    assert content_digest(TURN, "c2") != content_digest(TURN, "c1")


def test_the_schemas_of_a_program_are_events_of_equal_bytes() -> None:
    events = schema_events()
    assert events[0].subject_name == "SchemaRegistered"
    assert {event.subject_name for event in events} == set(EVENT_KINDS)
    for event in events:
        assert fingerprint_of(json.loads(event.schema_text)).hex() == event.fingerprint
        assert Schemas().decode(encode(event)) == event
