"""The baselines on Kafka: the best plain loops an expert writes on aiokafka, tuned by trying.

Batches are built by hand: `create_batch` and `send_batch` took 3 to 5 µs a record here where
`send` took 11 to 15, whatever its linger. Reading is fastest by `getmany` of 500 and 1 MiB a
partition. A transaction takes what some rounds of `getmany` gave.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from tests.bench.broker import PARTITIONS, Broker, Meter, Sample

from madlog.schemas import Turn, encode
from madlog.topics.catalog import partition_for

__all__ = (
    "Output",
    "Raw",
    "append_times",
    "fastavro_decoder",
    "produce",
    "produce_raw",
    "raw",
    "scan",
    "through",
)

Headers = Sequence[tuple[str, bytes]]
# key, value, headers
Raw = tuple[bytes, bytes, Headers]
# topic, key, value, headers
Output = tuple[str, bytes, bytes, Headers]

_BATCH_BYTES = 128 << 10
_BATCHES_WAITING_MAX = 16

_partition = lru_cache(maxsize=65_536)(partition_for)


def raw(turn: Turn) -> Raw:
    """Return the record of a turn: the same bytes and readable headers as ours."""
    key = turn.conversation_id.encode()
    headers = [("kind", b"Turn"), ("sender", turn.sender.name.encode()), ("conversation", key)]
    return key, encode(turn), headers


class _Batches:
    """Builds batches by hand, one open for each partition, and bounds those under way."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.open: dict[tuple[str, int], Any] = {}
        self._producer = producer
        self._sent: list[asyncio.Future[Any]] = []

    async def renew(self, place: tuple[str, int]) -> Any:
        """Send a partition's batch, if there is one, and return a new one for it."""
        await self._send(place)
        batch = self.open[place] = self._producer.create_batch()
        return batch

    async def _send(self, place: tuple[str, int]) -> None:
        batch = self.open.pop(place, None)
        if batch is None:
            return
        batch.close()
        self._sent.append(await self._producer.send_batch(batch, place[0], partition=place[1]))
        await (self._sent.pop(0) if len(self._sent) > _BATCHES_WAITING_MAX else asyncio.sleep(0))

    async def send_all(self) -> None:
        """Send what was built."""
        for place in list(self.open):
            await self._send(place)

    async def wait(self) -> None:
        """Wait for the broker's answers."""
        sent, self._sent = self._sent, []
        await asyncio.gather(*sent)


def _producer(broker: Broker, transactional_id: str | None = None) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=broker.address,
        enable_idempotence=True,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        transactional_id=transactional_id,
    )


async def _consumer(
    broker: Broker, topic: str, start: Sequence[int] | None = None, group: str | None = None
) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.address,
        group_id=group,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    for place in places:
        consumer.seek(place, start[place.partition] if start else 0)
    return consumer


async def produce(broker: Broker, topic: str, turns: Iterable[Turn], count: int) -> Sample:
    """Encode turns as they are made and produce them; the time ends with the last answer."""
    producer = _producer(broker)
    await producer.start()
    try:
        batches = _Batches(producer)
        meter = Meter(broker)
        for turn in turns:
            key = turn.conversation_id.encode()
            value = encode(turn)
            headers = [
                ("kind", b"Turn"),
                ("sender", turn.sender.name.encode()),
                ("conversation", key),
            ]
            place = topic, _partition(key, PARTITIONS)
            batch = batches.open.get(place)
            if batch is None or not batch.append(
                timestamp=None, key=key, value=value, headers=headers
            ):
                batch = await batches.renew(place)
                batch.append(timestamp=None, key=key, value=value, headers=headers)
        await batches.send_all()
        await batches.wait()
        return meter.sample(count)
    finally:
        await producer.stop()


async def produce_raw(broker: Broker, topic: str, records: Sequence[Raw]) -> Sample:
    """Produce records that are ready."""
    producer = _producer(broker)
    await producer.start()
    try:
        batches = _Batches(producer)
        meter = Meter(broker)
        for key, value, headers in records:
            place = topic, _partition(key, PARTITIONS)
            batch = batches.open.get(place)
            if batch is None or not batch.append(
                timestamp=None, key=key, value=value, headers=headers
            ):
                batch = await batches.renew(place)
                batch.append(timestamp=None, key=key, value=value, headers=headers)
        await batches.send_all()
        await batches.wait()
        return meter.sample(len(records))
    finally:
        await producer.stop()


async def scan(
    broker: Broker, topic: str, count: int, decode: Callable[[bytes], Any] | None = None
) -> Sample:
    """Read a topic, decoding each value where a decoder is given."""
    consumer = await _consumer(broker, topic)
    try:
        meter = Meter(broker)
        left = count
        while left > 0:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                left -= len(records)
                if decode is not None:
                    for record in records:
                        decode(record.value or b"")
        return meter.sample(count)
    finally:
        await consumer.stop()


def fastavro_decoder(schemas: dict[bytes, Any]) -> Callable[[bytes], Any]:
    """Return a decoder of single-object Avro: marker, fingerprint, body."""
    read = fastavro.schemaless_reader

    def decode(value: bytes) -> Any:
        return read(BytesIO(value[10:]), schemas[value[2:10]], None)

    return decode


async def through(
    broker: Broker,
    topic: str,
    start: Sequence[int] | None,
    count: int,
    outputs: Callable[[ConsumerRecord[bytes, bytes]], Sequence[Output]],
    *,
    interval_s: float = 0.1,
    records_max: int = 1 << 30,
) -> Sample:
    """Consume, transform, produce and commit the positions, in one transaction a while.

    A transaction ends after `interval_s` or `records_max` records.
    """
    group = f"{topic}-{uuid.uuid4().hex}"
    consumer = await _consumer(broker, topic, start, group)
    producer = _producer(broker, group)
    await producer.start()
    now = asyncio.get_running_loop().time
    try:
        batches = _Batches(producer)
        meter, left = Meter(broker), count
        while left > 0:
            async with producer.transaction():
                positions: dict[TopicPartition, int] = {}
                until, room = now() + interval_s, min(records_max, left)
                while room > 0 and now() < until:
                    found = await consumer.getmany(timeout_ms=50, max_records=min(500, room))
                    for place, records in found.items():
                        await _transform(batches, records, outputs)
                        positions[place] = records[-1].offset + 1
                        left, room = left - len(records), room - len(records)
                await batches.send_all()
                if positions:
                    await producer.send_offsets_to_transaction(positions, group)
                await batches.wait()
        return meter.sample(count)
    finally:
        await producer.stop()
        await consumer.stop()


async def _transform(
    batches: _Batches,
    records: Sequence[ConsumerRecord[bytes, bytes]],
    outputs: Callable[[ConsumerRecord[bytes, bytes]], Sequence[Output]],
) -> None:
    for record in records:
        for topic, key, value, headers in outputs(record):
            place = topic, _partition(key, PARTITIONS)
            batch = batches.open.get(place)
            if batch is None or not batch.append(
                timestamp=None, key=key, value=value, headers=headers
            ):
                batch = await batches.renew(place)
                batch.append(timestamp=None, key=key, value=value, headers=headers)


async def append_times(broker: Broker, topic: str) -> list[int]:
    """Return the ms at which the broker appended a topic's records, in order of time."""
    consumer = await _consumer(broker, topic)
    try:
        times: list[int] = []
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                times += [record.timestamp for record in records]
        return sorted(times)
    finally:
        await consumer.stop()
