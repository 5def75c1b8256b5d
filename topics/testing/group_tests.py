"""Conformance: consumer groups (G5, G7, G8)."""

import asyncio
from pathlib import Path

import pytest

from madlog.topics.errors import Fenced, GroupBusy, RecordTooLarge
from madlog.topics.log import Commit, Record
from madlog.topics.positions import TopicPartition, Vector
from madlog.topics.testing.harness import (
    FOR_EVER,
    SINGLE,
    Harness,
    Opened,
    new,
    read_all,
    values,
)

__all__ = ("GroupTests",)

_ONE = TopicPartition(SINGLE.name, 0)
_EVERY = frozenset(TopicPartition(FOR_EVER.name, i) for i in range(FOR_EVER.partitions))


def _after(records: list[Record]) -> Vector:
    last = records[-1]
    return Vector({TopicPartition(last.topic, last.partition): last.offset + 1})


class GroupTests(Harness):
    """Members, takeover, fencing and committed positions."""

    async def _filled(self, opened: Opened, count: int = 40) -> None:
        await opened.log.append([new(f"{i}", key=f"k{i}") for i in range(count)])

    async def test_g5_outputs_and_positions_are_committed_together(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"in {i}", topic=SINGLE) for i in range(6)])
            member = await opened.log.join("workers", [SINGLE.name])
            batch = await member.poll(records_max=4)
            assert values(batch) == [f"in {i}" for i in range(4)]
            done = Commit(member, _after(batch))
            receipts = await opened.log.transact([new("out 1"), new("out 2")], done)
            assert len(receipts) == 2
            await opened.reopen()
            assert await opened.log.committed("workers") == done.positions
            assert values(await read_all(opened.log)) == ["out 1", "out 2"]

    async def test_g5_outputs_that_fail_leave_positions_uncommitted(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"in {i}", topic=SINGLE) for i in range(6)])
            member = await opened.log.join("workers", [SINGLE.name])
            batch = await member.poll(records_max=2)
            await opened.log.transact([], Commit(member, _after(batch)))
            before = await opened.log.committed("workers")
            assert before == _after(batch)
            failed = await member.poll(records_max=2)
            outputs = [new("out"), new(bytes(self.record_bytes_max + 1))]
            with pytest.raises(RecordTooLarge):
                await opened.log.transact(outputs, Commit(member, _after(failed)))
            assert await opened.log.committed("workers") == before
            assert await read_all(opened.log) == []
            await member.rewind(_ONE)
            assert values(await self.drain(member)) == [f"in {i}" for i in range(2, 6)]

    async def test_g7_each_partition_has_one_live_member(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await self._filled(opened)
            members = [await opened.log.join("workers", [FOR_EVER.name])]
            await self.settle(members)
            for _ in range(2):
                members.append(await opened.log.join("workers", [FOR_EVER.name]))
                await self.settle(members)
                owned = [tp for member in members for tp in member.assignment]
                assert len(owned) == len(set(owned)), "one partition, two members"
                assert set(owned) == _EVERY
                assert all(member.assignment for member in members)
            [group] = await opened.log.groups()
            assert (group.group, group.topics) == ("workers", (FOR_EVER.name,))
            for member in members:
                for tp in member.assignment:
                    assert group.members[tp] == member.member

    async def test_g7_every_record_goes_to_one_member(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            members = [await opened.log.join("workers", [FOR_EVER.name]) for _ in range(3)]
            await self.settle(members)
            await self._filled(opened)
            found = [record for member in members for record in await self.drain(member)]
            assert sorted(found) == sorted(await read_all(opened.log))
            others = await self.drain(await opened.log.join("others", [FOR_EVER.name]))
            assert sorted(others) == sorted(found)

    async def test_g7_another_goes_on_in_ten_seconds_when_a_member_dies(
        self, tmp_path: Path
    ) -> None:
        async with self.opened(tmp_path) as opened:
            log = opened.log
            await self._filled(opened, 60)
            dies, lives = [await log.join("workers", [FOR_EVER.name]) for _ in range(2)]
            await self.settle([dies, lives])
            await self.drain(dies)
            for tp in dies.assignment:
                await dies.rewind(tp)
            done: set[Record] = set()
            for _ in range(2):
                batch = await dies.poll(records_max=3)
                await log.transact([], Commit(dies, _after(batch)))
                done.update(batch)
            lost = dies.assignment
            await dies.poll(records_max=3)
            await self.kill(dies)
            found: list[Record] = []
            for _ in range(10):
                await self.pass_time(opened, 1)
                found += await self.drain(lives, polls_empty=1)
                if lives.assignment == _EVERY:
                    break
            assert lives.assignment == _EVERY, "nobody took over in ten seconds"
            found += await self.drain(lives)
            wanted = [
                record
                for record in await read_all(log)
                if TopicPartition(record.topic, record.partition) in lost and record not in done
            ]
            taken = [r for r in found if TopicPartition(r.topic, r.partition) in lost]
            assert sorted(taken) == sorted(wanted)

    async def test_g7_another_goes_on_at_once_when_a_member_leaves(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            leaves, stays = [await opened.log.join("workers", [FOR_EVER.name]) for _ in range(2)]
            await self.settle([leaves, stays])
            assert stays.assignment != _EVERY
            await leaves.leave()
            await self.settle([stays])
            assert stays.assignment == _EVERY

    async def test_g8_a_member_that_lost_its_partition_is_fenced(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"in {i}", topic=SINGLE) for i in range(4)])
            old = await opened.log.join("workers", [SINGLE.name])
            stale = Commit(old, _after(await old.poll(records_max=3)))
            await self.kill(old)
            young = await opened.log.join("workers", [SINGLE.name])
            batch: list[Record] = []
            for _ in range(10):
                await self.pass_time(opened, 1)
                batch = batch or await young.poll(records_max=2, timeout_s=self.poll_s)
            assert values(batch) == ["in 0", "in 1"]
            with pytest.raises(Fenced):
                await opened.log.transact([new("stale")], stale)
            assert await read_all(opened.log) == []
            assert await opened.log.committed("workers") == Vector()
            await opened.log.transact([new("fresh")], Commit(young, _after(batch)))
            with pytest.raises(Fenced):
                await opened.log.transact([new("stale")], stale)
            assert values(await read_all(opened.log)) == ["fresh"]
            assert await opened.log.committed("workers") == _after(batch)

    async def test_g8_a_member_that_left_is_fenced(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new("in", topic=SINGLE)])
            member = await opened.log.join("workers", [SINGLE.name])
            stale = Commit(member, _after(await member.poll()))
            await member.leave()
            with pytest.raises(Fenced):
                await opened.log.transact([new("stale")], stale)
            assert await read_all(opened.log) == []

    async def test_g8_a_partition_that_was_never_owned_is_fenced(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            member = await opened.log.join("workers", [SINGLE.name])
            await member.poll(timeout_s=0)
            foreign = Vector({TopicPartition(FOR_EVER.name, 0): 0})
            with pytest.raises(Fenced):
                await opened.log.transact([new("stale")], Commit(member, foreign))
            assert await read_all(opened.log) == []

    async def test_a_group_goes_on_from_its_committed_position(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"{i}", topic=SINGLE) for i in range(9)])
            member = await opened.log.join("workers", [SINGLE.name])
            batch = await member.poll(records_max=5)
            await opened.log.transact([], Commit(member, _after(batch)))
            assert values(await member.poll(records_max=2)) == ["5", "6"]
            await member.leave()
            await opened.reopen()
            member = await opened.log.join("workers", [SINGLE.name])
            assert values(await self.drain(member)) == ["5", "6", "7", "8"]

    async def test_a_poll_waits_for_the_next_record(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            member = await opened.log.join("workers", [SINGLE.name])
            assert await member.poll(timeout_s=0) == []
            waiting = asyncio.create_task(member.poll(timeout_s=self.patience_s))
            await asyncio.sleep(0.01)
            await opened.log.append([new("news", topic=SINGLE)])
            assert values(await waiting) == ["news"]

    async def test_positions_are_reset_only_without_live_members(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"{i}", topic=SINGLE) for i in range(3)])
            member = await opened.log.join("workers", [SINGLE.name])
            batch = await member.poll()
            await opened.log.transact([], Commit(member, _after(batch)))
            with pytest.raises(GroupBusy):
                await opened.log.reset("workers", Vector({_ONE: 1}))
            assert await opened.log.committed("workers") == _after(batch)
            await member.leave()
            await opened.log.reset("workers", Vector({_ONE: 1}))
            assert await opened.log.committed("workers") == Vector({_ONE: 1})
            member = await opened.log.join("workers", [SINGLE.name])
            assert values(await self.drain(member)) == ["1", "2"]

    async def test_a_group_that_never_was_has_committed_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            assert await opened.log.committed("nobody") == Vector()
            assert await opened.log.groups() == []
