"""What CI checks of every schema that ships: pinned, parseable, compatible, the model's own."""

import hashlib
import json
from pathlib import Path

import fastavro
import pytest

import madlog.schemas
from madlog.schemas import EVENT_KINDS
from madlog.schemas.codec import released_schemas
from madlog.schemas.derive import avro_schema, avro_text
from madlog.schemas.evolution import check_released

AVRO = Path(madlog.schemas.__file__).parent / "avro"
PINS: dict[str, str] = json.loads((AVRO / "released.json").read_text())


@pytest.mark.parametrize("path", sorted(AVRO.glob("*.avsc")), ids=lambda path: path.name)
def test_a_released_schema_is_never_edited(path: Path) -> None:
    assert path.name in PINS, "a new schema file: pin its SHA-256 in released.json"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PINS[path.name], (
        "events were written with this file: undo the edit and add the next version beside it"
    )


def test_a_released_schema_is_never_removed() -> None:
    assert {path.name for path in AVRO.glob("*.avsc")} == set(PINS)


def test_every_version_can_read_and_be_read_by_every_other() -> None:
    assert check_released(released_schemas()) == []


def test_every_kind_has_a_schema_and_every_schema_a_kind() -> None:
    assert set(released_schemas()) == set(EVENT_KINDS)


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_the_newest_schema_is_the_one_derived_from_the_model(kind: str) -> None:
    newest = released_schemas()[kind][-1]
    assert newest == avro_schema(EVENT_KINDS[kind])
    assert json.loads(avro_text(EVENT_KINDS[kind])) == newest
    fastavro.parse_schema(newest)


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_every_field_of_a_schema_is_a_field_of_the_model_in_its_place(kind: str) -> None:
    fields = [field["name"] for field in released_schemas()[kind][-1]["fields"]]
    assert fields == list(EVENT_KINDS[kind].model_fields)
