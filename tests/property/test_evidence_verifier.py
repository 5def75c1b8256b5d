"""The verifier of a bundle reads, without our codec, what our codec writes."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.property.test_schemas_equal import models

from madlog.schemas import EVENT_KINDS, Event, Schemas, encode
from madlog.schemas.codec import fingerprint_of, released_schemas, schema_events
from madlog.topics.evidence.verifier import decoded

SCHEMAS = Schemas()
ON_LOG = {one.fingerprint: json.loads(one.schema_text) for one in schema_events()}


def as_json(value: Any) -> Any:
    """What JSON makes of fields, bytes as a text of as many characters."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_it_reads_every_event(kind: str) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(models(EVENT_KINDS[kind]))
    def law(event: Event) -> None:
        value = encode(event)
        _, fields = SCHEMAS.decode_fields(value)
        assert decoded(value, ON_LOG) == {"kind": kind, **as_json(fields)}

    law()


def test_it_reads_what_an_older_release_wrote_by_the_schema_of_then() -> None:
    older = released_schemas()["Decision"][0]
    names = [field["name"] for field in older["fields"]]
    event = EVENT_KINDS["Decision"].model_validate(
        {
            "event_id": "0193a000-0000-7000-8000-000000000001",
            "conversation_id": "c",
            "sender": {"name": "router", "kind": "system"},
            "occurred_at": 5,
            "turn_id": "0193a000-0000-7000-8000-000000000002",
            "recipient": "shop",
            "mode": "live",
            "tier": "dtr",
            "route": "process",
            "confidence": 0.5,
            "max_error": 0.05,
            "features": {"length": -3, "kind": "question"},
            "candidates": [{"route": "process", "score": 0.5}],
            "model_id": "0193a000-0000-7000-8000-000000000003",
            "model_version": "1",
            "reason": "rule",
            "propensity": 1.0,
            "audited": True,
        }
    )
    value = encode(event, older)
    found = decoded(value, {fingerprint_of(older).hex(): older})
    assert found is not None
    assert [*found] == ["kind", *names]
    assert "arguments" not in found
    assert found["features"] == {"length": -3, "kind": "question"}
    assert found["candidates"] == [{"route": "process", "score": 0.5}]
    assert (found["audited"], found["confidence"], found["tier"]) == (True, 0.5, "dtr")
    assert decoded(value, ON_LOG) is None, "no schema on the log, no reading"
    assert decoded(b"\x00\x00\x00\x00\x01abc", ON_LOG) is None


def test_it_reads_blocks_that_tell_their_size() -> None:
    schema = {
        "type": "record",
        "name": "madlog.Odd",
        "fields": [
            {"name": "many", "type": {"type": "array", "items": "long"}},
            {"name": "of", "type": {"type": "map", "values": "string"}},
        ],
    }
    # -2 items in 2 bytes, then one more; a map of one entry in 4 bytes.
    body = bytes([3, 4, 2, 4, 2, 6, 0, 1, 8, 2, 97, 2, 98, 0])
    value = b"\xc3\x01" + bytes(8) + body
    read = {"kind": "Odd", "many": [1, 2, 3], "of": {"a": "b"}}
    assert decoded(value, {"00" * 8: schema}) == read
    assert decoded(value[:-1], {"00" * 8: schema}) is None
