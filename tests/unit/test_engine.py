"""The transactional engine on a log in memory."""

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import pytest

from madlog.processors import (
    Agent,
    Engine,
    Options,
    RecoveryTimeout,
    Registry,
    Report,
    Router,
    UnknownProcessor,
    dead_letters,
    group_rows,
    retry_letters,
)
from madlog.processors.state import PartitionState
from madlog.schemas import (
    ConversationChanged,
    Event,
    ModelPublished,
    Outcome,
    Sender,
    Turn,
    derived_event_id,
)
from madlog.schemas.text import parse
from madlog.topics import (
    Commit,
    Damage,
    EventLog,
    Fenced,
    LogEvent,
    Membership,
    NewRecord,
    NotWritten,
    OutcomeUnknown,
    Position,
    Receipt,
    TopicPartition,
    Vector,
)
from madlog.topics.errors import GroupBusy
from madlog.topics.memory import MemoryLog

MARIA = Sender(name="maria", kind="human")
ORDERS = Registry([Agent("orders", actions=frozenset({"get_order"}))])
CONVERSATIONS = "mad.conversations"


def event_id(number: int) -> str:
    return f"01890000-0000-7000-8000-{number:012x}"


def turn(number: int, conversation: str = "c", text: str = "hello", **fields: Any) -> Turn:
    return Turn(
        event_id=event_id(number),
        conversation_id=conversation,
        sender=MARIA,
        occurred_at=number,
        recipients=("orders",),
        parts=parse(text).parts,
        **fields,
    )


def turns(count: int, conversations: int = 8) -> list[Turn]:
    return [turn(number, f"c{number % conversations}") for number in range(1, count + 1)]


async def opened(log: MemoryLog | None = None) -> EventLog:
    return await EventLog.open(log or MemoryLog())


async def read(log: EventLog, topic: str) -> list[LogEvent]:
    return [event async for events in log.read_topics([topic]) for event in events]


async def run(log: EventLog, *processors: Any, **options: Any) -> Report:
    engine = Engine(log, processors or [Router(ORDERS)], options=Options(**options))
    return await engine.run(until_idle=True)


class Counter:
    """Gives each turn its number within its conversation; fails as it is told to."""

    name = "counter"
    inputs: tuple[str, ...] = (CONVERSATIONS,)
    shared: tuple[str, ...] = ()

    def __init__(self, fault: Callable[[str, int], None] | None = None, size: int = 0) -> None:
        self.fault = fault
        self.size = size
        self.steps: list[str] = []

    def share(self, shared: MutableMapping[str, Any], event: LogEvent) -> None:
        raise AssertionError("it shares nothing")

    def prelude(self, shared: MutableMapping[str, Any]) -> Sequence[Event]:
        return ()

    def step(self, state: MutableMapping[str, Any], event: LogEvent) -> Sequence[Event]:
        self.steps.append(event.event_id)
        conversation = event.fields["conversation_id"]
        count = state.get(conversation, 0) + 1
        state[conversation] = count
        if self.fault is not None:
            self.fault(event.event_id, self.steps.count(event.event_id))
        return [
            Outcome(
                event_id=derived_event_id(event.event_id, self.name, 0),
                conversation_id=conversation,
                sender=Sender(name="counter", kind="system"),
                occurred_at=event.fields["occurred_at"],
                mad="counter",
                result="success",
                judged_by="x" * self.size,
                about="conversation",
                about_id=f"{conversation} {count}",
            )
        ]


async def counted(log: EventLog) -> list[str]:
    return sorted(event.fields["about_id"] for event in await read(log, "mad.outcomes"))


class Faulty(MemoryLog):
    """A log in memory whose transactions fail as they are told to."""

    faults: list[Callable[[], None]]
    after: bool = False

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.faults = []

    async def transact(
        self, records: Sequence[NewRecord], commit: Commit | None = None
    ) -> list[Receipt]:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and not self.after:
            fault()
        receipts = await super().transact(records, commit)
        if fault is not None:
            fault()
        return receipts


def failing(error: type[Exception]) -> Callable[[], None]:
    def fault() -> None:
        raise error("told to")

    return fault


async def test_each_turn_is_decided_and_delivered_once_with_its_source() -> None:
    log = await opened()
    await log.append(turns(40))
    report = await run(log, batch_records_max=7)
    assert (report.events, report.outputs, report.dead_letters) == (40, 80, 0)
    assert report.idle
    decisions = await read(log, "mad.decisions")
    assert sorted(event.fields["turn_id"] for event in decisions) == [
        event_id(number) for number in range(1, 41)
    ]
    assert len(await read(log, "mad.inbox.orders")) == 40
    by_turn = {event.event_id: event.position for event in await read(log, CONVERSATIONS)}
    for event in decisions:
        at = by_turn[event.fields["turn_id"]]
        assert event.header("source") == f"router/{at}/0".encode()
        assert int(event.header("duration-us") or b"-1") >= 0


