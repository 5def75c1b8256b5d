"""Consumer groups of the log in memory: leases, epochs, and who owns which partition.

A member lives while it polls: each poll renews its lease. A partition changes hands when its
owner's lease ends, when the owner leaves, or when the owner polls and has more than its share; each
change gets a new epoch, and a commit under an older epoch is Fenced.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from madlog.topics.clock import Clock
from madlog.topics.errors import Fenced
from madlog.topics.log import GroupState, OnDamage, Record, log_damage
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("LEASE_NS", "Group", "Groups", "MemoryMember", "Source")

# G7 promises a takeover in 10 s: the lease, and up to two polls of one second, fit.
LEASE_NS = 7_000_000_000


class Source(Protocol):
    """What a member reads from: the log in memory."""

    def take(
        self,
        tp: TopicPartition,
        at: int,
        records_max: int,
        on_damage: OnDamage,
        end: int | None = None,
    ) -> tuple[list[Record], int]:
        """Return up to records_max records of a partition from `at` on, and the next offset."""

    async def start(self, topics: Sequence[str]) -> Vector:
        """Return the low-water marks."""

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until something changes, at most timeout_s."""

    def wake(self) -> None:
        """Wake all who wait for a change."""


@dataclass(slots=True)
class _Live:
    lease_until_ns: int
    topics: tuple[str, ...]
    partitions: frozenset[TopicPartition]


@dataclass(slots=True)
class Group:
    """One group as it is stored."""

    name: str
    epoch: int = 0
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    members: dict[str, _Live] = field(default_factory=dict)
    owners: dict[TopicPartition, tuple[str, int]] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)


class Groups:
    """What can be done to one group at the present time."""

    def __init__(self, group: Group, clock: Clock) -> None:
        self.group = group
        self._clock = clock

    def join(self, member: str, topics: tuple[str, ...], tps: Sequence[TopicPartition]) -> "Groups":
        """Let a member in, and give it the partitions that nobody owns."""
        self.group.members[member] = _Live(self._lease(), topics, frozenset(tps))
        self.group.topics.update(topics)
        self._settle()
        return self

    def renew(self, member: str, topics: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        """Renew a member's lease, settle who owns what, and return the epochs of what it owns."""
        group = self.group
        live = group.members.get(member)
        if live is None:
            names = tuple(sorted({tp.topic for tp in topics}))
            group.members[member] = _Live(self._lease(), names, topics)
        else:
            live.lease_until_ns = self._lease()
        self._settle()
        self._give_up_surplus(member)
        return {tp: epoch for tp, (owner, epoch) in group.owners.items() if owner == member}

    def leave(self, member: str) -> None:
        """Let a member go at once."""
        self.group.members.pop(member, None)
        self._settle()

    def state(self) -> GroupState:
        """Return the group as it is now."""
        self._settle()
        group = self.group
        return GroupState(
            group.name,
            tuple(sorted(group.topics)),
            Vector(group.committed),
            {tp: owner for tp, (owner, _) in sorted(group.owners.items())},
        )

    def _lease(self) -> int:
        return self._clock.monotonic_ns() + LEASE_NS

    def _settle(self) -> None:
        """Drop the dead, then give each partition without an owner to whoever has the fewest."""
        group, now = self.group, self._clock.monotonic_ns()
        for name in [n for n, live in group.members.items() if live.lease_until_ns <= now]:
            del group.members[name]
        group.owners = {tp: own for tp, own in group.owners.items() if own[0] in group.members}
        wanted = {tp for live in group.members.values() for tp in live.partitions}
        for tp in sorted(wanted - group.owners.keys()):
            self._give(tp, self._poorest(tp))

    def _give_up_surplus(self, member: str) -> None:
        # Sticky: only what is too much moves, and only when its owner is between two batches.
        group = self.group
        for tp in sorted(
            (tp for tp, own in group.owners.items() if own[0] == member), reverse=True
        ):
            poorest = self._poorest(tp)
            if self._load(member) - self._load(poorest) > 1:
                self._give(tp, poorest)

    def _give(self, tp: TopicPartition, member: str) -> None:
        self.group.epoch += 1
        self.group.owners[tp] = (member, self.group.epoch)

    def _load(self, member: str) -> int:
        return sum(owner == member for owner, _ in self.group.owners.values())

    def _poorest(self, tp: TopicPartition) -> str:
        names = [name for name, live in self.group.members.items() if tp in live.partitions]
        return min(names, key=self._load)


class MemoryMember:
    """One member of a consumer group of a log in memory."""

    def __init__(self, log: Source, groups: Groups, group: str, member: str) -> None:
        self._log = log
        self._groups = groups
        self._group = group
        self._member = member
        self._partitions = groups.group.members[member].partitions
        self._epochs: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self._left = False

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
        return frozenset(self._epochs)

    def owns(self, tp: TopicPartition) -> bool:
        """Whether the partition is this member's since it polled it last."""
        owner = self._groups.group.owners.get(tp)
        return owner is not None and owner == (self._member, self._epochs.get(tp))

    async def poll(
        self, *, records_max: int = 500, timeout_s: float = 1.0, on_damage: OnDamage = log_damage
    ) -> list[Record]:
        """Return the next records of one owned partition, [] when none came within timeout_s."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            if self._left:
                raise Fenced(f"{self._member} has left {self._group}: join the group again")
            await self._take_up(self._groups.renew(self._member, self._partitions))
            records = self._take(records_max, on_damage)
            left_s = until - loop.time()
            if records or left_s <= 0:
                return records
            await self._log.wait(left_s)

    async def rewind(self, topic_partition: TopicPartition) -> None:
        """Let the next poll of this partition go on from its committed position."""
        if topic_partition in self._next:
            self._next[topic_partition] = await self._place(topic_partition)

    async def leave(self) -> None:
        """Give up all partitions at once."""
        self._left = True
        self._groups.leave(self._member)
        self._epochs.clear()
        self._log.wake()

    async def _take_up(self, epochs: dict[TopicPartition, int]) -> None:
        gained = [tp for tp in epochs if self._epochs.get(tp) != epochs[tp]]
        changed = gained or len(epochs) != len(self._epochs)
        self._next = {tp: at for tp, at in self._next.items() if tp in epochs}
        for tp in gained:
            self._next[tp] = await self._place(tp)
        self._epochs = epochs
        if changed:
            # Others may have gained what this member gave up.
            self._log.wake()

    async def _place(self, tp: TopicPartition) -> int:
        committed = self._groups.group.committed.get(tp)
        return committed if committed is not None else (await self._log.start([tp.topic]))[tp]

    def _take(self, records_max: int, on_damage: OnDamage) -> list[Record]:
        for tp in list(self._next):
            at = self._next.pop(tp)
            # Put back at the end: each partition gets its turn.
            try:
                records, at = self._log.take(tp, at, records_max, on_damage)
            finally:
                self._next[tp] = at
            if records:
                return records
        return []
