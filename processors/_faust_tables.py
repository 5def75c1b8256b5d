"""The tables of live figures in a Faust app: minutes of madlog.processors.live, kept and spread.

Faust's tables keep them on disk or in memory, bring them back by their changelog, and keep standby
replicas. A cell says up to which offset it is folded, so an event that comes again is not counted
again, and whoever reads the changelog (madlog status) goes on in the log where a cell ends. Minutes
are part of the keys and are deleted by us: Faust's own windows rename the changelog, and delete
what is stale from the store without telling it.
"""

import asyncio
import fcntl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO, Any

from madlog.processors._faust_member import FaustCluster, new_app, stopped
from madlog.processors.live import (
    FOLDED,
    MINUTE_US,
    SOURCES,
    TABLE,
    Limits,
    LiveState,
    add,
    cell_of,
    key_of,
    live,
    place_of,
)
from madlog.processors.table_store import table_store
from madlog.topics import EventLog, TopicPartition, Vector
from madlog.topics.catalog import state

__all__ = ("FaustTables",)

_BATCH_MAX = 1_000
_ALERTS_EVERY_S = 60.0


class FaustTables:
    """Keeps the live figures of a log while it runs, and says what agent spends too much."""

    def __init__(
        self,
        log: EventLog,
        cluster: FaustCluster,
        *,
        window_s: float,
        limits: Limits,
        say: Callable[[str], None],
        group: str = TABLE,
    ) -> None:
        self._log = log
        self._window_us = int(window_s * 1e6)
        self._limits = limits
        self._say = say
        self._over: set[str] = set()
        self._next: dict[TopicPartition, int] = {}
        self._keys: dict[TopicPartition, dict[int, set[str]]] = {}
        self._scanned = False
        self._alerting: asyncio.Task[None] | None = None
        self._folder, self._lock = _own_folder(cluster.folder)
        self._app = new_app(
            replace(cluster, folder=self._folder),
            group,
            store=table_store().url,
            standby_replicas=cluster.standby_replicas,
        )
        changelog = self._app.topic(
            cluster.prefix + state(TABLE).name,
            key_type=str,
            key_serializer="json",
            value_serializer="json",
            partitions=state(TABLE).partitions,
            compacting=True,
            # As Faust's own: what it brings back is neither acknowledged nor declared.
            acks=False,
            internal=True,
            allow_empty=True,
        )
        self._table = self._app.Table(
            TABLE, key_type=str, partitions=state(TABLE).partitions, changelog_topic=changelog
        )
        self._names = {cluster.prefix + name: name for name in SOURCES}
        raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes}
        raw |= {"key_serializer": "raw", "value_serializer": "raw"}
        self._app.agent(self._app.topic(*self._names, **raw), name="live")(self._listen)
        # Signals hold their receivers weakly.
        self._receiver = self._moved
        self._app.on_partitions_assigned.connect(self._receiver)

    async def start(self) -> None:
        """Start the app; what goes wrong with it stops nothing else and is said."""
        await self._log.ensure_topics([*SOURCES, state(TABLE).name])
        try:
            await self._app.start()
        except Exception as error:
            self._say(f"live tables: not kept, since Faust did not start ({error})")
            return
        self._alerting = asyncio.create_task(self._alert())

    async def stop(self) -> None:
        """Stop the app and let go of its folder."""
        if self._alerting is not None:
            self._alerting.cancel()
            await asyncio.wait([self._alerting])
        await stopped(self._app)
        self._lock.close()

    def positions(self) -> Vector:
        """Return up to where the tables are folded."""
        return Vector(self._next)

    async def _moved(self, app: Any, assigned: Any, **_: Any) -> None:
        self._scanned = False

    async def _listen(self, stream: Any) -> None:
        """Fold what came, as Faust's agent: a batch of a partition at a time."""
        async for event in stream.events():
            message = event.message
            tp = TopicPartition(self._names[message.topic], message.partition)
            after = message.offset + 1
            # The end of a transaction, which is no event, may be the last that stands there.
            more = after + 1 < self._app.consumer.highwater(message.tp)
            if more and after - self._next.get(tp, 0) < _BATCH_MAX:
                continue
            try:
                if not self._scanned:
                    await self._scan()
                await self._fold(tp, after)
            except Exception as error:
                # The agent goes on with the next that comes, from where its cells end.
                self._say(f"live tables: {tp} is behind ({error})")

    async def _scan(self) -> None:
        """Learn from the tables up to where each partition is folded, and which keys there are."""
        next_: dict[TopicPartition, int] = {}
        keys: dict[TopicPartition, dict[int, set[str]]] = {}
        for key, cell in self._table.items():
            tp, place = place_of(key)
            next_[tp] = max(next_.get(tp, 0), cell[FOLDED] + 1)
            keys.setdefault(tp, {}).setdefault(place.minute, set()).add(key)
        oldest = await self._log.log.at_time(SOURCES, self._since_us())
        self._next = {tp: max(at, next_.get(tp, 0)) for tp, at in oldest.items()}
        self._keys = keys
        self._scanned = True

    def _since_us(self) -> int:
        now_us = self._log.log.clock.now_us()
        return (now_us - self._window_us) // MINUTE_US * MINUTE_US

    async def _fold(self, tp: TopicPartition, after: int) -> None:
        """Fold a partition up to an offset; the stream's current event is of this partition."""
        start = self._next.get(tp, 0)
        if start >= after:
            return
        made = LiveState()
        last: dict[Any, int] = {}
        span = Vector({tp: start}), Vector({tp: after})
        async for events in self._log.read(*span, on_damage=lambda damage: None):
            made.fold(events)
            for event in events:
                found = cell_of(event)
                if found is not None:
                    last[found[0]] = event.record.offset
        keys = self._keys.setdefault(tp, {})
        for cell, amounts in made.cells.items():
            key = key_of(tp, cell)
            kept = dict(self._table.get(key) or {FOLDED: -1})
            add(kept, amounts)
            self._table[key] = {**kept, FOLDED: last[cell]}
            keys.setdefault(cell.minute, set()).add(key)
        self._next[tp] = after
        for minute in [one for one in keys if one < self._since_us() // MINUTE_US]:
            for key in keys.pop(minute):
                with suppress(KeyError):
                    del self._table[key]

    async def _alert(self) -> None:
        """Say once in a while which agents spend more than they may, each time anew."""
        while self._limits.usd is not None or self._limits.tokens is not None:
            since_us = self._since_us()
            now_us = self._log.log.clock.now_us()
            with suppress(Exception):  # the log is away for a while: the engine says so
                found = await live(self._log, since_us)
                minutes = (now_us - since_us) / MINUTE_US
                rows = found.agents(now_us, minutes, self._limits)
                over = {row["name"]: row for row in rows if row["over"]}
                for name in sorted(over.keys() - self._over):
                    self._say(
                        f"spend of {name}: {over[name]['tokens']} tokens, "
                        f"{over[name]['cost_usd']} USD in {minutes:.0f} min, over its limit of "
                        f"{over[name]['over']}"
                    )
                self._over = set(over)
            await asyncio.sleep(_ALERTS_EVERY_S)


def _own_folder(folder: Path) -> tuple[Path, IO[str]]:
    """Return a folder that no other process uses now, and what holds it: RocksDB takes one each."""
    for number in count():
        own = folder / f"tables-{number}"
        own.mkdir(parents=True, exist_ok=True)
        lock = (own / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return own, lock
    raise AssertionError("count() does not end")
