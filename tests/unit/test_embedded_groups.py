"""Assignment and fencing in the embedded log's consumer groups."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.topics._embedded_groups import assign
from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import Fenced, UnknownTopic
from madlog.topics.log import Commit, NewRecord
from madlog.topics.positions import TopicPartition, Vector
from madlog.topics.testing import ManualClock

TOPIC = "mad.models"
TP = TopicPartition(TOPIC, 0)
TOPICS = {"a": 4, "b": 4, "c": 1}
PARTITIONS = [TopicPartition(topic, p) for topic, count in TOPICS.items() for p in range(count)]

members = st.dictionaries(
    st.sampled_from(["m1", "m2", "m3", "m4", "m5"]),
    st.frozensets(st.sampled_from(sorted(TOPICS)), min_size=1),
)


@given(members, members)
def test_each_partition_goes_to_one_member_that_reads_its_topic(
    before: dict[str, frozenset[str]], after: dict[str, frozenset[str]]
) -> None:
    owners = assign(PARTITIONS, after, assign(PARTITIONS, before, {}))
    for tp, owner in owners.items():
        able = {member for member, topics in after.items() if tp.topic in topics}
        assert owner in able if able else owner == ""


@given(st.integers(1, 6), st.integers(1, 6))
def test_assignment_is_balanced_and_moves_as_little_as_it_can(was: int, now: int) -> None:
    every = frozenset(TOPICS)
    first = assign(PARTITIONS, {f"m{i}": every for i in range(was)}, {})
    second = assign(PARTITIONS, {f"m{i}": every for i in range(now)}, first)
    loads = Counter(second.values())
    assert max(loads.values()) - min(loads.values()) <= 1
    assert len(loads) == now
    moved = sum(first[tp] != second[tp] for tp in PARTITIONS)
    share = -(-len(PARTITIONS) // max(was, now))
    assert moved <= abs(now - was) * share
    assert assign(PARTITIONS, {f"m{i}": every for i in range(now)}, second) == second


async def filled(folder: Path, clock: ManualClock) -> EmbeddedLog:
    log = await EmbeddedLog.open(folder, clock=clock)
    await log.create_topic(CATALOG[TOPIC])
    await log.append([NewRecord(TOPIC, b"key", f"{i}".encode()) for i in range(10)])
    return log


async def test_a_partition_lost_and_won_again_is_read_from_its_committed_position(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    log = await filled(tmp_path, clock)
    first = await log.join("workers", [TOPIC])
    batch = await first.poll(records_max=4)
    clock.advance(60)
    second = await log.join("workers", [TOPIC])
    assert len(await second.poll(records_max=3, timeout_s=0)) == 3
    await log.transact([], Commit(second, Vector({TP: 3})))
    await second.leave()
    # The first one owns it again, and has not polled since: its batch is of the time before.
    with pytest.raises(Fenced):
        await log.transact([], Commit(first, Vector({TP: batch[-1].offset + 1})))
    assert [r.offset for r in await first.poll(records_max=2)] == [3, 4]
    await log.transact([], Commit(first, Vector({TP: 5})))
    assert await log.committed("workers") == Vector({TP: 5})
    await log.close()


async def test_leases_of_before_a_reboot_are_over(tmp_path: Path) -> None:
    clock = ManualClock()
    log = await filled(tmp_path, clock)
    before = await log.join("workers", [TOPIC])
    assert await before.poll()
    clock.reboot("another boot")
    after = await log.join("workers", [TOPIC])
    assert len(await after.poll()) == 10
    [state] = await log.groups()
    assert state.members == {TP: after.member}
    await log.close()


async def test_rewinding_gives_the_records_since_the_committed_position_again(
    tmp_path: Path,
) -> None:
    log = await filled(tmp_path, ManualClock())
    member = await log.join("workers", [TOPIC])
    assert len(await member.poll()) == 10
    await log.transact([], Commit(member, Vector({TP: 6})))
    await member.rewind(TP)
    assert [record.offset for record in await member.poll()] == [6, 7, 8, 9]
    await member.leave()
    with pytest.raises(Fenced, match="has left"):
        await member.poll()
    await log.close()


async def test_a_group_on_a_topic_that_is_not_there_is_refused(tmp_path: Path) -> None:
    log = await filled(tmp_path, ManualClock())
    with pytest.raises(UnknownTopic, match=r"mad\.outcomes"):
        await log.join("workers", [TOPIC, "mad.outcomes"])
    with pytest.raises(UnknownTopic):
        await log.reset("workers", Vector({TopicPartition(TOPIC, 9): 1}))
    await log.close()
