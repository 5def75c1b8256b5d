"""What `--as-of` stands for: latest, positions, a file of them, or a time of appending."""

from pathlib import Path

import pytest

from madlog.analytics.as_of import as_of, event_topics, parse_time
from madlog.analytics.errors import BadTime, UnknownEvent
from madlog.schemas import Part, Sender, Turn, new_event_id
from madlog.topics import EventLog, TopicPartition, UnknownTopic, Vector
from madlog.topics.errors import InvalidPosition
from madlog.topics.memory import MemoryLog

SECOND = 1_000_000


class SetClock:
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        self.us = 0

    def now_us(self) -> int:
        return self.us

    def monotonic_ns(self) -> int:
        return self.us * 1000

    def boot_id(self) -> str:
        return "test"


def turn(n: int) -> Turn:
    return Turn(
        event_id=new_event_id(n, n.to_bytes(10, "big")),
        conversation_id="c1",
        sender=Sender(name="anna", kind="human"),
        occurred_at=n,
        parts=(Part(content_class="prose", text=str(n)),),
    )


async def log_of_three() -> EventLog:
    """One turn at each of the seconds 10, 20 and 30."""
    clock = SetClock()
    log = await EventLog.open(MemoryLog(clock))
    for n in (1, 2, 3):
        clock.us = n * 10 * SECOND
        await log.append([turn(n)])
    clock.us = 60 * SECOND
    return log


async def seen(log: EventLog, at: Vector) -> int:
    return sum([len(batch) async for batch in log.read_topics(["mad.conversations"], end=at)])


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:01", SECOND),
        ("1970-01-01T00:00:01Z", SECOND),
        ("1970-01-01T01:00:01+01:00", SECOND),
        ("1970-01-02", 86_400 * SECOND),
        ("1970-01-01 00:00:00.000001", 1),
        ("1969-12-31T23:59:59.999999", -1),
        ("2026-11-24T12:00:00.123457Z", 1_795_521_600_123_457),
    ],
)
def test_a_time_is_utc_unless_it_names_a_zone(text: str, us: int) -> None:
    assert parse_time(text) == us


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "25:00", "latest "])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadTime, match="2026-11-24T12:00:00"):
        parse_time(text)


async def test_latest_is_the_end_of_every_topic_with_events() -> None:
    log = await log_of_three()
    at = await as_of(log)
    assert {tp.topic for tp in at} == set(await event_topics(log))
    assert await seen(log, at) == 3


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1970-01-01T00:00:09", 0),
        ("1970-01-01T00:00:20", 1),
        ("1970-01-01T00:00:20.000001", 2),
        ("1970-01-01T00:00:30.000001", 3),
    ],
)
async def test_a_time_leaves_out_what_was_appended_at_that_moment(text: str, count: int) -> None:
    log = await log_of_three()
    assert await seen(log, await as_of(log, text)) == count


async def test_a_resolved_vector_says_the_same_after_the_log_has_grown() -> None:
    log = await log_of_three()
    at = await as_of(log, "1970-01-01T00:00:25")
    await log.append([turn(4)])
    assert await as_of(log, str(at)) == at
    assert await seen(log, at) == 2


async def test_positions_are_read_from_a_file(tmp_path: Path) -> None:
    log = await log_of_three()
    at = await as_of(log)
    file = tmp_path / "at.txt"
    file.write_text(str(at).replace(",", "\n") + "\n")
    assert await as_of(log, f"@{file}") == at


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("mad.conversations/0@999", InvalidPosition, "past the end"),
        ("mad.conversations/9@0", InvalidPosition, "no partition"),
        ("mad.conversations/0@x", InvalidPosition, "TOPIC/PARTITION@OFFSET"),
        ("mad.nosuch/0@0", UnknownTopic, "topics list"),
        ("@/nowhere/at.txt", InvalidPosition, "cannot be read"),
        ("2999-01-01", BadTime, "yet to come"),
        ("soon", BadTime, "2026-11-24"),
        ("", BadTime, "2026-11-24"),
    ],
)
async def test_what_stands_for_no_place_is_refused(
    text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        await as_of(await log_of_three(), text)
    assert "\n" not in str(caught.value)


async def test_a_file_without_positions_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "at.txt"
    for content in (b"2026-11-24", b"\xff\xfe", b""):
        file.write_bytes(content)
        with pytest.raises(InvalidPosition):
            await as_of(await log_of_three(), f"@{file}")


async def test_changelogs_hold_no_events() -> None:
    log = await log_of_three()
    await log.ensure_topics(["mad.state.router"])
    assert "mad.state.router" not in await event_topics(log)
    assert TopicPartition("mad.state.router", 0) not in await as_of(log)


async def test_an_event_stands_for_all_that_was_appended_before_it_and_itself() -> None:
    clock = SetClock()
    log = await EventLog.open(MemoryLog(clock=clock))
    turns = [turn(n) for n in range(1, 6)]
    for number, one in enumerate(turns):
        clock.us = SECOND * number
        await log.append([one])
    at = await as_of(log, turns[2].event_id)
    seen = [event.event_id async for batch in log.read(Vector(), at) for event in batch]
    assert [one.event_id in seen for one in turns] == [True, True, True, False, False]
    with pytest.raises(UnknownEvent, match="no event"):
        await as_of(log, turn(99).event_id)
