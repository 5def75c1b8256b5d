"""The broker that the Kafka benchmarks run on: found, its CPU counted, our topics removed after."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.brokers.probe import ask

from madlog.schemas import MadlogError

__all__ = ("PARTITIONS", "Broker", "Meter", "NoBroker", "Sample", "Stage", "find_broker", "stage")

PARTITIONS = 4


class NoBroker(MadlogError):
    """The Kafka benchmarks need a broker that runs already."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: events a second, and µs of CPU an event, the client's and the broker's."""

    rate: float
    client_us: float
    broker_us: float | None
    # Latencies of the run in ms, by name.
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker, and its process where that can be found out."""

    address: str
    pid: int | None

    def cpu_s(self) -> float | None:
        """Return the seconds of CPU that the broker has used."""
        if self.pid is None:
            return None
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Counts time, this process's CPU and the broker's from its making on."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._broker_s = broker.cpu_s()
        self._client_s = process_time()
        self._begun = perf_counter()

    def sample(self, count: int) -> Sample:
        """Return what `count` events have cost since."""
        took, client_s = perf_counter() - self._begun, process_time() - self._client_s
        return Sample(count / took, client_s / count * 1e6, self.broker_us(count))

    def broker_us(self, count: int) -> float | None:
        """Return the broker's µs for each of `count` events since."""
        now = self._broker.cpu_s()
        if now is None or self._broker_s is None:
            return None
        return (now - self._broker_s) / count * 1e6


def find_broker() -> Broker:
    """Return the broker that MADLOG_KAFKA names; raises NoBroker."""
    given = os.environ.get("MADLOG_KAFKA", "")
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit() or ask(host, int(port)) is None:
        found = f"no broker answers at {given[:80]}" if given else "MADLOG_KAFKA names no broker"
        raise NoBroker(
            f"{found}: run `make kafka` in another terminal, then "
            "MADLOG_KAFKA=127.0.0.1:9092 madlog bench kafka"
        )
    return Broker(given, _listener(int(port)))


def _listener(port: int) -> int | None:
    """Return the process of this machine that listens on a port, None where that is not told."""
    sockets = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd") if sockets else ():
        try:
            if any(os.readlink(link) in sockets for link in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            continue
    return None


@dataclass(frozen=True, slots=True)
class Stage:
    """A benchmark's own corner of the broker: all its topics begin with `prefix`."""

    broker: Broker
    prefix: str
    admin: AIOKafkaAdminClient

    def url(self, parameters: str = "", part: str = "") -> str:
        """Return the address of a log of ours; `part` keeps several logs apart."""
        return f"kafka://{self.broker.address}?prefix={self.prefix}{part}{parameters}"

    async def create(self, *names: str) -> list[str]:
        """Create topics as the log creates its own; returns their names on the broker."""
        settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(2 << 20)}
        physical = [self.prefix + name for name in names]
        await self.admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs=settings) for name in physical]
        )
        return physical


@asynccontextmanager
async def stage(broker: Broker) -> AsyncIterator[Stage]:
    """Give a benchmark its corner for a block of code, and clear it after."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        yield Stage(broker, prefix, admin)
    finally:
        mine = [name for name in await admin.list_topics() if name.startswith(prefix)]
        if mine:
            await admin.delete_topics(mine)
        await admin.close()
