"""History is decided by what was learned before it, the same everywhere, and judged by itself."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.history import history

from madlog.analytics.processes import newest_process
from madlog.analytics.questions import ask
from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.cases import Act
from madlog.processors.lppm.values import canonical
from madlog.processors.retrospect import Retrospection, TierModels, rounds
from madlog.processors.retrospect.conversation import Done
from madlog.processors.retrospect.deciding import _same_arguments
from madlog.processors.retrospect.job import Retrospector, Settled
from madlog.processors.tiers import model_text
from madlog.schemas import Decision, Event, new_event_id
from madlog.topics import EventLog, Receipt
from madlog.topics.memory import MemoryLog

TOPICS = ("mad.models", "mad.decisions", "mad.outcomes")


def settings(blobs: dict[str, bytes] | None = None, **more: Any) -> Retrospection:
    import hashlib

    store = {} if blobs is None else blobs

    def put(content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        store[name] = content
        return name

    return Retrospection("test", put, **{"get_blob": store.__getitem__, **more})


async def log_of(*conversations: Sequence[Event]) -> EventLog:
    log = await EventLog.open(MemoryLog())
    for events in conversations:
        await log.append(events)
    return log


async def fields_on(log: EventLog, *topics: str) -> list[dict[str, Any]]:
    found = []
    async for events in log.read_topics(topics or TOPICS):
        found += [event.fields for event in events]
    return sorted(found, key=lambda fields: str(fields["event_id"]))


async def decisions(log: EventLog) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for fields in await fields_on(log, "mad.decisions"):
        found.setdefault(fields["conversation_id"], []).append(fields)
    return found


@given(st.integers(min_value=0, max_value=20_000))
def test_rounds_cover_all_once_and_a_model_never_sees_what_it_decides(count: int) -> None:
    covered = 0
    for first, end in rounds(count):
        assert first == covered < end <= count
        covered = end
    assert covered == count


@given(st.integers(min_value=1, max_value=5_000), st.integers(min_value=0, max_value=5_000))
def test_more_history_changes_no_earlier_round(count: int, more: int) -> None:
    few, many = list(rounds(count)), list(rounds(count + more))
    assert [first for first, _ in few] == [first for first, _ in many][: len(few)]


async def test_what_was_learned_settles_what_comes_after_with_its_arguments() -> None:
    log = await log_of(*history(90))
    added = await Retrospector(log, settings()).run()
    assert (added.conversations, added.models) == (90, 3)
    by_name = await decisions(log)
    early = {one["tier"] for name, found in by_name.items() if name < "case-0020" for one in found}
    assert early == {"imperator"}
    late = [one for name, found in by_name.items() if name >= "case-0080" for one in found]
    settled = [one for one in late if one["tier"] == "lppm"]
    assert len(settled) == 10
    assert {one["route"] for one in settled} == {"action:get_order"}
    assert all("order" in json.loads(one["arguments"]) for one in settled)
    judged = await fields_on(log, "mad.outcomes")
    record = {one["about_id"]: one["result"] for one in judged if one["judged_by"] == "record"}
    assert {record[one["event_id"]] for one in settled} == {"success"}


async def test_no_decision_names_a_model_that_saw_its_conversation() -> None:
    log = await log_of(*history(60))
    await Retrospector(log, settings()).run()
    seen = {one["event_id"]: one for one in await fields_on(log, "mad.models")}
    order = sorted(await decisions(log))
    for name, found in (await decisions(log)).items():
        for one in found:
            learned_from = seen[one["model_id"]]["metrics"].get("conversations", 0)
            assert order.index(name) >= learned_from


async def test_conversations_that_failed_teach_nothing() -> None:
    log = await log_of(*history(90, fails_every=2))
    await Retrospector(log, settings()).run()
    for fields in await fields_on(log, "mad.models"):
        if fields["component"] == "retrospective":
            assert "99999" not in fields["parameters"]
            assert fields["metrics"]["conversations_learned"] == (
                fields["metrics"]["conversations"] // 2
            )


async def test_a_second_run_adds_nothing_and_what_comes_later_follows() -> None:
    told = history(70)
    log = await log_of(*told[:50])
    retrospector = Retrospector(log, settings())
    await retrospector.run()
    before = await fields_on(log)
    assert await retrospector.run() == Settled()
    assert await Retrospector(log, settings()).run() == Settled()
    assert await fields_on(log) == before
    for events in told[50:]:
        await log.append(events)
    assert (await retrospector.run()).conversations == 20
    assert len(await decisions(log)) == 70


async def test_the_order_on_the_log_and_a_crash_change_nothing() -> None:
    told = history(70)
    log = await log_of(*told)
    await Retrospector(log, settings()).run()
    expected = await fields_on(log)
    shuffled = list(told)
    Random(5).shuffle(shuffled)
    other = await log_of(*shuffled)
    crashing = Retrospector(other, settings())

    def crash(now: Settled) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await crashing.run(crash)
    assert 0 < len(await decisions(other)) < 70
    await Retrospector(other, settings()).run()
    again = await fields_on(other)
    # Where it was trained up to is a place on the log, and these were laid otherwise.
    assert [{**one, "trained_on": None} for one in again] == [
        {**one, "trained_on": None} for one in expected
    ]


class Overtaken(EventLog):
    """A log to which others append right before this one's first transaction."""

    more: Sequence[Event] = ()

    async def transact(self, *arguments: Any, **named: Any) -> list[Receipt]:
        if self.more:
            more, self.more = self.more, ()
            await self.append(more)
            await Retrospector(self, settings()).run()
        return await super().transact(*arguments, **named)


