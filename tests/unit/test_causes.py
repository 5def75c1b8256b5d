"""The tree of causes: what led to an event, what came of it, and how it is drawn."""

import asyncio
from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.acceptance.inside import inside
from tests.unit.test_transcript import about, call, decision, eid, outcome, result, said

from madlog.analytics.causes import CausalTree, Cause, NoEvent, causal_tree, what
from madlog.analytics.causes_drawing import mermaid, svg
from madlog.analytics.conversation_view import NoConversation
from madlog.schemas import Event, LlmCall
from madlog.topics import EventLog, LogEvent
from madlog.topics.log import Record
from madlog.topics.memory import MemoryLog
from madlog.wiring import opened


def caused(event: Event, by: int) -> Event:
    return event.model_copy(update={"causation_id": eid(by)})


# 1 leads to 2, 2 to 3 and 5, 3 to 4; 6 is another's effect, 7 of nothing.
STORY: list[Event] = [
    said(1, 'my <b>order</b> & "all" | of it', recipients=("bot",)),
    caused(decision(2, 1), 1),
    caused(call(3, "refund", {"id": 4711}), 2),
    caused(result(4, 3, {"status": "paid"}), 3),
    caused(outcome(5, "failure", "decision", eid(2)), 2),
    caused(said(6, "from elsewhere"), 90),
    said(7, "by itself"),
    caused(LlmCall(**about(8), model="m", cost_usd=0.5), 3),
]


@pytest.fixture
async def log() -> EventLog:
    made = await EventLog.open(MemoryLog())
    await made.append(STORY)
    return made


def ids(nodes: Sequence[Cause]) -> list[str]:
    return [node.event.event_id for node in nodes]


async def test_the_causes_come_first_and_then_all_effects(log: EventLog) -> None:
    tree = await causal_tree(log, eid(3))
    assert ids(tree.causes()) == [eid(1), eid(2), eid(3)]
    drawn = [row.node.event.event_id for row in tree.rows()]
    assert drawn == [eid(1), eid(2), eid(3), eid(4), eid(8)]
    # What else came of its causes is shown where it is asked for.
    whole = [row.node.event.event_id for row in tree.rows(whole=True)]
    assert sorted(whole) == sorted(eid(number) for number in (1, 2, 3, 4, 5, 8))
    assert tree.outside is None


async def test_an_event_is_named_by_id_by_place_or_by_its_turn(log: EventLog) -> None:
    by_id = await causal_tree(log, eid(6))
    position = str(by_id.asked.event.position)
    for name in (position, "c1#2", "latest#2", f"  {eid(6)} "):
        assert (await causal_tree(log, name)).asked.event.event_id == eid(6)
    assert by_id.outside == eid(90)
    assert ids(by_id.causes()) == [eid(6)]


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (eid(77), NoEvent, eid(77)),
        ("c1#9", NoEvent, "3 turns, and no turn 9"),
        ("nowhere#1", NoConversation, "nowhere"),
        ("my order", NoEvent, "no event_id"),
    ],
)
async def test_what_is_not_there_is_named(
    log: EventLog, name: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as refused:
        await causal_tree(log, name)
    assert says in str(refused.value)


async def test_a_position_after_the_last_event_holds_none(log: EventLog) -> None:
    end = await log.log.end(["mad.conversations"])
    tp = next(tp for tp in end if end[tp])
    with pytest.raises(NoEvent, match=f"{tp}@{end[tp]}"):
        await causal_tree(log, f"{tp}@{end[tp]}")


async def test_circles_and_repeats_of_no_honest_log_do_no_harm() -> None:
    log = await EventLog.open(MemoryLog())
    circle = [caused(said(1, "a"), 3), caused(said(2, "b"), 1), caused(said(3, "c"), 2)]
    own = caused(said(4, "its own cause"), 4)
    await log.append([*circle, own, circle[1]])
    tree = await causal_tree(log, eid(2))
    assert sorted(row.node.event.event_id for row in tree.rows(whole=True)) == [
        eid(1),
        eid(2),
        eid(3),
    ]
    assert ids((await causal_tree(log, eid(4))).causes()) == [eid(4)]


def test_each_kind_is_said_in_a_line() -> None:
    record = Record("t", 0, 0, b"", b"", (), 0)
    told = [what(LogEvent(record, one.kind, one.model_dump(mode="python"))) for one in STORY]
    assert told[1:5] == [
        "tree: refund, 97% sure",
        "refund(id=4711)",
        "= status=paid",
        "failure, judged by x",
    ]
    assert told[7] == "language model m, $0.5000"
    long = said(9, "word " * 200)
    assert len(what(LogEvent(record, "Turn", long.model_dump()))) == 300


async def test_drawings_are_whole_and_say_words_as_words(log: EventLog) -> None:
    tree = await causal_tree(log, eid(3))
    drawn = ElementTree.fromstring(svg(tree, whole=True))
    name = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{name}g")) == 6
    assert len(drawn.findall(f"{name}path")) == 5
    texts = ["".join(group.itertext()) for group in drawn.findall(f"{name}g")]
    assert any('my <b>order</b> & "all" | of it' in text for text in texts)
    assert drawn.findall(f".//{name}circle[@class='failed']")
    lines = mermaid(tree, whole=True).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum("-->" in line for line in lines) == 5
    assert all("<b>" not in line and "|" not in line for line in lines)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10_000), max_size=40))
def test_every_event_is_drawn_once_under_its_cause_and_in_few_lanes(causes: list[int]) -> None:
    record = Record("t", 0, 0, b"", b"", (), 0)
    nodes = [Cause(LogEvent(record, "Turn", {"causation_id": None}), 0)]
    for number, chosen in enumerate(causes, 1):
        cause = nodes[chosen % len(nodes)]
        node = Cause(LogEvent(record, "Turn", {}), number, cause)
        cause.effects.append(node)
        nodes.append(node)
    tree = CausalTree("c", nodes[-1], nodes[0], None)
    rows = tree.rows(whole=True)
    assert sorted(row.node.number for row in rows) == [node.number for node in nodes]
    for at, row in enumerate(rows):
        if row.above is None:
            assert at == 0
        else:
            assert row.above < at
            assert rows[row.above].node is row.node.cause
    assert max(row.lane for row in rows) <= log2(len(nodes))
    narrow = [row.node for row in tree.rows()]
    assert narrow[: len(tree.causes())] == tree.causes()


def test_the_command_prints_draws_and_refuses(tmp_path: Path) -> None:
    async def fill() -> None:
        async with opened(str(tmp_path / ".madlog")) as log:
            await log.append(STORY)

    asyncio.run(fill())
    ran = inside("tree", "c1#1", cwd=tmp_path)
    assert ran.out.splitlines()[:3] == [
        "c1",
        '◉ ada  my <b>order</b> & "all" | of it',
        "● bot  tree: refund, 97% sure",
    ]
    answer: dict[str, Any] = inside("tree", eid(3), "--json", cwd=tmp_path).json
    assert answer["causes"] == [eid(1), eid(2)]
    assert [event["event_id"] for event in answer["events"]][:3] == [eid(1), eid(2), eid(3)]
    for file in ("t.svg", "t.mmd"):
        assert inside("tree", eid(3), "--out", file, cwd=tmp_path).code == 0
        assert (tmp_path / file).stat().st_size > 100
    assert ".svg" in inside("tree", eid(3), "--out", "t.png", cwd=tmp_path).refused(2)
    assert "cannot be written" in inside("tree", "c1#1", "--out", "no/t.svg", cwd=tmp_path).refused(
        2
    )
    assert "no event_id" in inside("tree", "what", cwd=tmp_path).refused(2)
