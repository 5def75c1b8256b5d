"""An open embedded log, as its parts share it: the writer, the readers, who waits, the topics."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import apsw

from madlog.topics._embedded_reading import PartitionPlace, Readers
from madlog.topics._embedded_storage import Opening, StoredTopic, fetch, stored_topics
from madlog.topics._embedded_wakeups import Wakeups
from madlog.topics._embedded_writer import Writer
from madlog.topics.clock import Clock
from madlog.topics.errors import LogUnavailable, UnknownTopic
from madlog.topics.positions import TopicPartition

__all__ = ("OpenFile",)


@dataclass(slots=True, eq=False)
class OpenFile:
    """What one EmbeddedLog has open."""

    opening: Opening
    clock: Clock
    random: Callable[[int], bytes]
    session_timeout_s: float
    pid: int
    wakeups: Wakeups
    readers: Readers
    # Notices commits of other processes; used by the event loop's thread only.
    watch: apsw.Connection
    written: Writer | None = None
    watched_version: int = -1
    closed: bool = False
    topics: dict[str, StoredTopic] = field(default_factory=dict)
    members: dict[tuple[str, str], object] = field(default_factory=dict)

    @property
    def writer(self) -> Writer:
        """The writer; raises LogUnavailable where the log is open for reading only."""
        if self.written is None:
            raise LogUnavailable(
                f"the log {self.opening.path.parent} is open for reading only: open it for writing"
            )
        return self.written

    async def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until something was committed after `seen`, the wake-ups' version."""
        return await self.wakeups.wait(seen, timeout_s, self._changed)

    def stop_watching(self) -> None:
        """Wake all that wait, and notice no more commits."""
        self.closed = True
        self.watch.close()
        self.wakeups.notify()

    def _changed(self) -> bool:
        if self.closed:
            return True
        try:
            [(version,)] = fetch(self.watch, "PRAGMA data_version")
        except apsw.Error:  # whoever waits reads next, and is told what is wrong
            return True
        changed = bool(version != self.watched_version)
        self.watched_version = version
        return changed

    async def learn_topics(self) -> dict[str, StoredTopic]:
        """Read the topics again, and return them."""
        self.topics = await self.readers.run(stored_topics)
        return self.topics

    async def topic(self, name: str) -> StoredTopic:
        """Return a topic of this log; raises UnknownTopic."""
        found = self.topics.get(name) or (await self.learn_topics()).get(name)
        if found is None:
            raise UnknownTopic(
                f"the log holds no topic {name[:80]!r}: `madlog topics list` shows those there are"
            )
        return found

    async def check_topics(self, names: Collection[str]) -> None:
        """Raise UnknownTopic for the first name that is not a topic of this log."""
        for name in names:
            await self.topic(name)

    def place(
        self, topic_partition: TopicPartition, connection: apsw.Connection | None = None
    ) -> PartitionPlace:
        """Return where a partition's records are; raises UnknownTopic."""
        topic, partition = topic_partition
        stored = self.topics.get(topic)
        if stored is None and connection is not None:
            stored = stored_topics(connection).get(topic)
        if stored is None:
            raise UnknownTopic(
                f"the log holds no topic {topic[:80]!r}: `madlog topics list` shows those there are"
            )
        if not 0 <= partition < len(stored.ids):
            raise UnknownTopic(
                f"{topic}/{partition} is not a partition: {topic} has {stored.partitions} of "
                "them, counted from 0"
            )
        return PartitionPlace(stored.ids[partition], topic, partition, stored.compacted)
