"""The judge: new verdicts supersede, unchanged ones write nothing, batches do not matter."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.outcomes_scene import MARIA, Scene, judged_in

from madlog.processors.outcomes import Judge, Verdict, judge_log
from madlog.schemas import Outcome, SchemaRegistered, fields_of
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.catalog import CATALOG
from madlog.topics.memory import MemoryLog


def test_an_outcome_says_what_showed_it() -> None:
    scene = Scene()
    _, decision = scene.ask(correlation_id="case-1", subject="maria")
    call = scene.call()
    evidence = scene.result(call, ok=False)
    (outcome,) = judged_in(scene.events)
    assert (outcome.about, outcome.about_id, outcome.mad) == ("decision", decision, "orders")
    assert (outcome.result, outcome.judged_by) == ("failure", "tool")
    assert outcome.causation_id == evidence
    assert outcome.occurred_at == scene.newest_us
    assert outcome.conversation_id == "c"
    assert Outcome.model_validate(fields_of(outcome)) == outcome
    assert judged_in(scene.events) == [outcome]


def test_what_is_on_the_log_already_is_not_said_again() -> None:
    scene = Scene()
    scene.ask()
    scene.answer("Which one?")
    scene.judged()
    assert [event.kind for event in scene.events].count("Outcome") == 1
    assert judged_in(scene.events) == []


def test_without_a_decision_there_is_nothing_to_judge() -> None:
    scene = Scene()
    scene.say(MARIA, "Where is my order?", "orders")
    scene.answer()
    scene.say(MARIA, "👎", "orders")
    assert judged_in(scene.events) == []


def test_a_decision_that_comes_late_is_judged_when_it_comes() -> None:
    scene = Scene()
    turn = scene.say(MARIA, "Where is my order?", "orders")
    scene.answer()
    scene.say(MARIA, "👎", "orders")
    scene.judged()
    decision = scene.decide(turn)
    assert scene.judged().said_of(decision, "thumbs") == "failure"


def test_an_outcome_about_an_unknown_decision_changes_nothing() -> None:
    scene = Scene()
    _, decision = scene.ask()
    scene.outcome("failure", "decision", "01890000-0000-7000-8000-0000000000ff", "csv:x")
    assert judged_in(scene.events) == []
    assert scene.verdict(decision) is None


def test_a_verdict_that_changes_and_changes_back_is_three_outcomes() -> None:
    scene = Scene()
    _, decision = scene.ask()
    answer = scene.answer()
    ids = set()
    for text in ("👍", "👎", "👍"):
        scene.say(MARIA, text, causation_id=answer)
        scene.judged()
        ids.add(scene.outcomes(decision)["thumbs"].event_id)
    assert len(ids) == 3
    assert scene.said_of(decision, "thumbs") == "success"


def test_a_conversation_judged_anew_gives_its_decisions_new_credit() -> None:
    scene = Scene()
    _, decision = scene.ask()
    end = scene.answer()
    scene.outcome("success", "conversation", "c", "csv:tickets", causation_id=end)
    assert scene.judged().said_of(decision, "credit") == "success"
    scene.outcome("failure", "conversation", "c", "csv:tickets", causation_id=end)
    assert scene.judged().said_of(decision, "credit") == "failure"


def test_memory_is_bounded_and_what_falls_out_is_counted() -> None:
    scene = Scene()
    for number in range(5):
        scene.created(conversation_id=f"c{number}")
    judge = Judge(conversations_max=3)
    scene.judged(judge)
    assert [facts.conversation_id for facts in judge.conversations()] == ["c2", "c3", "c4"]
    assert judge.forgotten == 2
    assert judge.facts("c0") is None


def test_a_conversation_without_end_keeps_its_newest_events() -> None:
    scene = Scene()
    _, first = scene.ask()
    for number in range(2_000):
        scene.answer(f"Still number {number}")
    _, last = scene.ask()
    scene.answer("Here. #done")
    scene.judged()
    facts = scene.facts()
    assert len(facts.said) == 2_000
    assert first not in facts.decisions
    assert scene.said_of(last, "report") == "success"


_SAID = ("ask", "again", "answer", "error", "call", "fail", "up", "down", "ack", "??")
_ELSE = ("wait", "done", "correct", "end-good", "end-bad", "other")
_STEPS = st.lists(st.sampled_from(_SAID + _ELSE), max_size=25)


def _play(steps: list[str]) -> Scene:
    scene, calls, turns = Scene(), [""], [""]
    scene.created()
    for number, step in enumerate(steps):
        if step in ("ask", "again"):
            text = "Where is my order?" if step == "again" else f"Question {number} of mine"
            turns.append(scene.ask(text)[0])
        elif step in ("answer", "error", "done"):
            tags = ("done",) if step == "done" else ()
            scene.answer(intent="ERROR" if step == "error" else None, tags=tags)
        elif step == "call":
            calls.append(scene.call())
        elif step == "fail" and calls[-1]:
            scene.result(calls[-1], ok=number % 3 == 0)
        elif step in ("up", "down", "ack", "??"):
            scene.say(MARIA, {"up": "👍", "down": "👎", "ack": "thanks"}.get(step, step), "orders")
        elif step == "wait":
            scene.created(conversation_id=f"w{number}", after_s=200)
        elif step == "other":
            scene.ask(conversation_id=f"o{number}")
        elif step == "correct" and turns[-1]:
            scene.decide(turns[-1], f"action:{number % 2}", tier="lppm")
            scene.decide(turns[-1], f"action:{number % 3}")
        elif step.startswith("end"):
            cause = scene.events[-1].event_id if number % 2 else None
            result = "success" if step == "end-good" else "failure"
            scene.outcome(result, "conversation", "c", f"csv:{number % 2}", causation_id=cause)
    return scene


def _merged(events: list[LogEvent], lead: list[str]) -> list[LogEvent]:
    """Return the events with topics in another order between them, each in its own order."""
    waiting = {name: [one for one in events if one.record.topic == name] for name in CATALOG}
    merged = []
    for name in lead:
        if waiting[name]:
            merged.append(waiting[name].pop(0))
    return merged + [one for name in sorted(CATALOG) for one in waiting[name]]


def _verdicts(scene: Scene) -> dict[tuple[str, str], tuple[str, float | None, str | None]]:
    judge = Judge()
    for event in scene.events:
        judge.fold(event)
    return {
        (decision, one.judged_by): (one.result, one.quality, one.route)
        for facts in judge.conversations()
        for decision in facts.decisions
        for one in facts.outcomes(decision)
        if not one.withdrawn
    }


@settings(max_examples=150, deadline=None)
@given(
    _STEPS,
    st.integers(1, 12),
    st.lists(st.sampled_from(("mad.conversations", "mad.decisions", "mad.outcomes")), max_size=40),
)
def test_however_the_log_is_cut_and_merged_the_verdicts_end_equal(
    steps: list[str], batch: int, lead: list[str]
) -> None:
    whole = _play(steps).judged()
    parts = _play(steps)
    parts.events = _merged(parts.events, lead)
    parts.judged(batch=batch)
    assert _verdicts(parts) == _verdicts(whole)
    assert judged_in(parts.events) == judged_in(whole.events) == []


async def _log(scene: Scene) -> EventLog:
    log = await EventLog.open(MemoryLog())
    await log.append([event.event for event in scene.events])
    return log


def _story() -> Scene:
    scene = Scene()
    scene.ask()
    scene.result(scene.call())
    scene.answer()
    return scene


async def _outcomes(log: EventLog) -> list[str]:
    read = log.read_topics(["mad.outcomes"])
    return [event.event_id async for events in read for event in events]


async def test_a_log_is_judged_up_to_its_end_and_then_only_what_is_new() -> None:
    scene = _story()
    log, judge = await _log(scene), Judge()
    written: list[Outcome] = []
    since = await judge_log(log, judge, appended=written.extend)
    assert [one.judged_by for one in written] == ["tool"]
    since = await judge_log(log, judge, since, appended=written.extend)
    assert len(written) == 1
    count = len(scene.events)
    scene.say(MARIA, "👍", "orders")
    await log.append([event.event for event in scene.events[count:]])
    since = await judge_log(log, judge, since, appended=written.extend)
    assert [one.judged_by for one in written] == ["tool", "thumbs"]
    assert set(since) == set(await log.log.end(["mad.conversations", "mad.decisions"])) | {
        tp for tp in since if tp.topic == "mad.outcomes"
    }


async def test_after_a_crash_the_same_outcomes_are_dropped() -> None:
    log = await _log(_story())
    # Both have read the log before either has written to it.
    first, second = Judge(), Judge()
    async for events in log.read_topics(["mad.conversations", "mad.decisions"]):
        for event in events:
            first.fold(event)
            second.fold(event)
    await log.append(first.conclude())
    held = await _outcomes(log)
    assert all(receipt.repeated for receipt in await log.append(second.conclude()))
    assert await _outcomes(log) == held


async def test_a_log_without_anything_is_judged_to_be_so() -> None:
    log = await EventLog.open(MemoryLog())
    assert await judge_log(log, Judge()) == Vector()


def test_what_is_no_part_of_a_conversation_is_passed_over() -> None:
    judge = Judge()
    scene = Scene()
    scene.add(
        SchemaRegistered,
        MARIA,
        subject_name="Turn",
        version=1,
        fingerprint="0",
        schema_text="{}",
    )
    scene.judged(judge)
    assert judge.conclude() == []


def test_a_verdict_is_a_plain_value() -> None:
    scene = _story().judged()
    (decision,) = scene.facts().decisions
    verdict = scene.verdict(decision)
    assert verdict == Verdict(
        "success", "tool", 0.7, None, None, scene.outcomes(decision)["tool"].event_id
    )
