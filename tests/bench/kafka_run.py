"""The benchmarks on a real Kafka broker: ours and the baseline by turns, on the same broker."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count as counting
from typing import Any

from aiokafka import ConsumerRecord
from tests.bench import kafka_ours, kafka_plain
from tests.bench.broker import PARTITIONS, Broker, Meter, Sample, Stage, find_broker, stage
from tests.bench.environments import run_in
from tests.bench.fixtures import LONG_TEXT, joined, turn, turn_schemas
from tests.bench.kafka_ours import TOPIC, Passing, at_the_brokers_clock, opened, run_engine
from tests.bench.kafka_plain import Output, fastavro_decoder
from tests.bench.pairs import Pair, by_turns

from madlog.processors import Options
from madlog.schemas import Event, Schemas, encode
from madlog.topics import EventLog
from madlog.wiring import processors

__all__ = ("measure",)

_PRODUCED = 20_000
_CONSUMED = 40_000
_ROUTED = 10_000
_PASSED = 20_000
_PASSED_BY_FAUST = 5_000
_ONCE = {0.1: 30_000, 1.0: 60_000}
_LATENCY_RATE, _LATENCY_COUNT = 1_000, 5_000
_PRODUCED_RAW, _CONSUMED_RAW = 100_000, 100_000
_TRANSACTED = {100: 5_000, 1_000: 20_000}


async def _produce(stage: Stage, rounds: int) -> list[Pair]:
    pairs = []
    (topic,) = await stage.create("plain")
    numbers = counting(0, _PRODUCED)
    async with opened(stage.url()) as log:
        for key, named in ((False, ""), (True, ", each with an idempotency key")):
            # Once through before time is taken: topics and schemas are made by the first append.
            await kafka_ours.append(log, stage.broker, 10**9, 500, key=key)

            async def ours(_: int, key: bool = key) -> Sample:
                return await kafka_ours.append(log, stage.broker, next(numbers), _PRODUCED, key=key)

            async def base(_: int, key: bool = key) -> Sample:
                turns = (turn(i, key=key, text=LONG_TEXT) for i in range(_PRODUCED))
                return await kafka_plain.produce(stage.broker, topic, turns, _PRODUCED)

            what = f"produce turns, made, validated and encoded{named} / aiokafka, same bytes"
            pairs.append(await by_turns(Pair(what, 0.85), rounds, ours, base))
    return pairs


async def _consume(stage: Stage, rounds: int) -> list[Pair]:
    async with opened(stage.url()) as log:
        await kafka_ours.append(log, stage.broker, 0, _CONSUMED)
        decode = fastavro_decoder(turn_schemas())

        async def ours(_: int) -> Sample:
            return await kafka_ours.scan(log, stage.broker)

        async def base(_: int) -> Sample:
            return await kafka_plain.scan(stage.broker, stage.prefix + TOPIC, _CONSUMED, decode)

        what = "consume, decoded / aiokafka getmany + fastavro"
        return [await by_turns(Pair(what, 0.85), rounds, ours, base)]


_Made = dict[str, list[tuple[str, Event, Sequence[tuple[str, bytes]]]]]


async def _router(stage: Stage, rounds: int) -> list[Pair]:
    pair = Pair("router end to end, transactional / plain transaction loop, same records", 0.6)
    decode = fastavro_decoder(turn_schemas())
    for number in range(rounds):
        part = f"{number}-"
        targets = {
            "mad.decisions": f"{part}plain-decisions",
            "mad.inbox.shop": f"{part}plain-inbox",
        }
        await stage.create(*targets.values())
        async with opened(stage.url(part=part)) as log:
            await log.append(joined(200))
            (router,) = processors()
            await kafka_ours.drain(log, router)
            start = await log.log.end([TOPIC])
            await kafka_ours.append(log, stage.broker, 0, _ROUTED)
            (router,) = processors()
            pair.ours.append(await run_engine(log, stage.broker, router, "mad.decisions"))
            made = await _made(log, targets, stage.prefix)

        def outputs(record: ConsumerRecord[bytes, bytes], made: _Made = made) -> list[Output]:
            turn_id = decode(record.value or b"")["event_id"]
            key = record.key or b""
            return [(topic, key, encode(event), heads) for topic, event, heads in made[turn_id]]

        places = [start[tp] for tp in sorted(start)]
        topic = stage.prefix + part + TOPIC
        sample = await kafka_plain.through(stage.broker, topic, places, _ROUTED, outputs)
        target = stage.prefix + targets["mad.decisions"]
        pair.base.append(await at_the_brokers_clock(sample, stage.broker, target))
    return [pair]


async def _made(log: EventLog, targets: dict[str, str], prefix: str) -> _Made:
    made: _Made = {}
    async for batch in log.read_topics(list(targets)):
        for event in batch:
            topic, headers = prefix + targets[event.record.topic], list(event.record.headers)
            turn_id = event.fields["turn_id"]
            made.setdefault(turn_id, []).append((topic, event.event, headers))
    assert len(made) == _ROUTED
    return made


async def _foreign(
    stage: Stage, environment: str, program: str, count: int, source: str, **more: Any
) -> Sample:
    (target,) = await stage.create(f"{program}-{_number()}")
    cpu = stage.broker.cpu_s()
    found = await run_in(
        environment,
        program,
        bootstrap=stage.broker.address,
        source=source,
        target=target,
        count=count,
        **more,
    )
    now = stage.broker.cpu_s()
    broker_us = None if now is None or cpu is None else (now - cpu) / count * 1e6
    sample = Sample(0.0, found["client_us"], broker_us)
    return await at_the_brokers_clock(sample, stage.broker, target)


_counter = counting()


def _number() -> int:
    return next(_counter)


async def _passing(log: EventLog, broker: Broker, options: Options | None = None) -> Sample:
    name = f"passing-{_number()}"
    return await run_engine(log, broker, Passing(name), f"mad.inbox.{name}", options)


async def _processor(stage: Stage, rounds: int) -> list[Pair]:
    source = stage.prefix + TOPIC
    what = "pass-through processor, turns decoded and encoded, at least once"
    quix = Pair(f"{what} / Quix Streams, same step and codec", 0.8)
    faust = Pair(f"{what} / Faust as it comes, same step and codec", 8.0)
    tuned = Pair(f"{what} / Faust that gathers records for 5 ms")
    bare = Pair(f"{what} / Quix Streams passing bytes on, nothing decoded")
    once = Pair(f"{what.rpartition(',')[0]}, exactly once / Quix Streams, exactly-once")
    async with (
        opened(stage.url("&transactions=off")) as log,
        opened(stage.url()) as transactional,
    ):
        await kafka_ours.append(log, stage.broker, 0, _PASSED)
        for _ in range(rounds):
            ours = await _passing(log, stage.broker)
            for pair in (quix, faust, tuned, bare):
                pair.ours.append(ours)
            for pair, exactly, decoded in ((quix, False, True), (bare, False, False)):
                pair.base.append(
                    await _foreign(
                        stage, "quix", "quix_pass", _PASSED, source, decoded=decoded, once=exactly
                    )
                )
            once.ours.append(await _passing(transactional, stage.broker))
            once.base.append(
                await _foreign(stage, "quix", "quix_pass", _PASSED, source, decoded=True, once=True)
            )
            faust.base.append(
                await _foreign(
                    stage, "faust", "faust_pass", _PASSED_BY_FAUST, source, linger_s=None
                )
            )
            tuned.base.append(
                await _foreign(
                    stage, "faust", "faust_pass", _PASSED_BY_FAUST, source, linger_s=0.005
                )
            )
    return [quix, faust, tuned, bare, once]


async def _once(stage: Stage, rounds: int) -> list[Pair]:
    pairs = []
    for interval_s, reach in ((0.1, 0.70), (1.0, 0.85)):
        part = f"{interval_s}-"
        async with (
            opened(stage.url(part=part)) as once,
            opened(stage.url("&transactions=off", part=part)) as at_least_once,
        ):
            await kafka_ours.append(once, stage.broker, 0, _ONCE[interval_s])
            # A transaction is of one partition: of so many records that each ends one in time.
            rate = (await _passing(at_least_once, stage.broker)).rate
            options = Options(batch_records_max=round(rate * interval_s / PARTITIONS))

            async def ours(_: int, log: EventLog = once, options: Options = options) -> Sample:
                return await _passing(log, stage.broker, options)

            async def base(
                _: int, log: EventLog = at_least_once, options: Options = options
            ) -> Sample:
                return await _passing(log, stage.broker, options)

            what = (
                "pass-through, effectively once / at least once, each partition committed about "
                f"each {interval_s:g} s ({options.batch_records_max:,} turns)"
            )
            pairs.append(await by_turns(Pair(what, reach), rounds, ours, base))
    return pairs


async def _latency(stage: Stage, rounds: int) -> list[Pair]:
    what = f"append to visible at {_LATENCY_RATE:,} turns/s / confluent-kafka round trip"
    p50, p99 = Pair(f"{what}, p50", 3.0, "p50"), Pair(f"{what}, p99", 2.0, "p99")
    for number in range(rounds):
        async with opened(stage.url(part=f"{number}-")) as log:
            ours = await kafka_ours.latency(log, stage.broker, _LATENCY_RATE, _LATENCY_COUNT)
        (topic,) = await stage.create(f"{number}-plain")
        meter = Meter(stage.broker)
        found = await run_in(
            "confluent",
            "confluent_loops",
            loop="latency",
            bootstrap=stage.broker.address,
            topic=topic,
            rate=_LATENCY_RATE,
            count=_LATENCY_COUNT,
        )
        values = kafka_ours.percentiles(found["took_ms"])
        base = Sample(0.0, found["client_us"], meter.broker_us(_LATENCY_COUNT), values)
        for pair in (p50, p99):
            pair.ours.append(ours)
            pair.base.append(base)
    return [p50, p99]


async def _confluent(stage: Stage, count: int, loop: str, **more: Any) -> Sample:
    meter = Meter(stage.broker)
    found = await run_in(
        "confluent",
        "confluent_loops",
        loop=loop,
        bootstrap=stage.broker.address,
        count=count,
        **more,
    )
    return Sample(found["rate"], found["client_us"], meter.broker_us(count))


async def _clients(stage: Stage, rounds: int) -> list[Pair]:
    broker, decode = stage.broker, Schemas().decode_fields
    filled, fast, plain = await stage.create("filled", "fast", "plain")
    raw = [kafka_plain.raw(turn(i, key=False, text=LONG_TEXT)) for i in range(_PRODUCED_RAW)]
    await kafka_plain.produce_raw(broker, filled, raw[:_CONSUMED_RAW])
    work: list[tuple[str, Callable[[int], Awaitable[Sample]], Callable[[int], Awaitable[Sample]]]]
    work = [
        (
            "produce, bytes that are ready",
            lambda _: _confluent(stage, _PRODUCED_RAW, "produce", topic=fast, encoded=False),
            lambda _: kafka_plain.produce_raw(broker, plain, raw),
        ),
        (
            "produce, made, validated and encoded in the loop",
            lambda _: _confluent(stage, _PRODUCED, "produce", topic=fast, encoded=True),
            lambda _: kafka_plain.produce(
                broker,
                plain,
                (turn(i, key=False, text=LONG_TEXT) for i in range(_PRODUCED)),
                _PRODUCED,
            ),
        ),
        (
            "consume, not decoded",
            lambda _: _confluent(stage, _CONSUMED_RAW, "consume", topic=filled, decoded=False),
            lambda _: kafka_plain.scan(broker, filled, _CONSUMED_RAW),
        ),
        (
            "consume, decoded by our codec",
            lambda _: _confluent(stage, _CONSUMED, "consume", topic=filled, decoded=True),
            lambda _: kafka_plain.scan(broker, filled, _CONSUMED, decode),
        ),
    ]
    for each in _TRANSACTED:
        work.append((f"transactions of {each:,} records passed on", *_transactions(stage, each)))
    return [
        await by_turns(Pair(f"{what}: confluent-kafka / aiokafka"), rounds, ours, base)
        for what, ours, base in work
    ]


def _transactions(
    stage: Stage, each: int
) -> tuple[Callable[[int], Awaitable[Sample]], Callable[[int], Awaitable[Sample]]]:
    source, count = f"{stage.prefix}filled", _TRANSACTED[each]
    fast, plain = f"{stage.prefix}fast", f"{stage.prefix}plain"

    async def ours(_: int) -> Sample:
        return await _confluent(stage, count, "transact", topic=source, target=fast, each=each)

    async def base(_: int) -> Sample:
        return await kafka_plain.through(
            stage.broker,
            source,
            None,
            count,
            lambda record: [(plain, record.key or b"", record.value or b"", list(record.headers))],
            interval_s=60,
            records_max=each,
        )

    return ours, base


_BENCHMARKS: dict[str, Callable[[Stage, int], Awaitable[list[Pair]]]] = {
    "kafka-produce": _produce,
    "kafka-consume": _consume,
    "kafka-router": _router,
    "kafka-processor": _processor,
    "kafka-once": _once,
    "kafka-latency": _latency,
    "kafka-clients": _clients,
}


async def measure(rounds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run the benchmarks of these names; a row each pair. Raises NoBroker, NoEnvironment."""
    broker = find_broker()
    rows: list[dict[str, Any]] = []
    for name in names:
        async with stage(broker) as made:
            rows += [pair.row() for pair in await _BENCHMARKS[name](made, rounds)]
    return rows
