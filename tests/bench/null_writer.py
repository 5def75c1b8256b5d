"""A writer in a process of its own, to be killed, stopped by a limit or run beside another."""

import asyncio
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.null_json import JsonLines
from tests.bench.null_turns import Said, event, json_line, stream

from madlog.schemas import MadlogError
from madlog.wiring import open_event_log

__all__ = ("BATCH",)

BATCH = 100


def _batches(seed: int, count: int) -> Iterator[list[Said]]:
    said = stream(10_000, seed)
    return (list(islice(said, BATCH)) for _ in range(count))


async def _ours(path: Path, batches: Iterable[Sequence[Said]]) -> None:
    log = await open_event_log(str(path))
    print(0, flush=True)
    for number, batch in enumerate(batches, 1):
        await log.append([event(one) for one in batch])
        print(number * BATCH, flush=True)


def _lines(path: Path, batches: Iterable[Sequence[Said]]) -> None:
    """Write a batch in one call, as JsonLines does."""
    with JsonLines(path) as lines:
        print(0, flush=True)
        for number, batch in enumerate(batches, 1):
            lines.append(batch)
            print(number * BATCH, flush=True)


def _buffered(path: Path, batches: Iterable[Sequence[Said]]) -> None:
    """Write line after line through the buffer that open() gives, then sync."""
    with path.open("ab") as file:
        print(0, flush=True)
        for number, batch in enumerate(batches, 1):
            for one in batch:
                file.write(json_line(one))
            file.flush()
            os.fsync(file.fileno())
            print(number * BATCH, flush=True)


def _main(mode: str, path: Path, seed: int, count: int, bytes_max: int) -> None:
    batches = _batches(seed, count)
    if bytes_max:
        # No file may grow past this: what a full disk does to one write.
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))
    if mode == "ours":
        asyncio.run(_ours(path, batches))
    else:
        (_lines if mode == "lines" else _buffered)(path, batches)


if __name__ == "__main__":
    try:
        _main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6]))
    except (MadlogError, OSError) as stopped:
        print(type(stopped).__name__, file=sys.stderr)
        os._exit(1)
