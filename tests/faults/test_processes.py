"""Several processes on one log: wake-ups, takeover in a group, recovery after a kill."""

import asyncio
import statistics
import time
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from tests.faults.history import Ack, History, anomalies
from tests.faults.writer import (
    TOPIC,
    append_when_told,
    consume,
    new_record,
    open_log,
    start,
    write,
)

from madlog.topics.catalog import CATALOG
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.log import Commit, Record
from madlog.topics.positions import Position, TopicPartition, Vector

APPENDS = 50
PATIENCE_S = 30.0


async def answer(connection: Connection) -> bytes:
    """Return the next message of another process without stopping this one's event loop."""
    until = time.monotonic() + PATIENCE_S
    while not connection.poll():
        assert time.monotonic() < until, "the other process says nothing"
        await asyncio.sleep(0.001)
    return connection.recv_bytes()


async def test_an_append_in_one_process_wakes_a_subscriber_in_another(tmp_path: Path) -> None:
    log = await open_log(tmp_path)
    await log.create_topic(CATALOG[TOPIC])
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def subscribe() -> None:
        async for records in log.subscribe(await log.start([TOPIC])):
            for _ in records:
                arrived.put_nowait(time.monotonic_ns())

    subscriber = asyncio.create_task(subscribe())
    orders, other = Pipe()
    process = start(append_when_told, tmp_path, other)
    assert await answer(orders) == b"ready"
    latencies_ms = []
    for _ in range(APPENDS):
        orders.send_bytes(b"append")
        seen_ns = await asyncio.wait_for(arrived.get(), PATIENCE_S)
        durable_ns = int(await answer(orders))
        latencies_ms.append(max(0, seen_ns - durable_ns) / 1e6)
    orders.send_bytes(b"end")
    process.join()
    subscriber.cancel()
    with suppress(asyncio.CancelledError):
        await subscriber
    await log.close()
    latencies_ms.sort()
    print(
        f"wake-up in another process, {APPENDS} appends: median "
        f"{statistics.median(latencies_ms):.1f} ms, 95 of 100 "
        f"{latencies_ms[int(APPENDS * 0.95)]:.1f} ms, longest {latencies_ms[-1]:.1f} ms"
    )
    assert len(latencies_ms) == APPENDS
    assert statistics.median(latencies_ms) < 1000


async def consume_to_the_end(log: EmbeddedLog, group: str) -> tuple[list[Record], float]:
    """Join, read until all partitions are ours and read to their end; and the seconds taken."""
    started = time.monotonic()
    member = await log.join(group, [TOPIC])
    end = await log.end([TOPIC])
    found: list[Record] = []
    owned_s = 0.0
    while (await log.committed(group)).only([TOPIC]) != end:
        assert time.monotonic() - started < PATIENCE_S, "the partitions are not taken over"
        records = await member.poll(timeout_s=0.05)
        if len(member.assignment) == len(end):
            owned_s = owned_s or time.monotonic() - started
        if records:
            last = records[-1].position
            place = Vector({last.topic_partition: last.offset + 1})
            await log.transact([], Commit(member, place))
            found += records
    await member.leave()
    return found, owned_s


async def test_a_member_goes_on_from_the_committed_position_of_one_that_was_killed(
    tmp_path: Path,
) -> None:
    log = await open_log(tmp_path, session_timeout_s=1.0)
    await log.create_topic(CATALOG[TOPIC])
    await log.append([new_record(f"key-{number % 8}", number // 8) for number in range(400)])
    reports, report = Pipe(duplex=False)
    process = start(consume, tmp_path, report, "group", 1.0)
    report.close()
    first = [await answer(reports) for _ in range(100)]
    process.kill()
    with suppress(EOFError, ConnectionError):
        while True:
            first.append(reports.recv_bytes())
    process.join()

    committed = await log.committed("group")
    found, owned_s = await consume_to_the_end(log, "group")
    places = {record.position for record in found}
    assert len(places) == len(found)
    for partition in range(CATALOG[TOPIC].partitions):
        here = TopicPartition(TOPIC, partition)
        end = (await log.end([TOPIC]))[here]
        offsets = [r.offset for r in found if r.partition == partition]
        assert offsets == list(range(committed.get(here, 0), end))
    for line in first:
        partition, offset = map(int, line.split())
        assert offset < committed[TopicPartition(TOPIC, partition)], "reported once committed"
    assert len(found) + sum(committed.values()) == 400
    print(f"taken over {owned_s:.2f} s after joining, {len(first)} before, {len(found)} after")
    assert owned_s <= 10
    await log.close()


async def test_the_log_of_a_killed_process_is_recovered_by_the_next(tmp_path: Path) -> None:
    history = History()
    reports, report = Pipe(duplex=False)
    process = start(write, tmp_path, report, {}, 1)
    report.close()

    def take(line: bytes) -> None:
        what, partition, offset, key, number = line.split(b" ", 4)
        if what != b"seen":
            place = Position(TOPIC, int(partition), int(offset))
            history.acks.append(Ack(place, key.decode(), int(number)))

    while len(history.acks) < 100:
        take(await answer(reports))
    process.kill()
    with suppress(EOFError, ConnectionError):
        while True:
            take(reports.recv_bytes())
    process.join()

    wal = tmp_path / "log.sqlite-wal"
    assert wal.stat().st_size > 0, "what was written is in the WAL of a process that is gone"
    log = await open_log(tmp_path)
    assert [damage async for damage in log.check()] == []
    async for records in log.read(Vector(), await log.end([TOPIC])):
        history.log += records
    await log.append([new_record("after", 0)])
    await log.close()
    assert anomalies(history) == []
    print(f"{len(history.acks)} acknowledged, {len(history.log)} recovered")
