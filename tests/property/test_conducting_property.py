"""Whatever comes in whatever order, an instance takes its steps one at a time and each once."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.orders import AGENT
from tests.unit.test_conducting import ADMIN, World

from madlog.schemas import Event, Sender, TimerFired, ToolCall

TIMERS = Sender(name="timers", kind="system")
HAPPENS = st.sampled_from(
    ("ask", "thank", "act", "act otherwise", "answer", "fail", "time", "pause", "resume", "cancel")
)


def happen(world: World, what: str, calls: list[Event]) -> None:
    live = [one for one in world.decisions if one.route.startswith("action:")]
    if what == "ask":
        world.say("Please cancel my order A12345.")
    elif what == "thank":
        world.say("Thank you so much")
    elif what == "act" and live:
        calls.append(world.act(live[-1]))
    elif what == "act otherwise":
        calls.append(world.tell(ToolCall, AGENT, action="get_order", arguments='{"order":"A1"}'))
    elif what in ("answer", "fail") and calls and world.decisions:
        world.answer(calls[-1], ok=what == "answer", cancelled=True)
    elif what == "time":
        waiting = [step for step in world.steps if step.state == "step"]
        if waiting:
            about: dict[str, Any] = {"about_id": waiting[-1].event_id, "deadline": 1}
            world.tell(TimerFired, TIMERS, **about)
    elif what in ("pause", "resume", "cancel"):
        world.say(f"@orders {what}", ADMIN)


@given(st.lists(HAPPENS, max_size=30))
@settings(max_examples=150, deadline=None)
def test_an_instance_takes_one_step_at_a_time_and_each_once(what: list[str]) -> None:
    world = World()
    calls: list[Event] = []
    for one in what:
        happen(world, one, calls)
    ids = [event.event_id for event in (*world.steps, *world.decisions)]
    assert len(set(ids)) == len(ids)
    waiting: dict[str, int | None] = {}
    ended: set[str] = set()
    taken: dict[str, int] = {}
    for move in world.steps:
        name = move.instance_id
        assert name not in ended
        if move.state == "step":
            assert waiting.get(name) is None
            assert move.step == taken.get(name, 0)
            waiting[name], taken[name] = move.step, taken.get(name, 0) + 1
        elif move.state == "done":
            assert move.step == waiting[name]
            waiting[name] = None
        elif move.state in ("escalated", "compensated", "completed"):
            waiting[name] = None
            if move.state == "completed" or (move.state == "compensated" and move.step is None):
                ended.add(name)
    open_now = [key for key in world.state if key.startswith("p/")]
    assert len(open_now) == len(taken.keys() - ended)
