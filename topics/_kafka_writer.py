"""Writing to Kafka in rounds: all that waits becomes one batch a partition, or one transaction.

While a round is on its way the next one gathers, so many small appends cost few requests and each
partition keeps the order of its appends. A producer that failed in any way is thrown away: no
Python client speaks the protocol (KIP-890) by which a late request could not hit its successor.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError

from madlog.topics._kafka_client import LATEST, Cluster
from madlog.topics._kafka_repeats import idempotency_header
from madlog.topics.errors import (
    Fenced,
    LogError,
    LogUnavailable,
    NotWritten,
    OutcomeUnknown,
    RecordTooLarge,
)
from madlog.topics.log import NewRecord
from madlog.topics.positions import TopicPartition

__all__ = ("Placed", "Writer")

Placed = tuple[TopicPartition, NewRecord]

_BATCH_BYTES = 512 << 10
_ROUND_BYTES = 8 << 20
_RECORD_OVERHEAD = 64
# A transaction whose producer died is ended by the broker after this; readers wait until then.
_TRANSACTION_TIMEOUT_MS = 15_000
_READABLE_S = 1.0
_LOOK_AGAIN_S = 0.001

_FENCED = (
    kafka_errors.ProducerFenced,
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.InvalidProducerIdMapping,
    kafka_errors.InvalidTxnState,
)
# What the library raises for whatever is asked of a producer that has failed meanwhile.
_AFTER_FAILURE = (kafka_errors.IllegalOperation, AssertionError)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


@dataclass(slots=True, eq=False)
class _Job:
    placed: Sequence[Placed]
    size: int
    offsets: Mapping[TopicPartition, int]
    group: str
    done: "asyncio.Future[list[int]]"


@dataclass(slots=True)
class _Batch:
    tp: TopicPartition
    builder: Any
    slots: list[tuple[list[int], int]]  # where each record's offset goes


class Writer:
    """One producer and its queue; with a transactional id each round is one transaction."""

    def __init__(
        self,
        cluster: Cluster,
        now_ms: Callable[[], int],
        *,
        bytes_max: int,
        transactional_id: str | None = None,
        once: bool = False,
    ) -> None:
        self._cluster = cluster
        self._now_ms = now_ms
        self._bytes_max = bytes_max
        self._transactional_id = transactional_id
        # A lane's writer dies with its producer: only who owns the partition may make a new one.
        self._once = once
        self._producer: AIOKafkaProducer | None = None
        self._queue: list[_Job] = []
        self._bytes = 0
        self._room = asyncio.Condition()
        self._running: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[Any]] = set()
        self.failed = False
        self._closed = False

    async def start(self) -> None:
        """Connect; with a transactional id this ends what its predecessor left open.

        Raises LogUnavailable, Fenced.
        """
        if self._producer is None:
            self._producer = await self._cluster.call("starting a producer", self._open)

    async def write(
        self,
        placed: Sequence[Placed],
        offsets: Mapping[TopicPartition, int] | None = None,
        group: str = "",
    ) -> list[int]:
        """Append records, in a transaction with committed positions where there is a group.

        Returns the records' offsets. Raises NotWritten, OutcomeUnknown, RecordTooLarge, Fenced.
        """
        size = sum(_size(record) for _, record in placed)
        await self._wait_for_room(size)
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Job(placed, size, offsets or {}, group, done))
        if self._running is None:
            self._running = self._cluster.background(self._run())
        return await done

    async def close(self) -> None:
        """Finish what was accepted and let go of the producer."""
        self._closed = True
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=self._cluster.timeout_s)
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=2)

    def abandon(self) -> None:
        """Throw the producer away without a word; its transaction is ended by its successor."""
        self.failed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            task = self._cluster.background(_stop(producer))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _open(self) -> AIOKafkaProducer:
        arguments = self._cluster.address.client_arguments()
        # The broker knows a batch that is sent anew, even if the first of it comes late.
        request_s = self._cluster.request_timeout_s
        if self._transactional_id is not None:
            # The end of a transaction must not be: it would end the next one.
            request_s = 2 * self._cluster.timeout_s
            arguments["transactional_id"] = self._transactional_id
            arguments["transaction_timeout_ms"] = _TRANSACTION_TIMEOUT_MS
        producer = AIOKafkaProducer(
            enable_idempotence=True,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=int(request_s * 1000),
            retry_backoff_ms=50,
            **arguments,
        )
        try:
            await producer.start()
        except BaseException as error:
            await _stop(producer)
            if isinstance(error, _FENCED):
                raise Fenced("another worker has taken this partition: poll again") from error
            raise
        return producer

    async def _wait_for_room(self, size: int) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed: open it again")
        if self.failed and self._once:
            raise Fenced("the producer of this partition was lost: drop the batch and poll again")
        async with self._room:
            try:
                async with asyncio.timeout(self._cluster.timeout_s):
                    # One job that is larger than the whole buffer may pass when nothing else waits.
                    await self._room.wait_for(
                        lambda: not self._bytes or self._bytes + size <= self._bytes_max
                    )
            except TimeoutError as error:
                raise NotWritten(
                    f"the buffer of {self._bytes_max:,} bytes has been full for "
                    f"{self._cluster.timeout_s:g} s, so nothing was sent: the broker is slow or "
                    "away; try again later"
                ) from error
            self._bytes += size

    async def _run(self) -> None:
        try:
            while self._queue:
                jobs = self._next_jobs()
                try:
                    answers = await self._round(jobs)
                except BaseException as error:
                    self._fail(jobs, error)
                    if not isinstance(error, Exception):
                        raise
                else:
                    for job, offsets in zip(jobs, answers, strict=True):
                        if not job.done.done():
                            job.done.set_result(offsets)
                async with self._room:
                    self._bytes -= sum(job.size for job in jobs)
                    self._room.notify_all()
        finally:
            self._running = None
            left, self._queue = self._queue, []
            self._fail(left, NotWritten("the log was closed before this was sent: try again"))

    def _fail(self, jobs: Sequence[_Job], error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = NotWritten("the log was closed before this was acknowledged: try again")
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(error)
                job.done.exception()  # a caller that was cancelled does not fetch it

    def _next_jobs(self) -> list[_Job]:
        """Take what one round holds; positions to commit go alone, in their own transaction."""
        jobs = [self._queue.pop(0)]
        size = jobs[0].size
        while (
            self._queue
            and not jobs[0].group
            and not self._queue[0].group
            and size + self._queue[0].size <= _ROUND_BYTES
        ):
            jobs.append(self._queue.pop(0))
            size += jobs[-1].size
        return jobs

    async def _round(self, jobs: Sequence[_Job]) -> list[list[int]]:
        try:
            await self.start()
        except Fenced:
            raise
        except LogError as error:
            raise NotWritten(f"nothing was written: {error}") from error
        answers, batches = self._build(jobs)
        committing = False
        try:
            async with asyncio.timeout(self._cluster.timeout_s):
                producer = self._producer
                assert producer is not None
                if self._transactional_id is not None:
                    await producer.begin_transaction()
                await self._send(producer, batches, jobs[0])
                if self._transactional_id is not None:
                    committing = True
                    await producer.commit_transaction()
                    await self._until_readable(batches)
        except (KafkaError, OSError, TimeoutError, *_AFTER_FAILURE) as error:
            cause = _cause(self._producer, error)
            self.abandon()
            if isinstance(cause, _AFTER_FAILURE):
                raise
            raise self._explain(cause, committing) from error
        except BaseException:
            self.abandon()
            raise
        return answers

    def _build(self, jobs: Sequence[_Job]) -> tuple[list[list[int]], list[_Batch]]:
        producer = self._producer
        assert producer is not None
        now_ms = self._now_ms()
        open_batches: dict[TopicPartition, _Batch] = {}
        batches: list[_Batch] = []
        answers: list[list[int]] = []
        for job in jobs:
            offsets = [0] * len(job.placed)
            answers.append(offsets)
            for index, (tp, record) in enumerate(job.placed):
                headers = list(record.headers)
                if record.idempotency is not None:
                    headers.append(idempotency_header(record.idempotency))
                batch = open_batches.get(tp)
                if batch is None or not batch.builder.append(
                    timestamp=now_ms, key=record.key, value=record.value, headers=headers
                ):
                    batch = open_batches[tp] = _Batch(tp, producer.create_batch(), [])
                    batches.append(batch)
                    batch.builder.append(
                        timestamp=now_ms, key=record.key, value=record.value, headers=headers
                    )
                batch.slots.append((offsets, index))
        return answers, batches

    async def _send(self, producer: AIOKafkaProducer, batches: list[_Batch], first: _Job) -> None:
        waiting = []
        for batch in batches:
            batch.builder.close()
            topic, partition = batch.tp
            told = await producer.send_batch(
                batch.builder, self._cluster.physical(topic), partition=partition
            )
            told.add_done_callback(_retrieve)  # where another fails first, nobody asks for it
            waiting.append(told)
        if first.group:
            offsets = {
                KafkaPartition(self._cluster.physical(tp.topic), tp.partition): at
                for tp, at in first.offsets.items()
            }
            await producer.send_offsets_to_transaction(offsets, self._cluster.physical(first.group))
        for batch, place in zip(batches, await asyncio.gather(*waiting), strict=True):
            for number, (offsets_out, index) in enumerate(batch.slots):
                offsets_out[index] = place.offset + number

    async def _until_readable(self, batches: list[_Batch]) -> None:
        """Wait until readers see what was committed: the coordinator answers before it is so.

        Not for long: where another's open transaction stands before it, readers wait for that.
        """
        last = {
            batch.tp: max(offsets[index] for offsets, index in batch.slots) for batch in batches
        }
        with contextlib.suppress(LogError, KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_READABLE_S):
                while last:
                    end = await self._cluster.offsets(last, LATEST)
                    last = {tp: at for tp, at in last.items() if end[tp] <= at}
                    if last:
                        await asyncio.sleep(_LOOK_AGAIN_S)

    def _explain(self, error: BaseException, committing: bool) -> LogError:
        if isinstance(error, _TOO_LARGE):
            return RecordTooLarge(
                "the broker takes no record of this size: `madlog topics apply` sets its limit, "
                "or store the content as a blob and refer to it"
            )
        why = str(error).strip() or type(error).__name__
        if isinstance(error, _FENCED) and self._transactional_id is not None:
            if self._once:
                return Fenced("another worker owns this partition now: drop the batch, poll again")
            return NotWritten(f"the broker ended the transaction ({why}): try again")
        if isinstance(error, TimeoutError):
            why = f"no answer within {self._cluster.timeout_s:g} s"
        if self._transactional_id is not None and not committing:
            return NotWritten(f"the transaction did not come about ({why}): try again")
        return OutcomeUnknown(
            f"the broker did not acknowledge ({why}), so this may be in the log or not: repeat it "
            "with the same idempotency key, which is safe"
        )


def _size(record: NewRecord) -> int:
    return len(record.key) + len(record.value) + _RECORD_OVERHEAD


def _cause(producer: AIOKafkaProducer | None, error: BaseException) -> BaseException:
    """Return why a producer failed where the library says only that it has no transaction."""
    if producer is not None and isinstance(error, _AFTER_FAILURE):
        told = producer._txn_manager._transaction_waiter
        if told is not None and told.done() and not told.cancelled():
            return told.exception() or error
    return error


def _retrieve(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


async def _stop(producer: AIOKafkaProducer) -> None:
    """Let a producer go: politely where it answers, by force where it does not."""
    sender, pending = producer._sender.sender_task, producer._message_accumulator
    _forget(producer)
    if sender is not None and not sender.done() and (pending._batches or pending._pending_batches):
        # It would wait for what was given up already, for ever where the broker is away.
        sender.cancel()
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(2):
            await producer.stop()
    with contextlib.suppress(Exception):
        await producer.client.close()
    # No news of the cluster comes any more: who waits for it goes on.
    news = producer.client._md_update_fut or asyncio.get_running_loop().create_future()
    producer.client._md_update_fut = news
    if not news.done():
        news.set_result(False)
    if sender is not None:
        # Its requests have failed now: it takes up what they held, and ends.
        await asyncio.wait({sender}, timeout=2)
    # Else `stop`, which still waits for these batches, would do so for ever.
    for batches in pending._batches.values():
        pending._pending_batches.update(batches)
    pending._batches.clear()
    pending.fail_all(kafka_errors.ProducerClosed())
    _forget(producer)


def _forget(producer: AIOKafkaProducer) -> None:
    """See that asyncio does not report futures that nobody waits for any more."""
    state, pending = producer._txn_manager, producer._message_accumulator
    queues = (pending._pending_batches, *pending._batches.values())
    for told in (
        state._transaction_waiter,
        *(waiting[2] for waiting in state._pending_txn_offsets),
        *(one for q in queues for batch in q for one in (batch.future, batch._drain_waiter)),
    ):
        if told is not None:
            told.add_done_callback(_retrieve)
