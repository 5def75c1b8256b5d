"""Conformance: what a reader gets (G4, G9, G10), subscriptions, vectors and times."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from madlog.schemas import MadlogError
from madlog.topics.errors import PositionExpired
from madlog.topics.log import Checkable, Compaction, Damage, Record
from madlog.topics.positions import Position, TopicPartition, Vector
from madlog.topics.testing.harness import (
    EXPIRING,
    FOR_EVER,
    LAST_OF_KEY,
    SINGLE,
    Harness,
    Opened,
    new,
    read_all,
    values,
)

__all__ = ("ReadingTests",)

_ONE = TopicPartition(SINGLE.name, 0)


async def _numbers(opened: Opened, count: int, first: int = 0) -> None:
    await opened.log.append([new(str(i), topic=SINGLE) for i in range(first, first + count)])


class ReadingTests(Harness):
    """Reads, subscriptions, retention, compaction and damage."""

    async def test_g4_no_call_alters_a_topic_kept_for_ever(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            batch = [new(f"{i}", key=f"k{i % 3}", once=f"o{i}") for i in range(12)]
            await opened.log.append(batch)
            before, stored = await read_all(opened.log), await self.stored(opened.log)
            await opened.log.append(batch)
            await opened.log.create_topic(FOR_EVER)
            await opened.log.reset("readers", await opened.log.end([FOR_EVER.name]))
            if isinstance(opened.log, Compaction):
                # A refusal keeps the promise as well as doing nothing does.
                with suppress(MadlogError):
                    assert await opened.log.compact(FOR_EVER.name) == 0
            await self.pass_time(opened, 400 * 86_400)
            await opened.reopen()
            await opened.log.append([new("later")])
            after = await read_all(opened.log)
            assert set(before) < set(after)
            assert len(after) == len(before) + 1
            assert set(stored) < set(await self.stored(opened.log))

    async def test_g4_retention_refuses_a_topic_kept_for_ever(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await _numbers(opened, 4)
            with pytest.raises(MadlogError):
                await self.expire(opened.log, _ONE, 2)
            assert values(await read_all(opened.log, SINGLE)) == ["0", "1", "2", "3"]

    async def test_g4_a_read_below_the_low_water_mark_is_never_silent(self, tmp_path: Path) -> None:
        tp = TopicPartition(EXPIRING.name, 2)
        async with self.opened(tmp_path) as opened:
            batch = [new(str(i), topic=EXPIRING, partition=2) for i in range(8)]
            await opened.log.append(batch)
            member = await opened.log.join("readers", [EXPIRING.name])
            assert len(await self.drain(member)) == 8
            await self.expire(opened.log, tp, 5)
            assert (await opened.log.start([EXPIRING.name]))[tp] == 5
            assert values(await read_all(opened.log, EXPIRING)) == ["5", "6", "7"]
            whole = await read_all(opened.log, EXPIRING, start=Vector({tp: 5}))
            assert values(whole) == ["5", "6", "7"]
            end = await opened.log.end([EXPIRING.name])
            with pytest.raises(PositionExpired):
                await read_all(opened.log, EXPIRING, start=Vector({tp: 3}), end=end)
            with pytest.raises(PositionExpired):
                await opened.collect(Vector({tp: 4}), 1, [])

    async def test_compaction_keeps_the_last_record_of_each_key(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            log = opened.log
            if not isinstance(log, Compaction):
                self.cannot("compact on demand")
            batch = [new(f"{i}", key=f"k{i % 3}", topic=LAST_OF_KEY, partition=1) for i in range(9)]
            await log.append(batch)
            before, end = await read_all(log, LAST_OF_KEY), await log.end([LAST_OF_KEY.name])
            assert await log.compact(LAST_OF_KEY.name) == 6
            assert await read_all(log, LAST_OF_KEY) == before[6:]
            assert await log.end([LAST_OF_KEY.name]) == end
            start = Vector({TopicPartition(LAST_OF_KEY.name, 1): 2})
            assert await read_all(log, LAST_OF_KEY, start=start) == before[6:]
            assert await log.compact(LAST_OF_KEY.name) == 0

    async def test_g9_the_end_is_exclusive(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await _numbers(opened, 10)
            offsets = [record.offset for record in await read_all(opened.log, SINGLE)]
            for first, last in ((0, 4), (3, 3), (2, 9), (5, 2), (9, 9)):
                start, end = Vector({_ONE: offsets[first]}), Vector({_ONE: offsets[last]})
                for size in (1, 3, 1000):
                    found = await read_all(
                        opened.log, SINGLE, start=start, end=end, records_max=size
                    )
                    assert values(found) == [str(i) for i in range(first, last)]

    async def test_g9_a_read_is_repeatable(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"{i}", key=f"k{i}") for i in range(40)])
            end = await opened.log.end([FOR_EVER.name])
            first = await read_all(opened.log, end=end, records_max=7)
            await opened.log.append([new(f"{i}", key=f"k{i}") for i in range(40)])
            assert sorted(await read_all(opened.log, end=end)) == sorted(first)
            await opened.reopen()
            assert sorted(await read_all(opened.log, end=end)) == sorted(first)
            assert len(first) == 40

    async def test_a_read_yields_lists_of_one_partition_in_order(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"{i}", key=f"k{i}") for i in range(40)])
            end = await opened.log.end([FOR_EVER.name])
            at: dict[int, int] = {}
            async for records in opened.log.read(Vector(), end, records_max=6):
                assert 1 <= len(records) <= 6
                assert len({record.partition for record in records}) == 1
                for record in records:
                    assert record.offset >= at.get(record.partition, 0)
                    at[record.partition] = record.offset + 1
            assert {TopicPartition(FOR_EVER.name, p): o for p, o in at.items()} == dict(end)

    async def test_a_vector_divides_the_log_into_before_and_after(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(f"a{i}", key=f"k{i}") for i in range(20)])
            middle = await opened.log.end([FOR_EVER.name])
            await opened.log.append([new(f"b{i}", key=f"k{i}") for i in range(20)])
            middle = Vector.parse(str(middle))
            before = values(await read_all(opened.log, end=middle))
            after = values(await read_all(opened.log, start=middle))
            assert sorted(before) == sorted(f"a{i}" for i in range(20))
            assert sorted(after) == sorted(f"b{i}" for i in range(20))
            part = Vector({tp: at for tp, at in middle.items() if tp.partition < 2})
            assert {r.partition for r in await read_all(opened.log, end=part)} <= {0, 1}

    async def test_a_time_names_the_first_record_appended_since(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            times = []
            for i in range(4):
                times.append(await self.moment(opened))
                await _numbers(opened, 2, first=2 * i)
                await self.pass_time(opened, 10)
            records = await read_all(opened.log, SINGLE)
            for i, time_us in enumerate(times):
                at = await opened.log.at_time([SINGLE.name], time_us)
                assert at == Vector({_ONE: records[2 * i].offset})
            late = await opened.log.at_time([SINGLE.name], await self.moment(opened))
            assert late == await opened.log.end([SINGLE.name])

    async def test_a_subscription_catches_up_and_goes_on_live(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await _numbers(opened, 30)
            place = (await read_all(opened.log, SINGLE))[10].offset
            reading = asyncio.create_task(opened.collect(Vector({_ONE: place}), 40, []))
            for i in range(30, 50, 2):
                await asyncio.sleep(0)
                await _numbers(opened, 2, first=i)
            assert values(await reading) == [str(i) for i in range(10, 50)]

    async def test_a_subscription_starts_at_a_time(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await _numbers(opened, 5)
            await self.pass_time(opened, 60)
            moment = await self.moment(opened)
            since = await opened.log.at_time([SINGLE.name], moment - 1)
            await _numbers(opened, 5, first=5)
            reading = asyncio.create_task(opened.collect(since, 8, []))
            await asyncio.sleep(0.01)
            await _numbers(opened, 3, first=10)
            assert values(await reading) == [str(i) for i in range(5, 13)]

    async def test_a_subscription_reads_every_partition_it_names(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            start = await opened.log.start([FOR_EVER.name, SINGLE.name])
            reading = asyncio.create_task(opened.collect(start, 45, []))
            await asyncio.sleep(0.01)
            await opened.log.append([new(f"{i}", key=f"k{i}") for i in range(40)])
            await _numbers(opened, 5)
            found = await reading
            assert len(set(found)) == len(found) == 45
            only = Vector({tp: at for tp, at in start.items() if tp.topic == SINGLE.name})
            assert values(await opened.collect(only, 5, [])) == [str(i) for i in range(5)]

    async def test_g10_damage_is_named_and_stops_nothing_else(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            for i in range(10):
                # One by one: a backend may store, check and lose what was sent together as one.
                await opened.log.append([new(f"number {i:04}", topic=SINGLE)])
            records = await read_all(opened.log, SINGLE)
            spoiled = records[4].position
            await self.damage(opened.log, spoiled)
            left = [f"number {i:04}" for i in range(10) if i != 4]
            for again in range(2):
                damages: list[Damage] = []
                found = await read_all(opened.log, SINGLE, on_damage=damages.append)
                self._only(damages, spoiled, found, left)
                if not again:
                    await opened.reopen()
            damages = []
            start = await opened.log.start([SINGLE.name])
            self._only(damages, spoiled, await opened.collect(start, 9, damages), left)
            damages = []
            member = await opened.log.join("readers", [SINGLE.name])
            polled: list[Record] = []
            async with asyncio.timeout(self.patience_s):
                while len(polled) < 9:
                    polled += await member.poll(timeout_s=0.05, on_damage=damages.append)
            self._only(damages, spoiled, polled, left)
            if isinstance(opened.log, Checkable):
                named = [damage async for damage in opened.log.check() if damage.topic]
                assert any(self._covers(damage, spoiled) for damage in named)

    def _covers(self, damage: Damage, at: Position) -> bool:
        place = (damage.topic, damage.partition)
        return place == at.topic_partition and damage.offset <= at.offset < damage.offset_end

    def _only(
        self, damages: list[Damage], at: Position, found: list[Record], left: list[str]
    ) -> None:
        assert values(found) == left
        assert damages, f"{at} is damaged, and nobody was told"
        assert all(self._covers(damage, at) for damage in damages), damages