async def test_the_first_model_is_published_once_however_many_engines_start() -> None:
    log = await opened()
    await asyncio.gather(run(log), run(log))
    await run(log)
    models = await read(log, "mad.models")
    assert [event.fields["version"] for event in models] == ["seed-1"]


async def test_a_second_engine_goes_on_with_the_state_of_the_first() -> None:
    log = await opened()
    await log.append(turns(10, conversations=3))
    assert (await run(log, Counter())).events == 10
    await log.append([turn(11, "c0"), turn(12, "c2")])
    assert (await run(log, Counter())).events == 2
    assert await counted(log) == sorted(
        [*(f"c0 {n}" for n in range(1, 5)), *(f"c1 {n}" for n in range(1, 5))]
        + [f"c2 {n}" for n in range(1, 5)]
    )


async def test_two_engines_share_the_work_and_do_none_of_it_twice() -> None:
    log = await opened()
    await log.append(turns(200))
    one, two = await asyncio.gather(
        run(log, Counter(), batch_records_max=5), run(log, Counter(), batch_records_max=5)
    )
    assert one.events + two.events >= 200
    assert await counted(log) == sorted(f"c{c} {n}" for c in range(8) for n in range(1, 26))


async def test_a_step_that_fails_at_first_is_tried_again_from_clean_state() -> None:
    def fault(name: str, attempt: int) -> None:
        if attempt < 3:
            raise ValueError("not yet")

    log = await opened()
    await log.append(turns(3, conversations=1))
    report = await run(log, Counter(fault))
    assert (report.outputs, report.dead_letters) == (3, 0)
    assert await counted(log) == ["c0 1", "c0 2", "c0 3"]


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


@pytest.mark.parametrize("error", [Fenced, NotWritten, OutcomeUnknown])
@pytest.mark.parametrize("after", [False, True])
async def test_a_transaction_whose_answer_fails_is_done_exactly_once(
    error: type[Exception], after: bool
) -> None:
    faulty = Faulty()
    log = await opened(faulty)
    await log.append(turns(20, conversations=2))
    # After: the transaction took place and only its acknowledgement was lost.
    faulty.after = after
    faulty.faults = [failing(error), failing(error)]
    await run(log, Counter(), batch_records_max=6)
    assert await counted(log) == sorted(f"c{c} {n}" for c in range(2) for n in range(1, 11))


@pytest.mark.parametrize("error", [Fenced, NotWritten, OutcomeUnknown])
async def test_whichever_transaction_fails_each_turn_is_done_exactly_once(
    error: type[Exception],
) -> None:
    for number in range(14):
        faulty = Faulty()
        log = await opened(faulty)
        await log.append(turns(40))
        faulty.after = number % 2 == 0
        faulty.faults = [*[lambda: None] * number, failing(error), lambda: None, failing(error)]
        await run(log, Counter(), batch_records_max=4)
        assert await counted(log) == sorted(f"c{c} {n}" for c in range(8) for n in range(1, 6))


async def test_a_log_that_takes_nothing_stops_the_engine_loudly() -> None:
    faulty = Faulty()
    log = await opened(faulty)
    await log.append(turns(2))
    faulty.faults = [failing(NotWritten)] * 3
    with pytest.raises(NotWritten):
        await run(log, Counter())
    assert (await run(log, Counter())).outputs == 2


async def test_an_output_over_the_limit_becomes_a_dead_letter_and_the_others_go_on() -> None:
    log = await opened(MemoryLog(record_bytes_max=4000))
    await log.append([turn(n, "c", "x" * (3600 if n == 5 else 10)) for n in range(1, 9)])
    report = await run(log, Router(ORDERS))
    assert (report.outputs, report.dead_letters) == (14, 1)
    (letter,) = await dead_letters(log)
    assert letter.fields["error_type"] == "RecordTooLarge"
    # There is no room for the turn and an envelope around it; it stands at its position still.
    assert letter.fields["record_value"] == b""
    assert letter.fields["offset"] == 4


