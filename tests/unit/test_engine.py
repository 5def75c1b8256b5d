"""The transactional engine on a log in memory."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.unit.counting import (
    CONVERSATIONS,
    MARIA,
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
    Engine,
    RecoveryTimeout,
    Report,
    Router,
    group_rows,
)
from madlog.processors.state import PartitionState
from madlog.schemas import (
    ConversationChanged,
)
from madlog.topics import (
    Commit,
    Damage,
    Fenced,
    Membership,
    NewRecord,
    NotWritten,
    OutcomeUnknown,
    Receipt,
    Record,
    TopicPartition,
    Vector,
)
from madlog.topics.memory import MemoryLog


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
        (b"@position", b"7"),
        (b"a", b"5"),
        (b"b", b""),
    ]
    state.accept(7)
    assert (state.base, state.position) == ({"a": 5}, 7)


def test_a_late_state_is_passed_over_and_written_anew() -> None:
    def batch(position: int, **values: str) -> list[Record]:
        entries = {"@position": str(position), **values}.items()
        return [Record("mad.state.x", 0, 0, k.encode(), v.encode(), (), 0) for k, v in entries]

    state = PartitionState(TopicPartition("mad.state.x", 0))
    state.fold([*batch(5, a="1", b="2"), *batch(9, a="3", c="4")])
    state.fold([*batch(7, a="2")])
    state.fold(batch(7, b="9", d="0")[1:])  # the rest of it, read apart
    assert (state.values(), state.position) == ({"a": 3, "b": 2, "c": 4}, 9)
    written = {(r.key, r.value) for r in state.records(10)}
    assert written == {(b"@position", b"10"), (b"a", b"3"), (b"b", b"2"), (b"d", b"")}
    state.accept(10)
    assert [r.key for r in state.records(11)] == [b"@position"]
    state.fold(batch(12, a="6"))
    assert (state.values()["a"], state.position) == (6, 12)


def test_damage_outside_any_partition_has_no_place() -> None:
    assert str(Damage("", 0, 0, 0, "torn page", 3)) == "the log's file: torn page (page 3)"
    assert Vector().only(["x"]) == Vector()
