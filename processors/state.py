"""The state of a processor for one input partition, and how it stands in its changelog topic.

Three layers: `base` is what the changelog holds up to `known_end`; the batch's changes lie over it
until their transaction is acknowledged; a step's own changes lie over those until it succeeds. So
a failed step or a lost transaction is undone by dropping a layer.

What comes from the changelog stays bytes until a step asks for it: a worker that takes over a
million keys needs few of them at once, and the others wait until it is there. JSON has no bytes.
"""

import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from madlog.processors.errors import ReservedKey
from madlog.topics import NewRecord, Record, TopicPartition

__all__ = ("POSITION_KEY", "PartitionState", "StepState")

# Changelog key of the offset up to which the state is folded: what is below was seen already.
POSITION_KEY = "@position"
_DELETED = object()


class StepState(MutableMapping[str, Any]):
    """The state as one attempt of one step sees it; `changes` holds what the step wrote."""

    __slots__ = ("_base", "_batch", "_shared", "changes")

    def __init__(
        self, base: dict[str, Any], batch: Mapping[str, Any], shared: Mapping[str, Any]
    ) -> None:
        self._base = base
        self._batch = batch
        self._shared = shared
        self.changes: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, `default` where there is none."""
        if key in self.changes:
            value = self.changes[key]
        elif key in self._batch:
            value = self._batch[key]
        elif key[:1] == "@":
            return self._shared.get(key, default)
        else:
            value = self._base.get(key, default)
            if type(value) is bytes:
                value = self._base[key] = json.loads(value)
            return value
        return default if value is _DELETED else value

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, _DELETED)
        if value is _DELETED:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if key[:1] == "@" or not key:
            raise ReservedKey(f"the step wrote state key {key!r}: keys with @ are the engine's")
        self.changes[key] = value

    def __delitem__(self, key: str) -> None:
        self[key]
        self.changes[key] = _DELETED

    def __iter__(self) -> Iterator[str]:
        for key in {**self._base, **self._batch, **self.changes}:
            if key in self:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key, _DELETED) is not _DELETED


class PartitionState:
    """The state for one input partition; `prefix` keeps two input topics' keys apart."""

    def __init__(self, changelog: TopicPartition, prefix: str = "") -> None:
        self.changelog = changelog
        self.position = -1
        self.known_end: int | None = None
        self.base: dict[str, Any] = {}
        self.batch: dict[str, Any] = {}
        self._prefix = prefix
        # Keys that the changelog ends with a late value of, which the next batch writes anew.
        self._overwritten: set[str] = set()
        self._late = False

    def overlay(self, shared: Mapping[str, Any]) -> StepState:
        """Return a layer for one attempt of one step."""
        return StepState(self.base, self.batch, shared)

    def values(self) -> dict[str, Any]:
        """Return all that is acknowledged, read."""
        return dict(StepState(self.base, {}, {}))

    def keep(self, step: StepState) -> None:
        """Take a succeeded step's changes into the batch."""
        self.batch.update(step.changes)

    def discard(self) -> None:
        """Drop the batch's changes: its transaction did not come about."""
        self.batch.clear()

    def accept(self, position: int) -> None:
        """Make the batch's changes part of the state: its transaction is acknowledged."""
        for key, value in self.batch.items():
            if value is _DELETED:
                self.base.pop(key, None)
            else:
                self.base[key] = value
        self.batch.clear()
        self._overwritten.clear()
        self.position = position

    def records(self, position: int) -> list[NewRecord]:
        """Return the changelog records of the position and then of the batch, each key once.

        The position comes first: by it a late write of a worker that was shut out is passed over.
        """
        again = {key: self.base.get(key, _DELETED) for key in self._overwritten}
        changes = {**again, **self.batch}
        return [
            self._record(POSITION_KEY, position),
            *(self._record(key, value) for key, value in changes.items()),
        ]

    def _record(self, key: str, value: Any) -> NewRecord:
        topic, partition = self.changelog
        data = b""
        if type(value) is bytes:
            data = value
        elif value is not _DELETED:
            data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        return NewRecord(topic, (self._prefix + key).encode(), data, partition=partition)

    def fold(self, records: Sequence[Record]) -> None:
        """Take up records of the changelog, in their order.

        Without transactions a worker that was shut out can still write what it had under way: its
        position is behind the state's, and so is all that follows it.
        """
        base, prefix = self.base, self._prefix
        skipped = len(prefix)
        for _, _, _, name, value, _, _ in records:
            key = name.decode()
            if skipped:
                if not key.startswith(prefix):
                    continue
                key = key[skipped:]
            if key == POSITION_KEY:
                at = int(value)
                self._late = at < self.position
                self.position = max(self.position, at)
            elif self._late:
                self._overwritten.add(key)
            elif value:
                base[key] = value
            else:
                base.pop(key, None)
        if records:
            self.known_end = records[-1].offset + 1
