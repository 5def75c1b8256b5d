"""Both wire formats, byte by byte: fastavro is the oracle of what stands after the head."""

import copy
import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.test_schemas_equal import models

from madlog.schemas import (
    EVENT_KINDS,
    Event,
    Part,
    SchemaError,
    Schemas,
    Sender,
    Turn,
    Undecodable,
    UnknownSchema,
    content_digest,
    encode,
    fields_of,
    new_event_id,
)
from madlog.schemas.codec import encode_with_content, fingerprint, released_schemas
from madlog.schemas.framing import confluent_head, head_of, schema_id

RELEASED = {kind: versions[-1] for kind, versions in released_schemas().items()}
# Ids of every width: the high bytes must stand first.
WIDEST = len(EVENT_KINDS) - 1
IDS = {kind: 1 << 30 * nth // WIDEST | nth for nth, kind in enumerate(sorted(EVENT_KINDS))}
HEADS = {kind: confluent_head(number) for kind, number in IDS.items()}
TURN = Turn(
    event_id=new_event_id(1_700_000_000_000_000, b"0123456789"),
    conversation_id="c1",
    sender=Sender(name="dewey", kind="mad"),
    occurred_at=1_700_000_000_000_000,
    recipients=("fiedler",),
    parts=(Part(content_class="prose", text="grüß dich"),),
)


def plain(schema: Any) -> Any:
    """Drop logical types, so that fastavro gives times as the numbers that they are."""
    if isinstance(schema, dict):
        return {key: plain(value) for key, value in schema.items() if key != "logicalType"}
    return [plain(item) for item in schema] if isinstance(schema, list) else schema


PARSED = {kind: fastavro.parse_schema(plain(schema)) for kind, schema in RELEASED.items()}


def registered(**more: tuple[int, dict[str, Any]]) -> Schemas:
    schemas = Schemas()
    for kind, number in IDS.items():
        schemas.add_id(number, json.dumps(RELEASED[kind]))
    for number, schema in more.values():
        schemas.add_id(number, json.dumps(schema))
    return schemas


SCHEMAS = registered()


def written(head: bytes, schema: dict[str, Any], fields: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(head)
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain(schema)), fields)
    return out.getvalue()


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_both_formats_hold_the_body_that_fastavro_reads_and_writes(kind: str) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(models(EVENT_KINDS[kind]))
    def law(event: Event) -> None:
        single, confluent = encode(event), encode(event, None, HEADS)
        assert single[:10] == b"\xc3\x01" + fingerprint(kind)
        assert confluent[:5] == b"\x00" + IDS[kind].to_bytes(4, "big")
        assert single[10:] == confluent[5:]
        fields: Any = fastavro.schemaless_reader(io.BytesIO(confluent[5:]), PARSED[kind], None)
        assert SCHEMAS.decode_fields(single) == SCHEMAS.decode_fields(confluent) == (kind, fields)
        assert SCHEMAS.decode(confluent) == event
        by_fastavro = written(HEADS[kind], RELEASED[kind], fields)
        assert SCHEMAS.decode(by_fastavro) == event

    law()


def test_the_bytes_of_the_confluent_format_are_these() -> None:
    head = confluent_head(0x01020304)
    assert head == b"\x00\x01\x02\x03\x04"
    assert head_of(head + b"body") == head
    assert schema_id(head + b"body") == 0x01020304
    assert schema_id(b"\x00\x01\x02\x03") is None
    assert schema_id(encode(TURN)) is None


def test_what_an_idempotency_key_stands_for_is_the_same_in_both_formats() -> None:
    single, confluent = encode_with_content(TURN, "c1"), encode_with_content(TURN, "c1", HEADS)
    assert single[0] != confluent[0]
    assert single[1] == confluent[1] == content_digest(TURN, "c1")


@given(st.integers(0, 2**32 - 1).filter(lambda number: number not in IDS.values()))
def test_an_unknown_id_is_named_with_what_helps(number: int) -> None:
    value = encode(TURN, None, {"Turn": confluent_head(number)})
    with pytest.raises(UnknownSchema, match=rf"schema id {number} .*MADLOG_SCHEMA_REGISTRY_URL"):
        SCHEMAS.decode(value)


def test_a_confluent_record_that_breaks_off_is_undecodable() -> None:
    value = encode(TURN, None, HEADS)
    for length in range(len(value)):
        with pytest.raises(Undecodable):
            SCHEMAS.decode(value[:length])
    with pytest.raises(Undecodable, match="too many"):
        SCHEMAS.decode(value + b"\x00")


def test_a_damaged_body_is_called_the_same_in_both_formats() -> None:
    said = set()
    for value in (encode(TURN), encode(TURN, None, HEADS)):
        with pytest.raises(Undecodable) as caught:
            SCHEMAS.decode(value[:-3])
        said.add(str(caught.value))
    assert len(said) == 1


def test_a_schema_that_java_wrote_is_the_same_schema() -> None:
    # As Schema.toString() of the Java library writes it: a namespace apart, and inherited.
    text = json.dumps(RELEASED["Turn"]).replace('"madlog.', '"')
    java = {"namespace": "madlog", **json.loads(text)}
    schemas = registered(java=(77, java))
    value = encode(TURN, None, {"Turn": confluent_head(77)})
    assert schemas.decode(value) == TURN
    assert schemas.single_object(value) == encode(TURN)


def test_a_strangers_schema_is_read_as_the_newest_of_its_kind() -> None:
    stranger = copy.deepcopy(RELEASED["Turn"])
    stranger["fields"] = [
        field for field in reversed(stranger["fields"]) if field["name"] not in ("tags", "extra")
    ]
    stranger["fields"].append({"name": "colour", "type": "string"})
    schemas = registered(stranger=(78, stranger))
    value = written(confluent_head(78), stranger, {**fields_of(TURN), "colour": "red"})
    kind, fields = schemas.decode_fields(value)
    assert (kind, fields) == SCHEMAS.decode_fields(encode(TURN))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "Turn", "namespace": "com.example", "fields": []},
        {"type": "record", "name": "madlog.Novelty", "fields": []},
        {"type": "enum", "name": "madlog.Turn", "symbols": ["A"]},
        {"type": "record", "name": "madlog.Turn", "fields": [{"name": "a", "type": "no-type"}]},
    ],
)
def test_a_schema_of_no_event_is_refused(schema: dict[str, Any]) -> None:
    schemas = Schemas()
    with pytest.raises(SchemaError):
        schemas.add_id(5, json.dumps(schema))
    assert not schemas.knows_id(5)


def test_a_schema_of_the_log_keeps_its_new_fields_under_an_id_too() -> None:
    newer = copy.deepcopy(RELEASED["Turn"])
    newer["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    schemas = Schemas()
    schemas.add(json.dumps(newer), version=2)
    schemas.add_id(9, json.dumps(newer))
    value = written(confluent_head(9), newer, {**fields_of(TURN), "later": "kept"})
    assert schemas.decode_fields(value)[1]["later"] == "kept"
    assert schemas.version(value) == 2


def test_only_a_known_id_is_turned_into_a_fingerprint() -> None:
    value = encode(TURN, None, HEADS)
    assert SCHEMAS.single_object(value) == encode(TURN)
    for other in (encode(TURN), encode(TURN, None, {"Turn": confluent_head(99)}), b"\x00", b""):
        assert SCHEMAS.single_object(other) == other
