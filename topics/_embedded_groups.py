"""Consumer groups of the embedded log: leases, assignment, fencing by epochs, the members.

Whoever joins, renews or leaves computes the whole assignment in the same transaction; a partition
that changes hands gets a new epoch, and a commit under an older one is refused.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from typing import NamedTuple

import apsw

from madlog.topics._embedded_append import Appender, Fence
from madlog.topics._embedded_file import OpenFile
from madlog.topics._embedded_reading import Batch, read_batch
from madlog.topics._embedded_storage import fetch
from madlog.topics.errors import Fenced, GroupBusy, LogError, UnknownTopic
from madlog.topics.log import GroupState, OnDamage, Record, log_damage
from madlog.topics.positions import TopicPartition, Vector

__all__ = (
    "EmbeddedMembership",
    "assign",
    "committed_positions",
    "fences_for",
    "group_states",
    "reset_group",
)

# Where the committed position is not known there is none: reading starts at the low-water mark.
_Owned = dict[TopicPartition, tuple[int, int | None]]


def assign(
    partitions: Sequence[TopicPartition],
    members: dict[str, frozenset[str]],
    owners: dict[TopicPartition, str],
) -> dict[TopicPartition, str]:
    """Give each partition to a member that reads its topic: balanced, moving as few as can be.

    `members` holds each member's topics, `owners` the assignment so far; "" is nobody.
    """
    result: dict[TopicPartition, str] = {}
    load = dict.fromkeys(sorted(members), 0)
    for tp in partitions:
        owner = owners.get(tp, "")
        result[tp] = owner if tp.topic in members.get(owner, ()) else ""
        if result[tp]:
            load[owner] += 1
    for tp in partitions:
        able = [member for member in load if tp.topic in members[member]]
        if not able:
            continue
        least = min(able, key=load.__getitem__)
        owner = result[tp]
        if not owner:
            result[tp] = least
            load[least] += 1
    for tp in partitions:
        able = [member for member in load if tp.topic in members[member]]
        owner = result[tp]
        least = min(able, key=load.__getitem__, default="")
        if owner and load[owner] - load[least] > 1:
            result[tp] = least
            load[owner] -= 1
            load[least] += 1
    return result


class _Lease(NamedTuple):
    group: str
    member: str
    topics: tuple[str, ...]
    until_ns: int
    boot_id: str
    pid: int


def _renew(appender: Appender, lease: _Lease) -> None:
    connection = appender.connection
    connection.execute(
        "INSERT OR REPLACE INTO group_members VALUES(?, ?, ?, ?, ?, ?)",
        (
            lease.group,
            lease.member,
            json.dumps(lease.topics),
            lease.until_ns,
            lease.boot_id,
            lease.pid,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO group_topics VALUES(?, ?)",
        [(lease.group, topic) for topic in lease.topics],
    )
    _rebalance(appender, lease.group)


def _live_members(
    connection: apsw.Connection, group: str, now_ns: int, boot_id: str
) -> dict[str, frozenset[str]]:
    return {
        member: frozenset(json.loads(topics))
        for member, topics in fetch(
            connection,
            'SELECT member, topics FROM group_members WHERE "group"=? AND boot_id=? '
            "AND lease_until_ns>?",
            (group, boot_id, now_ns),
        )
    }


def _rebalance(appender: Appender, group: str) -> None:
    connection, clock = appender.connection, appender.clock
    now_ns, boot_id = clock.monotonic_ns(), clock.boot_id()
    connection.execute(
        'DELETE FROM group_members WHERE "group"=? AND (boot_id<>? OR lease_until_ns<=?)',
        (group, boot_id, now_ns),
    )
    members = _live_members(connection, group, now_ns, boot_id)
    partitions = [
        TopicPartition(topic, partition)
        for topic, count in fetch(
            connection,
            "SELECT t.name, t.partitions FROM topics t JOIN group_topics g ON g.topic = t.name "
            'WHERE g."group"=? ORDER BY t.name',
            (group,),
        )
        for partition in range(count)
    ]
    held = {
        TopicPartition(topic, partition): (member, epoch)
        for topic, partition, member, epoch in fetch(
            connection,
            'SELECT topic, partition, member, epoch FROM group_partitions WHERE "group"=?',
            (group,),
        )
    }
    new = assign(partitions, members, {tp: member for tp, (member, _) in held.items()})
    connection.executemany(
        "INSERT OR REPLACE INTO group_partitions VALUES(?, ?, ?, ?, ?)",
        [
            (group, tp.topic, tp.partition, member, held.get(tp, ("", 0))[1] + 1)
            for tp, member in new.items()
            if tp not in held or held[tp][0] != member
        ],
    )


def _leave(appender: Appender, group: str, member: str) -> None:
    appender.connection.execute(
        'DELETE FROM group_members WHERE "group"=? AND member=?', (group, member)
    )
    _rebalance(appender, group)


def reset_group(appender: Appender, group: str, positions: Vector) -> None:
    """Set committed positions inside the writer's transaction; raises GroupBusy."""
    connection, clock = appender.connection, appender.clock
    live = _live_members(connection, group, clock.monotonic_ns(), clock.boot_id())
    if live:
        raise GroupBusy(
            f"group {group} has live members ({', '.join(sorted(live))}): stop them, then reset"
        )
    counts: dict[str, int] = dict(fetch(connection, "SELECT name, partitions FROM topics"))
    for tp in positions:
        if tp.topic not in counts:
            raise UnknownTopic(
                f"the log holds no topic {tp.topic!r}: `madlog topics list` shows those there are"
            )
        if tp.partition >= counts[tp.topic]:
            raise UnknownTopic(
                f"{tp} is not a partition: {tp.topic} has {counts[tp.topic]} of them, from 0"
            )
        connection.execute("INSERT OR IGNORE INTO group_topics VALUES(?, ?)", (group, tp.topic))
        connection.execute(
            "INSERT OR REPLACE INTO committed VALUES(?, ?, ?, ?)",
            (group, tp.topic, tp.partition, positions[tp]),
        )


