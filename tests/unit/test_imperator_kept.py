"""Answers are kept: none is paid twice after a failure or a crash; scripts and records answer."""

from typing import Any

import pytest
from tests.unit.counting import run
from tests.unit.imperator_scene import (
    AGENTS,
    SetClock,
    Told,
    escalations,
    fields_of,
    log_with,
    turn_of,
)

from madlog.processors import Router
from madlog.processors.imperator import (
    Answer,
    Asked,
    NoAnswer,
    RecordedImperator,
    ScriptedImperator,
)
from madlog.processors.retrospect import Conversation
from madlog.schemas import ToolCall
from madlog.topics import EventLog, Receipt
from madlog.topics.errors import NotWritten
from madlog.topics.memory import MemoryLog

WORDS = Answer.says("It comes on Monday.", provider="acme", tokens_in=120, cost_usd=0.002)


def words(_: Asked) -> Answer:
    return WORDS


class Refusing(EventLog):
    """A log whose next appends of a kind fail, before or after they were written."""

    refused: tuple[str, str, int] = ("", "", 0)

    async def append(self, events: Any) -> list[Receipt]:
        kind, when, times = self.refused
        hit = times > 0 and any(event.kind == kind for event in events)
        self.refused = (kind, when, times - hit)
        if hit and when == "before":
            raise NotWritten("the disk is full")
        done = await super().append(events)
        if hit:
            raise NotWritten("nobody knows")
        return done


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["LlmCall", "Turn"])
async def test_an_answer_that_could_not_be_appended_is_kept_and_not_paid_twice(
    kind: str, when: str
) -> None:
    clock, said = SetClock(), list[str]()
    log = Refusing(MemoryLog(clock))
    await log.append([turn_of(1, "Where is it?")])
    await run(log, Router(AGENTS))
    log.refused = (kind, when, 2)
    imperator = Told(words)
    job = escalations(log, imperator, say=said.append)
    for _ in range(4):
        await job.run()
        clock.us += 60_000_000
    assert len(imperator.asked) == 1
    assert len(await fields_of(log, "mad.llm")) == 1
    assert len(await fields_of(log, "mad.conversations")) == 2
    assert len(said) == 1
    assert "could not be carried out" in said[0]


async def test_what_a_crash_left_out_follows_from_the_answer_on_the_log_and_nobody_is_asked() -> (
    None
):
    log = Refusing(MemoryLog(SetClock()))
    await log.append([turn_of(1, "Where is it?"), turn_of(2, "Give it back", "d")])
    await run(log, Router(AGENTS))
    script = {"c": WORDS, "d": Answer.acts("refund", {"id": 17})}
    log.refused = ("Turn", "before", 1)

    async def acts(asked: Asked, call: ToolCall, along_with: Any) -> None:
        raise RuntimeError("killed")

    first = Told(lambda asked: script[asked.conversation_id])
    await escalations(log, first, acts=acts, say=lambda _: None).run()
    assert len(await fields_of(log, "mad.llm")) == 2
    assert len(await fields_of(log, "mad.conversations")) == 2
    second = Told(words)
    assert (await escalations(log, second).run()).escalations == 2
    assert second.asked == []
    (call,) = await fields_of(log, "mad.conversations", ["ToolCall"])
    assert (call["action"], call["arguments"]) == ("refund", '{"id":17}')
    said = (await fields_of(log, "mad.conversations", ["Turn"]))[-1]
    assert said["parts"][0]["text"] == "It comes on Monday."
    assert (await escalations(log, second).run()).escalations == 0


async def test_a_script_answers_by_text_or_by_function_and_says_where_it_has_nothing() -> None:
    log = await log_with(turn_of(1, "Where is it?"))
    imperator = Told(words)
    await escalations(log, imperator).run()
    (asked,) = imperator.asked
    table = ScriptedImperator({"Where is it?": WORDS})
    assert await table.decide(asked) == WORDS
    with pytest.raises(NoAnswer, match="Where is it"):
        await ScriptedImperator({}).decide(asked)
    assert await ScriptedImperator({}, WORDS).decide(asked) == WORDS
    assert await ScriptedImperator(words).decide(asked) == WORDS


async def test_the_record_answers_what_was_done_and_what_it_cost() -> None:
    script = {
        "Where is it?": WORDS,
        "Give it back": Answer.acts("refund", {"id": 17}),
    }
    turns = [turn_of(1, "Where is it?"), turn_of(2, "Give it back", "d")]
    log = await log_with(*turns)
    await escalations(log, Told(lambda asked: script[asked.text])).run()
    by_name: dict[str, list[Any]] = {}
    async for events in log.read_topics(["mad.conversations"]):
        for event in events:
            by_name.setdefault(event.fields["conversation_id"], []).append(event)
    calls = [event async for events in log.read_topics(["mad.llm"]) for event in events]
    recorded = RecordedImperator(
        [Conversation(name, tuple(events)) for name, events in by_name.items()], calls
    )
    again = await log_with(*turns)
    imperator = Told(words)
    await escalations(again, imperator).run()
    answers = {asked.text: await recorded.decide(asked) for asked in imperator.asked}
    assert answers == script
    unknown = await log_with(turn_of(9, "Where is it?"))
    imperator = Told(words)
    await escalations(unknown, imperator).run()
    with pytest.raises(NoAnswer, match="nothing that orders did"):
        await recorded.decide(imperator.asked[0])
