"""Conformance: what happens to a record that is written (G1, G2, G3, G5, G6, G11, G12)."""

import asyncio
import re
from pathlib import Path

import pytest

from madlog.topics.catalog import Topic, partition_for
from madlog.topics.errors import (
    IdempotencyConflict,
    NotWritten,
    OutcomeUnknown,
    PositionConflict,
    RecordTooLarge,
    TopicMismatch,
    UnknownTopic,
)
from madlog.topics.log import ConditionalAppend, Receipt
from madlog.topics.positions import TopicPartition, Vector
from madlog.topics.testing.harness import (
    EXPIRING,
    FOR_EVER,
    SINGLE,
    TOPICS,
    Harness,
    new,
    read_all,
    values,
)

__all__ = ("WritingTests",)


class WritingTests(Harness):
    """Appends, transactions, idempotency keys, limits and failures."""

    async def test_g1_acknowledged_records_are_there_after_reopening(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            receipts: list[Receipt] = []
            for i in range(12):
                batch = [new(f"{i}-{j}", key=f"k{j}") for j in range(3)]
                write = opened.log.transact if i % 3 == 2 else opened.log.append
                receipts += await write(batch)
            await opened.reopen()
            said = {r.position: r.value.decode() for r in await read_all(opened.log)}
            wanted = [f"{i}-{j}" for i in range(12) for j in range(3)]
            assert [said.get(receipt.position) for receipt in receipts] == wanted
            assert len(said) == len(wanted)
            assert [value for _, value in await self.stored(opened.log)] == [
                value.encode() for _, value in sorted(said.items())
            ]

    async def test_g1_topics_and_bytes_survive_reopening(self, tmp_path: Path) -> None:
        every_byte = bytes(range(256))
        headers = (("kind", b"Turn"), ("empty", b""), ("kind", every_byte))
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new(every_byte, key=every_byte, headers=headers)])
            await opened.log.append([new(b"", key=b"", topic=SINGLE)])
            log = await opened.reopen()
            assert await log.topics() == {topic.name: topic.partitions for topic in TOPICS}
            [record] = await read_all(log)
            assert (record.key, record.value, record.headers) == (every_byte, every_byte, headers)
            [record] = await read_all(log, SINGLE)
            assert (record.key, record.value, record.headers) == (b"", b"", ())

    async def test_g2_offsets_strictly_increase_in_append_order(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            receipts: list[Receipt] = []
            for i in range(30):
                receipts += await opened.log.append([new(str(i), topic=SINGLE)])
            offsets = [receipt.position.offset for receipt in receipts]
            assert offsets == sorted(set(offsets))
            records = await read_all(opened.log, SINGLE)
            assert [r.offset for r in records] == offsets
            assert values(records) == [str(i) for i in range(30)]
            if self.gapless:
                assert offsets == list(range(30))

    async def test_g2_concurrent_appends_get_offsets_of_their_own(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            appends = [
                opened.log.append([new(f"{i}-{j}", key=f"k{i}") for j in range(2)])
                for i in range(40)
            ]
            answers = await asyncio.gather(*appends)
            positions = [receipt.position for answer in answers for receipt in answer]
            assert len(set(positions)) == 80
            for i, (first, second) in enumerate(answers):
                assert first.position.partition == second.position.partition
                assert first.position < second.position, f"batch {i} is out of order"
            said = {r.position: r.value.decode() for r in await read_all(opened.log)}
            wanted = [f"{i}-{j}" for i in range(40) for j in range(2)]
            assert [said[position] for position in positions] == wanted

    async def test_g3_events_of_one_key_are_read_in_append_order(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            for i in range(0, 60, 3):
                await opened.log.append([new(str(j), key=f"k{j % 7}") for j in range(i, i + 3)])
            order: dict[bytes, list[int]] = {}
            for record in await read_all(opened.log, records_max=4):
                order.setdefault(record.key, []).append(int(record.value))
                assert record.partition == partition_for(record.key, FOR_EVER.partitions)
            assert order == {f"k{k}".encode(): list(range(k, 60, 7)) for k in range(7)}

    async def test_g5_a_transaction_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new("first", once="used")])
            unknown = Topic("mad.outcomes", "mad", ())
            spoilers = {
                UnknownTopic: new("no topic", topic=unknown),
                RecordTooLarge: new(bytes(self.record_bytes_max + 1)),
                IdempotencyConflict: new("other content", once="used"),
            }
            for error, spoiler in spoilers.items():
                for write in (opened.log.transact, opened.log.append):
                    with pytest.raises(error):
                        await write([new("good", once="fresh"), spoiler, new("good too")])
            assert values(await read_all(opened.log)) == ["first"]
            assert len(await self.stored(opened.log)) == 1
            [receipt] = await opened.log.append([new("good", once="fresh")])
            assert not receipt.repeated

    async def test_g5_readers_see_a_whole_transaction_or_none(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            log, size = opened.log, 25
            writing = asyncio.gather(
                *(log.transact([new(f"{i}", topic=SINGLE) for _ in range(size)]) for i in range(6))
            )
            while not writing.done():
                seen = values(await read_all(log, SINGLE))
                assert all(seen.count(one) == size for one in set(seen))
                await asyncio.sleep(0)
            await writing
            assert len(await read_all(log, SINGLE)) == 6 * size

    async def test_g6_a_repeated_key_is_seen_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            [first] = await opened.log.append([new("hello", once="a")])
            again = await opened.log.append([new("before"), new("hello", once="a")])
            in_transaction = await opened.log.transact([new("hello", once="a")])
            await opened.reopen()
            after = await opened.log.append([new("hello", once="a")])
            assert values(await read_all(opened.log)) == ["hello", "before"]
            assert not first.repeated
            if isinstance(opened.log, ConditionalAppend):
                repeated = [again[1], *in_transaction, *after]
                assert repeated == [Receipt(first.position, repeated=True)] * 3

    async def test_g6_a_key_repeated_within_a_batch_is_seen_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            batch = [new("x", once="a"), new("y"), new("x", once="a")]
            receipts = await opened.log.append(batch)
            assert values(await read_all(opened.log)) == ["x", "y"]
            assert [receipt.repeated for receipt in receipts] == [False, False, True]
            assert receipts[0].position == receipts[2].position

    async def test_g6_concurrent_repeats_are_seen_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            appends = [opened.log.append([new("x", once="a")]) for _ in range(20)]
            answers = [receipt for [receipt] in await asyncio.gather(*appends)]
            assert values(await read_all(opened.log)) == ["x"]
            assert sum(not receipt.repeated for receipt in answers) == 1
            assert len({receipt.position for receipt in answers}) == 1

    async def test_g6_other_content_under_one_key_is_a_conflict(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new("hello", once="a")])
            with pytest.raises(IdempotencyConflict):
                await opened.log.append([new("good"), new("goodbye", once="a")])
            with pytest.raises(IdempotencyConflict):
                await opened.log.append([new("x", once="b"), new("y", once="b")])
            await opened.reopen()
            with pytest.raises(IdempotencyConflict):
                await opened.log.transact([new("goodbye", once="a")])
            assert values(await read_all(opened.log)) == ["hello"]

    async def test_g6_a_key_belongs_to_its_topic_and_scope(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            mine = new("hello", once="a")
            assert mine.idempotency is not None
            yours = new("other", once="a")
            assert yours.idempotency is not None
            scoped = yours.idempotency._replace(scope="somebody")
            yours = type(yours)(yours.topic, yours.key, yours.value, idempotency=scoped)
            receipts = await opened.log.append([mine, yours, new("third", once="a", topic=SINGLE)])
            assert [receipt.repeated for receipt in receipts] == [False] * 3
            assert values(await read_all(opened.log)) == ["hello", "other"]

    async def test_g11_many_concurrent_appends_all_land_or_fail_loudly(
        self, tmp_path: Path
    ) -> None:
        async with self.opened(tmp_path, small=True) as opened:
            appends = [opened.log.append([new(f"{i:03}", key=f"k{i % 9}")]) for i in range(300)]
            answers = await asyncio.gather(*appends, return_exceptions=True)
            landed = {f"{i:03}" for i, answer in enumerate(answers) if isinstance(answer, list)}
            for answer in answers:
                if isinstance(answer, BaseException):
                    assert isinstance(answer, NotWritten), answer
            assert landed, "not one append landed"
            assert set(values(await read_all(opened.log))) == landed
            assert {value.decode() for _, value in await self.stored(opened.log)} == landed

    async def test_g11_a_slow_subscriber_misses_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            stream = opened.log.subscribe(await opened.log.start([SINGLE.name]), records_max=5)
            seen: list[str] = []
            for i in range(20):
                await opened.log.append([new(f"{i}-{j}", topic=SINGLE) for j in range(10)])
            async with asyncio.timeout(self.patience_s):
                while len(seen) < 200:
                    batch = await anext(stream)
                    assert len(batch) <= 5
                    seen += values(batch)
            assert seen == [f"{i}-{j}" for i in range(20) for j in range(10)]

    async def test_g12_a_failed_write_is_reported_and_can_be_repeated(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new("before")])
            writes = {"append": opened.log.append, "transact": opened.log.transact}
            unwritten = []
            for name, write in writes.items():
                with (
                    self.failing_writes(opened.log),
                    pytest.raises((NotWritten, OutcomeUnknown)) as e,
                ):
                    await write([new(name, once=name)])
                if isinstance(e.value, NotWritten):
                    unwritten.append(name.encode())
            await opened.reopen()
            there = [value for _, value in await self.stored(opened.log)]
            assert not set(unwritten) & set(there), "NotWritten, and it is there"
            await opened.log.append([new(name, once=name) for name in writes])
            assert sorted(values(await read_all(opened.log))) == ["append", "before", "transact"]

    async def test_a_record_that_is_too_large_is_refused_with_its_size(
        self, tmp_path: Path
    ) -> None:
        async with self.opened(tmp_path) as opened:
            value = bytes(10 * self.record_bytes_max)
            with pytest.raises(RecordTooLarge) as error:
                await opened.log.append([new("good"), new(value)])
            numbers = [int(n) for n in re.findall(r"\d+", str(error.value).replace(",", ""))]
            assert any(len(value) <= number <= len(value) + 1000 for number in numbers), error.value
            assert self.record_bytes_max in numbers, error.value
            assert await read_all(opened.log) == []

    async def test_a_value_just_within_the_limit_is_taken(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            value = bytes(self.record_bytes_max)
            await opened.log.append([new(value, key=bytes(256), headers=(("kind", b"Turn"),))])
            with pytest.raises(RecordTooLarge):
                await opened.log.append([new(value + b"x")])
            assert [record.value for record in await read_all(opened.log)] == [value]

    async def test_a_topic_that_is_not_there_is_refused_by_name(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            log, name = opened.log, "mad.outcomes"
            absent = Vector({TopicPartition(name, 0): 1})
            outcome = new("x", topic=Topic(name, "mad", ()))
            for attempt in (
                lambda: log.append([outcome]),
                lambda: log.transact([outcome]),
                lambda: log.end([name]),
                lambda: log.start([name]),
                lambda: log.at_time([name], 0),
                lambda: log.join("readers", [name]),
                lambda: anext(aiter(log.read(Vector(), absent))),
                lambda: anext(aiter(log.subscribe(absent))),
            ):
                with pytest.raises(UnknownTopic, match=r"mad\.outcomes"):
                    await attempt()
            with pytest.raises(UnknownTopic):
                await log.create_topic(Topic("no topic of ours", "key", ()))

    async def test_a_topic_is_made_once_with_one_number_of_partitions(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new("x")])
            await opened.log.create_topic(FOR_EVER)
            assert values(await read_all(opened.log)) == ["x"]
            with pytest.raises(TopicMismatch):
                await opened.log.create_topic(Topic(FOR_EVER.name, FOR_EVER.key, (), 5))
            assert (await opened.log.topics())[FOR_EVER.name] == FOR_EVER.partitions

    async def test_a_record_can_name_its_partition(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            batch = [new(str(i), topic=EXPIRING, partition=i) for i in range(4)]
            receipts = await opened.log.append(batch)
            assert [receipt.position.partition for receipt in receipts] == [0, 1, 2, 3]
            with pytest.raises(UnknownTopic):
                await opened.log.append([new("x", topic=EXPIRING, partition=4)])

    async def test_append_times_never_fall(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            await opened.log.append([new("a", topic=SINGLE)])
            opened.clock.set_wall(opened.clock.now_us() - 5_000_000)
            await opened.log.append([new("b", topic=SINGLE)])
            await self.pass_time(opened, 60)
            await opened.log.append([new("c", topic=SINGLE)])
            times = [record.appended_at for record in await read_all(opened.log, SINGLE)]
            assert times == sorted(times)
            assert times[2] > times[0]

    async def test_append_at_writes_at_the_expected_end_only(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as opened:
            log = opened.log
            if not isinstance(log, ConditionalAppend):
                self.cannot("append at an expected position")
            at = await log.end([SINGLE.name])
            await log.append_at([new("a", topic=SINGLE), new("b", topic=SINGLE)], at)
            with pytest.raises(PositionConflict):
                await log.append_at([new("late", topic=SINGLE)], at)
            now = await log.end([SINGLE.name])
            racers = [log.append_at([new(f"r{i}", topic=SINGLE)], now) for i in range(8)]
            answers = await asyncio.gather(*racers, return_exceptions=True)
            assert sum(isinstance(answer, list) for answer in answers) == 1
            assert sum(isinstance(answer, PositionConflict) for answer in answers) == 7
            assert len(await read_all(log, SINGLE)) == 3