def committed_positions(connection: apsw.Connection, group: str) -> Vector:
    """Return a group's committed positions."""
    return Vector(
        {
            TopicPartition(topic, partition): offset
            for topic, partition, offset in fetch(
                connection,
                'SELECT topic, partition, offset FROM committed WHERE "group"=?',
                (group,),
            )
        }
    )


def group_states(connection: apsw.Connection, now_ns: int, boot_id: str) -> list[GroupState]:
    """Return every group, with the members whose leases have not run out."""
    topics: dict[str, list[str]] = {}
    for group, topic in fetch(connection, 'SELECT "group", topic FROM group_topics'):
        topics.setdefault(group, []).append(topic)
    states = []
    for group, names in sorted(topics.items()):
        live = _live_members(connection, group, now_ns, boot_id)
        owners = {
            TopicPartition(topic, partition): member
            for topic, partition, member in fetch(
                connection,
                'SELECT topic, partition, member FROM group_partitions WHERE "group"=?',
                (group,),
            )
            if member in live
        }
        committed = committed_positions(connection, group)
        states.append(GroupState(group, tuple(sorted(names)), committed, owners))
    return states


def _poll_once(
    connection: apsw.Connection,
    file: OpenFile,
    membership: tuple[str, str],
    known: _Owned,
    last: TopicPartition | None,
    records_max: int,
) -> tuple[_Owned, TopicPartition | None, Batch | None]:
    """Return what the member owns now, and the next records of one of its partitions."""
    owned: _Owned = {}
    for topic, partition, epoch, offset in fetch(
        connection,
        "SELECT p.topic, p.partition, p.epoch, c.offset FROM group_partitions p "
        'LEFT JOIN committed c ON c."group"=p."group" AND c.topic=p.topic '
        'AND c.partition=p.partition WHERE p."group"=? AND p.member=?',
        membership,
    ):
        tp = TopicPartition(topic, partition)
        before = known.get(tp)
        owned[tp] = before if before and before[0] == epoch else (epoch, offset)
    order = sorted(owned)
    if last is not None:
        order = [tp for tp in order if tp > last] + [tp for tp in order if tp <= last]
    for tp in order:
        place = file.place(tp, connection)
        batch = read_batch(connection, place, owned[tp][1], 1 << 62, records_max)
        if batch.records or batch.damages:
            return owned, tp, batch
    return owned, None, None


