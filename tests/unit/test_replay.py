"""Rebuild: from zero it comes out as the live projections, or the first difference is named."""

import json
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madlog.analytics.projections import PROJECTIONS, State, state_digest
from madlog.analytics.replay import Difference, Progress, first_difference, rebuild, refresh
from madlog.analytics.snapshots import load, store
from madlog.processors import Engine, Router, retry_letters
from madlog.schemas import (
    EVENT_KINDS,
    ConversationChanged,
    Decision,
    Event,
    Part,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.topics import EventLog, LogEvent, NewRecord, Vector
from madlog.topics.catalog import partition_for
from madlog.topics.memory import MemoryLog

STATE = "mad.state.router"


def eid(n: int) -> str:
    return new_event_id(n * 1000, n.to_bytes(10, "big"))


def about(n: int, conversation: str = "c1") -> dict[str, Any]:
    return {
        "event_id": eid(n),
        "conversation_id": conversation,
        "sender": Sender(name="anna", kind="human"),
        "occurred_at": n * 1000,
    }


def event(n: int, conversation: str = "c1") -> Event:
    """One of six kinds of event, by its number."""
    me = about(n, conversation)
    if n % 6 == 0:
        change: Any = "left" if n % 12 else "joined"
        return ConversationChanged(**me, change=change, participant="bot", participant_kind="mad")
    if n % 6 == 1:
        return ToolCall(**me, action="refund", arguments="{}")
    if n % 6 == 2:
        return ToolResult(**me, ok=n % 4 == 2)
    if n % 6 == 3:
        return Decision(
            **me,
            turn_id=eid(1),
            recipient="bot",
            mode="live",
            tier="dtr",
            route="imperator",
            confidence=0.5,
            max_error=0.05,
            model_id=eid(1),
            model_version="1",
            reason="r",
            propensity=1.0,
            audited=False,
        )
    return Turn(**me, recipients=("bot",), parts=(Part(content_class="prose", text=str(n)),))


def events(first: int, count: int) -> list[Event]:
    return [event(n, f"c{n % 5}") for n in range(first, first + count)]


async def log_of(count: int) -> EventLog:
    log = await EventLog.open(MemoryLog())
    await log.append(events(0, count))
    return log


def states(folder: Path) -> dict[str, State]:
    found = {}
    for projection in PROJECTIONS:
        snapshot, why = load(folder, projection)
        assert snapshot is not None, why
        found[projection.name] = snapshot.state
    return found


def tamper(folder: Path, name: str, change: Any) -> None:
    """Change a snapshot's state and give it the digest that fits."""
    projection = next(one for one in PROJECTIONS if one.name == name)
    snapshot, _ = load(folder, projection)
    assert snapshot is not None
    change(snapshot.state)
    store(folder, projection, snapshot.positions, snapshot.state)


async def test_without_live_projections_it_says_so_and_makes_them(tmp_path: Path) -> None:
    log = await log_of(60)
    report = await rebuild(log, tmp_path)
    assert report.exit_code == 0
    assert {one.equal for one in report.projections} == {None}
    assert {one.note for one in report.projections} == {"there was no live projection yet"}
    again = await rebuild(log, tmp_path)
    assert {one.equal for one in again.projections} == {True}
    assert {one.note for one in again.projections} == {""}


async def test_live_projections_that_lag_are_brought_up_to_the_end_and_agree(
    tmp_path: Path,
) -> None:
    log = await log_of(40)
    await refresh(log, tmp_path)
    await log.append(events(40, 40))
    report = await rebuild(log, tmp_path)
    assert (report.exit_code, {one.equal for one in report.projections}) == (0, {True})
    assert states(tmp_path)["tiers"] == {"live/bot/dtr": 13}


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=4))
async def test_snapshot_and_tail_give_what_zero_gives(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    log, done = await log_of(0), 0
    folder, fresh = tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("fresh")
    for cut in sorted({*cuts, 60}):
        await log.append(events(done, cut - done))
        await refresh(log, folder)
        done = cut
    await refresh(log, fresh)
    assert states(folder) == states(fresh)


async def test_refresh_to_a_vector_stops_there(tmp_path: Path) -> None:
    log = await log_of(30)
    at = await log.log.end(await log.log.topics())
    await refresh(log, tmp_path / "then")
    await log.append(events(30, 30))
    await refresh(log, tmp_path / "now", at=at)
    assert states(tmp_path / "then") == states(tmp_path / "now")


async def test_the_projections_hold_what_the_log_says(tmp_path: Path) -> None:
    log = await log_of(0)
    await log.append([event(n) for n in range(13)])
    await refresh(log, tmp_path)
    found = states(tmp_path)
    # turns, calls, results, failures, first, last
    assert found["conversations"] == {"c1": [4, 2, 2, 1, 0, 12000]}
    assert found["participants"] == {"c1": {"bot": "mad"}}
    assert found["tiers"] == {"live/bot/dtr": 2}
    assert sum(count for count, _ in found["contents"].values()) == 13 + len(EVENT_KINDS)


@pytest.mark.parametrize(
    ("name", "change", "key"),
    [
        ("conversations", lambda state: state["c1"].__setitem__(0, 99), "c1"),
        ("participants", lambda state: state["c0"].update(zoe="human"), "c0/zoe"),
        ("tiers", lambda state: state.update({"live/bot/lppm": 1}), "live/bot/lppm"),
        ("contents", lambda state: state["mad.models/0"].__setitem__(1, "00"), "mad.models/0"),
    ],
)
async def test_the_first_difference_is_named_and_the_evidence_kept(
    tmp_path: Path, name: str, change: Any, key: str
) -> None:
    log = await log_of(60)
    await Engine(log, [Router()]).run(until_idle=True)  # publishes a model
    await refresh(log, tmp_path)
    tamper(tmp_path, name, change)
    before = (tmp_path / f"{name}.json").read_bytes()
    report = await rebuild(log, tmp_path)
    assert report.exit_code == 1
    assert report.difference is not None
    assert (report.difference.projection, report.difference.key) == (name, key)
    assert report.difference.live != report.difference.rebuilt
    assert [one.projection for one in report.projections if one.equal is False] == [name]
    assert (tmp_path / f"{name}.json").read_bytes() == before
    assert json.loads(json.dumps(report.as_json()))["difference"]["key"] == key


async def test_a_past_that_was_rewritten_is_found(tmp_path: Path) -> None:
    await refresh(await log_of(60), tmp_path)
    other = await EventLog.open(MemoryLog())
    await other.append([*events(0, 59), event(59, "c4").model_copy(update={"subject": "x"})])
    report = await rebuild(other, tmp_path)
    assert report.difference is not None
    assert report.difference.projection == "contents"


async def test_a_log_that_lost_its_end_is_found(tmp_path: Path) -> None:
    await refresh(await log_of(60), tmp_path)
    report = await rebuild(await log_of(30), tmp_path)
    assert report.exit_code == 1
    assert report.difference is not None
    assert report.difference.key == "position"
    assert any("past the end of the log" in one.note for one in report.projections)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"format": 1, "version": 1, "positions": "x", "digest": "", "state": {}}',
        b'{"format": 1, "version": 1, "positions": "", "digest": "00", "state": {}}',
        b'{"format": 99, "version": 1}',
    ],
)
async def test_a_damaged_snapshot_is_thrown_away_and_rebuilt(
    tmp_path: Path, content: bytes
) -> None:
    log = await log_of(30)
    await refresh(log, tmp_path)
    whole = states(tmp_path)
    (tmp_path / "tiers.json").write_bytes(content)
    report = await rebuild(log, tmp_path)
    assert report.exit_code == 0
    found = {one.projection: one for one in report.projections}
    assert found["tiers"].equal is None
    assert "thrown away" in found["tiers"].note
    assert found["contents"].equal is True
    assert states(tmp_path) == whole


