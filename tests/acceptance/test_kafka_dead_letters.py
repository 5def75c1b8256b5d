"""Dead letters on Kafka, where readers drop what an engine made twice."""

from collections.abc import Sequence
from contextlib import suppress

from tests.unit.counting import CONVERSATIONS, Counter, counted, event_id, run, turns

from madlog.processors import dead_letters, retry_letters
from madlog.topics import Commit, EventLog, NewRecord, OutcomeUnknown, Receipt
from madlog.topics.kafka import KafkaLog


class Poisoned:
    """A fault for one event until it is cured."""

    def __init__(self, number: int) -> None:
        self.poison: str | None = event_id(number)

    def __call__(self, name: str, attempt: int) -> None:
        if name == self.poison:
            raise ValueError("cannot be counted")


class Unconfirmed(KafkaLog):
    """A log whose first commit of a consumed position is lost after the outputs were written."""

    lost = False

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        if commit is None or self.lost:
            return await super().transact(records, commit)
        self.lost = True
        outputs = [record for record in records if not record.topic.startswith("mad.state.")]
        await self._append(outputs, self._writer.write)
        raise OutcomeUnknown("the answer did not come: poll again")


async def test_what_a_retry_makes_out_of_turn_is_read(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    kafka = await KafkaLog.open(f"kafka://{kafka_bootstrap}?prefix={kafka_prefix}")
    log = await EventLog.open(kafka)
    try:
        fault = Poisoned(2)
        counter = Counter(fault)
        await log.append(turns(3, conversations=1))
        await run(log, counter)
        assert await counted(log) == ["c0 1", "c0 2"]
        fault.poison = None
        (retried,) = await retry_letters(log, [counter])
        assert retried.settled
        assert await counted(log) == ["c0 1", "c0 2", "c0 3"]
        assert await retry_letters(log, [counter]) == []
        assert [letter.settled for letter in await dead_letters(log)] == [True]
    finally:
        await kafka.close()


async def test_at_least_once_a_letter_that_was_written_twice_is_read_once(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    url = f"kafka://{kafka_bootstrap}?prefix={kafka_prefix}&transactions=off"
    kafka = await Unconfirmed.open(url)
    log = await EventLog.open(kafka)
    try:
        await log.append(turns(3, conversations=1))
        with suppress(OutcomeUnknown):
            await run(log, Counter(Poisoned(2)))
        assert kafka.lost
        topics = ["mad.dead-letters"]
        read = [
            event.kind
            async for events in log.read_topics(topics)
            for event in events
            if event.fields["topic"] == CONVERSATIONS
        ]
        assert read == ["DeadLetter"]
        end = await kafka.end(topics)
        assert sum(end.values()) == 2, "it was written twice"
    finally:
        await kafka.close()