async def test_what_was_folded_already_is_not_processed_again() -> None:
    log = await opened()
    await log.append(turns(10, conversations=2))
    await run(log, Counter())
    await log.log.reset("counter", await log.log.start([CONVERSATIONS]))
    report = await run(log, Counter())
    assert (report.events, report.repeated, report.outputs) == (0, 10, 0)
    assert len(await counted(log)) == 10
    await log.append([turn(11, "c0")])
    await run(log, Counter())
    assert "c0 6" in await counted(log)


async def test_recovery_says_what_it_rebuilds_and_how_far_it_is() -> None:
    log = await opened()
    await log.append(turns(10, conversations=1))
    await run(log, Counter())
    await log.append([turn(11, "c0")])
    said: list[str] = []
    await Engine(log, [Counter()]).run(until_idle=True, recovering=said.append)
    assert len(said) == 1
    assert said[0].startswith("rebuilding the state of counter for mad.conversations/")
    assert said[0].endswith("2 of 2 changes")


async def test_recovery_that_takes_too_long_fails_loudly() -> None:
    log = await opened()
    await log.append(turns(10))
    await run(log, Counter())
    await log.append([turn(11, "c0")])
    with pytest.raises(RecoveryTimeout, match=r"counter for mad\.conversations/\d"):
        await run(log, Counter(), recovery_timeout_s=0)
    assert (await run(log, Counter())).outputs == 1


async def test_damaged_state_is_folded_again_from_the_input() -> None:
    log = await opened()
    await log.append(turns(10, conversations=1))
    await run(log, Counter())
    for tp, part in log.log._store.partitions.items():  # type: ignore[attr-defined]
        if tp.topic == "mad.state.counter" and part.checksums:
            part.checksums[0] ^= 1
    await log.append([turn(11, "c0")])
    said: list[str] = []
    await Engine(log, [Counter()]).run(until_idle=True, recovering=said.append)
    assert any("damaged" in text for text in said)
    assert "c0 11" in await counted(log)


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


async def test_it_waits_for_more_until_it_is_stopped() -> None:
    log = await opened()
    stop = asyncio.Event()
    seen: list[int] = []

    def progress(now: Report) -> None:
        seen.append(now.events)
        if now.events == 3:
            stop.set()

    running = asyncio.create_task(Engine(log, [Counter()]).run(stop=stop, progress=progress))
    for number in (1, 2, 3):
        await log.append([turn(number)])
    report = await running
    assert seen[-1] == 3
    assert not report.idle


async def test_group_rows_show_position_end_lag_and_member() -> None:
    log = await opened()
    assert await group_rows(log) == []
    await log.append(turns(12, conversations=1))
    await run(log, Counter())
    await log.append([turn(13, "c0")])
    member: Membership = await log.log.join("counter", [CONVERSATIONS])
    await member.poll(records_max=1)
    rows = await group_rows(log)
    assert [row["partition"] for row in rows] == [0, 1, 2, 3]
    (busy,) = [row for row in rows if row["end"]]
    assert (busy["committed"], busy["end"], busy["lag"]) == (12, 13, 1)
    assert busy["member"] == member.member
    assert all(row["lag"] == 0 for row in rows if not row["end"])


async def test_router_state_survives_a_restart() -> None:
    log = await opened()
    joined = ConversationChanged(
        event_id=event_id(1),
        conversation_id="c",
        sender=MARIA,
        occurred_at=1,
        change="joined",
        participant="orders",
        participant_kind="mad",
    )
    await log.append([joined, turn(2)])
    await run(log, Router())
    await log.append([turn(3)])
    await run(log, Router())
    decisions = await read(log, "mad.decisions")
    assert [event.fields["features"]["turns_before"] for event in decisions] == [0, 1]


def test_a_step_reads_its_own_changes_and_leaves_no_trace_when_it_fails() -> None:
    state = PartitionState(TopicPartition("mad.state.x", 0))
    state.base.update({"a": 1, "b": 2})
    step = state.overlay({"@model": 9})
    step["a"] = 5
    del step["b"]
    assert (dict(step), step["@model"], "b" in step) == ({"a": 5}, 9, False)
    with pytest.raises(KeyError):
        step["@position"] = 1
    assert dict(state.overlay({})) == {"a": 1, "b": 2}
    state.keep(step)
    assert [(r.key, r.value) for r in state.records(7)] == [
        (b"a", b"5"),
        (b"b", b""),
        (b"@position", b"7"),
    ]
    state.accept(7)
    assert (state.base, state.position) == ({"a": 5}, 7)


def test_damage_outside_any_partition_has_no_place() -> None:
    assert str(Damage("", 0, 0, 0, "torn page", 3)) == "the log's file: torn page (page 3)"
    assert Vector().only(["x"]) == Vector()