async def test_of_two_at_work_the_first_counts_and_nothing_is_decided_twice() -> None:
    told = history(51)
    log = Overtaken(MemoryLog())
    for events in told[1:]:
        await log.append(events)
    # What the other worker sees is more by the very first, so its rounds are others.
    log.more = told[0]
    await Retrospector(log, settings()).run()
    found = await decisions(log)
    assert len(found) == 51
    assert {len(one) for one in found.values()} == {3}


_PRINT = """
import asyncio, hashlib
from tests.unit.test_retrospect import fields_on, log_of, settings
from tests.unit.history import history
from madlog.processors.retrospect.job import Retrospector
async def main():
    log = await log_of(*history(50))
    await Retrospector(log, settings()).run()
    print(hashlib.sha256(repr(await fields_on(log)).encode()).hexdigest())
asyncio.run(main())
"""


def test_python_hash_seeds_change_no_byte() -> None:
    printed = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "-c", _PRINT], capture_output=True, text=True, env=environment
        )
        assert ran.returncode == 0, ran.stderr
        printed.add(ran.stdout)
    assert len(printed) == 1


async def test_where_nobody_had_to_decide_no_model_is_learned_for_it_again_and_again() -> None:
    told = history(45)
    # The last one holds only who is there, so no decision will ever be on the log for it.
    log = await log_of(*told[:44], told[44][:2])
    await Retrospector(log, settings()).run()
    assert len(await decisions(log)) == 44
    assert await Retrospector(log, settings()).run() == Settled()


async def test_an_action_without_its_arguments_is_wrong_unless_the_command_brought_them() -> None:
    log = await log_of(*history(2))
    await Retrospector(log, settings()).run()
    async for events in log.read_topics(["mad.decisions"]):
        first = events[0].event
        assert isinstance(first, Decision)
        made = first.model_copy(update={"route": "action:get_order"})
        act = Act("agent", False, "action:get_order", made.event_id, arguments={"order": "1"})
        done = Done(act, "action:get_order")
        assert not _same_arguments(made, done)
        assert _same_arguments(made, Done(replace(act, arguments={}), done.route))
        named = made.model_copy(update={"features": {"verb": "get_order"}})
        assert _same_arguments(named, done)
        filled = made.model_copy(update={"arguments": '{"order":"1"}'})
        assert _same_arguments(filled, done)
        assert not _same_arguments(filled, Done(replace(act, arguments={"order": "2"}), done.route))
        break


async def test_a_promise_that_cannot_be_kept_settles_nothing() -> None:
    log = await log_of(*history(90))
    await Retrospector(log, settings(max_error=0.0)).run()
    tiers = {one["tier"] for found in (await decisions(log)).values() for one in found}
    assert tiers == {"imperator"}


async def test_how_the_agent_works_is_mined_and_published() -> None:
    log = await log_of(*history(60, fails_every=3))
    await Retrospector(log, settings()).run()
    process = await newest_process(log, "agent")
    assert process is not None
    assert process.ready
    assert len(process.conversations) == 40
    assert "agent action:get_order" in {f"{one.actor} {one.what}" for one in process.steps}
    assert await newest_process(log, "nobody") is None
    result = await ask(log, "processes")
    assert result.table.num_rows == len(process.steps)


async def test_a_conversation_that_never_ends_is_looked_back_over_so_far_and_no_further() -> None:
    from madlog.processors.lppm.cases import PAST_MAX
    from madlog.processors.retrospect import Conversation

    (told,) = history(1)
    turns = [event for event in told if event.kind == "Turn"]
    events = [
        event.model_copy(update={"event_id": new_event_id(n * 1_000, n.to_bytes(10, "big"))})
        for n, event in enumerate(turns * 100)
    ]
    log = await log_of(events)
    async for found in log.read_topics(["mad.conversations"]):
        conversation = Conversation("case-0000", tuple(found))
        last = conversation.trigger(len(found) - 2, "agent")
        assert len(last.past) == PAST_MAX < len(found)
        assert last.done is not None
        points = list(conversation.case.points())
        assert max(len(point.past) for point in points) == PAST_MAX


async def test_a_number_is_the_same_however_it_is_written() -> None:
    assert canonical({"eur": 330.0, "of": [1.0, 2.5]}) == canonical({"of": [1, 2.5], "eur": 330})
    assert canonical(True) != canonical(1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "tiers-1"}',
        '{"format": "tiers-0", "dtr": {}, "lppm": null}',
        '{"format": "tiers-1", "dtr": {}, "lppm": null}',
        '{"format": "tiers-1", "dtr": NaN, "lppm": null}',
    ],
)
def test_a_model_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidModel):
        TierModels.parse(text)


def test_a_model_comes_back_from_its_text_and_a_changed_one_is_refused() -> None:
    text = TierModels.seed().text()
    assert TierModels.parse(text).text() == text
    fields = {"event_id": "m", "parameters": text, "parameters_sha256": "0" * 64}
    with pytest.raises(InvalidModel, match="damaged, or was changed"):
        model_text(fields, lambda sha256: b"")
