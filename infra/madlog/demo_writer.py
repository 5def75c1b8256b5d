"""A process that writes the demo's traffic: `python -m madlog.demo_writer LOG`.

It prints one line `acked <events>` a durable batch, so that whoever kills it knows what the log
had promised.
"""

import argparse
import asyncio
import sys

__all__ = ("main",)


async def _write(url: str, seed: int, turns: int) -> None:
    from madlog.mads.demo import write
    from madlog.wiring import opened

    async with opened(url) as log:
        await write(log, seed, turns, acknowledged=sys.stdout)


def main() -> None:
    """Write the traffic that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m madlog.demo_writer", description=__doc__)
    parser.add_argument("log", help="the address of the log to write to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20_000)
    arguments = parser.parse_args()
    asyncio.run(_write(arguments.log, arguments.seed, arguments.turns))


if __name__ == "__main__":
    main()
