"""What cannot be processed becomes a dead letter, and can be processed later."""

import pytest
from tests.unit.counting import (
    CONVERSATIONS,
    MARIA,
    ORDERS,
    Counter,
    counted,
    event_id,
    opened,
    read,
    run,
    turn,
    turns,
)

from madlog.processors import (
    Router,
    UnknownProcessor,
    dead_letters,
    retry_letters,
)
from madlog.schemas import (
    ModelPublished,
    derived_event_id,
)
from madlog.topics import (
    NewRecord,
    Position,
)
from madlog.topics.errors import GroupBusy
from madlog.topics.memory import MemoryLog


async def test_a_poison_event_becomes_a_dead_letter_and_the_partition_goes_on() -> None:
    def fault(name: str, attempt: int) -> None:
        if name == event_id(2):
            raise ValueError("cannot be counted")

    log = await opened()
    await log.append(turns(3, conversations=1))
    counter = Counter(fault)
    report = await run(log, counter)
    assert (report.events, report.outputs, report.dead_letters) == (3, 2, 1)
    assert await counted(log) == ["c0 1", "c0 2"]
    assert counter.steps.count(event_id(2)) == 3
    (letter,) = await dead_letters(log)
    (poison,) = [event for event in await read(log, CONVERSATIONS) if event.event_id == event_id(2)]
    fields = letter.fields
    assert (fields["processor"], fields["error_type"], fields["error"], fields["attempts"]) == (
        "counter",
        "ValueError",
        "cannot be counted",
        3,
    )
    at = Position(fields["topic"], fields["partition"], fields["offset"])
    assert at == poison.position
    assert fields["record_value"] == poison.record.value
    assert fields["record_key"] == poison.record.key
    assert fields["record_headers"] == dict(poison.record.headers)
    assert fields["causation_id"] == event_id(2)
    assert not letter.settled


@pytest.mark.parametrize(
    ("value", "error_type"),
    [
        (b"no event at all", "Undecodable"),
        (b"", "Undecodable"),
        (b"\xc3\x01" + b"\x00" * 8 + b"rest", "UnknownSchema"),
    ],
)
async def test_bytes_that_are_no_event_become_a_dead_letter(value: bytes, error_type: str) -> None:
    log = await opened()
    await log.append([turn(1)])
    key = b"c"
    await log.log.append([NewRecord(CONVERSATIONS, key, value)])
    await log.append([turn(2)])
    report = await run(log, Counter())
    assert (report.outputs, report.dead_letters) == (2, 1)
    (letter,) = await dead_letters(log)
    assert letter.fields["error_type"] == error_type
    assert letter.fields["record_value"] == value


async def test_a_record_in_a_partition_of_another_key_becomes_a_dead_letter() -> None:
    log = await opened()
    await log.append([turn(1)])
    (record,) = [event.record for event in await read(log, CONVERSATIONS)]
    wrong = (record.partition + 1) % 4
    await log.log.append([NewRecord(CONVERSATIONS, b"c", record.value, (), None, wrong)])
    report = await run(log, Counter())
    assert (report.outputs, report.dead_letters) == (1, 1)
    (letter,) = await dead_letters(log)
    assert letter.fields["error_type"] == "WrongPartition"
    assert f"belongs in partition {record.partition}" in letter.fields["error"]
    (result,) = await retry_letters(log, [Counter()])
    assert not result.settled


async def test_damage_is_named_in_a_dead_letter_and_passed_over() -> None:
    log = await opened()
    await log.append(turns(3, conversations=1))
    tp = (await read(log, CONVERSATIONS))[0].position.topic_partition
    part = log.log._store.partitions[tp]  # type: ignore[attr-defined]
    part.checksums[1] ^= 1
    report = await run(log, Counter())
    assert (report.outputs, report.dead_letters) == (2, 1)
    (letter,) = await dead_letters(log)
    assert (letter.fields["error_type"], letter.fields["offset"]) == ("Damaged", 1)
    assert (await run(log, Counter())).dead_letters == 0
    (result,) = await retry_letters(log, [Counter()])
    assert not result.settled


