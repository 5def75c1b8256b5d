"""The idempotency keys of whole partitions, for who must know more than their tails: an import.

They are kept in a temporary SQLite database, since a log may hold more of them than memory.
"""

from collections.abc import Callable

import apsw

from madlog.topics._kafka_client import Cluster
from madlog.topics._kafka_repeats import IDEMPOTENCY, Repeats
from madlog.topics._kafka_stream import look_back
from madlog.topics.positions import Position, TopicPartition

__all__ = ("Recalled",)

_SPAN = 20_000


class Recalled:
    """Keys of topics with their content's part of the header and the place of their first use."""

    def __init__(self) -> None:
        self._db = apsw.Connection("")  # a file without a name, gone when it is closed
        self._db.execute(
            'CREATE TABLE keys (topic, "key", content, partition, "offset", '
            'PRIMARY KEY (topic, "key")) WITHOUT ROWID'
        )

    async def read(
        self,
        cluster: Cluster,
        tp: TopicPartition,
        start: int,
        end: int,
        progress: Callable[[int], None],
    ) -> None:
        """Take up the keys between two offsets; `progress` is told how many records were read."""
        for at in range(start, end, _SPAN):
            found = await look_back(cluster, tp, at, min(at + _SPAN, end), Repeats())
            rows = [
                (tp.topic, key, content, tp.partition, offset)
                for offset, headers in found
                for name, value in headers
                if name == IDEMPOTENCY
                for key, _, content in [value.partition(b"-")]
            ]
            with self._db:
                self._db.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)", rows)
            progress(len(found))

    def find(self, topic: str, key: bytes) -> tuple[bytes, Position] | None:
        """Return a key's content and place, None where it was not found."""
        query = 'SELECT content, partition, "offset" FROM keys WHERE topic = ? AND "key" = ?'
        for content, partition, offset in self._db.execute(query, (topic, key)):
            return content, Position(topic, partition, offset)
        return None

    def close(self) -> None:
        """Forget everything."""
        self._db.close()
