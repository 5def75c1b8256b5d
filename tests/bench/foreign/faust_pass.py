"""The pass-through processor on Faust; run in an environment of its own.

Prints the CPU of its work; how long it took is read from the output's append times.
"""

import json
import os
import shutil
import sys
import tempfile
import uuid
from typing import Any

import faust
from tests.bench.passing import cpu_s, delivery

from madlog.schemas import Schemas, encode


def main(bootstrap: str, source: str, target: str, count: int, linger_s: float | None) -> None:
    """Pass `count` records on, decoded and encoded.

    `linger_s`: how long the producer gathers records, None: as Faust comes, not at all.
    """
    folder = tempfile.mkdtemp()
    gathering: dict[str, Any] = (
        {"producer_linger": linger_s, "producer_max_batch_size": 128 << 10} if linger_s else {}
    )
    app = faust.App(
        f"{target}-{uuid.uuid4().hex}",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        topic_partitions=4,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        **gathering,
        web_enabled=False,
        datadir=folder,
    )
    raw: dict[str, Any] = {
        "key_type": bytes,
        "value_type": bytes,
        "key_serializer": "raw",
        "value_serializer": "raw",
    }
    out = app.topic(target, **raw)
    decode = Schemas().decode_fields

    @app.agent(app.topic(source, **raw))
    async def step(stream: Any) -> None:
        done, begun = 0, 0.0
        async for event in stream.events():
            begun = begun or cpu_s()
            fields = decode(event.value)[1]
            made = encode(delivery(fields, event.value, "shop"))
            await out.send(key=event.key, value=made, headers=event.headers)
            done += 1
            if done == count:
                await app.producer.flush()
                client_us = (cpu_s() - begun) / count * 1e6
                # A worker prints through its own log; and to end it in order takes seconds.
                os.write(1, (json.dumps({"client_us": client_us}) + "\n").encode())
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(0)

    sys.argv = ["faust", "worker", "--loglevel", "error"]
    app.main()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
