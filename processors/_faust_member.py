"""A member of a consumer group by Faust: which partitions are ours, what came, what is committed.

Faust says that something came to a partition. The records are read through the log, up to its end:
so what is not committed or came before is left out, and damage is named, as for any reader. Work
goes on from the position of the state, whatever Faust has committed, since its streams acknowledge
what they skip at a rebalance. A partition's position is acknowledged to Faust, which commits it
once in a while, when all that follows from what is below it is in the log.
"""

import asyncio
import contextlib
import logging
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faust
from mode.threads import WorkerThread

from madlog.topics import Fenced, Log, LogUnavailable, Record, TopicPartition, Vector
from madlog.topics.errors import GroupBusy
from madlog.topics.log import OnDamage, log_damage

__all__ = ("CLIENT", "FaustCluster", "FaustMember", "new_app", "refuse_others", "stopped")

# What Faust's members of a group are told from others by: their ids begin with it.
CLIENT = "madlog-faust"
_HEARTBEATS_A_SESSION = 6
_REBALANCE_TIMEOUT_S = 10.0
_COMMIT_INTERVAL_S = 1.0
_STOP_S = 20.0
_LOOK_S = 0.05
# Events that came and are not settled yet, of all partitions; more wait in Faust's own buffers.
_WAITING_MAX = 20_000

