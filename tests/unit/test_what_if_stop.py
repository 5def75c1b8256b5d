"""Seek, stop and go on: a range is found once, and a stopped replay ends as one that was not."""

import asyncio
import json
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.test_retrospect import log_of
from tests.unit.what_if_scene import REGISTRY, brought_in, eid, lived, no_blob, refund

from madlog.analytics import replay_range as range_module
from madlog.analytics.errors import BadTime
from madlog.analytics.replay_range import NoSuchPlace, replay_range
from madlog.analytics.replay_report import Progress
from madlog.analytics.what_if import Asked, Variant, WhatIfReport, load_guard, what_if
from madlog.analytics.what_if import routes as routes_module
from madlog.analytics.what_if.errors import BadSnapshot, GuardFailed
from madlog.schemas import Event
from madlog.topics import EventLog
from madlog.topics.errors import InvalidPosition

NO_TREE = Variant(without=frozenset({"dtr"}))


def told(report: WhatIfReport) -> dict[str, Any]:
    """Return all that a report says, but for how long it took."""
    return {name: value for name, value in report.as_json().items() if name != "seconds"}


@cache
def _mixed_events() -> tuple[tuple[Event, ...], ...]:
    """Return the events of a log of lived and of imported conversations, interleaved, by topic."""

    async def made() -> tuple[tuple[Event, ...], ...]:
        brought, living = await brought_in(12), await lived(40, 7)
        topics = []
        for topic in ("mad.models", "mad.conversations", "mad.decisions", "mad.outcomes"):
            both = [
                [e.event async for es in log.read_topics([topic]) for e in es]
                for log in (brought, living)
            ]
            pairs = zip_longest(*both)
            topics.append(tuple(event for pair in pairs for event in pair if event is not None))
        return tuple(topics)

    return asyncio.run(made())


async def mixed() -> EventLog:
    return await log_of(*(await asyncio.to_thread(_mixed_events)))


async def stopped_after(
    log: EventLog, batches: int, snapshot: Path, rows: Path, variant: Variant
) -> WhatIfReport | None:
    """Replay, and stop after so many batches; return the report where it was done before that."""
    seen = 0

    def count(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == batches:
            task.cancel()

    task = asyncio.ensure_future(
        what_if(
            log,
            Asked(variant),
            no_blob,
            registry=REGISTRY,
            snapshot=snapshot,
            rows=rows,
            progress=count,
        )
    )
    try:
        return await task
    except asyncio.CancelledError:
        return None


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(st.integers(1, 9), max_size=6), records=st.integers(5, 60))
def test_a_replay_that_was_stopped_anywhere_ends_as_one_from_zero(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], records: int
) -> None:
    async def law() -> None:
        folder = tmp_path_factory.mktemp("stop")
        log = await mixed()
        whole = await what_if(
            log, Asked(NO_TREE), no_blob, registry=REGISTRY, rows=folder / "whole.jsonl"
        )
        snapshot, rows = folder / "stopped.json", folder / "rows.jsonl"
        report = None
        for batches in (*steps, 10**9):
            report = await stopped_after(log, batches, snapshot, rows, NO_TREE)
            if report is not None:
                break
            assert snapshot.exists()
            assert not rows.exists()
        assert report is not None
        assert told(report) == told(whole)
        assert rows.read_bytes() == (folder / "whole.jsonl").read_bytes()
        assert not snapshot.exists()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes_module, "_RECORDS", records)
        asyncio.run(law())


async def test_what_stops_at_the_guard_decides_nothing_twice(tmp_path: Path) -> None:
    log = await mixed()
    snapshot, rows = tmp_path / "stopped.json", tmp_path / "rows.jsonl"
    files: dict[str, Any] = {"snapshot": snapshot, "rows": rows, "registry": REGISTRY}
    with pytest.raises(GuardFailed):
        await what_if(log, Asked(NO_TREE, load_guard("error('no') is null")), no_blob, **files)
    seen: list[Progress] = []
    asked = Asked(NO_TREE, load_guard("true"))
    report = await what_if(log, asked, no_blob, progress=seen.append, **files)
    # Only the calls were read again.
    assert seen[0].events > seen[-1].total / 2
    told_again, written = told(report), rows.read_bytes()
    assert not snapshot.exists()
    assert told_again == told(await what_if(log, asked, no_blob, **files))
    assert written == rows.read_bytes()
    await stopped_after(log, 1, snapshot, rows, NO_TREE)
    with pytest.raises(GuardFailed):
        await what_if(log, Asked(NO_TREE, load_guard("error('no') is null")), no_blob, **files)
    other = await log_of(*(refund(n, "9", f"c{n}") for n in range(40)))
    with pytest.raises(BadSnapshot, match="of another log"):
        await what_if(other, asked, no_blob, **files)


async def a_snapshot(log: EventLog, folder: Path) -> Path:
    path = folder / "stopped.json"
    assert await stopped_after(log, 1, path, folder / "rows.jsonl", NO_TREE) is None
    return path


async def test_what_came_since_the_stop_is_not_in_the_report(tmp_path: Path) -> None:
    log = await lived()
    whole = await what_if(log, Asked(NO_TREE), no_blob, registry=REGISTRY)
    snapshot = await a_snapshot(log, tmp_path)
    await log.append(refund(50, "1"))
    again = await stopped_after(log, 10**9, snapshot, tmp_path / "rows.jsonl", NO_TREE)
    assert again is not None
    assert (again.end, again.tally is not None) == (whole.end, True)
    assert told(again) == told(whole)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99}', "\x00", '{"format": 1}'])
