"""Consumer groups on Kafka: members, what they own, and committed positions.

aiokafka's coordinator speaks the group protocol; records come by our own stream, so partitions
that stay with a member go on being read while the group settles who gets which. A member that
gains a partition starts that partition's transactional producer first, which ends what its
predecessor left open and shuts it out, and only then reads the committed position: fencing rests
on transactional ids and their epochs, not on the group's generation (G8).
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from aiokafka import TopicPartition as KafkaPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from madlog.topics._kafka_client import EARLIEST, Cluster
from madlog.topics._kafka_group_requests import committed
from madlog.topics._kafka_stream import Stream
from madlog.topics._kafka_writer import Writer
from madlog.topics.errors import Fenced, GroupBusy, LogError, LogUnavailable, OutcomeUnknown
from madlog.topics.log import OnDamage, Record, log_damage
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("KafkaMembership",)

_HEARTBEATS_A_SESSION = 6
_REBALANCE_TIMEOUT_MS = 10_000
# A worker whose step hangs for this long leaves its group, so that another can go on.
_POLL_INTERVAL_MAX_MS = 900_000
_IDLE_S = 0.05


class KafkaMembership:
    """One member of a consumer group."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        stream: Stream,
        new_writer: Callable[[TopicPartition], Writer] | None,
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._stream = stream
        self._new_writer = new_writer
        self._writers: dict[TopicPartition, Writer] = {}
        self._owned: frozenset[TopicPartition] = frozenset()
        self._doubtful = False
        self._left = False
        self._client: Any = None
        self._subscription: Any = None
        self._coordinator: Any = None
        self._assigned: asyncio.Future[Any] | None = None
        # Partitions that we were given and are taking up, while those that stay are read.
        self._gaining: asyncio.Task[dict[TopicPartition, Writer | None]] | None = None
        self._letting_go: set[asyncio.Task[Any]] = set()

    @property
    def group(self) -> str:
        """The group's name."""
        return self._group

    @property
    def member(self) -> str:
        """This member's id, unique in the group; it changes when the member joins anew."""
        return str(self._coordinator.member_id)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member owned at its last poll."""
        return self._owned

    async def join(self, topics: Sequence[str], session_timeout_s: float) -> None:
        """Come into the group and wait for a first assignment; raises LogUnavailable."""
        # To join waits for the other members. What is slow is given up by our deadlines.
        self._client = self._cluster.new_client(2 * self._cluster.timeout_s)
        await self._cluster.bootstrap(self._client)
        physical = {self._cluster.physical(name) for name in topics}
        await self._client.set_topics(physical)
        self._subscription = SubscriptionState()
        self._subscription.subscribe(physical)
        self._subscription.register_fetch_waiters(set())
        # The library keeps an assignor's memory on its class: each member needs its own.
        assignor = type("Sticky", (StickyPartitionAssignor,), {"member_assignment": None})
        session_ms = int(session_timeout_s * 1000)
        assigned = self._subscription.wait_for_assignment()
        self._coordinator = GroupCoordinator(
            self._client,
            self._subscription,
            group_id=self._cluster.physical(self._group),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(100, session_ms // _HEARTBEATS_A_SESSION),
            enable_auto_commit=False,
            assignors=(assignor,),
            max_poll_interval_ms=_POLL_INTERVAL_MAX_MS,
            rebalance_timeout_ms=_REBALANCE_TIMEOUT_MS,
        )
        limit_s = self._cluster.timeout_s + session_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await assigned
        except kafka_errors.InconsistentGroupProtocolError as error:
            await self.leave()
            raise GroupBusy(
                f"members of another kind are at work in the consumer group {self._group}, as "
                "those of `madlog worker --engine faust` are: stop them first, one log is worked "
                "on by one engine at a time"
            ) from error
        except (KafkaError, TimeoutError) as error:
            why = str(error) or f"no assignment within {limit_s:g} s"
            await self.leave()
            raise LogUnavailable(
                f"we could not join the consumer group {self._group} ({why}): see that the "
                "cluster runs, and that we may use the group"
            ) from error

    async def poll(
        self, *, records_max: int = 500, timeout_s: float = 1.0, on_damage: OnDamage = log_damage
    ) -> list[Record]:
        """Return the next records of one owned partition, [] when none came within timeout_s."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            self._check()
            owned = self._owned
            await self._take_up()
            if self._owned - owned:
                until = loop.time() + timeout_s  # starting their producers is no waiting for news
            self._stream.records_max = records_max
            records = self._stream.take(records_max, on_damage, self._owned)
            left_s = until - loop.time()
            if records or left_s <= 0:
                self._stream.ahead()
                return records
            if len(self._stream):
                if self._assigned is None or self._assigned.done():
                    self._assigned = self._subscription.wait_for_assignment()
                await self._stream.wait(left_s, also=self._gaining or self._assigned)
            else:
                await asyncio.sleep(min(left_s, _IDLE_S))

    async def rewind(self, topic_partition: TopicPartition) -> None:
        """Let the next poll of this partition go on from its committed position."""
        tp = topic_partition
        if tp not in self._owned:
            return
        writer = self._writers.get(tp)
        self._stream.drop(tp)
        if writer is not None and writer.failed:
            # Another may have taken the partition: it is taken up anew once the group confirms us.
            self._forget(tp)
            self._doubtful = True
        else:
            await self._read_from_committed([tp])

    async def leave(self) -> None:
        """Give up all partitions at once."""
        if self._left:
            return
        self._left = True
        if self._gaining is not None:
            self._gaining.cancel()
            await asyncio.wait({self._gaining})
            with contextlib.suppress(asyncio.CancelledError, LogError):
                self._adopt()
        await self._stream.close()
        for tp in list(self._owned):
            self._forget(tp)
        for part in (self._coordinator, self._client):
            if part is not None:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    async with asyncio.timeout(self._cluster.timeout_s):
                        await part.close()
        if self._letting_go:
            await asyncio.wait(self._letting_go, timeout=self._cluster.timeout_s)

    def writer(self, positions: Vector) -> Writer:
        """Return the producer of the one partition in `positions`; raises Fenced."""
        self.check_owned(positions)
        (tp,) = positions
        return self._writers[tp]

    def check_owned(self, positions: Vector) -> None:
        """Raise Fenced unless all partitions are this member's."""
        for tp in positions:
            lost = self._new_writer is not None and tp not in self._writers
            if self._left or tp not in self._owned or lost:
                raise Fenced(
                    f"{self.member or 'this member'} does not own {tp} in {self._group} any more: "
                    "drop the batch and poll again"
                )

    async def commit(self, positions: Vector) -> None:
        """Commit positions outside of a transaction; raises Fenced, OutcomeUnknown."""
        offsets = {
            KafkaPartition(self._cluster.physical(tp.topic), tp.partition): OffsetAndMetadata(
                at, ""
            )
            for tp, at in positions.items()
        }
        try:
            async with asyncio.timeout(self._cluster.timeout_s):
                await self._coordinator.commit_offsets(None, offsets)
        except kafka_errors.CommitFailedError as error:
            raise Fenced(f"the group {self._group} has moved on: poll again") from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise OutcomeUnknown(
                f"the position of {self._group} was not confirmed ({error!r}): poll again"
            ) from error

    def stop_heartbeat(self) -> None:
        """Fall silent, as a process that was killed does."""
        for task in (self._coordinator._coordination_task, self._coordinator._heartbeat_task):
            if task is not None:
                task.cancel()

    def _check(self) -> None:
        if self._left:
            raise Fenced(f"this member has left {self._group}: join the group again")
        with self._subscription.fetch_context():
            pass  # tells the coordinator that we are alive
        try:
            self._coordinator.check_errors()
        except asyncio.CancelledError:
            pass  # it was silenced
        except KafkaError as error:
            raise LogUnavailable(
                f"the consumer group {self._group} does not take us ({error}): see that we may "
                "use it, then start again"
            ) from error

    async def _take_up(self) -> None:
        """Let go of partitions that were taken away, and take up those that were given.

        What stays is not held up: while there is something to read, the others are taken up by
        themselves, and a later poll makes them ours.
        """
        given = self._given()
        if given == self._owned and self._gaining is None:
            return
        for tp in self._owned - given:
            self._stream.drop(tp)
            self._forget(tp)
        if self._gaining is not None and self._gaining.done():
            self._adopt()
        gained = sorted(given - self._owned)
        if not gained:
            return
        if self._gaining is None:
            if self._doubtful and not await self._confirmed():
                return
            self._doubtful = False
            self._gaining = self._cluster.background(self._start(gained))
        if not self._owned:
            await asyncio.wait({self._gaining})
            self._adopt()

    def _given(self) -> frozenset[TopicPartition]:
        assignment = self._subscription.subscription.assignment
        return frozenset(
            TopicPartition(self._cluster.logical(tp.topic) or tp.topic, tp.partition)
            for tp in (assignment.tps if assignment is not None else ())
        )

    async def _confirmed(self) -> bool:
        """Ask the group whether we are still in it: one that was away must not fence its heir."""
        try:
            return bool(await self._coordinator._do_heartbeat())
        except KafkaError:
            return False

    async def _start(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Writer | None]:
        """Get partitions ready to be ours: their producers first, then where to read on."""
        writers = {tp: self._new_writer(tp) for tp in tps} if self._new_writer else {}
        try:
            starts = (writer.start() for writer in writers.values())
            for error in await asyncio.gather(*starts, return_exceptions=True):
                if error is not None:
                    raise error
            await self._read_from_committed(tps)
        except BaseException as error:
            for tp in tps:
                self._stream.drop(tp)
            for writer in writers.values():
                writer.abandon()
            if isinstance(error, Fenced):
                self._doubtful = True
                return {}
            raise
        return {tp: writers.get(tp) for tp in tps}

    def _adopt(self) -> None:
        """Make ours what is ready and still given to us; raises LogUnavailable."""
        task, self._gaining = self._gaining, None
        assert task is not None
        given = self._given()
        for tp, writer in task.result().items():
            if tp in given:
                self._owned |= {tp}
                if writer is not None:
                    self._writers[tp] = writer
            else:
                self._stream.drop(tp)
                self._let_go(writer)

    async def _read_from_committed(self, tps: Collection[TopicPartition]) -> None:
        places = await committed(self._cluster, self._group, tps)
        low = await self._cluster.offsets(tps, EARLIEST)
        for tp in tps:
            await self._stream.add(tp, places.get(tp, low[tp]), low[tp], None)

    def _forget(self, tp: TopicPartition) -> None:
        self._owned -= {tp}
        self._let_go(self._writers.pop(tp, None))

    def _let_go(self, writer: Writer | None) -> None:
        if writer is not None:
            writer.failed = True
            task = self._cluster.background(writer.close())
            self._letting_go.add(task)
            task.add_done_callback(self._letting_go.discard)