# What goes wrong is told by our own errors; without a handler these would reach a person's screen.
for _name in ("faust", "mode"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


def _hear(told: threading.ExceptHookArgs) -> None:
    """Keep off the screen how one of Faust's threads ended, which we are told otherwise."""
    if isinstance(told.thread, WorkerThread):
        logging.getLogger("faust").error("a thread ended", exc_info=told.exc_value)
    else:
        _others(told)


_others, threading.excepthook = threading.excepthook, _hear


@dataclass(frozen=True)
class FaustCluster:
    """What a Faust app must know of the cluster that a log is on."""

    bootstrap: tuple[str, ...]
    prefix: str
    folder: Path
    session_timeout_s: float = 6.0
    standby_replicas: int = 0
    ssl_context: ssl.SSLContext | None = None
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def credentials(self) -> Any:
        """Return the same as Faust wants it, None where nothing is asked for."""
        if self.sasl_mechanism is not None:
            return faust.SASLCredentials(
                username=self.username,
                password=self.password,
                ssl_context=self.ssl_context,
                mechanism=self.sasl_mechanism,
            )
        if self.ssl_context is not None:
            return faust.SSLCredentials(self.ssl_context)
        return None


def new_app(
    cluster: FaustCluster, group: str, *, store: str = "memory://", standby_replicas: int = 0
) -> Any:
    """Return a Faust app, not started, whose consumer group is `group`."""
    session_s = cluster.session_timeout_s
    folder = cluster.folder / group
    folder.mkdir(parents=True, exist_ok=True)
    return faust.App(
        cluster.prefix + group,
        broker=[f"kafka://{address}" for address in cluster.bootstrap],
        broker_client_id=CLIENT,
        broker_credentials=cluster.credentials(),
        # A damaged batch is named by the log's reader; here it would stop all that follows it.
        broker_check_crcs=False,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / _HEARTBEATS_A_SESSION,
        broker_request_timeout=max(40.0, 2 * session_s),
        broker_rebalance_timeout=_REBALANCE_TIMEOUT_S,
        broker_commit_interval=_COMMIT_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
        processing_guarantee="at_least_once",
        topic_disable_leader=True,
        topic_allow_declare=False,
        store=store,
        table_standby_replicas=standby_replicas,
        stream_recovery_delay=0.0,
        # Neither a rebalance nor a stop waits for what is not acknowledged: it comes again.
        stream_wait_empty=False,
        datadir=folder,
        web_enabled=False,
        autodiscover=False,
        loop=asyncio.get_running_loop(),
    )


async def refuse_others(log: Log, group: str) -> None:
    """Raise GroupBusy where members of the other engine live in the group."""
    for one in await log.groups():
        others = {member for member in one.members.values() if not member.startswith(CLIENT)}
        if one.group == group and others:
            raise GroupBusy(
                f"a worker of the transactional engine ({min(others)}) is at work on {group}: "
                "stop it first, one log is worked on by one engine at a time"
            )


async def stopped(app: Any) -> None:
    """Stop an app; one that does not stop in time is left, since Faust drops cancellations."""
    stopping = asyncio.ensure_future(app.stop())
    await asyncio.wait({stopping}, timeout=_STOP_S)
    stopping.cancel()
    stopping.add_done_callback(lambda done: done.cancelled() or done.exception())


class _Partition:
    __slots__ = ("came", "more", "read_to", "returned", "settled")

    def __init__(self) -> None:
        self.came: deque[tuple[int, Any]] = deque()  # offset and event, not acknowledged yet
        self.more = False  # something came that was not read yet
        self.read_to: int | None = None  # where the next read goes on
        self.returned = 0  # after the last that a poll returned
        self.settled = 0  # below it all is in the log that follows


class FaustMember:
    """One member of a consumer group, as the engine knows it: a Membership."""

    def __init__(
        self,
        log: Log,
        cluster: FaustCluster,
        group: str,
        topics: Collection[str],
        position: Callable[[TopicPartition], Awaitable[int]],
    ) -> None:
        """`position` tells up to where a partition's state is folded, -1: there is none."""
        self._log = log
        self._group = group
        self._position = position
        self._names: Mapping[str, str] = {cluster.prefix + name: name for name in topics}
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._waiting = 0
        self._left = False
        self._stream: Any = None
        self._app = new_app(cluster, group)
        raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes}
        raw |= {"key_serializer": "raw", "value_serializer": "raw"}
        self._app.agent(self._app.topic(*self._names, **raw), name="listen")(self._listen)
        # Signals hold their receivers weakly.
        self._receivers = (self._revoked, self._assigned)
        self._app.on_partitions_revoked.connect(self._receivers[0])
        self._app.on_partitions_assigned.connect(self._receivers[1])

    @property
    def group(self) -> str:
        """The group's name."""
        return self._group

    @property
    def member(self) -> str:
        """What this member is called in errors."""
        return f"{CLIENT} of {self._group}"

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member owns."""
        return frozenset(self._partitions)

    async def start(self) -> None:
        """Start the app, which comes into the group by itself; raises LogUnavailable."""
        try:
            await self._app.start()
        except Exception as error:
            await stopped(self._app)
            raise self._unavailable(error) from error

    async def poll(
        self, *, records_max: int = 500, timeout_s: float = 1.0, on_damage: OnDamage = log_damage
    ) -> list[Record]:
        """Return the next records of one owned partition, [] when none came within timeout_s."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            self._check()
            self._news.clear()
            for tp in list(self._partitions):
                found, damaged = await self._take(tp, records_max, on_damage)
                if found or damaged:
                    return found
            left_s = until - loop.time()
            if left_s <= 0:
                return []
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(left_s, _LOOK_S))

    async def rewind(self, topic_partition: TopicPartition) -> None:
        """Let the next poll of this partition go on from the position of its state."""
        part = self._partitions.get(topic_partition)
        if part is not None:
            part.read_to, part.more = None, True

    async def leave(self) -> None:
        """Commit what is acknowledged and give up all partitions at once."""
        if self._left:
            return
        with contextlib.suppress(LogUnavailable):
            await self.commit()
        self._left = True
        self._room.set()
        await stopped(self._app)
        self._partitions.clear()

    async def commit(self) -> None:
        """Let Faust commit now what it would commit in a while."""
        self._check()
        if self._partitions:
            await self._app.commit(set(self._names))

    def check_owned(self, tp: TopicPartition) -> None:
        """Raise Fenced unless the partition is this member's; raises LogUnavailable."""
        self._check()
        if tp not in self._partitions:
            raise Fenced(f"{self.member} does not own {tp} any more: drop the batch and poll again")

    def settle(self, tp: TopicPartition, position: int) -> None:
        """Acknowledge a partition up to a position: all that follows from it is in the log."""
        part = self._partitions.get(tp)
        if part is None:
            return
        if position >= part.returned and part.read_to is not None:
            position = max(position, part.read_to)
        part.settled = max(part.settled, position)
        self._acknowledge(part)

    def _check(self) -> None:
        if self._left:
            raise Fenced(f"{self.member} has left the group: join the group again")
        if self._app.crashed:
            raise self._unavailable(self._app.crash_reason)

    def _unavailable(self, error: BaseException | None) -> LogUnavailable:
        why = str(error or "").strip() or type(error).__name__
        return LogUnavailable(
            f"Faust ended in the consumer group {self._group} ({why}): see that the cluster runs "
            "and that we may use the group, then start again"
        )

    async def _listen(self, stream: Any) -> None:
        """Take up what comes, as Faust's agent; back-pressure: it waits where too much waits."""
        self._stream = stream = stream.noack()
        async for event in stream.events():
            message = event.message
            tp = TopicPartition(self._names[message.topic], message.partition)
            while self._waiting >= _WAITING_MAX and not self._left:
                self._room.clear()
                await self._room.wait()
            part = self._partitions.get(tp)
            if part is None or message.generation_id != self._app.consumer_generation_id:
                continue  # it was on its way when the group gave partitions out anew
            part.came.append((message.offset, event))
            self._waiting += 1
            if message.offset < part.settled:
                self._acknowledge(part)  # read before it came here
            elif part.read_to is None or message.offset >= part.read_to:
                part.more = True
                self._news.set()

    async def _revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        self._forget()

    async def _assigned(self, app: Any, assigned: Any, **_: Any) -> None:
        # All partitions begin at what is committed, those that stay with us too.
        self._forget()
        for tp in assigned:
            name = self._names.get(tp.topic)
            if name is not None:
                self._partitions[TopicPartition(name, tp.partition)] = _Partition()
        self._news.set()

    def _forget(self) -> None:
        self._partitions = {}
        self._waiting = 0
        self._room.set()

    async def _take(
        self, tp: TopicPartition, records_max: int, on_damage: OnDamage
    ) -> tuple[list[Record], bool]:
        """Read on in a partition in which something came; tell too whether damage was found."""
        part = self._partitions.get(tp)
        if part is None or not part.more:
            return [], False
        start = part.read_to
        if start is None:
            start = await self._start(tp)
            part.read_to = part.returned = part.settled = start
            self._acknowledge(part)
        readable = (await self._log.end([tp.topic]))[tp]
        end = min(readable, start + records_max)
        # What came last may not be readable yet: a transaction before it is open.
        part.more = end < readable or bool(part.came and part.came[-1][0] >= end)
        if start >= end:
            return [], False
        after, damaged = part.returned, False

        def damage(one: Any) -> None:
            nonlocal after, damaged
            after, damaged = max(after, one.offset_end), True
            on_damage(one)

        records: list[Record] = []
        span = Vector({tp: start}), Vector({tp: end})
        async for batch in self._log.read(*span, records_max=records_max, on_damage=damage):
            records += batch
        if self._partitions.get(tp) is not part:
            return [], False  # it was given out anew meanwhile
        part.read_to = end
        if records:
            after = max(after, records[-1].offset + 1)
        part.returned = after
        # Put back at the end: each partition gets its turn.
        self._partitions[tp] = self._partitions.pop(tp)
        if not records and not damaged and part.settled >= after:
            part.settled = end  # what lies between is no record
            self._acknowledge(part)
        return records, damaged

    async def _start(self, tp: TopicPartition) -> int:
        position = await self._position(tp)
        if position >= 0:
            return position
        committed = await self._log.committed(self._group)
        return committed.get(tp, (await self._log.start([tp.topic]))[tp])

    def _acknowledge(self, part: _Partition) -> None:
        while part.came and part.came[0][0] < part.settled:
            _, event = part.came.popleft()
            event.ack()
            self._waiting -= 1
        if self._waiting < _WAITING_MAX:
            self._room.set()
