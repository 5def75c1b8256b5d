"""The transactional engine: runs processors over a log, on any backend.

For each batch of one partition, the outputs, the changes of state and the consumed position become
one transaction: all of it is on the log or none is. What a crash leaves unfinished is done again
with the same ids.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from madlog.processors.lane import Lane, Options, Report
from madlog.processors.step import Processor
from madlog.topics import EventLog

__all__ = ("Engine", "Options", "Report")

# How long a poll waits: long enough to cost nothing, short enough to stop soon when asked to.
_WAIT_S = 0.5
_WAIT_UNTIL_IDLE_S = 0.05


def _silent(text: str) -> None:
    """Say nothing."""


class Engine:
    """Runs processors; each is a consumer group of its own name."""

    def __init__(
        self,
        log: EventLog,
        processors: Sequence[Processor],
        *,
        group_prefix: str = "",
        options: Options | None = None,
    ) -> None:
        self._log = log
        self._processors = tuple(processors)
        self._prefix = group_prefix
        self._options = options or Options()

    async def run(
        self,
        *,
        until_idle: bool = False,
        stop: asyncio.Event | None = None,
        progress: Callable[[Report], None] | None = None,
        recovering: Callable[[str], None] = _silent,
    ) -> Report:
        """Process until `stop` is set or, with until_idle, until there is nothing left to do.

        `progress` is told after each batch, `recovering` what is being rebuilt and how far it is.
        """
        report = Report()
        async with AsyncExitStack() as leaving:
            lanes: list[Lane] = []
            for processor in self._processors:
                lane = await self._open(processor, report, recovering)
                leaving.push_async_callback(lane.leave)
                await lane.prepare()
                lanes.append(lane)
            wait_s = (_WAIT_UNTIL_IDLE_S if until_idle else _WAIT_S) / max(1, len(lanes))
            while stop is None or not stop.is_set():
                busy = False
                for lane in lanes:
                    if await lane.turn(wait_s):
                        busy = True
                        if progress is not None:
                            progress(report)
                # A busy log may never wait, and `stop` must be heard; without lanes nothing waits.
                await asyncio.sleep(0 if lanes else _WAIT_S)
                if until_idle and not busy and await _all_idle(lanes):
                    report.idle = True
                    break
        return report

    async def _open(
        self, processor: Processor, report: Report, recovering: Callable[[str], None]
    ) -> Lane:
        await self._log.ensure_topics(processor.inputs)
        membership = await self._log.log.join(self._prefix + processor.name, processor.inputs)
        return Lane(self._log, processor, membership, self._options, report, recovering)


async def _all_idle(lanes: Sequence[Lane]) -> bool:
    for lane in lanes:
        if not await lane.idle():
            return False
    return True
