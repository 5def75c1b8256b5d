"""Our side of the Kafka benchmarks: the log and the engine, as a program uses them."""

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tests.bench.broker import Broker, Meter, Sample
from tests.bench.fixtures import LONG_TEXT, turn
from tests.bench.kafka_plain import append_times
from tests.bench.passing import delivery

from madlog.processors import Engine, Options, Processor, State
from madlog.schemas import Event
from madlog.topics import EventLog, LogEvent
from madlog.topics.kafka import KafkaLog

__all__ = (
    "TOPIC",
    "Passing",
    "append",
    "at_the_brokers_clock",
    "drain",
    "latency",
    "opened",
    "percentiles",
    "run_engine",
    "scan",
)

TOPIC = "mad.conversations"
_BATCH = 100
# So many batches are under way at most. Both found by trying: more of either keeps more events
# alive, and Python's collector goes through them.
_WAITING_MAX = 4


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[EventLog]:
    """Open a log for a block of code."""
    log = await EventLog.open(await KafkaLog.open(url))
    try:
        yield log
    finally:
        await log.close()


async def append(
    log: EventLog, broker: Broker, first: int, count: int, *, key: bool = False
) -> Sample:
    """Make, validate, encode and append turns; the time ends with the last acknowledgement."""
    meter = Meter(broker)
    waiting: set[asyncio.Task[Any]] = set()
    for start in range(first, first + count, _BATCH):
        size = min(_BATCH, first + count - start)
        events = [turn(start + i, key=key, text=LONG_TEXT) for i in range(size)]
        if len(waiting) >= _WAITING_MAX:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        waiting.add(asyncio.create_task(log.append(events)))
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    return meter.sample(count)


async def scan(log: EventLog, broker: Broker) -> Sample:
    """Read and decode all turns."""
    meter = Meter(broker)
    count = 0
    async for events in log.read_topics([TOPIC]):
        count += len(events)
    return meter.sample(count)


class Passing:
    """The pass-through processor on our engine: each turn goes to the inbox of its name."""

    inputs: tuple[str, ...] = (TOPIC,)
    shared: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def share(self, shared: State, event: LogEvent) -> None:
        """Nothing is shared."""

    def prelude(self, shared: State) -> Sequence[Event]:
        """Nothing must be there before."""
        return ()

    def step(self, state: State, event: LogEvent) -> Sequence[Event]:
        """Pass one turn on."""
        return (delivery(event.fields, event.record.value, self.name),)


async def drain(log: EventLog, processor: Processor) -> None:
    """Run a processor until it is idle."""
    await Engine(log, [processor]).run(until_idle=True)


async def run_engine(
    log: EventLog,
    broker: Broker,
    processor: Processor,
    output: str,
    options: Options | None = None,
) -> Sample:
    """Run a processor until it is idle; its rate is that at which `output` grew."""
    meter = Meter(broker)
    report = await Engine(log, [processor], options=options).run(until_idle=True)
    assert not report.dead_letters
    assert isinstance(log.log, KafkaLog)
    sample = meter.sample(report.events)
    return await at_the_brokers_clock(sample, broker, log.log.address.prefix + output)


async def at_the_brokers_clock(
    sample: Sample, broker: Broker, topic: str, count: int | None = None
) -> Sample:
    """Return a sample with the rate at which the broker appended a topic's records.

    The same clock for every engine; starting, joining a group and stopping are left out. With
    `count` the topic's records are so many events, else each is one.
    """
    times = await append_times(broker, topic)
    before = times.count(times[0])
    share = (len(times) - before) / len(times)
    took_s = (times[-1] - times[0]) / 1000
    return replace(sample, rate=(count or len(times)) * share / took_s)


async def latency(log: EventLog, broker: Broker, rate: int, count: int) -> Sample:
    """Append single turns at a fixed rate: ms from the intended time to a subscriber's hands."""
    warm = turn(10**6, key=False, text=LONG_TEXT)
    events = [turn(number, key=False, text=LONG_TEXT) for number in range(count)]
    numbers = {event.event_id: number for number, event in enumerate(events)}
    await log.append([warm])
    end = await log.log.end([TOPIC])
    arrived: dict[int, float] = {}

    async def listen() -> None:
        async for batch in log.subscribe(end):
            now = time.perf_counter()
            for event in batch:
                number = numbers.get(event.event_id)
                if number is not None:
                    arrived[number] = now
            if len(arrived) == count:
                return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.1)
    appending: set[asyncio.Task[Any]] = set()

    def send(event: Event) -> None:
        task = asyncio.create_task(log.append([event]))
        appending.add(task)
        task.add_done_callback(appending.discard)

    meter = Meter(broker)
    start = time.perf_counter() + 0.1
    sender = paced(start, rate, events, send)
    await listening
    sender.join()
    await asyncio.gather(*appending)
    took = [(arrived[number] - start - number / rate) * 1000 for number in range(count)]
    return replace(meter.sample(count), values=percentiles(took))


def paced(
    start: float, rate: int, events: Sequence[Event], send: Callable[[Event], None]
) -> threading.Thread:
    """Call `send` in this loop at the intended times, as work comes in from outside.

    A thread keeps the times: the loop's own timers are rounded up to whole ms.
    """
    loop = asyncio.get_running_loop()

    def work() -> None:
        for number, event in enumerate(events):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            loop.call_soon_threadsafe(send, event)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def percentiles(took_ms: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(took_ms, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}
