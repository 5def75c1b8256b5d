"""One processor at work: its membership, its state for each partition, its transactions.

Nothing here is kept that the log does not hold: when a transaction does not come about (the
partition was lost, the disk was full), its layer of state is dropped and the partition is read
again from what is committed.
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
    Record,
    RecordTooLarge,
    TopicPartition,
    Vector,
)
from madlog.topics.catalog import partition_for, state
from madlog.topics.log import log_damage

__all__ = ("Item", "Lane", "Options", "Report", "StepFailed")

Item = Record | Damage
_Decoded = tuple[Item, LogEvent | None, Exception | str | None]


@dataclass(frozen=True, slots=True)
class Options:
    """Limits of an engine."""

    batch_records_max: int = 500
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
            timeout_s=timeout_s,
            on_damage=damages.append,
        )
        for damage in damages:
            if not damage.topic:
                log_damage(damage)  # it lies in no partition, so no dead letter can hold it
        items: list[Item] = [*records, *(damage for damage in damages if damage.topic)]
        if not items:
            return False
        await self._read_shared()
        items.sort(key=lambda item: (_place(item), item.offset))
        for tp, group in groupby(items, key=_place):
            await self._work(tp, list(group))
        return True

    async def idle(self) -> bool:
        """Tell whether the group, all its members together, has consumed its inputs to the end."""
        committed = await self._log.log.committed(self.membership.group)
        start = await self._log.log.start(self.processor.inputs)
        end = await self._log.log.end(self.processor.inputs)
        return all(committed.get(tp, start[tp]) >= end[tp] for tp in end)

    async def retry(self, item: Record, mark: Event) -> None:
        """Step a dead letter's record again and append its outputs and `mark`.

        Raises StepFailed when the step fails again, Fenced when the partition is lost.
        """
        tp = _place(item)
        await self._read_shared()
        state = await self._caught_up(tp)
        committed = await self._log.log.committed(self.membership.group)
        position = max(state.position, committed.get(tp, 0))
        ((_, event, error),) = await self._decode([item])
        if event is None:
            raise StepFailed(error if isinstance(error, Exception) else ValueError(error), 0)
        try:
            records = self._step(state, item, event)
            # Nothing more is consumed; committing what is proves that the partition is still ours.
            await self._transact(state, tp, [*records, self._log.to_record(mark)], position)
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
                    for record in records:
                        held.fold(record)
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

    async def _work(self, tp: TopicPartition, items: list[Item]) -> bool:
        """Process items of one partition in one transaction; False when it did not come about."""
        held = await self._caught_up(tp)
        try:
            await self._process(tp, held, items)
        except Fenced:
            return await self._give_back(tp, held)
        except (NotWritten, OutcomeUnknown):
            self._failures += 1
            if self._failures >= self._options.attempts_max:
                raise
            return await self._give_back(tp, held)
        except (RecordTooLarge, IdempotencyConflict) as error:
            held.discard()
            if len(items) == 1:
                return await self._refuse(tp, held, items[0], error)
            half = len(items) // 2
            return await self._work(tp, items[:half]) and await self._work(tp, items[half:])
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
        ((_, event, _),) = await self._decode([item])
        for with_bytes in (True, False):
            letter = dead_letter(self.processor.name, item, event, error, 1, with_bytes=with_bytes)
            try:
                record = self._log.to_record(letter)
                await self._transact(held, tp, [record], _after(item))
            except Fenced:
                return await self._give_back(tp, held)
            except RecordTooLarge:
                if not with_bytes:
                    raise
                continue
            break
        self._report.dead_letters += 1
        self._report.events += 1
        return True

    async def _process(self, tp: TopicPartition, held: PartitionState, items: list[Item]) -> None:
        fresh = [item for item in items if item.offset >= held.position]
        records: list[NewRecord] = []
        outputs = letters = 0
        for item, event, error in await self._decode(fresh):
            attempts = 0
            if event is not None and error is None:
                try:
                    made = self._step(held, item, event)
                except StepFailed as failed:
                    error, attempts = failed.cause, failed.attempts
                else:
                    records += made
                    outputs += len(made)
                    continue
            letter = dead_letter(
                self.processor.name, item, event, error or "cannot be read", attempts
            )
            records.append(self._log.to_record(letter))
            letters += 1
        position = max(_after(items[-1]), held.position)
        await self._transact(held, tp, records, position, folded=bool(fresh))
        self._report.events += len(fresh)
        self._report.repeated += len(items) - len(fresh)
        self._report.outputs += outputs
        self._report.dead_letters += letters

    async def _transact(
        self,
        held: PartitionState,
        tp: TopicPartition,
        records: list[NewRecord],
        position: int,
        *,
        folded: bool = True,
    ) -> None:
        changes = held.records(position) if folded else []
        commit = Commit(self.membership, Vector({tp: position}))
        receipts = await self._log.transact((), commit, [*records, *changes])
        if changes:
            # Nobody else wrote in between: the commit proves that the partition is ours.
            held.known_end = receipts[-1].position.offset + 1
        held.accept(position)

    async def _decode(self, items: Sequence[Item]) -> list[_Decoded]:
        decoded: list[_Decoded] = []
        for item in items:
            if isinstance(item, Damage):
                decoded.append((item, None, str(item)))
                continue
            try:
                event = self._log.decode(item)
            except UnknownSchema as error:
                decoded.append(await self._read_again(item, error))
            except Undecodable as error:
                decoded.append((item, None, error))
            else:
                decoded.append((item, event, self._misplaced(item)))
        return decoded

    async def _read_again(self, record: Record, error: Exception) -> _Decoded:
        """Read a record whose schema another process may have registered since."""
        tp = TopicPartition(record.topic, record.partition)
        span = Vector({tp: record.offset}), Vector({tp: record.offset + 1})
        async for events in self._log.read(*span, on_damage=lambda damage: None):
            for event in events:
                return record, event, self._misplaced(record)
        return record, None, error

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
        name = self.processor.name
        place = f"{name}/{item.topic}/{item.partition}@{item.offset}"
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
                            (("duration-us", took), ("source", f"{place}/{index}".encode())),
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


def _place(item: Item) -> TopicPartition:
    return TopicPartition(item.topic, item.partition)


def _after(item: Item) -> int:
    return item.offset_end if isinstance(item, Damage) else item.offset + 1
