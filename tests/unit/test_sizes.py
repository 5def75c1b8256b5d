"""How much a topic holds and how fast it grows."""

import pytest

from madlog.topics import NewRecord
from madlog.topics.catalog import topic
from madlog.topics.memory import MemoryLog
from madlog.topics.sizes import Size, growth, measure
from madlog.topics.testing import ManualClock

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
DAY_S = 86_400
LLM = "mad.llm"


async def test_records_bytes_and_times_are_counted() -> None:
    clock = ManualClock()
    log = MemoryLog(clock=clock)
    await log.create_topic(topic(LLM))
    assert await measure(log, LLM) == Size()
    began = clock.now_us()
    for key in (b"one", b"two", b"three"):
        await log.append([NewRecord(LLM, key, b"12345")])
        clock.advance(10)
    told: list[int] = []
    size = await measure(log, LLM, told.append)
    assert (size.records, size.bytes, size.damaged) == (3, 3 + 3 + 5 + 15, 0)
    assert (size.oldest_at, size.newest_at) == (began, began + 20_000_000)
    assert told[-1] == 3


def test_growth_is_measured_from_the_oldest_record_until_now() -> None:
    # Ten days ago came a lot in an hour, and nothing since: that is no rate of an hour.
    size = Size(1000, 50_000, oldest_at=DAY_US, newest_at=DAY_US + HOUR_US)
    found = growth(size, 11 * DAY_US, None)
    assert found is not None
    assert (found.span_s, found.records_a_day, found.bytes_a_day) == (10 * DAY_S, 100, 5000)
    assert (found.bytes_in_30_days, found.bytes_level) == (200_000, None)


def test_what_is_kept_for_a_time_levels_off() -> None:
    size = Size(1000, 50_000, oldest_at=DAY_US, newest_at=10 * DAY_US)
    young = growth(size, 11 * DAY_US, 20 * DAY_S)
    assert young is not None
    assert (young.bytes_level, young.bytes_in_30_days) == (100_000, 100_000)
    level = growth(size, 11 * DAY_US, 7 * DAY_S)
    assert level is not None
    # Whole segments go, so a little more than the retention may be there.
    assert (level.bytes_level, level.bytes_in_30_days) == (35_000, 50_000)


@pytest.mark.parametrize("oldest", [None, DAY_US - HOUR_US + 1])
def test_less_than_an_hour_is_not_enough_history(oldest: int | None) -> None:
    assert growth(Size(5, 100, oldest, oldest), DAY_US, None) is None
