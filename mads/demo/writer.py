"""Writes the scripted traffic into a log; killed at any moment, it can be begun again.

Every event has an idempotency key, so a second run appends only what the first one did not.
"""

from collections.abc import Callable
from typing import NamedTuple, TextIO

from madlog.mads.demo.traffic import START_US, traffic
from madlog.schemas import Event
from madlog.topics import EventLog

__all__ = ("Written", "write")

BATCH_EVENTS_MIN = 1000


class Written(NamedTuple):
    """What the log holds of the traffic now; `repeated` of its events it held before."""

    conversations: int
    turns: int
    events: int
    repeated: int


async def write(
    log: EventLog,
    seed: int,
    turns: int,
    progress: Callable[[int, int], None] | None = None,
    acknowledged: TextIO | None = None,
    *,
    start_us: int = START_US,
) -> Written:
    """Append the traffic, whole conversations a batch, each batch durable before the next.

    `progress` is told (turns so far, turns asked for); `acknowledged` gets a line
    `acked <events so far>` after each durable batch, which is how a test counts what a killed
    writer had promised.
    """
    done = Written(0, 0, 0, 0)
    batch: list[Event] = []
    conversations = 0

    async def flush() -> None:
        nonlocal done, conversations
        receipts = await log.append(batch)
        done = Written(
            done.conversations + conversations,
            done.turns + sum(event.kind == "Turn" for event in batch),
            done.events + len(batch),
            done.repeated + sum(receipt.repeated for receipt in receipts),
        )
        batch.clear()
        conversations = 0
        if acknowledged is not None:
            acknowledged.write(f"acked {done.events}\n")
            acknowledged.flush()
        if progress is not None:
            progress(done.turns, turns)

    for events in traffic(seed, turns, start_us):
        batch += events
        conversations += 1
        if len(batch) >= BATCH_EVENTS_MIN:
            await flush()
    if batch:
        await flush()
    return done