async def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path, text: str) -> None:
    log = await lived()
    snapshot = await a_snapshot(log, tmp_path)
    snapshot.write_text(text)
    with pytest.raises(BadSnapshot, match="remove it to begin anew"):
        await stopped_after(log, 10**9, snapshot, tmp_path / "rows.jsonl", NO_TREE)


async def test_a_snapshot_of_another_question_or_of_another_log_is_refused(tmp_path: Path) -> None:
    log = await lived()
    snapshot = await a_snapshot(log, tmp_path)
    with pytest.raises(BadSnapshot, match="something else"):
        await stopped_after(log, 9, snapshot, tmp_path / "rows.jsonl", Variant(max_error=0.2))
    held = json.loads(snapshot.read_text())
    assert held["last"] is not None
    other = await log_of(*(refund(n, "9", f"c{n}") for n in range(40)))
    with pytest.raises(BadSnapshot, match="of another log"):
        await stopped_after(other, 9, snapshot, tmp_path / "rows.jsonl", NO_TREE)


async def test_the_state_before_a_range_counts_and_its_decisions_do_not() -> None:
    log = await mixed()
    end = await log.log.end(["mad.conversations"])
    tp = max(end, key=lambda tp: end[tp])
    middle = f"{tp}@{end[tp] // 2}"
    counted = []
    found: list[Any] = []
    # A position in --to leaves out the partitions that it does not name.
    for since, until in ((None, None), (middle, None), (None, middle)):
        asked = Asked(NO_TREE, since=since, until=until)
        report = await what_if(log, asked, no_blob, registry=REGISTRY)
        assert report.tally is not None
        counted.append(report.tally.decisions)
        found.append({row["event_id"]: row for row in report.rows})
    whole, late, early = counted
    assert min(late, early) > 0
    # What a tool answered sets off a decision only where the agent acted on it in the range.
    assert whole - 3 <= late + early <= whole
    assert found[1].items() <= found[0].items()


async def test_a_range_begins_and_ends_with_what_is_named() -> None:
    log = await log_of(*(refund(number, "1", f"c{number}") for number in range(1, 9)))
    tp, offset = None, None
    async for events in log.read_topics(["mad.conversations"]):
        for event in events:
            if event.event_id == eid(9):
                tp, offset = event.position.topic_partition, event.record.offset
    assert tp is not None
    assert offset is not None
    by_event = await replay_range(log, eid(9), eid(9))
    assert (by_event.start[tp], by_event.end[tp]) == (offset, offset + 1)
    by_name = await replay_range(log, "c4", "c4")
    assert (by_name.start[tp], by_name.end[tp]) == (offset - 1, offset + 1)
    everything = await replay_range(log)
    assert (dict(everything.start), everything.end[tp] > offset) == ({}, True)
    assert (await replay_range(log, "1970-01-01")).start[tp] == 0
    assert dict((await replay_range(log, f"{tp}@{offset}")).start) == {tp: offset}


@pytest.mark.parametrize("named", [eid(4000), "no-such-conversation", "2026-13-45"])
async def test_a_place_that_is_not_there_is_refused(named: str) -> None:
    log = await log_of(refund(1, "1"))
    for since, until in ((named, None), (None, named)):
        with pytest.raises((NoSuchPlace, BadTime)):
            await replay_range(log, since, until)


async def test_a_time_that_is_refused_is_not_taken_for_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(*given: Any) -> Any:
        if given[1] == "latest":
            return await log.log.end(["mad.conversations"])
        raise BadTime("it is yet to come")

    log = await log_of(refund(1, "1"))
    monkeypatch.setattr(range_module, "as_of", refused)
    with pytest.raises(BadTime, match="yet to come"):
        await replay_range(log, "2040-01-01")
    with pytest.raises(NoSuchPlace, match="no conversation"):
        await replay_range(log, "c404")


async def test_a_place_past_the_end_and_a_range_that_ends_before_it_begins_are_refused() -> None:
    log = await log_of(*(refund(number, "1", "c1") for number in range(1, 9)))
    end = await log.log.end(["mad.conversations"])
    tp = max(end, key=lambda tp: end[tp])
    for since, until in ((f"{tp}@999", None), (None, f"{tp}@999")):
        with pytest.raises(InvalidPosition, match="past the end"):
            await replay_range(log, since, until)
    with pytest.raises(NoSuchPlace, match="end before it"):
        await replay_range(log, f"{tp}@9", f"{tp}@3")


async def test_progress_says_how_fast_and_how_long_still() -> None:
    seen: list[Progress] = []
    await what_if(await lived(), Asked(NO_TREE), no_blob, registry=REGISTRY, progress=seen.append)
    assert seen[-1].events == seen[-1].total == 20
    assert seen[-1].seconds_left == 0
    seen.clear()
    asked = Asked(NO_TREE, load_guard("false"))
    report = await what_if(await lived(), asked, no_blob, registry=REGISTRY, progress=seen.append)
    assert seen[-1].events == seen[-1].total == report.events == 40
    assert Progress(10, 30, "x", 5.0).seconds_left == 4.0
