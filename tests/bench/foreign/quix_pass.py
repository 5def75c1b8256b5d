"""The pass-through processor on Quix Streams; run in an environment of its own.

Prints the CPU of its work; how long it took is read from the output's append times.
"""

import json
import sys
import uuid
from typing import Any

from quixstreams import (  # type: ignore[import-not-found,unused-ignore]
    Application,
)
from tests.bench.passing import cpu_s, delivery

from madlog.schemas import Schemas, encode


def main(bootstrap: str, source: str, target: str, count: int, decoded: bool, once: bool) -> None:
    """Pass `count` records on; `decoded`: through our codec, else as bytes."""
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"{target}-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="ERROR",
        processing_guarantee="exactly-once" if once else "at-least-once",
    )
    raw = {"key_deserializer": "bytes", "value_deserializer": "bytes"}
    out = {"key_serializer": "bytes", "value_serializer": "bytes"}
    decode = Schemas().decode_fields
    begun: list[float] = []

    def step(value: bytes) -> Any:
        if not begun:
            begun.append(cpu_s())
        return encode(delivery(decode(value)[1], value, "shop")) if decoded else value

    frame = app.dataframe(app.topic(source, **raw))
    frame.apply(step).to_topic(app.topic(target, **out))
    app.run(count=count, timeout=60)
    print(json.dumps({"client_us": (cpu_s() - begun[0]) / count * 1e6}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
