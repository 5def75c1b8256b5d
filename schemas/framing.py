"""How wire bytes name the schema that they were written with, before the Avro body.

Two ways, told apart by their first byte; one log may hold both:
- Avro single-object encoding: C3 01, then the schema's CRC-64-AVRO fingerprint, 8 bytes with the
  lowest first. Needs no server: the schema stands on mad.schemas under this name.
- the Confluent wire format: 00, then the id that a schema registry gave the schema, 4 bytes with
  the highest first. Stock Kafka clients and connectors read and write it.
"""

from madlog.schemas.errors import Undecodable

__all__ = (
    "CONFLUENT",
    "CONFLUENT_SIZE",
    "MARKER",
    "SINGLE_OBJECT_SIZE",
    "confluent_head",
    "head_of",
    "schema_id",
)

MARKER = b"\xc3\x01"
SINGLE_OBJECT_SIZE = len(MARKER) + 8
CONFLUENT = b"\x00"
CONFLUENT_SIZE = len(CONFLUENT) + 4


def confluent_head(number: int) -> bytes:
    """Return the bytes that name the schema of this id, 0 to 2³²-1."""
    return CONFLUENT + number.to_bytes(4, "big")


def schema_id(value: bytes) -> int | None:
    """Return the schema id that wire bytes name, None if they are not so framed."""
    if value[:1] != CONFLUENT or len(value) < CONFLUENT_SIZE:
        return None
    return int.from_bytes(value[1:CONFLUENT_SIZE], "big")


def head_of(value: bytes) -> bytes:
    """Return the bytes before the Avro body; raises Undecodable."""
    if value[:2] == MARKER and len(value) >= SINGLE_OBJECT_SIZE:
        return value[:SINGLE_OBJECT_SIZE]
    if value[:1] == CONFLUENT and len(value) >= CONFLUENT_SIZE:
        return value[:CONFLUENT_SIZE]
    raise Undecodable(
        f"{len(value)} bytes beginning {value[:4].hex()!r} are no event: a single-object Avro "
        "record begins with c301 and an 8-byte fingerprint, one in the Confluent wire format "
        "with 00 and a 4-byte schema id"
    )
