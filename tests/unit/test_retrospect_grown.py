"""What is added to a conversation after it was decided in retrospect is decided too, once."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.unit.history import history
from tests.unit.test_retrospect import decisions, fields_on, log_of, settings

from madlog.analytics.verify import verify
from madlog.processors.retrospect import Conversation, job, models
from madlog.processors.retrospect.deciding import RECORD
from madlog.processors.retrospect.job import Retrospector, Settled
from madlog.schemas import Event, ToolResult, Turn, new_event_id
from madlog.topics import EventLog, Receipt
from madlog.topics.errors import BlobMissing
from madlog.topics.memory import MemoryLog
from madlog.wiring import opened

TOLD = history(45)
# Before its fourth event a conversation holds who is there and what was asked.
ASKED = 3
# With so loose a promise 40 conversations are enough for a model to settle something.
LOOSE = {"max_error": 0.3}


async def retrospected(log: EventLog, blobs: dict[str, bytes], **more: Any) -> Settled:
    return await Retrospector(log, settings(blobs, **{**LOOSE, **more})).run()


async def assert_whole(log: EventLog, blobs: dict[str, bytes], expected: set[str]) -> None:
    """Each trigger is decided once, each cheap decision is judged once, and all comes out again."""
    found = [one["event_id"] for one in await fields_on(log, "mad.decisions")]
    assert {name: n for name, n in Counter(found).items() if n > 1} == {}
    assert set(found) == expected
    cheap = {
        one["event_id"]
        for one in await fields_on(log, "mad.decisions")
        if one["tier"] != "imperator"
    }
    judged = Counter(
        one["about_id"]
        for one in await fields_on(log, "mad.outcomes")
        if one["judged_by"] == RECORD
    )
    assert judged == Counter(cheap)
    report = await verify(log, blobs.__getitem__)
    assert (report.decisions, report.differences) == (len(expected), [])


async def in_one_go(told: Sequence[Sequence[Event]]) -> set[str]:
    log = await log_of(*told)
    await retrospected(log, {})
    return {one["event_id"] for one in await fields_on(log, "mad.decisions")}


async def test_turns_added_to_a_decided_conversation_are_decided_by_its_own_model() -> None:
    blobs: dict[str, bytes] = {}
    log = await log_of(*TOLD[:44], TOLD[44][: ASKED + 1])
    await retrospected(log, blobs)
    before = await decisions(log)
    (first,) = before["case-0044"]
    await log.append(TOLD[44][ASKED + 1 :])
    added = await retrospected(log, blobs)
    assert (added.conversations, added.continued, added.decisions, added.models) == (0, 1, 2, 0)
    after = await decisions(log)
    assert {**after, "case-0044": [first]} == before
    assert {one["model_id"] for one in after["case-0044"]} == {first["model_id"]}
    await assert_whole(log, blobs, await in_one_go(TOLD))


async def test_an_earlier_decision_is_judged_once_what_was_done_is_known() -> None:
    blobs: dict[str, bytes] = {}
    log = await log_of(*TOLD[:44], TOLD[44][:ASKED])
    await retrospected(log, blobs)
    (first,) = (await decisions(log))["case-0044"]
    assert first["tier"] == "lppm"
    assert first["event_id"] not in await judged_by_record(log)
    await log.append(TOLD[44][ASKED:])
    await retrospected(log, blobs)
    assert (await judged_by_record(log))[first["event_id"]] == "success"
    await assert_whole(log, blobs, await in_one_go(TOLD))


async def judged_by_record(log: EventLog) -> dict[str, str]:
    found = await fields_on(log, "mad.outcomes")
    return {one["about_id"]: one["result"] for one in found if one["judged_by"] == RECORD}


async def test_an_idle_worker_computes_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = await log_of(*TOLD[:44], TOLD[44][: ASKED + 1])
    blobs: dict[str, bytes] = {}
    retrospector = Retrospector(log, settings(blobs, **LOOSE))
    await retrospector.run()
    await log.append(TOLD[44][ASKED + 1 :])
    assert (await retrospector.run()).continued == 1
    before = await fields_on(log)

    def refuse(self: Conversation, number: int, name: str) -> None:
        raise AssertionError("an idle worker looked at a conversation again")

    monkeypatch.setattr(Conversation, "trigger", refuse)
    assert await retrospector.run() == Settled()
    assert await retrospected(log, blobs) == Settled()
    assert await fields_on(log) == before


async def test_where_the_model_is_gone_the_first_tree_decides_and_it_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_INLINE_MAX", 0)
    log = await log_of(*TOLD[:44], TOLD[44][: ASKED + 1])
    await retrospected(log, {})
    before = await decisions(log)
    await log.append(TOLD[44][ASKED + 1 :])

    def gone(sha256: str) -> bytes:
        raise BlobMissing(f"there is no blob {sha256[:12]}")

    added = await Retrospector(log, settings({}, **LOOSE, get_blob=gone)).run()
    assert added.decisions == 2
    last = (await decisions(log))["case-0044"]
    assert {one["model_version"] for one in last if one not in before["case-0044"]} == {"seed-1"}
    assert "there is no blob" in caplog.text
    assert "first tree" in caplog.text
    # When the blob is back, nothing is decided again.
    assert await retrospected(log, {}) == Settled()


async def test_another_promise_meanwhile_holds_for_what_is_added_alone() -> None:
    blobs: dict[str, bytes] = {}
    log = await log_of(*TOLD[:44], TOLD[44][:ASKED])
    await retrospected(log, blobs, audit_rate=0.5)
    await log.append(TOLD[44][ASKED:])
    await retrospected(log, blobs, max_error=0.2, audit_rate=0.9)
    found = (await decisions(log))["case-0044"]
    assert Counter(one["max_error"] for one in found) == {0.3: 1, 0.2: 2}
    await assert_whole(log, blobs, await in_one_go(TOLD))


async def test_after_a_crash_the_rest_of_what_was_added_is_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "_BATCH_EVENTS_MAX", 1)
    blobs: dict[str, bytes] = {}
    log = await log_of(*(events[: ASKED + 1] for events in TOLD))
    await retrospected(log, blobs)
    for events in TOLD:
        await log.append(events[ASKED + 1 :])

    def crash(now: Settled) -> None:
        if now.continued == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Retrospector(log, settings(blobs, **LOOSE)).run(crash)
    assert len(await fields_on(log, "mad.decisions")) == len(TOLD) + 2 * 20
    assert (await retrospected(log, blobs)).continued == len(TOLD) - 20
    await assert_whole(log, blobs, await in_one_go(TOLD))


class Overtaken(EventLog):
    """A log on which another worker, without the blobs, decides right before a transaction."""

    armed = False

    async def transact(self, *arguments: Any, **named: Any) -> list[Receipt]:
        if self.armed:
            self.armed = False
            await Retrospector(self, settings({}, **LOOSE, get_blob=_nowhere)).run()
        return await super().transact(*arguments, **named)


def _nowhere(sha256: str) -> bytes:
    raise BlobMissing(sha256)


async def test_of_two_workers_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_INLINE_MAX", 0)
    blobs: dict[str, bytes] = {}
    log = Overtaken(MemoryLog())
    for events in (*TOLD[:44], TOLD[44][: ASKED + 1]):
        await log.append(events)
    await retrospected(log, blobs)
    await log.append(TOLD[44][ASKED + 1 :])
    log.armed = True
    await retrospected(log, blobs)
    found = (await decisions(log))["case-0044"]
    assert Counter(one["model_version"] for one in found) == {"first-40": 1, "seed-1": 2}
    await assert_whole(log, blobs, await in_one_go(TOLD))


async def test_what_was_known_at_an_event_is_the_same_whatever_came_later() -> None:
    (result,) = (one for one in TOLD[44] if isinstance(one, ToolResult))
    again = result.model_copy(
        update={"event_id": new_event_id(result.occurred_at, b"once again"), "result": '"lost"'}
    )
    log = await log_of(TOLD[44], [again])
    events = [one async for found in log.read_topics(["mad.conversations"]) for one in found]
    whole, answers = Conversation("case-0044", tuple(events)), set()
    for number, event in enumerate(events):
        if event.kind in ("Turn", "ToolResult"):
            before = Conversation("case-0044", tuple(events[: number + 1]))
            known = [asdict(act) for act in before.trigger(number, "agent").past]
            assert [asdict(act) for act in whole.trigger(number, "agent").past] == known
            answers |= {repr(act["answer"]) for act in known}
    # None before it, the first, the second.
    assert len(answers) == 3


async def test_what_is_added_on_a_folder_is_decided_there(tmp_path: Path) -> None:
    blobs: dict[str, bytes] = {}
    async with opened(str(tmp_path / "log")) as log:
        for events in (*TOLD[:44], TOLD[44][: ASKED + 1]):
            await log.append(events)
        await retrospected(log, blobs)
    async with opened(str(tmp_path / "log")) as log:
        await log.append(TOLD[44][ASKED + 1 :])
        await retrospected(log, blobs)
        await assert_whole(log, blobs, await in_one_go(TOLD))


SMALL = history(4)
CUTS = st.lists(st.integers(0, 8), min_size=len(SMALL), max_size=len(SMALL))


@given(CUTS, st.booleans())
@hypothesis_settings(deadline=None, max_examples=40)
def test_however_conversations_are_cut_each_trigger_is_decided_once(
    cuts: list[int], again: bool
) -> None:
    asyncio.run(in_two_goes(SMALL, cuts, again))


@given(st.lists(st.integers(0, 8), min_size=len(TOLD), max_size=len(TOLD)))
@hypothesis_settings(deadline=None, max_examples=8)
def test_so_it_is_with_models_that_were_learned(cuts: list[int]) -> None:
    asyncio.run(in_two_goes(TOLD, cuts, True))


async def in_two_goes(told: Sequence[Sequence[Event]], cuts: Sequence[int], again: bool) -> None:
    blobs: dict[str, bytes] = {}
    log = await log_of(*(events[:cut] for events, cut in zip(told, cuts, strict=True)))
    retrospector = Retrospector(log, settings(blobs, **LOOSE))
    await retrospector.run()
    for events, cut in zip(told, cuts, strict=True):
        await log.append(events[cut:])
    await retrospector.run()
    if again:
        assert await retrospected(log, blobs) == Settled()
    expected = {one.event_id for events in told for one in triggers(events)}
    turns = {one["turn_id"] for one in await fields_on(log, "mad.decisions")}
    assert turns == expected
    found = {one["event_id"] for one in await fields_on(log, "mad.decisions")}
    await assert_whole(log, blobs, found)


def triggers(events: Sequence[Event]) -> list[Event]:
    """What the agent is sent, and what it acted on."""
    return [
        one
        for one in events
        if (isinstance(one, Turn) and "agent" in one.recipients) or isinstance(one, ToolResult)
    ]
