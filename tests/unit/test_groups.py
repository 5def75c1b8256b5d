"""Lag of consumer groups, and what a reset of their positions comes to."""

import pytest
from tests.unit.counting import CONVERSATIONS, Counter, opened, run, turns

from madlog.processors.errors import UnknownGroup
from madlog.processors.groups import Lag, consequences, group_state, lags, plan_reset
from madlog.topics import PositionExpired, TopicPartition, Vector
from madlog.topics.errors import GroupBusy, InvalidPosition
from madlog.topics.memory import MemoryLog

STATE = "mad.state.counter"


def at(offset: int, partition: int = 0) -> Vector:
    return Vector({TopicPartition(CONVERSATIONS, partition): offset})


async def test_a_small_lag_is_counted_and_a_large_one_is_a_distance() -> None:
    log = await opened()
    await log.append(turns(40))
    end = await log.log.end([CONVERSATIONS])
    start = await log.log.start([CONVERSATIONS])
    assert await lags(log.log, end, end) == dict.fromkeys(end, Lag(0, True))
    assert await lags(log.log, start, end) == {tp: Lag(end[tp], True) for tp in end}
    most = max(end.values())
    found = await lags(log.log, start, end, most - 1)
    assert {tp for tp in end if not found[tp].exact} == {tp for tp in end if end[tp] == most}


async def test_a_reset_says_what_is_read_again_and_what_is_skipped() -> None:
    log = await opened()
    await log.append(turns(8, conversations=1))
    await run(log, Counter())
    (tp, end), *_ = [one for one in (await log.log.end([CONVERSATIONS])).items() if one[1]]
    group = await group_state(log, "counter")
    (back,) = await plan_reset(log, group, Vector({tp: end - 3}))
    assert (back.now, back.to, back.records, back.exact) == (end, end - 3, 3, True)
    assert back.effect == "read again"
    assert await log.log.committed("counter") == group.committed
    (said,) = consequences("counter", [back], await log.log.topics())
    assert "passes over" in said
    (said,) = consequences("reports", [back], await log.log.topics())
    assert "a second time" in said

    await log.append(turns(10, conversations=1)[8:])
    (on,) = await plan_reset(log, group, Vector({tp: end + 2}))
    assert (on.records, on.effect) == (2, "skipped")
    (said,) = consequences("counter", [on], [STATE])
    assert "will not process what is skipped" in said
    (said,) = consequences("reports", [on], [])
    assert "will not see" in said
    (none,) = await plan_reset(log, group, Vector({tp: end}))
    assert (none.records, none.effect) == (0, "none")
    assert consequences("counter", [none], [STATE]) == []


async def test_a_reset_to_what_is_not_there_is_refused() -> None:
    log = await opened()
    await log.append(turns(8))
    await run(log, Counter())
    group = await group_state(log, "counter")
    with pytest.raises(InvalidPosition, match="ends at"):
        await plan_reset(log, group, at(1000))
    with pytest.raises(InvalidPosition, match="there is no"):
        await plan_reset(log, group, at(0, partition=9))
    elsewhere = Vector({TopicPartition("mad.outcomes", 0): 0})
    with pytest.raises(InvalidPosition, match=r"does not read mad\.outcomes"):
        await plan_reset(log, group, elsewhere)
    with pytest.raises(UnknownGroup, match="madlog groups"):
        await group_state(log, "nobody")
    member = await log.log.join("counter", [CONVERSATIONS])
    await member.poll(timeout_s=0)
    with pytest.raises(GroupBusy, match="live members"):
        await plan_reset(log, await group_state(log, "counter"), at(0))
    await member.leave()


async def test_what_has_expired_is_neither_lag_nor_a_place_to_go_back_to() -> None:
    backend = MemoryLog()
    log = await opened(backend)
    inbox = "mad.inbox.orders"
    await log.append(turns(8, conversations=1))
    await run(log)
    (tp, end), *_ = [one for one in (await backend.end([inbox])).items() if one[1]]
    member = await backend.join("reports", [inbox])
    await member.poll(timeout_s=0)
    await member.leave()
    await backend.expire(inbox, tp.partition, 3)
    group = await group_state(log, "reports")
    with pytest.raises(PositionExpired, match="not kept any more"):
        await plan_reset(log, group, Vector({tp: 0}))
    (move,) = await plan_reset(log, group, Vector({tp: end}))
    assert (move.now, move.records) == (None, end - 3)
