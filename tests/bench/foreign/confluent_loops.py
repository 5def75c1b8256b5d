"""The plain loops on confluent-kafka (librdkafka); run in an environment of its own.

Prints the rate and the CPU of the loop that is asked for, as JSON.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import (  # type: ignore[import-not-found,unused-ignore]
    Consumer,
    Producer,
    TopicPartition,
)
from tests.bench.fixtures import LONG_TEXT, turn
from tests.bench.passing import cpu_s

from madlog.schemas import Schemas, encode

PARTITIONS = 4
Made = tuple[bytes, bytes, list[tuple[str, bytes]]]


def _producer(bootstrap: str, **settings: Any) -> Any:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
            "batch.size": 1 << 20,
            **settings,
        }
    )


def _consumer(bootstrap: str, topic: str, count: int = 0) -> Any:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-confluent",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    return consumer


def _made(number: int) -> Made:
    event = turn(number, key=False, text=LONG_TEXT)
    key = event.conversation_id.encode()
    headers = [("kind", b"Turn"), ("sender", event.sender.name.encode()), ("conversation", key)]
    return key, encode(event), headers


def _measured(count: int, work: Callable[[], None]) -> dict[str, float]:
    cpu, begun = cpu_s(), time.perf_counter()
    work()
    took = time.perf_counter() - begun
    return {"rate": count / took, "client_us": (cpu_s() - cpu) / count * 1e6}


def produce(bootstrap: str, topic: str, count: int, encoded: bool) -> dict[str, float]:
    """Produce turns: made, validated and encoded in the loop, or ready before it."""
    producer = _producer(bootstrap)
    producer.list_topics(topic, 10)
    records: Iterable[Made] = map(_made, range(count))
    if not encoded:
        records = list(records)

    def work() -> None:
        for number, (key, value, headers) in enumerate(records):
            producer.produce(topic, value, key, headers=headers)
            if number % 1000 == 0:
                producer.poll(0)
        producer.flush()

    return _measured(count, work)


def consume(bootstrap: str, topic: str, count: int, decoded: bool) -> dict[str, float]:
    """Read a topic's first records, decoded by our codec or not."""
    consumer = _consumer(bootstrap, topic)
    decode = Schemas().decode_fields

    def work() -> None:
        left = count
        while left > 0:
            for message in consumer.consume(1000, 1.0):
                value = message.value()
                if message.error() is None:
                    left -= 1
                    if decoded:
                        decode(value)

    found = _measured(count, work)
    consumer.close()
    return found


def transact(bootstrap: str, topic: str, target: str, count: int, each: int) -> dict[str, float]:
    """Pass records on as they are, `each` and their positions in a transaction."""
    consumer = _consumer(bootstrap, topic)
    producer = _producer(
        bootstrap, **{"transactional.id": target, "linger.ms": 0, "retry.backoff.ms": 1}
    )
    producer.init_transactions(10)

    def work() -> None:
        done = 0
        while done < count:
            messages = [
                one for one in consumer.consume(min(each, count - done), 1.0) if not one.error()
            ]
            if not messages:
                continue
            producer.begin_transaction()
            for one in messages:
                producer.produce(target, one.value(), one.key(), headers=one.headers())
            positions = consumer.position(consumer.assignment())
            group = consumer.consumer_group_metadata()
            producer.send_offsets_to_transaction([p for p in positions if p.offset > 0], group)
            producer.commit_transaction()
            done += len(messages)

    found = _measured(count, work)
    consumer.close()
    return found


def latency(bootstrap: str, topic: str, rate: int, count: int) -> dict[str, Any]:
    """Produce at a fixed rate; return ms from each record's intended time to its arrival."""
    producer = _producer(bootstrap, **{"linger.ms": 0})
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-confluent",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 500,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    records = [_made(number) for number in range(count)]
    warm = 20
    for key, value, headers in records[:warm]:
        producer.produce(topic, value, key, headers=[*headers, ("n", b"-1")])
    producer.flush()
    seen = 0
    while seen < warm:
        seen += consumer.poll(1.0) is not None
    start = time.perf_counter() + 0.1

    def send() -> None:
        for number, (key, value, headers) in enumerate(records):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            producer.produce(topic, value, key, headers=[*headers, ("n", b"%d" % number)])
            producer.poll(0)
        producer.flush()

    sender = threading.Thread(target=send)
    took: list[float] = []
    cpu = cpu_s()
    sender.start()
    while len(took) < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        now = time.perf_counter()
        came: Any = message.headers()
        took.append((now - start - int(came[-1][1]) / rate) * 1000)
    sender.join()
    client_us = (cpu_s() - cpu) / count * 1e6
    consumer.close()
    return {"took_ms": took, "client_us": client_us}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    loops: dict[str, Callable[..., dict[str, Any]]] = {
        "produce": produce,
        "consume": consume,
        "transact": transact,
        "latency": latency,
    }
    print(json.dumps(loops[arguments.pop("loop")](**arguments)))