async def test_snapshots_that_cannot_be_stored_are_said_and_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = await rebuild(await log_of(10), tmp_path / "file" / "projections")
    assert report.exit_code == 0
    assert all("cannot be stored" in one.note for one in report.projections)


async def test_progress_says_how_far_and_where(tmp_path: Path) -> None:
    seen: list[Progress] = []
    report = await rebuild(await log_of(50), tmp_path, progress=seen.append)
    assert seen[-1].percent == 100.0
    assert [now.events for now in seen] == sorted(now.events for now in seen)
    assert seen[-1].events == seen[-1].total == report.events == 50 + len(EVENT_KINDS)
    assert "@" in seen[0].position
    assert seen[-1].events_per_s > 0


async def test_damage_is_skipped_and_named_once(tmp_path: Path) -> None:
    log = await log_of(10)
    await refresh(log, tmp_path)
    await log.log.append([NewRecord("mad.conversations", b"c1", b"junk")])
    named: list[Any] = []
    report = await rebuild(log, tmp_path, on_damage=named.append)
    assert len(report.damaged) == len(named) == 1
    assert report.damaged[0].startswith("mad.conversations/")
    assert report.exit_code == 0


async def test_an_empty_log_rebuilds_to_nothing(tmp_path: Path) -> None:
    log = await EventLog.open(MemoryLog())
    report = await rebuild(log, tmp_path, processors=[Router()])
    assert (report.exit_code, report.events, report.positions) == (0, 0, Vector())