class EmbeddedMembership:
    """One member of a consumer group on the embedded log."""

    def __init__(self, file: OpenFile, group: str, topics: Sequence[str]) -> None:
        self._file = file
        self._group = group
        self._member = f"{file.pid}-{file.random(8).hex()}"
        self._topics = tuple(sorted(set(topics)))
        self._owned: _Owned = {}
        self._last: TopicPartition | None = None
        self._renewed_ns = 0
        self._heartbeat: asyncio.Task[None] | None = None

    @property
    def group(self) -> str:
        """The group's name."""
        return self._group

    @property
    def member(self) -> str:
        """This member's id, unique in the group."""
        return self._member

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member owned at its last poll."""
        return frozenset(self._owned)

    def epoch(self, topic_partition: TopicPartition) -> int | None:
        """Return the epoch under which this member owned a partition at its last poll."""
        owned = self._owned.get(topic_partition)
        return owned[0] if owned else None

    async def start(self) -> None:
        """Take up the lease, and renew it until this member leaves."""
        await self.renew()
        self._file.members[self._group, self._member] = self
        self._heartbeat = asyncio.create_task(self._keep_alive())

    async def renew(self) -> None:
        """Renew the lease, take over what dead members held."""
        file = self._file
        now = file.clock.monotonic_ns()
        until = now + int(file.session_timeout_s * 1e9)
        boot = file.clock.boot_id()
        lease = _Lease(self._group, self._member, self._topics, until, boot, file.pid)
        await file.writer.call(lambda appender: _renew(appender, lease))
        self._renewed_ns = now

    async def poll(
        self, *, records_max: int = 500, timeout_s: float = 1.0, on_damage: OnDamage = log_damage
    ) -> list[Record]:
        """Return the next records of one owned partition, [] when none came within timeout_s."""
        file, loop = self._file, asyncio.get_running_loop()
        if (self._group, self._member) not in file.members:
            raise Fenced(f"member {self._member} has left group {self._group}: join it again")
        deadline = loop.time() + timeout_s
        renew_ns = int(file.session_timeout_s * 1e9 / 3)
        while True:
            seen = file.wakeups.version
            if file.clock.monotonic_ns() - self._renewed_ns >= renew_ns:
                await self.renew()
            self._owned, tp, batch = await file.readers.run(
                _poll_once,
                file,
                (self._group, self._member),
                self._owned,
                self._last,
                records_max,
            )
            if tp is not None and batch is not None:
                self._last = tp
                self._owned[tp] = (self._owned[tp][0], batch.next_offset)
                for damage in batch.damages:
                    on_damage(damage)
                if batch.records:
                    return batch.records
                continue
            left = deadline - loop.time()
            if left <= 0:
                return []
            await file.wait(seen, min(left, file.session_timeout_s / 3))

    async def rewind(self, topic_partition: TopicPartition) -> None:
        """Let the next poll of this partition go on from its committed position."""
        if topic_partition in self._owned:
            epoch = self._owned[topic_partition][0]
            committed = await self._file.readers.run(committed_positions, self._group)
            self._owned[topic_partition] = (epoch, committed.get(topic_partition))

    async def leave(self) -> None:
        """Give up all partitions at once."""
        if self._file.members.pop((self._group, self._member), None) is None:
            return
        self._owned = {}
        heartbeat = self.stop_heartbeat()
        if heartbeat is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await heartbeat
        group, member = self._group, self._member
        await self._file.writer.call(lambda appender: _leave(appender, group, member))

    def stop_heartbeat(self) -> "asyncio.Task[None] | None":
        """Let the lease run out unless this member polls."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        return self._heartbeat

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._file.session_timeout_s / 3)
            try:
                await self.renew()
            except LogError as error:  # the lease may run out; a commit is then refused
                logging.getLogger("madlog").warning(
                    "member %s of group %s could not renew its lease: %s",
                    self._member,
                    self._group,
                    error,
                )


def fences_for(file: OpenFile, group: str, member: str, positions: Vector) -> list[Fence]:
    """Return what must hold for a member's commit; raises Fenced for what it does not own."""
    membership = file.members.get((group, member))
    fences = []
    for tp, offset in positions.items():
        epoch = membership.epoch(tp) if isinstance(membership, EmbeddedMembership) else None
        if epoch is None:
            raise Fenced(
                f"{tp} is not assigned to member {member} of group {group}: drop the batch and "
                "poll again"
            )
        fences.append(Fence(group, member, tp.topic, tp.partition, epoch, offset))
    return fences
