import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest

from madlog.schemas import (
    Part,
    SchemaError,
    Schemas,
    Sender,
    Turn,
    Undecodable,
    encode,
    new_event_id,
)
from madlog.schemas.codec import MARKER, fingerprint_of
from madlog.schemas.text import parse
from madlog.schemas.upcast import Upcasters

V0_TEXT = (Path(__file__).parents[1] / "fixtures" / "turn.v0.avsc").read_text()
V0: dict[str, Any] = json.loads(V0_TEXT)
V0_NAME = fingerprint_of(V0)
OLD: dict[str, Any] = {
    "event_id": new_event_id(1_000_000, b"0123456789"),
    "conversation_id": "c1",
    "sender": {"name": "dewey", "kind": "mad"},
    "occurred_at": 1_000_000,
    "recipient": "fiedler",
    "body": "look at `x` #now",
}


def written_as_v0() -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, V0, OLD)
    return MARKER + V0_NAME + out.getvalue()


def turn_v0_to_v1(fields: dict[str, Any]) -> dict[str, Any]:
    """Make the one recipient a list, and parts out of the body."""
    recipient, body = fields.pop("recipient"), fields.pop("body")
    parsed = parse(body)
    return {
        **fields,
        "recipients": [recipient],
        "tags": list(parsed.tags),
        "parts": [part.model_dump() for part in parsed.parts],
    }


def schemas_with(upcasters: Upcasters) -> Schemas:
    schemas = Schemas(upcasters)
    schemas.add(V0_TEXT)
    return schemas


def test_an_event_that_avro_resolution_cannot_lift_is_lifted_by_its_upcaster() -> None:
    upcasters = Upcasters()
    upcasters.register("Turn", V0_NAME.hex(), turn_v0_to_v1)
    turn = schemas_with(upcasters).decode(written_as_v0())
    assert turn == Turn(
        event_id=OLD["event_id"],
        conversation_id="c1",
        sender=Sender(name="dewey", kind="mad"),
        occurred_at=1_000_000,
        recipients=("fiedler",),
        tags=("now",),
        parts=(
            Part(content_class="prose", text="look at "),
            Part(content_class="deterministic", text="`x`"),
            Part(content_class="prose", text=" #now"),
        ),
    )
    assert Schemas().decode(encode(turn)) == turn


def test_events_of_other_schemas_do_not_meet_the_upcaster() -> None:
    upcasters = Upcasters()
    upcasters.register("Turn", V0_NAME.hex(), turn_v0_to_v1)
    turn = Turn(
        event_id=OLD["event_id"],
        conversation_id="c1",
        sender=Sender(name="dewey", kind="mad"),
        occurred_at=1,
    )
    assert schemas_with(upcasters).decode(encode(turn)) == turn


def test_the_registry_lists_its_upcasters_by_name() -> None:
    upcasters = Upcasters()
    upcasters.register("Turn", V0_NAME.hex().upper(), turn_v0_to_v1)
    assert {key: cast.__name__ for key, cast in upcasters.items()} == {
        ("Turn", V0_NAME.hex()): "turn_v0_to_v1"
    }
    assert len(upcasters) == 1


def test_a_second_upcaster_of_one_schema_is_refused() -> None:
    upcasters = Upcasters()
    upcasters.register("Turn", V0_NAME.hex(), turn_v0_to_v1)
    with pytest.raises(SchemaError, match="turn_v0_to_v1"):
        upcasters.register("Turn", V0_NAME.hex(), dict)


def test_an_upcaster_that_fails_is_named() -> None:
    def expects_a_field(fields: dict[str, Any]) -> dict[str, Any]:
        return {"parts": fields["content"]}

    upcasters = Upcasters()
    upcasters.register("Turn", V0_NAME.hex(), expects_a_field)
    with pytest.raises(Undecodable, match="expects_a_field could not lift a Turn"):
        schemas_with(upcasters).decode(written_as_v0())
