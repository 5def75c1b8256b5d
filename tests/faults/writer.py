"""What the child processes of the fault tests run; each is killed or fails at some point.

They are forked from a server that has imported this module, so that a start takes milliseconds.
"""

import asyncio
import random
import sys
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.faults.history import BATCH_MAX, value_of

from madlog.topics.catalog import CATALOG
from madlog.topics.clock import SystemClock
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import OutcomeUnknown
from madlog.topics.log import Commit, Idempotency, NewRecord, Receipt
from madlog.topics.positions import Vector

__all__ = (
    "TOPIC",
    "append_until_failed",
    "append_when_told",
    "consume",
    "new_record",
    "open_log",
    "start",
    "write",
)

TOPIC = "mad.conversations"
WRITERS = 4
KEYS_PER_WRITER = 2
_CONTENT = b"\0" * 32


async def open_log(folder: Path, **options: Any) -> EmbeddedLog:
    """Open the log of a folder on the machine's clock."""
    return await EmbeddedLog.open(folder, clock=SystemClock(), **options)


def new_record(key: str, number: int) -> NewRecord:
    """Return the record with that number under that key, and its own idempotency key."""
    idempotency = Idempotency(key, str(number), _CONTENT)
    return NewRecord(TOPIC, key.encode(), value_of(key, number), idempotency=idempotency)


def start(program: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start one of this module's programs in a process of its own."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.writer"])
    process = context.Process(target=program, args=arguments, daemon=True)
    process.start()
    return process


def write(folder: Path, report: Connection, following: Mapping[str, int], seed: int) -> None:
    """Write with four tasks and read with one until killed; report each ack and record seen."""
    asyncio.run(_write(folder, report, dict(following), random.Random(seed)))


async def _write(
    folder: Path, report: Connection, following: dict[str, int], rng: random.Random
) -> None:
    log = await open_log(folder)
    await log.create_topic(CATALOG[TOPIC])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read(log, report))
        for writer in range(WRITERS):
            keys = [f"w{writer}-{i}" for i in range(KEYS_PER_WRITER)]
            tasks.create_task(_write_keys(log, report, keys, following, rng))


async def _write_keys(
    log: EmbeddedLog,
    report: Connection,
    keys: list[str],
    following: dict[str, int],
    rng: random.Random,
) -> None:
    while True:
        key = rng.choice(keys)
        first = following.get(key, 0)
        numbers = range(first, first + rng.randint(1, BATCH_MAX))
        receipts = await log.append([new_record(key, number) for number in numbers])
        for number, receipt in zip(numbers, receipts, strict=True):
            at = receipt.position
            what = "again" if receipt.repeated else "ack"
            report.send_bytes(f"{what} {at.partition} {at.offset} {key} {number}".encode())
        following[key] = numbers.stop


async def _read(log: EmbeddedLog, report: Connection) -> None:
    end = await log.end([TOPIC])
    some_before = {tp: max(0, offset - 20) for tp, offset in end.items()}
    async for records in log.subscribe(Vector(some_before)):
        for record in records:
            head = f"seen {record.partition} {record.offset} {record.key.decode()} "
            report.send_bytes(head.encode() + record.value)


def append_when_told(folder: Path, orders: Connection) -> None:
    """Append one record for each order, stamped with the clock that all processes share."""
    asyncio.run(_append_when_told(folder, orders))


async def _append_when_told(folder: Path, orders: Connection) -> None:
    log = await open_log(folder)
    clock = SystemClock()
    orders.send_bytes(b"ready")
    while orders.recv_bytes() == b"append":
        await log.append([NewRecord(TOPIC, b"key", str(clock.monotonic_ns()).encode())])
        # When the append is durable; before it nobody may see the record.
        orders.send_bytes(str(clock.monotonic_ns()).encode())
    await log.close()


def consume(folder: Path, report: Connection, group: str, session_timeout_s: float) -> None:
    """Read as a member of a group, committing each batch, until killed."""
    asyncio.run(_consume(folder, report, group, session_timeout_s))


async def _consume(folder: Path, report: Connection, group: str, session_timeout_s: float) -> None:
    log = await open_log(folder, session_timeout_s=session_timeout_s)
    member = await log.join(group, [TOPIC])
    while True:
        records = await member.poll(timeout_s=0.05, records_max=5)
        if records:
            last = records[-1].position
            positions = Vector({last.topic_partition: last.offset + 1})
            await log.transact([], Commit(member, positions))
        for record in records:
            report.send_bytes(f"{record.partition} {record.offset}".encode())


def append_until_failed(folder: Path, acks_max: int) -> None:
    """Append, printing what each append came to; repeat one that failed, and go on."""
    asyncio.run(_append_until_failed(folder, acks_max))


async def _append_until_failed(folder: Path, acks_max: int) -> None:
    log = await open_log(folder)
    await log.create_topic(CATALOG[TOPIC])
    number = failures = 0
    while number < acks_max and failures < 5:
        try:
            receipt = (await log.append([new_record("w0-0", number)]))[0]
        except OutcomeUnknown:
            failures += 1
            print("unknown", number, flush=True)
            continue
        except OSError as error:
            failures += 1
            print("failed", number, type(error).__name__, flush=True)
            continue
        _print_ack(number, receipt)
        number += 1
    try:
        await log.close()
    except OSError as error:
        print("failed", number, type(error).__name__, flush=True)


def _print_ack(number: int, receipt: Receipt) -> None:
    at = receipt.position
    print("ack", at.partition, at.offset, number, int(receipt.repeated), flush=True)


if __name__ == "__main__":
    append_until_failed(Path(sys.argv[1]), int(sys.argv[2]))
