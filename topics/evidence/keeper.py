"""Keeps the trees of a log up to its end, and signs what they hold: a CheckpointSigned each.

A record's index in its tree is its rank among the partition's records, never its offset, so a tree
comes out the same from a log with gaps and after a move to another backend. A tree ends before a
damaged record: what that was is not known any more.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from madlog.schemas import CheckpointSigned, Sender, new_event_id
from madlog.topics.catalog import kept_for_ever, topic
from madlog.topics.errors import UnknownTopic
from madlog.topics.event_log import EventLog
from madlog.topics.evidence.errors import EvidenceBroken
from madlog.topics.evidence.leaves import record_hash
from madlog.topics.evidence.notes import (
    Checkpoint,
    SigningKey,
    checkpoint_of,
    origin_of,
)
from madlog.topics.evidence.tiles import Tiles, Tree
from madlog.topics.log import Damage, Log, OnDamage, Record, log_damage
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("CHECKPOINTS_TOPIC", "Keeper", "Kept", "covered_topics")

CHECKPOINTS_TOPIC = "mad.system"
_KIND = "CheckpointSigned"
_SENDER = Sender(name="evidence", kind="system")
# Hashes held before they are written: 5 MB, and a commit for some 60 ms of hashing.
_PENDING_MAX = 16_384


async def covered_topics(log: Log) -> list[str]:
    """Return the topics of a log whose records are hashed: those that are kept for ever."""
    known = []
    for name in await log.topics():
        try:
            known.append(topic(name))
        except UnknownTopic:  # a newer program's: how long it is kept is not known here
            continue
    return sorted(kept_for_ever(known))


class Kept(NamedTuple):
    """What a run did: records hashed, checkpoints signed, what keeps trees from being signed."""

    records: int
    signed: list[CheckpointSigned]
    broken: list[str]


@dataclass(slots=True)
class _Growing:
    tree: Tree
    leaves: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    # The hash and offset of its last leaf, until that was read again; where another was found.
    last: tuple[bytes, int] | None = None
    strange: int | None = None
    # Where the tree must end: a damaged record, or 0 when another process is at work on it.
    stop: int | None = None


class Keeper:
    """Keeps the trees of one log in `tiles`; without a key nothing is signed."""

    def __init__(self, log: EventLog, tiles: Tiles, key: SigningKey | None) -> None:
        self._log = log
        self._tiles = tiles
        self._key = key
        self._on_log: dict[TopicPartition, tuple[Checkpoint, str]] | None = None
        # Trees whose records are not there any more, and why: nothing of them is signed.
        self._gone: dict[TopicPartition, str] = {}

    async def run(
        self,
        progress: Callable[[int], None] | None = None,
        on_damage: OnDamage = log_damage,
    ) -> Kept:
        """Hash what was appended since, and sign each tree that has grown.

        A tree that is not what was signed before is not signed again: `broken` says so.
        """
        records = await self.grow(progress, on_damage)
        signed, broken = await self.sign() if self._key is not None else ([], [])
        return Kept(records, signed, broken)

    async def grow(
        self,
        progress: Callable[[int], None] | None = None,
        on_damage: OnDamage = log_damage,
    ) -> int:
        """Hash the records that were appended since; returns how many."""
        log = self._log.log
        # The trees before the end: another process may be at work on both.
        trees = self._tiles.trees()
        end = await log.end(await covered_topics(log))
        growing = {tp: _Growing(trees.get(tp, Tree(0, 0, None))) for tp in end}
        self._gone = {
            tp: f"ends at @{end[tp]}, and records up to @{one.tree.next_offset - 1} were hashed"
            for tp, one in growing.items()
            if end[tp] < one.tree.next_offset
        }
        start = {tp: one.tree.next_offset for tp, one in growing.items()}
        for tp, one in growing.items():
            if one.tree.size and end[tp] > start[tp]:
                # Read the last one again: what follows is to follow what was hashed.
                one.last = next(self._tiles.leaves(tp, one.tree.size - 1))
                start[tp] = one.last[1]
        count = waiting = 0

        def stop_at(damage: Damage) -> None:
            one = growing.get(TopicPartition(damage.topic, damage.partition))
            if one is not None and damage.offset_end > one.tree.next_offset:
                if one.stop is None:
                    one.stop = max(damage.offset, one.tree.next_offset)
                on_damage(damage)

        async for records in log.read(Vector(start), end, on_damage=stop_at):
            tp = TopicPartition(records[0].topic, records[0].partition)
            taken = _take(growing[tp], records)
            if growing[tp].strange is not None:
                at = growing[tp].strange
                self._gone[tp] = f"holds another record at @{at} than was hashed there"
            count, waiting = count + taken, waiting + taken
            if waiting >= _PENDING_MAX:
                for each, one in growing.items():
                    await self._write(each, one)
                waiting = 0
            if progress is not None:
                progress(count)
        for each, one in growing.items():
            await self._write(each, one, end[each])
        return count

    async def _write(self, tp: TopicPartition, one: _Growing, end: int | None = None) -> None:
        """Put what a tree has grown by into the tiles; `end` where all below it was read."""
        if one.stop == 0 and not one.offsets:
            return
        if one.stop is not None:
            end = one.stop
        elif end is None:
            end = one.offsets[-1] + 1 if one.offsets else one.tree.next_offset
        if end <= one.tree.next_offset:
            return
        expected = one.tree.size + len(one.leaves)
        one.tree = await asyncio.to_thread(
            self._tiles.extend, tp, one.tree, one.leaves, one.offsets, end
        )
        if (one.tree.size, one.tree.next_offset) != (expected, end):
            one.stop = 0
        one.leaves, one.offsets = [], []

    async def sign(self) -> tuple[list[CheckpointSigned], list[str]]:
        """Sign each tree that has grown since its newest checkpoint, and append what was signed.

        Returns the events, and a sentence for each tree that is not what was signed before.
        """
        key = self._key
        if key is None:
            return [], []
        events: list[CheckpointSigned] = []
        broken: list[str] = []
        now_us = self._log.log.clock.now_us()
        for tp, tree in sorted(self._tiles.trees().items()):
            try:
                checkpoint = await self._next_checkpoint(key, tp, tree)
            except EvidenceBroken as error:
                broken.append(str(error))
                continue
            if checkpoint is None:
                continue
            note = checkpoint.signed(key)
            events.append(
                CheckpointSigned(
                    event_id=new_event_id(now_us, hashlib.sha256(note.encode()).digest()),
                    conversation_id=CHECKPOINTS_TOPIC,
                    sender=_SENDER,
                    occurred_at=now_us,
                    topic=tp.topic,
                    partition=tp.partition,
                    offset=tree.next_offset,
                    size=checkpoint.size,
                    root_sha256=checkpoint.root.hex(),
                    origin=checkpoint.origin,
                    note=note,
                    verifier_key=str(key.verifier.of_tree(tp)),
                )
            )
        if events:
            await self._log.append(events)
        for event in events:
            tp = TopicPartition(event.topic, event.partition)
            await asyncio.to_thread(self._tiles.mark_signed, tp, event.note)
        return events, broken

    async def _next_checkpoint(
        self, key: SigningKey, tp: TopicPartition, tree: Tree
    ) -> Checkpoint | None:
        """Return what is to be signed of a tree, None for nothing; raises EvidenceBroken."""
        if tp in self._gone:
            raise EvidenceBroken(
                f"{tp} {self._gone[tp]}: it was altered, or an older copy of the log was put in "
                "its place; nothing of it is signed until this is mended: madlog check"
            )
        before = await self._newest(key, tp, tree)
        now = Checkpoint(origin_of(key.name, tp), tree.size, self._tiles.root(tp, tree.size))
        if before is None:
            return now if tree.size else None
        if before.size > tree.size:
            raise EvidenceBroken(
                f"{tp} holds {tree.size} records and {before.size} were signed: records are "
                "missing, or an older copy of the log was put in its place; nothing is signed "
                "until this is mended: madlog check"
            )
        if self._tiles.root(tp, before.size) != before.root:
            raise EvidenceBroken(
                f"the first {before.size} records of {tp} are not those that were signed; nothing "
                "is signed until this is mended: madlog check says where"
            )
        return now if tree.size > before.size else None

    async def _newest(self, key: SigningKey, tp: TopicPartition, tree: Tree) -> Checkpoint | None:
        """Return the newest checkpoint of a tree that this key signed.

        One that only the log holds, since the hashes were made anew, is put beside them again.
        """
        verifier = key.verifier
        found = None if tree.signed is None else checkpoint_of(tree.signed, verifier.of_tree(tp))
        if found is not None:
            return found
        if self._on_log is None:
            self._on_log = {}
            async for events in self._log.read_topics([CHECKPOINTS_TOPIC]):
                for event in events:
                    if event.kind != _KIND:
                        continue
                    fields = event.fields
                    signed_of = TopicPartition(fields["topic"], fields["partition"])
                    one = checkpoint_of(fields["note"], verifier.of_tree(signed_of))
                    before = self._on_log.get(signed_of)
                    # Not the last: who can append can append an old one again.
                    if one is not None and (before is None or before[0].size <= one.size):
                        self._on_log[signed_of] = (one, fields["note"])
        if tp not in self._on_log:
            return None
        found, note = self._on_log[tp]
        await asyncio.to_thread(self._tiles.mark_signed, tp, note)
        return found


def _take(one: _Growing, records: list[Record]) -> int:
    """Hash those of a partition's next records that its tree can take; returns how many."""
    if one.last is not None:
        (leaf, offset), one.last = one.last, None
        if records[0].offset == offset and record_hash(records[0]) != leaf:
            one.strange, one.stop = offset, 0
        since = one.tree.next_offset
        records = [record for record in records if record.offset >= since]
    if one.stop is not None:
        records = [record for record in records if record.offset < one.stop]
    one.leaves += [record_hash(record) for record in records]
    one.offsets += [record.offset for record in records]
    return len(records)
