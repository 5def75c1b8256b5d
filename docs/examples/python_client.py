"""Takes part in a madlog log on Kafka with stock parts only: confluent-kafka and fastavro.

    pip install confluent-kafka fastavro
    python python_client.py --bootstrap localhost:9092 -c order-4711 say "@shop where is my parcel?"
    python python_client.py --bootstrap localhost:9092 -c order-4711 decisions

With --registry URL it writes the Confluent wire format; it reads both formats either way.
docs/interop.md says why each thing is as it is.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

HERE = Path(__file__).resolve().parent
# The one schema that must be known beforehand: that of the events that tell all others. A
# released schema never changes.
SCHEMA_OF_SCHEMAS = json.loads((HERE / "SchemaRegistered.v1.avsc").read_text())


def new_event_id(now_us: int) -> str:
    """Return a UUID of version 7: the time in milliseconds, then random bits."""
    value = (now_us // 1000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def envelope(options: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields that every event has; what is left out takes its default."""
    now_us = time.time_ns() // 1000
    fields = {
        "event_id": new_event_id(now_us),
        "conversation_id": options.conversation,
        "sender": {"name": options.sender, "kind": "human"},
        "occurred_at": now_us,
    }
    if before is not None:  # what this event follows on, and what its sender knew
        fields["causation_id"] = fields["seen"] = before["event_id"]
        fields["correlation_id"] = before.get("correlation_id") or before["event_id"]
    return fields


class Schemas:
    """The schemas of a log: from its own topic mad.schemas, or from a schema registry."""

    def __init__(self, registry: str | None) -> None:
        self.registry = registry
        self.by_head: dict[bytes, Any] = {}  # the bytes before the Avro body -> schema
        self.head_of: dict[str, bytes] = {}  # kind -> those bytes, for writing

    def read_topic(self, consumer: Consumer, topic: str) -> None:
        """Learn what mad.schemas holds: each record names its schema by fingerprint."""
        newest: dict[str, int] = {}
        for message in read_to_end(consumer, topic):
            body = io.BytesIO(message.value()[10:])
            event = fastavro.schemaless_reader(body, SCHEMA_OF_SCHEMAS, None)
            kind, version = event["subject_name"], event["version"]
            head = b"\xc3\x01" + bytes.fromhex(event["fingerprint"])
            self.by_head[head] = fastavro.parse_schema(json.loads(event["schema_text"]))
            if version >= newest.get(kind, 0):
                newest[kind], self.head_of[kind] = version, head

    def use_registry(self, kinds: tuple[str, ...]) -> None:
        """Write these kinds by the ids that the registry gave their newest schemas."""
        for kind in kinds:
            found = self._ask(f"/subjects/madlog.{kind}/versions/latest")
            self.head_of[kind] = b"\x00" + found["id"].to_bytes(4, "big")

    def encode(self, kind: str, fields: dict[str, Any]) -> bytes:
        """Return an event's bytes: the head that names the schema, the Avro body."""
        out = io.BytesIO()
        out.write(self.head_of[kind])
        fastavro.schemaless_writer(out, self._schema(self.head_of[kind]), fields)
        return out.getvalue()

    def decode(self, value: bytes) -> dict[str, Any]:
        """Return an event's fields, in whichever of the two formats it is."""
        size = 10 if value[:2] == b"\xc3\x01" else 5
        body = io.BytesIO(value[size:])
        return fastavro.schemaless_reader(body, self._schema(value[:size]), None)

    def _schema(self, head: bytes) -> Any:
        if head not in self.by_head:
            if self.registry is None:
                sys.exit(f"the schema {head.hex()} is unknown: name the schema registry")
            found = self._ask(f"/schemas/ids/{int.from_bytes(head[1:], 'big')}")
            self.by_head[head] = fastavro.parse_schema(json.loads(found["schema"]))
        return self.by_head[head]

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.registry}{path}", timeout=10) as answer:
            return json.load(answer)


class Repeats:
    """Tells records that were appended twice: after a crash or a time-out that happens."""

    def __init__(self) -> None:
        self.marks: dict[tuple[int, bytes], tuple[int, int]] = {}
        self.keys: set[tuple[int, bytes]] = set()

    def seen(self, message: Message) -> bool:
        """Tell whether a record repeats one before it in its partition."""
        headers, partition = dict(message.headers() or ()), message.partition()
        if "source" in headers:  # PROCESSOR/TOPIC/PARTITION@OFFSET/INDEX, rising in each partition
            of, _, place = headers["source"].rpartition(b"@")
            offset, _, index = place.partition(b"/")
            mark = int(offset), int(index)
            if mark <= self.marks.get((partition, of), (-1, -1)):
                return True
            self.marks[partition, of] = mark
        if "idempotency" in headers:  # a long-running reader forgets keys 20 000 offsets back
            key = partition, headers["idempotency"]
            if key in self.keys:
                return True
            self.keys.add(key)
        return False


