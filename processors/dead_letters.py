"""Dead letters: list them, and process them again from their original bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from madlog.processors.errors import UnknownProcessor
from madlog.processors.lane import Lane, Options, Report, StepFailed
from madlog.processors.letters import SETTLED, settled_mark
from madlog.processors.step import Processor
from madlog.topics import EventLog, Membership, Record, TopicPartition, Vector
from madlog.topics.errors import GroupBusy

__all__ = ("Letter", "Retried", "dead_letters", "retry_letters")

_TOPIC = "mad.dead-letters"


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: its event's fields, and whether a retry has settled it since."""

    fields: dict[str, Any]
    settled: bool

    @property
    def event_id(self) -> str:
        """The dead letter's own event_id."""
        return str(self.fields["event_id"])

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition that its record stands in."""
        return TopicPartition(self.fields["topic"], self.fields["partition"])


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a dead letter that was processed again."""

    event_id: str
    processor: str
    settled: bool
    error: str | None = None


async def dead_letters(log: EventLog) -> list[Letter]:
    """Return all dead letters, oldest first by (time, id), each once."""
    letters: dict[str, dict[str, Any]] = {}
    settled: set[str] = set()
    async for events in log.read_topics([_TOPIC]):
        for event in events:
            if event.kind != "DeadLetter":
                continue
            if event.fields["error_type"] == SETTLED:
                settled.add(str(event.fields["causation_id"]))
            else:
                letters.setdefault(event.event_id, event.fields)
    found = [Letter(fields, name in settled) for name, fields in letters.items()]
    return sorted(found, key=lambda item: (item.fields["occurred_at"], item.event_id))


async def retry_letters(
    log: EventLog,
    processors: Sequence[Processor],
    event_id: str = "all",
    *,
    group_prefix: str = "",
    options: Options | None = None,
    wait_s: float = 12.0,
) -> list[Retried]:
    """Process dead letters again, on the state as it is now, and say what became of each.

    Outputs get the ids that they would have had, in one transaction with the mark that settles the
    letter, so a second retry adds nothing. Needs the letters' partitions: raises GroupBusy when
    running workers do not hand them over within wait_s.
    """
    chosen = [letter for letter in await dead_letters(log) if event_id in ("all", letter.event_id)]
    results = [
        Retried(letter.event_id, letter.fields["processor"], True)
        for letter in chosen
        if letter.settled and event_id != "all"
    ]
    known = {processor.name: processor for processor in processors}
    waiting: dict[str, list[Letter]] = {}
    for letter in chosen:
        if not letter.settled:
            waiting.setdefault(letter.fields["processor"], []).append(letter)
    for name, letters in sorted(waiting.items()):
        if name not in known:
            raise UnknownProcessor(
                f"dead letter {letters[0].event_id} is of processor {name!r}, which this program "
                f"does not run: it runs {', '.join(sorted(known)) or 'none'}"
            )
        results += await _retry_all(
            log, known[name], letters, group_prefix, options or Options(), wait_s
        )
    return results


async def _retry_all(
    log: EventLog,
    processor: Processor,
    letters: list[Letter],
    group_prefix: str,
    options: Options,
    wait_s: float,
) -> list[Retried]:
    membership = await log.log.join(group_prefix + processor.name, processor.inputs)
    try:
        lane = Lane(log, processor, membership, options, Report(), lambda text: None)
        await lane.prepare()
        wanted = {
            letter.topic_partition
            for letter in letters
            if letter.fields["topic"] in processor.inputs
        }
        await _own(log, membership, wanted, wait_s)
        return [await _retry(log, lane, letter) for letter in letters]
    finally:
        await membership.leave()


async def _own(
    log: EventLog, membership: Membership, wanted: set[TopicPartition], wait_s: float
) -> None:
    clock = log.log.clock
    until = clock.monotonic_ns() + int(wait_s * 1e9)
    while True:
        # What this returns is not processed and not committed: the workers get it again.
        await membership.poll(records_max=1, timeout_s=0.02)
        missing = wanted - membership.assignment
        if not missing:
            return
        if clock.monotonic_ns() > until:
            raise GroupBusy(
                f"{sorted(missing)[0]} is held by another worker of {membership.group}: "
                "stop the workers, then retry"
            )


async def _retry(log: EventLog, lane: Lane, letter: Letter) -> Retried:
    fields = letter.fields
    if fields["topic"] not in lane.processor.inputs:
        return Retried(
            letter.event_id,
            fields["processor"],
            False,
            f"{fields['topic']} is read anew at each start: publish a correct event instead",
        )
    record = await _original(log, letter)
    if record is None:
        return Retried(letter.event_id, fields["processor"], False, fields["error"])
    try:
        await lane.retry(record, settled_mark(fields, fields["attempts"] + 1))
    except StepFailed as failed:
        return Retried(letter.event_id, fields["processor"], False, str(failed))
    return Retried(letter.event_id, fields["processor"], True)


async def _original(log: EventLog, letter: Letter) -> Record | None:
    """Return the letter's record from its bytes, else from the log, None where it is damaged."""
    fields, tp = letter.fields, letter.topic_partition
    if fields["record_value"]:
        return Record(
            tp.topic,
            tp.partition,
            fields["offset"],
            fields["record_key"],
            fields["record_value"],
            tuple(fields["record_headers"].items()),
            0,
        )
    at = fields["offset"]
    span = Vector({tp: at}), Vector({tp: at + 1})
    async for records in log.log.read(*span, on_damage=lambda damage: None):
        for record in records:
            return record
    return None
