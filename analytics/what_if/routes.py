"""Reads the log from its start and decides it again, partition by partition; can be stopped.

In memory are the router's state of one partition, its recorded decisions held small, and the
conversations that were brought in and are not complete yet: those are decided when their last event
is read, by which time nothing of them is to come.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from madlog.analytics.replay_report import Meter
from madlog.analytics.what_if.deciding import Again
from madlog.analytics.what_if.errors import BadSnapshot
from madlog.analytics.what_if.recorded import RecordedDecisions, read_verdicts
from madlog.analytics.what_if.rows import Rows
from madlog.analytics.what_if.snapshot import Progressed, store
from madlog.analytics.what_if.tally import Tally
from madlog.processors.retrospect import Conversation
from madlog.processors.router import is_imported
from madlog.topics import EventLog, LogEvent, Record, TopicPartition, Vector
from madlog.topics.log import OnDamage

__all__ = ("Replay",)

_TOPIC, _DECISIONS = "mad.conversations", "mad.decisions"
_RECORDS = 1000


@dataclass(frozen=True)
class Replay:
    """One replay of a range: what decides, where what differs goes, and where it can be stopped."""

    log: EventLog
    again: Again
    rows: Rows
    meter: Meter
    on_damage: OnDamage
    snapshot: Path | None = None
    question: str = ""

    async def run(self, now: Progressed) -> Tally:
        """Go on from where a replay is to the range's end; stopped, it leaves a snapshot."""
        tally = Tally(now.tally)
        now.tally = tally.state
        try:
            await self._check(now)
            verdicts = await read_verdicts(self.log, now.read_to, self.on_damage)
            counts = await self.log.log.topics()
            # In one partition of both topics is what is about one conversation, unless a topic
            # was given other partitions than the catalogue's.
            apart = counts.get(_TOPIC) == counts.get(_DECISIONS)
            decisions = now.read_to.only([_DECISIONS])
            everything = {tp.partition for tp in decisions}
            recorded = RecordedDecisions(verdicts)
            if not apart:
                await recorded.read(self.log, decisions, everything, self.on_damage)
            for tp in sorted(now.where.end.only([_TOPIC])):
                if tp.partition in now.done:
                    continue
                if apart:
                    recorded = RecordedDecisions(verdicts)
                    await recorded.read(self.log, decisions, [tp.partition], self.on_damage)
                await _Partition(self, tp, recorded, now, tally).run()
                now.done.append(tp.partition)
                now.partition, now.offset, now.state, now.held = None, 0, {}, {}
        except asyncio.CancelledError:
            if self.snapshot is not None:
                now.rows = self.rows.state()
                store(self.snapshot, self.question, now)
            raise
        return tally

    async def _check(self, now: Progressed) -> None:
        """Raise BadSnapshot where the log is not the one that the snapshot was made of."""
        if now.last is None:
            return
        partition, offset, digest = now.last
        tp = TopicPartition(_TOPIC, partition)
        span = Vector({tp: offset}), Vector({tp: offset + 1})
        found = None
        if offset < (await self.log.log.end([_TOPIC])).get(tp, 0):
            async for records in self.log.log.read(*span, on_damage=self.on_damage):
                found = hashlib.sha256(records[0].value).hexdigest()
        if found != digest:
            raise BadSnapshot(
                f"{self.snapshot} was left by a replay of another log: {tp}@{offset} is not what "
                "was read there; remove it to begin anew"
            )


