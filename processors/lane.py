"""One processor at work: its membership, its state for each partition, its transactions.

Nothing here is kept that the log does not hold: when a transaction does not come about (the
partition was lost, the disk was full), its layer of state is dropped and the partition is read
again from what is committed.

While one partition's transaction is made durable, the next partition's batch is stepped: one
transaction is under way at a time, and never a step on a partition whose transaction is.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from madlog.processors.errors import RecoveryTimeout, WrongPartition
from madlog.processors.letters import dead_letter
from madlog.processors.state import PartitionState
from madlog.processors.step import Processor
from madlog.schemas import DeadLetter, Event, Undecodable, UnknownSchema
from madlog.topics import (
    Commit,
    Damage,
    EventLog,
    Fenced,
    IdempotencyConflict,
    LogEvent,
    Membership,
    NewEvent,
    NewRecord,
    NotWritten,
    OutcomeUnknown,
    Receipt,
    Record,
    RecordTooLarge,
    TopicPartition,
    Vector,
)
from madlog.topics.catalog import partition_for, state
from madlog.topics.log import SOURCE, Idempotency, log_damage

__all__ = ("Item", "Lane", "Options", "Report", "StepFailed")

Item = Record | Damage
_Decoded = tuple[LogEvent | None, Exception | str | None]


@dataclass(frozen=True, slots=True)
class Options:
    """Limits of an engine."""

    batch_records_max: int = 2_000
    # How often one event is tried, and how often one transaction is, before giving up.
    attempts_max: int = 3
    recovery_timeout_s: float = 600.0


@dataclass(slots=True)
class Report:
    """What an engine has done so far."""

    events: int = 0
    outputs: int = 0
    dead_letters: int = 0
    # Events that were already folded and not processed again.
    repeated: int = 0
    idle: bool = False


class StepFailed(Exception):
    """A step did not succeed within its budget; `cause` says why."""

    def __init__(self, cause: Exception, attempts: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.attempts = attempts


@dataclass(slots=True)
class _Batch:
    """Items of one partition, stepped, and all that their transaction is to hold."""

    tp: TopicPartition
    held: PartitionState
    items: list[Item]
    position: int
    records: list[NewRecord]
    changes: int = 0
    fresh: int = 0
    outputs: int = 0
    letters: int = 0


_cached_partition_for = lru_cache(maxsize=65_536)(partition_for)


class Lane:
    """A processor and its membership in the group of its name."""

    def __init__(
        self,
        log: EventLog,
        processor: Processor,
        membership: Membership,
        options: Options,
        report: Report,
        recovering: Callable[[str], None],
    ) -> None:
        self.processor = processor
        self.membership = membership
        self._log = log
        self._clock = log.log.clock
        self._options = options
        self._report = report
        self._recovering = recovering
        self._shared: dict[str, Any] = {}
        self._shared_read = Vector()
        self._partitions: dict[str, int] = {}
        self._states: dict[TopicPartition, PartitionState] = {}
        self._failures = 0
        self._flight: tuple[_Batch, asyncio.Task[list[Receipt]]] | None = None
        self._topics_sent: set[str] = set()

    async def prepare(self) -> None:
        """Make and read the topics, and append what must be there before the first step."""
        changelog = state(self.processor.name).name
        names = [*self.processor.inputs, *self.processor.shared, changelog]
        await self._log.ensure_topics(names)
        self._partitions = await self._log.log.topics()
        await self._read_shared()
        events = self.processor.prelude(self._shared)
        if events:
            await self._log.append(events)
            await self._read_shared()

    async def turn(self, timeout_s: float) -> bool:
        """Poll once and process what came; tells whether anything did."""
        damages: list[Damage] = []
        records = await self.membership.poll(
            records_max=self._options.batch_records_max,
            timeout_s=0 if self._flight else timeout_s,
            on_damage=damages.append,
        )
        for damage in damages:
            if not damage.topic:
                log_damage(damage)  # it lies in no partition, so no dead letter can hold it
        items: list[Item] = [*records, *(damage for damage in damages if damage.topic)]
        if not items:
            waited = self._flight is not None
            await self._land()
            return waited
        await self._read_shared()
        items.sort(key=lambda item: (_place(item), item.offset))
        for tp, group in groupby(items, key=_place):
            await self._take(tp, list(group))
        return True

    async def leave(self) -> None:
        """Finish what is under way and give up all partitions."""
        try:
            await self._land()
        finally:
            await self.membership.leave()

    async def idle(self) -> bool:
        """Tell whether the group, all its members together, has consumed its inputs to the end."""
        committed = await self._log.log.committed(self.membership.group)
        start = await self._log.log.start(self.processor.inputs)
        end = await self._log.log.end(self.processor.inputs)
        behind = {tp: at for tp in end if (at := committed.get(tp, start[tp])) < end[tp]}
        if not behind:
            return True
        # What lies between may be no record: on Kafka the end of a transaction takes an offset.
        until = Vector({tp: end[tp] for tp in behind})
        damages: list[Damage] = []
        async for _ in self._log.log.read(Vector(behind), until, on_damage=damages.append):
            return False
        return not damages

    async def retry(self, item: Record, mark: Event) -> None:
        """Step a dead letter's record again and append its outputs and `mark`.

        Raises StepFailed when the step fails again, Fenced when the partition is lost.
        """
        tp = _place(item)
        await self._read_shared()
        state = await self._caught_up(tp)
        committed = await self._log.log.committed(self.membership.group)
        position = max(state.position, committed.get(tp, 0))
        event, error = await self._decode(item)
        if event is None or error is not None:
            raise StepFailed(error if isinstance(error, Exception) else ValueError(error), 0)
        try:
            outputs = self._step(state, item, event)
            records = [*map(_known_by_place, outputs), self._log.to_record(mark)]
            # Nothing more is consumed; committing what is proves that the partition is still ours.
            batch = _Batch(tp, state, [], position, records)
            self._settle(batch, await self._send(batch))
        except BaseException:
            state.discard()
            raise

    async def _read_shared(self) -> None:
        end = await self._log.log.end(self.processor.shared)
        if all(self._shared_read.get(tp, 0) >= end[tp] for tp in end):
            return
        async for events in self._log.read(self._shared_read, end):
            for event in events:
                try:
                    self.processor.share(self._shared, event)
                except Exception as error:
                    letter = dead_letter(self.processor.name, event.record, event, error, 1)
                    await self._write_once(letter)
        self._shared_read = end

    async def _write_once(self, letter: DeadLetter) -> None:
        """Append a shared topic's letter, which each start of each worker meets again."""
        place = f"{letter.topic}/{letter.partition}@{letter.offset}"
        keyed = letter.model_copy(update={"idempotency_key": place})
        with suppress(IdempotencyConflict):  # there already, in another program's words
            (receipt,) = await self._log.append([keyed])
            self._report.dead_letters += not receipt.repeated

    async def _caught_up(self, tp: TopicPartition) -> PartitionState:
        """Return the state of a partition with all that its changelog holds.

        Looked at before each batch: another member may have worked here since, unseen by a member
        that was away for longer than its lease. Raises RecoveryTimeout.
        """
        held = self._states.get(tp)
        if held is None:
            changelog = TopicPartition(state(self.processor.name).name, tp.partition)
            prefix = "" if len(self.processor.inputs) == 1 else f"{tp.topic}/"
            held = self._states[tp] = PartitionState(changelog, prefix)
        end = (await self._log.log.end([held.changelog.topic]))[held.changelog]
        if held.known_end is None or held.known_end < end:
            await self._recover(tp, held, end)
        return held

    async def _recover(self, tp: TopicPartition, held: PartitionState, end: int) -> None:
        began = self._clock.monotonic_ns()
        limit_s = self._options.recovery_timeout_s
        start = Vector() if held.known_end is None else Vector({held.changelog: held.known_end})
        damages: list[Damage] = []
        try:
            async with asyncio.timeout(limit_s):
                async for records in self._log.log.read(
                    start, Vector({held.changelog: end}), on_damage=damages.append
                ):
                    held.fold(records)
                    self._say(tp, held, end)
                    if (self._clock.monotonic_ns() - began) / 1e9 > limit_s:
                        raise TimeoutError
        except TimeoutError as error:
            raise RecoveryTimeout(
                f"the state of {self.processor.name} for {tp} was not rebuilt in {limit_s:g} s: "
                f"at {held.changelog}@{held.known_end or 0} of {end}; raise "
                "MADLOG_WORKER_RECOVERY_TIMEOUT_S, or look at the log with `madlog check`"
            ) from error
        held.known_end = end
        if damages:
            await self._rebuild(tp, held, damages)

    def _say(self, tp: TopicPartition, held: PartitionState, end: int) -> None:
        self._recovering(
            f"rebuilding the state of {self.processor.name} for {tp}: "
            f"{held.known_end} of {end} changes"
        )

    async def _rebuild(
        self, tp: TopicPartition, held: PartitionState, damages: Sequence[Damage]
    ) -> None:
        """Fold the input from its start again, because the changelog is damaged."""
        self._recovering(
            f"the state of {self.processor.name} for {tp} is damaged ({damages[0]}): "
            "folding its input again from the start"
        )
        committed = (await self._log.log.committed(self.membership.group)).get(tp, 0)
        held.base.clear()
        async for events in self._log.read(Vector(), Vector({tp: committed})):
            for event in events:
                overlay = held.overlay(self._shared)
                try:
                    self.processor.step(overlay, event)
                except Exception:
                    continue  # it is a dead letter already, and changed nothing
                held.keep(overlay)
        held.accept(committed)

    async def _take(self, tp: TopicPartition, items: list[Item]) -> None:
        """Step items of one partition and send their transaction on its way."""
        if self._flight is not None and self._flight[0].tp == tp and not await self._land():
            return  # they follow on what did not come about, and are polled again
        batch = await self._stepped(tp, items)
        await self._land()
        topics = {record.topic for record in batch.records}
        if not topics <= self._topics_sent:
            # Sending to a new topic waits in between, and a poll meanwhile could take up a new
            # assignment, under which this batch must not be committed.
            self._topics_sent |= topics
            await self._work(batch)
            return
        self._flight = batch, asyncio.create_task(self._send(batch))
        await asyncio.sleep(0)  # let it set out under the assignment that it was polled under

    async def _land(self) -> bool:
        """Wait for the transaction under way; False when it did not come about."""
        if self._flight is None:
            return True
        (batch, task), self._flight = self._flight, None
        return await self._work(batch, task)

    async def _work(self, batch: _Batch, sent: "asyncio.Task[list[Receipt]] | None" = None) -> bool:
        """See a batch's transaction through; False when it did not come about."""
        tp, held = batch.tp, batch.held
        try:
            self._settle(batch, await (sent or self._send(batch)))
        except Fenced:
            return await self._give_back(tp, held)
        except (NotWritten, OutcomeUnknown):
            self._failures += 1
            if self._failures >= self._options.attempts_max:
                raise
            return await self._give_back(tp, held)
        except (RecordTooLarge, IdempotencyConflict) as error:
            held.discard()
            if len(batch.items) == 1:
                return await self._refuse(tp, held, batch.items[0], error)
            half = len(batch.items) // 2
            for items in (batch.items[:half], batch.items[half:]):
                if not await self._work(await self._stepped(tp, items)):
                    return False
            return True
        self._failures = 0
        return True

    async def _give_back(self, tp: TopicPartition, held: PartitionState) -> bool:
        held.discard()
        if tp in self.membership.assignment:
            await self.membership.rewind(tp)
        return False

    async def _refuse(
        self, tp: TopicPartition, held: PartitionState, item: Item, error: Exception
    ) -> bool:
        """Dead-letter an item whose outputs the log does not take."""
        event, _ = await self._decode(item)
        for with_bytes in (True, False):
            letter = dead_letter(self.processor.name, item, event, error, 1, with_bytes=with_bytes)
            try:
                refused = _Batch(tp, held, [item], _after(item), [self._letter(item, letter)])
                refused.fresh = refused.letters = 1
                self._settle(refused, await self._send(refused))
            except Fenced:
                return await self._give_back(tp, held)
            except RecordTooLarge:
                if not with_bytes:
                    raise
                continue
            break
        return True

    async def _stepped(self, tp: TopicPartition, items: list[Item]) -> _Batch:
        held = await self._caught_up(tp)
        fresh = [item for item in items if item.offset >= held.position]
        position = max(_after(items[-1]), held.position)
        batch = _Batch(tp, held, items, position, [], fresh=len(fresh))
        for item in fresh:
            # One by one: a batch's events all alive at once cost Python's collector more.
            event, error = await self._decode(item)
            attempts = 0
            if event is not None and error is None:
                try:
                    made = self._step(held, item, event)
                except StepFailed as failed:
                    error, attempts = failed.cause, failed.attempts
                else:
                    batch.records += made
                    batch.outputs += len(made)
                    continue
            letter = dead_letter(
                self.processor.name, item, event, error or "cannot be read", attempts
            )
            batch.records.append(self._letter(item, letter))
            batch.letters += 1
        return batch

    def _letter(self, item: Item, letter: DeadLetter) -> NewRecord:
        """Return the record of a dead letter: the only output of its input."""
        return self._log.to_record(NewEvent(letter, ((SOURCE, self._source(item, 0)),)))

    def _source(self, item: Item, index: int) -> bytes:
        place = f"{self.processor.name}/{item.topic}/{item.partition}@{item.offset}"
        return f"{place}/{index}".encode()

    async def _send(self, batch: _Batch) -> list[Receipt]:
        # A batch that was folded before changes nothing; its position is committed only.
        folded = batch.fresh or not batch.items
        changes = batch.held.records(batch.position) if folded else []
        batch.changes = len(changes)
        commit = Commit(self.membership, Vector({batch.tp: batch.position}))
        return await self._log.transact((), commit, [*batch.records, *changes])

    def _settle(self, batch: _Batch, receipts: list[Receipt]) -> None:
        """Take up what an acknowledged transaction holds."""
        if batch.changes:
            # Nobody else wrote in between: the commit proves that the partition is ours.
            batch.held.known_end = receipts[-1].position.offset + 1
        batch.held.accept(batch.position)
        self._report.events += batch.fresh
        self._report.repeated += len(batch.items) - batch.fresh
        self._report.outputs += batch.outputs
        self._report.dead_letters += batch.letters

    async def _decode(self, item: Item) -> _Decoded:
        """Return an item's event, and what is wrong with it where something is."""
        if isinstance(item, Damage):
            return None, str(item)
        try:
            event = self._log.decode(item)
        except UnknownSchema as error:
            return await self._read_again(item, error)
        except Undecodable as error:
            return None, error
        return event, self._misplaced(item)

    async def _read_again(self, record: Record, error: Exception) -> _Decoded:
        """Read a record whose schema another process may have registered since."""
        tp = TopicPartition(record.topic, record.partition)
        span = Vector({tp: record.offset}), Vector({tp: record.offset + 1})
        async for events in self._log.read(*span, on_damage=lambda damage: None):
            for event in events:
                return event, self._misplaced(record)
        return None, error

    def _misplaced(self, record: Record) -> WrongPartition | None:
        count = self._partitions.get(record.topic)
        if count is None or _cached_partition_for(record.key, count) == record.partition:
            return None
        return WrongPartition(
            f"{record.position} belongs in partition {_cached_partition_for(record.key, count)} by "
            "its key: its writer must use murmur2 partitioning"
        )

    def _step(self, held: PartitionState, item: Item, event: LogEvent) -> list[NewRecord]:
        """Step one event within its budget; raises StepFailed."""
        for attempt in range(1, self._options.attempts_max + 1):
            overlay = held.overlay(self._shared)
            try:
                began = self._clock.monotonic_ns()
                outputs = self.processor.step(overlay, event)
                took = b"%d" % ((self._clock.monotonic_ns() - began) // 1000)
                records = [
                    self._log.to_record(
                        NewEvent(
                            output,
                            (("duration-us", took), (SOURCE, self._source(item, index))),
                        )
                    )
                    for index, output in enumerate(outputs)
                ]
            except Exception as error:
                if attempt == self._options.attempts_max:
                    raise StepFailed(error, attempt) from error
            else:
                held.keep(overlay)
                return records
        raise AssertionError("the budget is at least one attempt")


def _known_by_place(output: NewRecord) -> NewRecord:
    """Return an output that comes out of turn: its input's place is a key of its own.

    Readers that drop what an engine repeats expect its sources in order, so it must not have one.
    """
    place = next(value for name, value in output.headers if name == SOURCE)
    headers = tuple(header for header in output.headers if header[0] != SOURCE)
    # The same content each time: the first attempt counts, whatever a later one would say.
    once = output.idempotency or Idempotency("retry", place.decode(), place)
    return output._replace(headers=headers, idempotency=once)


def _place(item: Item) -> TopicPartition:
    return TopicPartition(item.topic, item.partition)


def _after(item: Item) -> int:
    return item.offset_end if isinstance(item, Damage) else item.offset + 1
