"""Record batches as Kafka sends them, turned into records: committed ones, with damage named."""

from collections.abc import Iterator
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from madlog.topics._kafka_client import Fetched
from madlog.topics._kafka_repeats import IDEMPOTENCY, Repeats
from madlog.topics.log import Damage, OnDamage, Record
from madlog.topics.positions import TopicPartition

__all__ = ("take",)


def take(
    tp: TopicPartition,
    fetched: Fetched,
    on_damage: OnDamage,
    *,
    repeats: Repeats | None = None,
    end: int | None = None,
    whole: bool = False,
) -> tuple[list[Record], int]:
    """Return a fetch's committed records that were not seen before, and the next offset.

    `end` is exclusive; `whole` leaves the log's own header on. The unit of damage is the batch as
    its producer sent it, since it has one checksum.
    """
    records: list[Record] = []
    at = fetched.at
    topic, partition = tp
    for batch in _committed(tp, fetched, on_damage):
        if isinstance(batch, int):
            at = max(at, batch)
            continue
        for one in batch:
            offset = one.offset
            if offset < at:
                continue
            if end is not None and offset >= end:
                return records, end
            headers = tuple(one.headers)
            if repeats is not None and repeats.seen(offset, headers):
                continue
            if not whole and headers and headers[-1][0] == IDEMPOTENCY:
                headers = headers[:-1]
            key, value, time_ms = one.key or b"", one.value or b"", one.timestamp
            records.append(Record(topic, partition, offset, key, value, headers, time_ms * 1000))
        at = max(at, batch.next_offset)
    return records, at


def _committed(tp: TopicPartition, fetched: Fetched, on_damage: OnDamage) -> Iterator[Any]:
    """Yield the batches to read, and for each that is passed over the offset after it."""
    aborted = sorted(fetched.aborted, key=lambda pair: pair[1])
    aborting: set[int] = set()
    at = fetched.at
    batches = MemoryRecords(fetched.data)
    while batches.has_next():
        try:
            batch: Any = batches.next_batch()
            sound = batch.validate_crc()
        except CorruptRecordException as error:
            on_damage(Damage(*tp, at, at + 1, f"the record batch is broken: {error}"))
            yield at + 1
            return
        if not sound:
            # Where it ends is said by the batch itself: believed only as far as it makes sense.
            after = batch.next_offset if at < batch.next_offset <= fetched.end else at + 1
            first = max(batch.base_offset, at) if batch.base_offset < after else at
            reason = "the checksum of the record batch does not match"
            on_damage(Damage(*tp, first, after, reason))
            at = after
            yield at
            continue
        while aborted and aborted[0][1] <= batch.base_offset:
            aborting.add(aborted.pop(0)[0])
        at = max(at, batch.next_offset)
        if batch.is_control_batch:
            if _is_abort(batch):
                aborting.discard(batch.producer_id)
            yield at
        elif batch.is_transactional and batch.producer_id in aborting:
            yield at
        else:
            yield batch


def _is_abort(batch: Any) -> bool:
    for record in batch:
        return bool(ControlRecord.parse(record.key) == ABORT_MARKER)
    return False
