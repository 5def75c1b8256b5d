"""A crash at every write of a scripted run: what is left is a prefix that holds all acks."""

import asyncio
import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
from tests.faults.crash_vfs import CrashVfs, Image, Mode, Step, images, io_error
from tests.faults.writer import TOPIC, new_record, open_log

from madlog.topics.catalog import CATALOG, inbox
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.errors import LogUnavailable, NotWritten, OutcomeUnknown
from madlog.topics.log import Commit, Membership, NewRecord, Record
from madlog.topics.positions import TopicPartition, Vector

OPERATIONS = 100
GROUP = "readers"
PADDED = (0, 0, 0, 0, 300, 5000)


class State(NamedTuple):
    """What the log holds after some of the operations."""

    topics: dict[str, int]
    records: dict[TopicPartition, list[bytes]]
    committed: Vector


class Run(NamedTuple):
    """The recorded steps, and the state after each number of operations."""

    steps: list[Step]
    states: list[State]


def records_of(number: int) -> list[NewRecord]:
    rng = random.Random(number)
    made = [new_record(f"key-{rng.randrange(8)}", number * 4 + i) for i in range(1 + number % 3)]
    padding = b" " * rng.choice(PADDED)
    return [NewRecord(r.topic, r.key, r.value + padding, idempotency=r.idempotency) for r in made]


async def joined(log: EmbeddedLog) -> Membership:
    for state in await log.groups():
        assert not state.members, "the member of the session before has left"
    member = await log.join(GROUP, [TOPIC])
    while len(member.assignment) < CATALOG[TOPIC].partitions:
        await member.poll(timeout_s=0)
    return member


async def operate(log: EmbeddedLog, member: Membership, number: int) -> None:
    if number == 0:
        await log.create_topic(CATALOG[TOPIC])
    elif number % 33 == 7:
        await log.create_topic(inbox(f"agent-{number}"))
    elif number % 10 == 3:
        place = TopicPartition(TOPIC, number % 4)
        await log.transact(records_of(number), Commit(member, Vector({place: number})))
    else:
        await log.append(records_of(number))


async def state_of(log: EmbeddedLog) -> State:
    topics = await log.topics()
    found: dict[TopicPartition, list[bytes]] = {}
    async for records in log.read(Vector(), await log.end(topics), on_damage=refuse_damage):
        for record in records:
            values = found.setdefault(record.position.topic_partition, [])
            assert record.offset == len(values)
            values.append(record.value)
    return State(topics, found, await log.committed(GROUP))


def refuse_damage(damage: object) -> None:
    raise AssertionError(f"a crash must not look like damage: {damage}")


def checkpoint(folder: Path, vfs: str, mode: int) -> None:
    connection = apsw.Connection(str(folder / "log.sqlite"), vfs=vfs)
    connection.wal_checkpoint(mode=mode)
    connection.close()


async def record_run(folder: Path) -> Run:
    """Do the operations in three sessions with checkpoints within; note each acknowledgement."""
    vfs = CrashVfs()
    states = [State({}, {}, Vector())]
    numbers = iter(range(OPERATIONS))
    for operations in (1, 40, 35, OPERATIONS - 76):
        log = await open_log(folder, vfs=vfs.name)
        member = await joined(log) if len(states) > 1 else None
        for number in itertools.islice(numbers, operations):
            await operate(log, member, number)  # type: ignore[arg-type]
            vfs.mark(number + 1)
            states.append(await state_of(log))
            if number % 20 == 15:
                checkpoint(folder, vfs.name, apsw.SQLITE_CHECKPOINT_RESTART)
        if member is not None:
            await member.leave()
        await log.close()
    return Run(vfs.steps, states)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return asyncio.run(record_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: each image is written and opened once."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


async def check_image(folder: Path, image: Image, states: list[State]) -> None:
    folder.mkdir()
    for name, data in image.files.items():
        (folder / name).write_bytes(data)
    log = await open_log(folder)
    assert [damage async for damage in log.check()] == []
    state = await state_of(log)
    # The operation in flight may be there as a whole.
    possible = states[image.acked : image.acked + 2]
    assert state in possible, f"a crash at step {image.step}, {image.acked} acknowledged"
    await log.create_topic(CATALOG[TOPIC])
    receipts = await log.append([NewRecord(TOPIC, b"after", b"the crash")])
    place = receipts[0].position
    assert place.offset == len(state.records.get(place.topic_partition, []))
    await log.close()


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", Mode)
def test_a_crash_at_every_write_leaves_a_prefix_with_all_acks(
    mode: Mode, every: int, run: Run, fast_folder: Path
) -> None:
    async def check_all() -> int:
        checked = 0
        before = None
        for image in images(run.steps, mode):
            if (image.acked, image.files) == before:
                continue
            before = (image.acked, image.files)
            if checked % every == 0:
                await check_image(fast_folder / str(image.step), image, run.states)
            checked += 1
        return checked

    checked = asyncio.run(check_all())
    writes = sum(step.what == "write" for step in run.steps)
    print(f"{mode}: one in {every} of {checked} crash images of a run of {writes} writes")
    assert len(run.states) == OPERATIONS + 1
    assert checked > (OPERATIONS if mode is Mode.LOSE else writes)


def test_a_run_that_never_synced_its_wal_is_found_out(run: Run, fast_folder: Path) -> None:
    # The proof above would see nothing if it could not fail.
    steps = [step for step in run.steps if (step.what, step.file) != ("sync", "log.sqlite-wal")]
    late = next(image for image in images(steps, Mode.LOSE) if image.acked == 20)
    with pytest.raises(AssertionError, match="20 acknowledged"):
        asyncio.run(check_image(fast_folder / "late", late, run.states))


@pytest.mark.parametrize("after", range(0, 60, 7))
async def test_a_disk_that_dies_in_mid_run_gives_typed_errors_and_keeps_the_acks(
    after: int, tmp_path: Path
) -> None:
    vfs = CrashVfs()
    log = await open_log(tmp_path, vfs=vfs.name)
    await log.create_topic(CATALOG[TOPIC])
    first = len(vfs.steps)

    def die(step: Step) -> None:
        if len(vfs.steps) >= first + after:
            raise io_error(apsw.SQLITE_IOERR_WRITE)

    vfs.fault = die
    acked: list[NewRecord] = []

    async def append_many() -> None:
        for number in range(100):
            await log.append([new_record("key", number)])
            acked.append(new_record("key", number))

    with pytest.raises((NotWritten, OutcomeUnknown, LogUnavailable)):
        await append_many()
    assert vfs.faults > 0
    await close_anyhow(log)

    vfs.fault = None
    log = await open_log(tmp_path)
    found: list[Record] = []
    async for records in log.read(Vector(), await log.end([TOPIC])):
        found += records
    assert [r.value for r in found[: len(acked)]] == [r.value for r in acked]
    assert len(found) <= len(acked) + 1
    await log.close()


async def close_anyhow(log: EmbeddedLog) -> None:
    try:
        await log.close()
    except OSError:
        return