class _Partition:
    """The replay of one partition."""

    def __init__(
        self,
        replay: Replay,
        tp: TopicPartition,
        recorded: RecordedDecisions,
        now: Progressed,
        tally: Tally,
    ) -> None:
        self._replay = replay
        self._tp = tp
        self._recorded = recorded
        self._now = now
        self._tally = tally
        self._since = now.where.start.get(tp, 0)
        self._held: dict[str, list[LogEvent]] = {}
        # Where each conversation has its last record; read when it is first of use.
        self._last: Mapping[bytes, int] | None = None

    async def run(self) -> None:
        """Replay it, from where a stopped replay was."""
        now, log = self._now, self._replay.log
        if now.partition == self._tp.partition and now.offset:
            await self._hold_again()
        else:
            now.partition, now.offset = self._tp.partition, 0
        if self._since:
            self._last = await self._ends()
        async for records in self._records():
            events = await log.decode_all(self._wanted(records), self._replay.on_damage)
            if self._last is None and any(is_imported(event.fields) for event in events):
                self._last = await self._ends()
            self._batch(records, events)
            # A stop is heard here, also where the log answers without a pause.
            await asyncio.sleep(0)
        for name in list(self._held):
            self._past(name)

    def _records(self) -> AsyncIterator[list[Record]]:
        end = Vector({self._tp: self._now.where.end[self._tp]})
        start = Vector({self._tp: self._now.offset}) if self._now.offset else Vector()
        log = self._replay.log.log
        return log.read(start, end, records_max=_RECORDS, on_damage=self._replay.on_damage)

    def _wanted(self, records: list[Record]) -> list[Record]:
        """Leave out what lies before the range, of conversations that ended before it."""
        since, last = self._since, self._last
        if not since or last is None or records[0].offset >= since:
            return records
        return [one for one in records if one.offset >= since or last.get(one.key, 0) >= since]

    def _batch(self, records: Sequence[Record], events: Sequence[LogEvent]) -> None:
        """Replay a batch; without a pause in it, so that a stop finds it done or not begun."""
        now, again, recorded = self._now, self._replay.again, self._recorded
        since, held, last = self._since, self._held, self._last
        for event in events:
            fields, offset = event.fields, event.record.offset
            for decided in again.live(now.state, event, recorded):
                if offset >= since:
                    self._tally.add(decided, event.position, self._replay.rows.add)
            name = fields["conversation_id"]
            if name not in held and not is_imported(fields):
                continue
            held.setdefault(name, []).append(event)
            now.held.setdefault(name, offset)
            if last is not None and offset >= last.get(event.record.key, -1):
                self._past(name)
        newest = records[-1]
        now.offset = newest.offset + 1
        now.last = newest.partition, newest.offset, hashlib.sha256(newest.value).hexdigest()
        now.events += len(records)
        self._replay.meter.batch(len(records), str(newest.position))

    def _past(self, name: str) -> None:
        """Decide a conversation that was brought in, now that it is complete."""
        events = self._held.pop(name)
        del self._now.held[name]
        places = {event.event_id: event for event in events}
        conversation = Conversation(name, tuple(events))
        for decided in self._replay.again.past(conversation, self._recorded):
            place = places[decided.made.turn_id]
            if place.record.offset >= self._since:
                self._tally.add(decided, place.position, self._replay.rows.add)

    async def _ends(self) -> Mapping[bytes, int]:
        """Return the offset of each conversation's last record in the range; nothing is decoded."""
        last: dict[bytes, int] = {}
        end = Vector({self._tp: self._now.where.end[self._tp]})
        # Damage is named when the records themselves are read.
        batches = self._replay.log.log.read(Vector(), end, on_damage=lambda damage: None)
        async for records in batches:
            for record in records:
                last[record.key] = record.offset
        return last

    async def _hold_again(self) -> None:
        """Read again what was held of conversations that were not complete."""
        now = self._now
        self._last = await self._ends() if now.held else None
        if not now.held:
            return
        span = Vector({self._tp: min(now.held.values())}), Vector({self._tp: now.offset})
        log, on_damage = self._replay.log, self._replay.on_damage
        async for events in log.read(*span, on_damage=on_damage):
            for event in events:
                first = now.held.get(event.fields["conversation_id"])
                if first is not None and event.record.offset >= first:
                    self._held.setdefault(event.fields["conversation_id"], []).append(event)
