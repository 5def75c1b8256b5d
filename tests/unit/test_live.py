"""Live figures: the same in whatever order and parts they are folded; unknown stays unknown."""

import asyncio
import json
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.acceptance.cli import madlog
from tests.unit.counting import ORDERS, event_id, turn, turns

from madlog.processors import Engine, Router
from madlog.processors.live import (
    FOLDED,
    MINUTE_US,
    SOURCES,
    TABLE,
    Limits,
    LiveState,
    cell_of,
    key_of,
    live,
)
from madlog.schemas import Event, LlmCall, Sender
from madlog.topics import EventLog, LogEvent, NewRecord, TopicPartition
from madlog.topics.catalog import state
from madlog.topics.memory import MemoryLog
from madlog.topics.testing.clocks import ManualClock

SHOP = Sender(name="shop", kind="mad")


def call(number: int, **fields: Any) -> LlmCall:
    return LlmCall(
        event_id=event_id(10_000 + number),
        conversation_id="c",
        sender=SHOP,
        occurred_at=number,
        **fields,
    )


async def filled(clock: ManualClock) -> EventLog:
    """Return a log of three minutes: turns, their decisions, calls of a model."""
    log = await EventLog.open(MemoryLog(clock=clock))
    events: list[Sequence[Event]] = [
        turns(20),
        [call(1, tokens_in=100, tokens_out=20, cost_usd=0.5), call(2), call(3, tokens_in=5)],
        [turn(number, "c1") for number in range(100, 110)],
    ]
    for some in events:
        await log.append(some)
        await Engine(log, [Router(ORDERS)]).run(until_idle=True)
        clock.advance(60)
    return log


async def every(log: EventLog) -> list[LogEvent]:
    return [event async for events in log.read_topics(SOURCES) for event in events]


@lru_cache
def some_events() -> list[LogEvent]:
    return asyncio.run(_some_events())


async def _some_events() -> list[LogEvent]:
    return await every(await filled(ManualClock()))


@settings(deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_parts_in_any_order_merge_to_the_whole(chance: random.Random) -> None:
    events = some_events()
    whole = LiveState()
    whole.fold(events)
    parts = [LiveState() for _ in range(3)]
    for event in chance.sample(events, len(events)):
        chance.choice(parts).fold([event])
    merged = LiveState()
    for part in parts:
        for cell, amounts in part.cells.items():
            merged.merge(cell, amounts)
    assert merged.cells == whole.cells


async def tables_up_to(log: EventLog, shares: dict[TopicPartition, int]) -> None:
    """Write the tables' changelog as a Faust worker that has come so far leaves it."""
    cells: dict[str, dict[str, int]] = {}
    for event in await every(log):
        tp = event.position.topic_partition
        found = cell_of(event)
        if found is None or event.record.offset >= shares[tp]:
            continue
        made = LiveState()
        key = key_of(tp, found[0])
        before = {name: at for name, at in cells.get(key, {}).items() if name != FOLDED}
        made.merge(found[0], before)
        made.merge(*found)
        cells[key] = {**made.cells[found[0]], FOLDED: event.record.offset}
    name = state(TABLE).name
    await log.ensure_topics([name])
    for key, cell in cells.items():
        value = json.dumps(cell).encode()
        await log.log.append(
            [NewRecord(name, json.dumps(key).encode(), value, partition=int(key[0]))]
        )
    # What is not a cell, or was deleted, does no harm.
    gone = NewRecord(name, json.dumps("0|mad.llm|1|spend|x").encode(), b"", partition=0)
    await log.log.append([gone, NewRecord(name, b'"strange"', b"3", partition=0)])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
async def test_tables_that_came_so_far_and_the_rest_of_the_log_are_the_whole(share: float) -> None:
    clock = ManualClock()
    log = await filled(clock)
    end = await log.log.end(SOURCES)
    await tables_up_to(log, {tp: int(at * share) for tp, at in end.items()})
    since_us = (clock.now_us() - 120_000_000) // MINUTE_US * MINUTE_US
    whole = LiveState()
    whole.fold(event for event in await every(log) if event.record.appended_at >= since_us)
    assert whole.cells
    assert (await live(log, since_us)).cells == whole.cells


async def test_what_was_before_the_window_is_not_counted() -> None:
    clock = ManualClock()
    log = await filled(clock)
    now_us = clock.now_us()
    found = await live(log, now_us - 60_000_000)
    agents = {row["name"]: row for row in found.agents(now_us, 1.0, Limits())}
    assert (agents["maria"]["turns"], agents["maria"]["seen_s_ago"]) == (10, 60)
    assert "shop" not in agents


async def test_shares_are_of_a_mode_and_rates_a_minute() -> None:
    clock = ManualClock()
    log = await filled(clock)
    found = await live(log, 0)
    tiers = found.tiers(3.0)
    assert sum(row["decisions"] for row in tiers) == 30
    assert sum(row["share"] for row in tiers if row["mode"] == "live") == pytest.approx(1)
    (maria,) = [
        row for row in found.agents(clock.now_us(), 3.0, Limits()) if row["kind"] == "human"
    ]
    assert maria["per_minute"] == 10


async def test_spending_that_is_unknown_stays_unknown_and_limits_are_by_what_is_known() -> None:
    log = await filled(ManualClock())
    found = await live(log, 0)

    def shop(limits: Limits) -> dict[str, Any]:
        (row,) = [row for row in found.agents(0, 1.0, limits) if row["name"] == "shop"]
        return row

    row = shop(Limits())
    assert (row["llm_calls"], row["tokens"], row["cost_usd"]) == (3, 125, 0.5)
    assert (row["calls_of_unknown_cost"], row["over"], row["kind"]) == (2, None, None)
    assert shop(Limits(usd=0.5, tokens=125))["over"] is None
    assert shop(Limits(usd=0.49, tokens=124))["over"] == "usd, tokens"
    unknown = LiveState()
    log = await EventLog.open(MemoryLog())
    await log.append([call(7)])
    unknown.fold(await every(log))
    (row,) = unknown.agents(0, 1.0, Limits(usd=0.0, tokens=0))
    assert (row["tokens"], row["cost_usd"], row["over"]) == (None, None, None)


def test_status_shows_a_folder_with_no_faust_about(tmp_path: Path) -> None:
    madlog("append", "-c", "c", "-s", "maria", "-t", "shop", "HRU?", cwd=tmp_path)
    madlog("worker", "--until-idle", cwd=tmp_path)
    ran = madlog("status", "--window", "5", "--json", cwd=tmp_path)
    agent = {row["name"]: row for row in ran.rows if row["what"] == "agent"}["maria"]
    assert (agent["turns"], agent["kind"], agent["over"]) == (1, "human", None)
    (tier,) = [row for row in ran.rows if row["what"] == "tier"]
    assert (tier["mode"], tier["decisions"], tier["share"]) == ("live", 1, 1.0)
    assert "maria" in madlog("status", cwd=tmp_path).out
    assert "no log" in madlog("status", "--log", "none", cwd=tmp_path).refused(3)


def test_faust_on_a_folder_is_one_sentence(tmp_path: Path) -> None:
    ran = madlog("worker", "--engine", "faust", "--until-idle", cwd=tmp_path)
    assert "runs on Kafka" in ran.refused(2)


def test_doctor_says_where_tables_would_be_kept(tmp_path: Path) -> None:
    rows = {row["what"]: row for row in madlog("doctor", "--json", cwd=tmp_path).rows}
    found = rows["faust tables"]["found"]
    assert found == "memory" or found.startswith("RocksDB"), found
