"""How a log of events names schemas on the wire: by fingerprint, or by a schema registry's ids.

Subjects follow the RecordNameStrategy (`madlog.Turn`): one topic holds several kinds, which the
default strategy of one schema a topic cannot say, and Delivery stands in a topic for each
recipient, where the TopicRecordNameStrategy would make one schema many. Compatibility is then
judged kind by kind, as madlog.schemas.evolution judges it. mad.schemas itself is written by
fingerprint always, so that a log tells its schemas to who has no registry.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from madlog.schemas import SchemaError, Schemas
from madlog.schemas.codec import Heads, schema_events, single_object_heads
from madlog.schemas.framing import confluent_head, schema_id

__all__ = ("Framing", "SchemaRegistry", "subject")

_BY_FINGERPRINT = frozenset({"SchemaRegistered"})


class SchemaRegistry(Protocol):
    """What gives schemas their ids in the Confluent wire format."""

    async def register(self, subject: str, schema_text: str) -> int:
        """Return the schema's id, a new one if the subject lacks it.

        Raises IncompatibleSchema, LogUnavailable.
        """

    async def schema_text(self, number: int) -> str | None:
        """Return the Avro schema of an id, None where there is none; raises LogUnavailable."""


def subject(kind: str) -> str:
    """Return the subject under which a kind's schemas are registered."""
    return f"madlog.{kind}"


class Framing:
    """The heads of what one log's events are written with, and the ids of what it reads."""

    def __init__(self, schemas: Schemas, registry: SchemaRegistry | None) -> None:
        self.heads: Heads = single_object_heads()
        self._schemas = schemas
        self._registry = registry
        self._to_register = registry is not None
        self._registering = asyncio.Lock()
        self._no_events: set[int] = set()

    async def prepare(self) -> None:
        """Register the schemas to write with, once; raises IncompatibleSchema, LogUnavailable."""
        if not self._to_register:
            return
        async with self._registering:
            registry = self._registry
            if registry is None or not self._to_register:
                return
            events = [one for one in schema_events() if one.subject_name not in _BY_FINGERPRINT]
            numbers = await asyncio.gather(
                *(registry.register(subject(one.subject_name), one.schema_text) for one in events)
            )
            heads = dict(self.heads)
            for one, number in zip(events, numbers, strict=True):
                self._schemas.add_id(number, one.schema_text)
                heads[one.subject_name] = confluent_head(number)
            self.heads = heads
            self._to_register = False

    async def learn(self, values: Iterable[bytes]) -> None:
        """Ask the registry for the schemas that wire bytes name by unknown ids.

        What it does not know either, or is no event's, stays unknown. Raises LogUnavailable.
        """
        if self._registry is None:
            return
        for number in {schema_id(value) for value in values} - self._no_events - {None}:
            if number is None or self._schemas.knows_id(number):
                continue
            text = await self._registry.schema_text(number)
            if text is None:
                continue
            try:
                self._schemas.add_id(number, text)
            except SchemaError:
                self._no_events.add(number)
