"""The writer of the embedded log: group commit, back-pressure, and who is told of a failure."""

import asyncio
import hashlib
from pathlib import Path

import apsw
import pytest

from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import IdempotencyConflict, NotWritten, PositionConflict
from madlog.topics.log import Idempotency, NewRecord
from madlog.topics.positions import TopicPartition, Vector

TOPIC = "mad.models"
PARTITION = TopicPartition(TOPIC, 0)


def record(value: str, once: str | None = None) -> NewRecord:
    content = hashlib.sha256(value.encode()).digest()
    key = Idempotency("tester", once, content) if once else None
    return NewRecord(TOPIC, b"key", value.encode(), (("kind", b"Turn"),), key)


async def opened(
    folder: Path, *, queue: int = 32 << 20, wal: int = 256 << 20, busy_s: float = 0.05
) -> EmbeddedLog:
    log = await EmbeddedLog.open(folder, queue_bytes_max=queue, wal_bytes_max=wal, busy_s=busy_s)
    await log.create_topic(CATALOG[TOPIC])
    return log


async def values(log: EmbeddedLog) -> list[str]:
    lists = log.read(Vector(), await log.end([TOPIC]))
    return [r.value.decode() async for records in lists for r in records]


async def test_a_refused_append_does_not_disturb_those_in_its_commit(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    await log.append([record("a", once="k")])
    results = await asyncio.gather(
        log.append([record("b")]),
        log.append([record("c"), record("other", once="k")]),
        log.append_at([record("d")], Vector({PARTITION: 77})),
        log.append([record("e")]),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    assert kinds == [list, IdempotencyConflict, PositionConflict, list]
    assert await values(log) == ["a", "b", "e"]
    assert [damage async for damage in log.check()] == []
    await log.close()


async def test_a_record_that_is_no_record_fails_alone(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    wrong = NewRecord(TOPIC, b"key", "text, not bytes")  # type: ignore[arg-type]
    results = await asyncio.gather(
        log.append([record("a")]),
        log.append([wrong]),
        log.append([record("b")]),
        return_exceptions=True,
    )
    assert isinstance(results[1], TypeError)
    assert await values(log) == ["a", "b"]
    await log.close()


async def test_a_full_queue_slows_the_sender_down_and_drops_nothing(tmp_path: Path) -> None:
    log = await opened(tmp_path, queue=2_000)
    await asyncio.gather(*(log.append([record(f"{i:04}" * 100)]) for i in range(100)))
    assert sorted(await values(log)) == [f"{i:04}" * 100 for i in range(100)]
    await log.append([record("larger than the queue " * 1000)])
    await log.close()


async def test_what_was_accepted_is_written_when_the_log_is_closed(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    appends = [asyncio.create_task(log.append([record(f"{i}")])) for i in range(50)]
    await asyncio.sleep(0)
    await log.close()
    assert all(len(receipts) == 1 for receipts in await asyncio.gather(*appends))
    log = await opened(tmp_path)
    assert await values(log) == [f"{i}" for i in range(50)]
    await log.close()


async def test_another_process_that_hangs_in_a_write_is_named_as_the_cause(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    other = apsw.Connection(str(tmp_path / "log.sqlite"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotWritten, match="another process"):
        await log.append([record("a", once="k")])
    other.execute("ROLLBACK")
    other.close()
    [receipt] = await log.append([record("a", once="k")])
    assert not receipt.repeated
    await log.close()


async def test_a_reader_that_never_ends_stops_the_writer_before_the_disk_is_full(
    tmp_path: Path,
) -> None:
    log = await opened(tmp_path, wal=1 << 20)
    other = apsw.Connection(str(tmp_path / "log.sqlite"))
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM topics").fetchall()

    async def fill() -> None:
        for i in range(50):
            await log.append([record(f"{i}" * 50_000)])

    with pytest.raises(NotWritten, match="a reader holds an old state"):
        await fill()
    assert (tmp_path / "log.sqlite-wal").stat().st_size < 3 << 20
    other.execute("ROLLBACK")
    other.close()
    await log.append([record("goes on")])
    assert (await values(log))[-1] == "goes on"
    await log.close()


async def test_a_repeated_conditional_append_is_answered_with_its_first_place(
    tmp_path: Path,
) -> None:
    log = await opened(tmp_path)
    at = Vector({PARTITION: 0})
    [first] = await log.append_at([record("a", once="k")], at)
    [again] = await log.append_at([record("a", once="k")], at)
    assert again == (first.position, True)
    await log.close()
