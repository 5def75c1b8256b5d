"""One broker that dies, hangs or has no disk left: what was acknowledged is there, once, in order.

Writers here follow the rule for retries and go on by themselves; so do readers.
"""

import asyncio
import logging
import os
import secrets
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.brokers.cluster import Cluster
from tests.brokers.jars import BrokerUnavailable
from tests.brokers.source import without_broker
from tests.faults.kafka_load import Load, resident_mib, until

from madlog.topics.kafka import KafkaLog

pytestmark = pytest.mark.xdist_group("one broker")

NODE = 1
# One log waits longer than a restart takes, the other gives up and is left in doubt.
PATIENT_S, IMPATIENT_S = 30.0, 0.8
KEYS = 8
# What may wait for the broker, and senders that offer four times that.
QUEUE_BYTES = 64 << 10
SENDERS, EACH = 100, 20
GROWTH_MIB = 64
# A disk with little beside the ballast, and files of records that fit on it.
DISK_BYTES, LEFT_BYTES = 32 << 20, 256 << 10
SMALL_FILES = {"log.segment.bytes": str(1 << 20), "log.index.size.max.bytes": str(64 << 10)}
READERS = ("from the first record on", "beside it")


# A broker that was killed may come back when its session is over.
QUICK = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "200"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with Cluster(tmp_path_factory.mktemp("kafka"), settings=QUICK) as cluster:
            yield cluster
    except BrokerUnavailable as error:
        without_broker(error)


@asynccontextmanager
async def opened(load: Load, *timeouts_s: float, **options: Any) -> AsyncIterator[list[KafkaLog]]:
    """Open a log for each time-out."""
    logs = [await load.open(timeout_s=timeout_s, **options) for timeout_s in timeouts_s]
    try:
        yield logs
    finally:
        for log in logs:
            await log.close()


async def start_again(broker: Cluster) -> None:
    began = asyncio.get_running_loop().time()
    broker.start_node(NODE)
    await asyncio.to_thread(broker.wait_ready)
    print(f"served again after {asyncio.get_running_loop().time() - began:.1f} s")


async def kill_often(broker: Cluster, prefix: str, kills: int) -> None:
    load = Load(broker.bootstrap, prefix, secrets.randbits(32))
    async with (
        opened(load, PATIENT_S, IMPATIENT_S) as logs,
        load.reading(*READERS),
    ):
        async with load.writing(logs, keys=KEYS):
            for _ in range(kills):
                await load.more(load.rng.randint(50, 400))
                broker.kill(NODE)
                await start_again(broker)
            await load.more(50)
        print(f"{kills} kills of the broker, seed {load.seed}: {await load.judge()}")


async def test_kills_of_the_broker_in_mid_produce_lose_repeat_and_reorder_nothing(
    broker: Cluster, kafka_prefix: str
) -> None:
    await kill_often(broker, kafka_prefix, kills=3)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_no_kill_of_30_of_the_broker_loses_repeats_or_reorders_a_record(
    broker: Cluster, kafka_prefix: str
) -> None:
    await kill_often(broker, kafka_prefix, kills=30)


async def be_away(broker: Cluster, prefix: str, *, frozen: bool, for_s: float = 0) -> None:
    load = Load(broker.bootstrap, prefix, secrets.randbits(32))
    loop = asyncio.get_running_loop()
    async with (
        opened(load, PATIENT_S, IMPATIENT_S, queue_bytes_max=QUEUE_BYTES) as logs,
        load.reading(*READERS),
    ):
        impatient = logs[1]
        async with load.writing(logs, keys=KEYS):
            await load.more(200)
            (broker.pause if frozen else broker.kill)(NODE)
            before, left_at, told = resident_mib(), loop.time(), Counter[str]()
            # More than there is room for, again and again.
            while not told or loop.time() < left_at + for_s:
                told += await load.send_once(impatient, senders=SENDERS, each=EACH)
            away_s, grown = loop.time() - left_at, resident_mib() - before
            if frozen:
                broker.resume(NODE)
            else:
                await start_again(broker)
            back_at = loop.time()
            await load.more(200)
            recovered_s = loop.time() - back_at
        judged = await load.judge()
    # What was given up while it was away is not kept, nor waited for.
    await until(lambda: len(asyncio.all_tasks()) == 1, "no task is left")
    how = "frozen" if frozen else "dead"
    print(
        f"broker {how} for {away_s:.1f} s, +{grown:.0f} MiB, 200 records {recovered_s:.1f} s after "
        f"it was back, senders that do not repeat meanwhile: {dict(told)}; {judged}"
    )
    print(*(f"{kind}: {text}" for text, kind in load.words.items()), sep="\n")
    assert told["refused"]
    assert not told["acknowledged"]
    assert grown < GROWTH_MIB


@pytest.mark.parametrize("frozen", [False, True], ids=["dead", "frozen"])
async def test_while_the_broker_is_away_senders_are_told_and_after_it_all_go_on_by_themselves(
    broker: Cluster, kafka_prefix: str, frozen: bool
) -> None:
    await be_away(broker, kafka_prefix, frozen=frozen, for_s=4)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("frozen", [False, True], ids=["dead", "frozen"])
async def test_a_broker_that_is_away_for_60_s_loses_nothing_and_fills_no_memory(
    broker: Cluster, kafka_prefix: str, frozen: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # The library's thousands of lines would be kept for the report, and measured with the rest.
    caplog.set_level(logging.CRITICAL, "aiokafka")
    await be_away(broker, kafka_prefix, frozen=frozen, for_s=60)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root: run the tests as root to see this one")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: allow mount ({mounted.stderr.strip()[:100]})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill_up(
    start: Callable[..., Cluster], disk: Path, prefix: str, *, times: int = 1
) -> None:
    # A broker whose only disk is full stops serving all of it: it ends by itself.
    broker = start(settings=QUICK | SMALL_FILES, logs_in=disk)
    load = Load(broker.bootstrap, prefix, secrets.randbits(32))
    ballast = disk / "ballast"
    fitted = 0
    async with opened(load, PATIENT_S, IMPATIENT_S) as logs, load.reading(*READERS):
        async with load.writing(logs, keys=KEYS):
            for _ in range(times):
                await load.more(200)
                space = os.statvfs(disk)
                ballast.write_bytes(bytes(space.f_bavail * space.f_frsize - LEFT_BYTES))
                before = load.acked
                await until(lambda: not broker.pids, "the broker has ended")
                fitted += load.acked - before
                told = load.told["refused"]
                await until(lambda told=told: load.told["refused"] > told, "writers are told")  # type: ignore[misc]
                ballast.unlink()
                await start_again(broker)
            await load.more(200)
        judged = await load.judge()
    print(
        f"{times} full disks, on which {fitted} records fitted after the ballast, "
        f"seed {load.seed}: {judged}"
    )
    print(*(f"{kind}: {text}" for text, kind in load.words.items()), sep="\n")


async def test_a_full_disk_of_the_broker_is_told_and_costs_nothing_acknowledged(
    small_disk: Path, kafka_cluster: Callable[..., Cluster], kafka_prefix: str
) -> None:
    await fill_up(kafka_cluster, small_disk, kafka_prefix)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_disks_of_the_broker_that_are_full_10_times_cost_nothing_acknowledged(
    small_disk: Path, kafka_cluster: Callable[..., Cluster], kafka_prefix: str
) -> None:
    await fill_up(kafka_cluster, small_disk, kafka_prefix, times=10)