def new_consumer(bootstrap: str) -> Consumer:
    """Return a consumer that sees committed records only; it belongs to no group."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "python-client",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )


def partitions_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Return a topic's partitions, each from its first record."""
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        sys.exit(f"{topic}: {found.error.str()}; has madlog written to this log?")
    return [TopicPartition(topic, number, 0) for number in found.partitions]


def read(consumer: Consumer, topic: str, timeout_s: float) -> Iterator[Message]:
    """Yield the records of a topic from the first, until none came for some time."""
    consumer.assign(partitions_of(consumer, topic))
    while (message := consumer.poll(timeout_s)) is not None:
        error = message.error()
        if error is None:
            yield message
        elif not error.retriable():
            raise KafkaException(error)


def read_to_end(consumer: Consumer, topic: str) -> Iterator[Message]:
    """Yield the records that a topic of one partition holds now."""
    (place,) = partitions_of(consumer, topic)
    _, end = consumer.get_watermark_offsets(place, timeout=10)
    if end == 0:
        return
    for message in read(consumer, topic, 10):
        yield message
        if message.offset() >= end - 1:
            return


def idempotency(sender: str, key: str, content: Any) -> str:
    """Return the header by which readers drop a repeat: whose key it is, what it stands for."""
    texts = f"{len(sender)}:{sender}{key}", json.dumps(content)
    return "-".join(hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts)


def say(options: argparse.Namespace, schemas: Schemas) -> None:
    """Begin a conversation, let both take part, say each text; print the turns' ids."""
    person = {"participant": options.sender, "participant_kind": "human"}
    agent = {"participant": options.to, "participant_kind": "mad"}
    said: list[tuple[str, dict[str, Any]]] = [
        ("ConversationChanged", {"change": "created"}),
        ("ConversationChanged", {"change": "joined", **person}),
        ("ConversationChanged", {"change": "joined", **agent}),
    ]
    for text in options.texts:
        parts = [{"content_class": "prose", "text": text}]
        said.append(("Turn", {"recipients": [options.to], "parts": parts}))
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            # librdkafka's default is CRC32: records would stand in the wrong partition.
            "partitioner": options.partitioner,
            "enable.idempotence": True,
            "acks": "all",
        }
    )
    failed: list[str] = []
    turns: list[str] = []
    event: dict[str, Any] | None = None
    for number, (kind, payload) in enumerate(said):
        event = {**envelope(options, event), **payload}
        headers = {"kind": kind, "sender": options.sender, "conversation": options.conversation}
        if options.key is not None:
            key = event["idempotency_key"] = f"{options.key}/{number}"
            headers["idempotency"] = idempotency(options.sender, key, payload)  # stands last
        producer.produce(
            f"{options.prefix}mad.conversations",
            key=options.conversation,
            value=schemas.encode(kind, event),
            headers=headers,
            on_delivery=lambda error, _: failed.append(error.str()) if error else None,
        )
        if kind == "Turn":
            turns.append(event["event_id"])
    producer.flush(30)
    if failed or len(producer):
        sys.exit(f"not acknowledged, repeat it with the same --key: {failed or len(producer)}")
    for turn_id in turns:
        print(json.dumps({"turn_id": turn_id}))


def decisions(options: argparse.Namespace, schemas: Schemas, consumer: Consumer) -> None:
    """Print how the conversation's turns were routed, each decision once."""
    repeats, printed = Repeats(), 0
    topic = f"{options.prefix}mad.decisions"
    for message in read(consumer, topic, options.timeout):
        if repeats.seen(message) or message.key() != options.conversation.encode():
            continue
        fields = schemas.decode(message.value())
        wanted = ("turn_id", "recipient", "tier", "route", "confidence", "reason")
        print(json.dumps({name: fields[name] for name in wanted}))
        printed += 1
        if printed == options.count:
            return
    sys.exit(f"{printed} decisions of {options.count}: does `madlog worker` run?")


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description="A stranger's part in a madlog log on Kafka.")
    parser.add_argument("command", choices=("say", "decisions"))
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="what is said, a turn each")
    parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    parser.add_argument("--prefix", default="", help="as in the log's address, ?prefix=")
    parser.add_argument("--registry", metavar="URL", help="write the Confluent wire format")
    parser.add_argument("-c", "--conversation", required=True)
    parser.add_argument("-s", "--sender", default="ada")
    parser.add_argument("-t", "--to", default="shop")
    parser.add_argument("--key", help="an idempotency key: the same key is read once")
    parser.add_argument("--count", type=int, default=1, help="how many decisions to wait for")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--partitioner", default="murmur2_random")
    options = parser.parse_intermixed_args()
    schemas = Schemas(options.registry)
    consumer = new_consumer(options.bootstrap)
    try:
        schemas.read_topic(consumer, f"{options.prefix}mad.schemas")
        if options.command == "decisions":
            decisions(options, schemas, consumer)
            return
        if options.registry is not None:
            schemas.use_registry(("ConversationChanged", "Turn"))
        say(options, schemas)
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
