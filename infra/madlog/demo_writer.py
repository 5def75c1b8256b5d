"""The demo's writer process: appends the scripted traffic, says what is durable.

One line a durable batch on stdout: `acked EVENTS`. It is a process of its own so that the demo
can kill it; a second one goes on with the same ids, and what was stored is not stored twice.
"""

import argparse
import asyncio
import sys

from madlog.mads.demo.writer import write
from madlog.wiring import opened

__all__ = ("main",)


def main() -> None:
    """Write the traffic that the arguments name."""
    parser = argparse.ArgumentParser(prog="madlog.demo_writer", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20_000)
    given = parser.parse_args()
    asyncio.run(_write(given.folder, given.seed, given.turns))


async def _write(folder: str, seed: int, turns: int) -> None:
    async with opened(folder) as log:
        await write(log, seed, turns, acknowledged=sys.stdout)


if __name__ == "__main__":
    main()