async def test_damage_at_the_end_does_not_keep_the_engine_from_being_idle() -> None:
    log = await opened()
    await log.append(turns(2, conversations=1))
    tp = (await read(log, CONVERSATIONS))[0].position.topic_partition
    log.log._store.partitions[tp].checksums[1] ^= 1  # type: ignore[attr-defined]
    assert (await run(log, Counter())).idle
    assert (await log.log.committed("counter"))[tp] == 2


async def test_an_output_over_the_limit_becomes_a_dead_letter_and_the_others_go_on() -> None:
    log = await opened(MemoryLog(record_bytes_max=4000))
    # The turn takes some 3,950 bytes, its delivery some 240 more.
    await log.append([turn(n, "c", "x" * (3850 if n == 5 else 10)) for n in range(1, 9)])
    report = await run(log, Router(ORDERS))
    assert (report.outputs, report.dead_letters) == (14, 1)
    (letter,) = await dead_letters(log)
    assert letter.fields["error_type"] == "RecordTooLarge"
    # There is no room for the turn and an envelope around it; it stands at its position still.
    assert letter.fields["record_value"] == b""
    assert letter.fields["offset"] == 4


async def test_a_dead_letter_is_settled_by_a_retry_with_the_ids_it_would_have_had() -> None:
    def fault(name: str, attempt: int) -> None:
        if name == event_id(2):
            raise ValueError("cannot be counted")

    log = await opened()
    await log.append(turns(3, conversations=1))
    await run(log, Counter(fault))
    (letter,) = await dead_letters(log)
    (failed,) = await retry_letters(log, [Counter(fault)])
    assert (failed.settled, failed.error) == (False, "cannot be counted")
    assert [item.settled for item in await dead_letters(log)] == [False]
    (done,) = await retry_letters(log, [Counter()], letter.event_id)
    assert done.settled
    assert [item.settled for item in await dead_letters(log)] == [True]
    assert await counted(log) == ["c0 1", "c0 2", "c0 3"]
    ids = [event.event_id for event in await read(log, "mad.outcomes")]
    assert derived_event_id(event_id(2), "counter", 0) in ids
    (again,) = await retry_letters(log, [Counter()], letter.event_id)
    assert again.settled
    assert await retry_letters(log, [Counter()]) == []
    assert len(await counted(log)) == 3
    await log.append([turn(4, "c0")])
    await run(log, Counter())
    assert "c0 4" in await counted(log)


async def test_a_retry_does_not_take_a_partition_from_a_worker() -> None:
    log = await opened()
    await log.append([turn(1)])
    await log.log.append([NewRecord(CONVERSATIONS, b"c", b"junk")])
    await run(log, Counter())
    members = [await log.log.join("counter", [CONVERSATIONS]) for _ in range(4)]
    for member in members:
        await member.poll(timeout_s=0)
    with pytest.raises(GroupBusy, match="stop the workers"):
        await retry_letters(log, [Counter()], wait_s=0)
    for member in members:
        await member.leave()
    (result,) = await retry_letters(log, [Counter()])
    assert not result.settled


async def test_a_letter_of_a_processor_that_is_not_here_is_named() -> None:
    log = await opened()
    await log.append([turn(1)])
    await log.log.append([NewRecord(CONVERSATIONS, b"c", b"junk")])
    await run(log, Counter())
    with pytest.raises(UnknownProcessor, match="'counter'"):
        await retry_letters(log, [Router(ORDERS)])
    assert await retry_letters(log, [Counter()], "no-such-letter") == []


async def test_a_bad_model_is_a_dead_letter_once_and_the_first_tree_serves() -> None:
    log = await opened()
    bad = ModelPublished(
        event_id=event_id(77),
        conversation_id="mad.models",
        sender=MARIA,
        occurred_at=1,
        component="dtr",
        version="bad",
        parameters_sha256="0",
        parameters="{}",
    )
    await log.append([bad, turn(1)])
    await run(log)
    await run(log)
    (letter,) = await dead_letters(log)
    assert (letter.fields["topic"], letter.fields["error_type"]) == ("mad.models", "InvalidModel")
    (decision,) = await read(log, "mad.decisions")
    assert decision.fields["model_version"] == "seed-1"
    (result,) = await retry_letters(log, [Router(ORDERS)])
    assert not result.settled