async def test_the_state_of_the_router_is_rebuilt_and_equal(tmp_path: Path) -> None:
    log = await log_of(60)
    await Engine(log, [Router()]).run(until_idle=True)
    await log.append(events(60, 30))  # not routed yet: compared at the router's own position
    report = await rebuild(log, tmp_path, processors=[Router()])
    found = {one.projection: one for one in report.projections}[STATE]
    assert (report.exit_code, found.equal, found.note) == (0, True, "")
    assert sum(found.positions.values()) == 50


async def test_a_router_that_never_ran_has_no_state_to_compare(tmp_path: Path) -> None:
    report = await rebuild(await log_of(10), tmp_path, processors=[Router()])
    assert report.exit_code == 0
    assert report.projections[-1].projection == STATE
    assert report.projections[-1].equal is None
    assert "no live projection" in report.projections[-1].note


async def test_a_changed_state_of_the_router_is_named(tmp_path: Path) -> None:
    log = await log_of(60)
    await Engine(log, [Router()]).run(until_idle=True)
    partition = partition_for(b"c1", 4)
    await log.log.append([NewRecord(STATE, b"h/c1", b'{"turns":99}', partition=partition)])
    report = await rebuild(log, tmp_path, processors=[Router()])
    assert report.exit_code == 1
    assert report.difference is not None
    assert report.difference.projection == STATE
    assert "h/c1" in report.difference.key


async def test_up_to_a_place_nothing_is_stored_and_what_is_past_it_not_compared(
    tmp_path: Path,
) -> None:
    log = await log_of(30)
    place = await log.log.end(sorted(await log.log.topics()))
    await Engine(log, [Router()]).run(until_idle=True)
    await log.append(events(30, 30))
    cut = await rebuild(log, tmp_path, processors=[Router()], until=place)
    fresh = await rebuild(await log_of(30), tmp_path / "other")
    digests = [{one.projection: one.digest for one in told.projections} for told in (cut, fresh)]
    assert digests[0]["contents"] == digests[1]["contents"]
    assert load(tmp_path, PROJECTIONS[0]) == (None, None)
    found = {one.projection: one for one in cut.projections}
    assert (cut.exit_code, found[STATE].equal) == (0, True)
    await rebuild(log, tmp_path)
    again = await rebuild(log, tmp_path, processors=[Router()], until=Vector())
    assert again.exit_code == 0
    assert {one.equal for one in again.projections} == {None}
    assert all("past the place" in one.note for one in again.projections)


class Fussy:
    """A processor that counts events and refuses some until it is told to take them."""

    name = "fussy"
    inputs = ("mad.conversations",)
    shared: tuple[str, ...] = ()

    def __init__(self, refuses: bool) -> None:
        self.refuses = refuses

    def share(self, shared: MutableMapping[str, Any], event: LogEvent) -> None:
        """There is nothing shared."""

    def prelude(self, shared: MutableMapping[str, Any]) -> Sequence[Event]:
        return ()

    def step(self, state: MutableMapping[str, Any], event: LogEvent) -> Sequence[Event]:
        if self.refuses and event.kind == "ToolCall":
            raise ValueError("no tool calls")
        state["count"] = state.get("count", 0) + 1
        return ()


async def test_what_became_a_dead_letter_changed_no_state(tmp_path: Path) -> None:
    log = await log_of(30)
    await Engine(log, [Fussy(refuses=True)]).run(until_idle=True)
    # A newer version takes those events, but they were not folded then.
    report = await rebuild(log, tmp_path, processors=[Fussy(refuses=False)])
    assert report.exit_code == 0
    assert report.projections[-1].equal is True


async def test_partitions_with_retried_letters_are_said_and_not_compared(tmp_path: Path) -> None:
    log = await log_of(30)
    await Engine(log, [Fussy(refuses=True)]).run(until_idle=True)
    retried = await retry_letters(log, [Fussy(refuses=False)])
    assert all(one.settled for one in retried)
    report = await rebuild(log, tmp_path, processors=[Fussy(refuses=False)])
    assert report.exit_code == 0
    assert "retried" in report.projections[-1].note


def test_the_first_difference_is_the_first_by_key() -> None:
    live = {"a": {"x": 1, "y": [1]}, "b": 2}
    assert first_difference("p", live, live) is None
    changed = {"a": {"x": 1, "y": [2]}, "b": 3}
    assert first_difference("p", live, changed) == Difference("p", "a/y", "[1]", "[2]")
    missing = {"a": {"x": 1, "y": [1]}}
    assert first_difference("p", live, missing) == Difference("p", "b", "2", "nothing")
    assert "by the log" in str(first_difference("p", live, missing))


def test_a_digest_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert state_digest({"a": 1, "b": {"c": 1, "d": 2}}) == state_digest(
        {"b": {"d": 2, "c": 1}, "a": 1}
    )
    assert state_digest({"a": 1}) != state_digest({"a": 2})
    assert state_digest({"a": 1}) != state_digest({})
