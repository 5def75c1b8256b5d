"""The Faust engine: the same processors, run in a Faust app on Kafka.

Faust gives out the partitions, says what has come and commits the positions; steps, states, dead
letters and outputs are the transactional engine's own (madlog.processors.lane), so the Decisions
are the same by id and content. What differs is the end of a batch: outputs are acknowledged first,
then the changes of state with their position, then the position in the group. So it is at least
once: after a crash a batch may be written again, with the same ids and the same `source` headers,
by which readers drop it; what the state is folded over is not stepped a second time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from madlog.processors._faust_member import FaustCluster, FaustMember, refuse_others
from madlog.processors._faust_tables import FaustTables
from madlog.processors.engine import Engine
from madlog.processors.lane import Lane, Options, Report, _Batch
from madlog.processors.live import Limits
from madlog.processors.step import Processor
from madlog.topics import EventLog, NewRecord, Receipt, TopicPartition
from madlog.topics.catalog import state

__all__ = ("FaustCluster", "FaustEngine", "Tables")


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of live figures that an engine is to keep: how long, and what is too much."""

    window_s: float
    limits: Limits


def _silent(text: str) -> None:
    """Say nothing."""


class FaustLane(Lane):
    """A processor whose membership is Faust's."""

    def __init__(
        self,
        log: EventLog,
        cluster: FaustCluster,
        group: str,
        processor: Processor,
        options: Options,
        report: Report,
        recovering: Callable[[str], None],
    ) -> None:
        self._member = FaustMember(log.log, cluster, group, processor.inputs, self._position)
        super().__init__(log, processor, self._member, options, report, recovering)

    async def start(self) -> None:
        """Come into the group; raises LogUnavailable, GroupBusy."""
        await refuse_others(self._log.log, self._member.group)
        await self._member.start()

    async def prepare(self) -> None:
        """Make and read the topics, and append what must be there before the first step."""
        await self._log.append([])  # registers schemas: outputs go to the log as plain records
        await super().prepare()

    async def idle(self) -> bool:
        """Tell whether the group, all its members together, has consumed its inputs to the end."""
        await self._member.commit()
        return await super().idle()

    async def _position(self, tp: TopicPartition) -> int:
        return (await self._caught_up(tp)).position

    async def _send(self, batch: _Batch) -> list[Receipt]:
        changes = batch.held.records(batch.position) if batch.fresh or not batch.items else []
        batch.changes = len(changes)
        receipts = await self._append(batch.tp, batch.records)
        return receipts + await self._append(batch.tp, changes)

    async def _append(self, tp: TopicPartition, records: Sequence[NewRecord]) -> list[Receipt]:
        self._member.check_owned(tp)
        if not records:
            return []
        await self._log.ensure_topics({record.topic for record in records})
        return await self._log.log.append(records)

    def _settle(self, batch: _Batch, receipts: list[Receipt]) -> None:
        known = batch.held.known_end
        super()._settle(batch, receipts)
        if batch.changes:
            first, last = (receipts[at].position.offset for at in (-batch.changes, -1))
            if first != known or last - first + 1 != batch.changes:
                # A member that was shut out wrote in between: its changes are looked at next.
                batch.held.known_end = known
        self._member.settle(batch.tp, batch.position)


class FaustEngine(Engine):
    """Runs processors in Faust apps, one a processor; each is a consumer group of its own name."""

    def __init__(
        self,
        log: EventLog,
        processors: Sequence[Processor],
        cluster: FaustCluster,
        *,
        group_prefix: str = "",
        options: Options | None = None,
        tables: Tables | None = None,
    ) -> None:
        super().__init__(log, processors, group_prefix=group_prefix, options=options)
        self._cluster = cluster
        self._tables = tables

    async def run(
        self,
        *,
        until_idle: bool = False,
        stop: asyncio.Event | None = None,
        progress: Callable[[Report], None] | None = None,
        recovering: Callable[[str], None] = _silent,
    ) -> Report:
        """Process as Engine.run does; meanwhile, unless until_idle, keep the tables."""
        async with self._kept_tables(recovering, kept=not until_idle):
            return await super().run(
                until_idle=until_idle, stop=stop, progress=progress, recovering=recovering
            )

    @asynccontextmanager
    async def _kept_tables(self, say: Callable[[str], None], *, kept: bool) -> AsyncIterator[None]:
        wanted = self._tables
        if wanted is None or not kept:
            yield
            return
        tables = FaustTables(
            self._log, self._cluster, window_s=wanted.window_s, limits=wanted.limits, say=say
        )
        # What they bring back must not hold up the processors.
        starting = asyncio.create_task(tables.start())
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.wait([starting])
            await tables.stop()

    async def _open(
        self, processor: Processor, report: Report, recovering: Callable[[str], None]
    ) -> Lane:
        # Faust does not join a topic that is not there when it starts.
        await self._log.ensure_topics([*processor.inputs, state(processor.name).name])
        group = self._prefix + processor.name
        lane = FaustLane(
            self._log, self._cluster, group, processor, self._options, report, recovering
        )
        await lane.start()
        return lane
