"""Events on the log: finds their topic and key, encodes them, registers schemas, decodes.

An event is on the log only after its schema is (acknowledged on mad.schemas), so the log decodes
itself from offset zero without this program's files.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from madlog.schemas import (
    Event,
    Schemas,
    Undecodable,
    UnknownSchema,
    build,
    encode,
)
from madlog.schemas.codec import encode_with_content, schema_events
from madlog.topics.catalog import key_in, topic, topic_for
from madlog.topics.framing import Framing, SchemaRegistry
from madlog.topics.log import (
    Commit,
    Damage,
    Headers,
    Idempotency,
    Log,
    NewRecord,
    OnDamage,
    Receipt,
    Record,
    log_damage,
)
from madlog.topics.positions import Position, Vector

__all__ = ("EventLog", "LogEvent", "NewEvent")

SCHEMAS_TOPIC = "mad.schemas"


class LogEvent:
    """An event as the log holds it: its record, kind, and fields as a plain dict."""

    __slots__ = ("_event", "fields", "kind", "record")

    def __init__(self, record: Record, kind: str, fields: dict[str, Any]) -> None:
        self.record = record
        self.kind = kind
        self.fields = fields
        self._event: Event | None = None

    @property
    def event_id(self) -> str:
        """The event's id."""
        return str(self.fields["event_id"])

    @property
    def position(self) -> Position:
        """The event's place in the log."""
        return self.record.position

    @property
    def event(self) -> Event:
        """The event as its typed model, built when first asked for."""
        if self._event is None:
            self._event = build(self.kind, self.fields)
        return self._event

    def header(self, name: str) -> bytes | None:
        """Return a record header's value, None where there is none."""
        return next((value for key, value in self.record.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append, with headers of its own; partition as in NewRecord."""

    event: Event
    headers: Headers = ()
    partition: int | None = None


class EventLog:
    """A log of events over a log of bytes; a schema registry makes it write Confluent's format."""

    def __init__(
        self, log: Log, schemas: Schemas | None = None, registry: SchemaRegistry | None = None
    ) -> None:
        self.log = log
        self.schemas = schemas or Schemas()
        self._framing = Framing(self.schemas, registry)
        self._known: set[str] = set()
        self._schemas_ready = False
        self._schemas_read = Vector()
        self._preparing = asyncio.Lock()

    @classmethod
    async def open(cls, log: Log, registry: SchemaRegistry | None = None) -> "EventLog":
        """Wrap a log, learning the schemas that it holds; writes nothing."""
        made = cls(log, registry=registry)
        await made._learn_schemas()
        return made

    async def _learn_schemas(self) -> None:
        if SCHEMAS_TOPIC not in await self.log.topics():
            return
        end = await self.log.end([SCHEMAS_TOPIC])
        async for batch in self.log.read(self._schemas_read, end):
            for record in batch:
                kind, fields = self.schemas.decode_fields(record.value)
                if kind == "SchemaRegistered":
                    self.schemas.add(fields["schema_text"], fields["version"])
        self._schemas_read = end

    async def ensure_topics(self, names: Iterable[str]) -> None:
        """Make those of the catalogue's topics that the log does not hold yet."""
        await self._framing.prepare()
        for name in sorted(set(names) - self._known):
            await self.log.create_topic(topic(name))
            self._known.add(name)

    async def _prepare(self, records: Sequence[NewRecord]) -> None:
        names = {record.topic for record in records}
        if self._schemas_ready and names <= self._known:
            return
        async with self._preparing:
            if not self._schemas_ready:
                await self.ensure_topics([SCHEMAS_TOPIC])
                # Repeats are dropped by their idempotency key, the fingerprint.
                await self.log.append([self.to_record(event) for event in schema_events()])
                self._schemas_ready = True
            await self.ensure_topics(names)

    def to_record(self, event: Event | NewEvent) -> NewRecord:
        """Return the record of an event: topic, key, wire bytes, readable headers.

        The bytes name their schema by fingerprint until this log's first append or ensure_topics.
        """
        new = event if isinstance(event, NewEvent) else NewEvent(event)
        event = new.event
        place = topic_for(event)
        key = key_in(event, place)
        idempotency = None
        if event.idempotency_key is None:
            value = encode(event, None, self._framing.heads)
        else:
            value, content = encode_with_content(event, key, self._framing.heads)
            idempotency = Idempotency(event.sender.name, event.idempotency_key, content)
        headers: Headers = (
            ("kind", event.kind.encode()),
            ("sender", event.sender.name.encode()),
            ("conversation", event.conversation_id.encode()),
            *new.headers,
        )
        return NewRecord(place.name, key.encode(), value, headers, idempotency, new.partition)

    async def append(self, events: Sequence[Event | NewEvent]) -> list[Receipt]:
        """Append events; durable when this returns. Raises what Log.append raises."""
        await self._framing.prepare()
        records = [self.to_record(event) for event in events]
        await self._prepare(records)
        return await self.log.append(records)

    async def transact(
        self,
        events: Sequence[Event | NewEvent],
        commit: Commit | None = None,
        records: Sequence[NewRecord] = (),
    ) -> list[Receipt]:
        """Append events and then plain records, and commit positions, all or nothing."""
        await self._framing.prepare()
        made = [*(self.to_record(event) for event in events), *records]
        await self._prepare(made)
        return await self.log.transact(made, commit)

    def decode(self, record: Record) -> LogEvent:
        """Return a record's event; raises Undecodable, UnknownSchema."""
        kind, fields = self.schemas.decode_fields(record.value)
        return LogEvent(record, kind, fields)

    async def single_object(self, value: bytes) -> bytes:
        """Return wire bytes as they would be without a schema registry, where that is known."""
        await self._framing.learn([value])
        return self.schemas.single_object(value)

    async def decode_all(self, records: list[Record], on_damage: OnDamage) -> list[LogEvent]:
        """Return the events of records; what cannot be decoded goes to on_damage.

        Learns the schemas that others have registered since.
        """
        decode_fields = self.schemas.decode_fields
        try:
            return [LogEvent(record, *decode_fields(record.value)) for record in records]
        except UnknownSchema:
            await self._learn_schemas()  # another process may have registered it since
            await self._framing.learn(record.value for record in records)
        except Undecodable:
            pass
        events = []
        for record in records:
            try:
                events.append(self.decode(record))
            except (Undecodable, UnknownSchema) as error:
                at = record.offset
                on_damage(Damage(record.topic, record.partition, at, at + 1, str(error)))
        return events

    async def read(
        self,
        start: Vector,
        end: Vector,
        *,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[LogEvent]]:
        """Yield the events from start up to end; what cannot be decoded goes to on_damage."""
        batches = self.log.read(start, end, records_max=records_max, on_damage=on_damage)
        async for records in batches:
            yield await self.decode_all(records, on_damage)

    async def read_topics(
        self,
        topics: Collection[str],
        *,
        start: Vector | None = None,
        end: Vector | None = None,
        records_max: int = 1000,
        on_damage: OnDamage = log_damage,
    ) -> AsyncIterator[list[LogEvent]]:
        """Yield the events of topics, by default all that there are; missing topics are empty."""
        there = await self.log.topics()
        present = [name for name in topics if name in there]
        until = (await self.log.end(present)) if end is None else end.only(present)
        since = Vector() if start is None else start.only(present)
        async for events in self.read(since, until, records_max=records_max, on_damage=on_damage):
            yield events

    async def subscribe(
        self, start: Vector, *, records_max: int = 1000, on_damage: OnDamage = log_damage
    ) -> AsyncIterator[list[LogEvent]]:
        """Yield the events of the partitions in `start` from there on: the past, then live."""
        batches = self.log.subscribe(start, records_max=records_max, on_damage=on_damage)
        async for records in batches:
            yield await self.decode_all(records, on_damage)

    async def close(self) -> None:
        """Close the log."""
        await self.log.close()
