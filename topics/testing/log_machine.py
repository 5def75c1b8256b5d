"""A log against a plain list: random appends, transactions, reads and reopenings must agree."""

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from madlog.topics.catalog import partition_for
from madlog.topics.errors import IdempotencyConflict, PositionConflict
from madlog.topics.log import Commit, ConditionalAppend, Log, Membership, NewRecord, Receipt
from madlog.topics.positions import Position, TopicPartition, Vector
from madlog.topics.testing.clocks import ManualClock
from madlog.topics.testing.harness import FOR_EVER, Harness, new, read_all

__all__ = ("MACHINE_SETTINGS", "LogMachine")

MACHINE_SETTINGS = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

_T = TypeVar("_T")
_GROUP = "workers"
_RECORD = st.builds(
    new,
    # Few values, so that a key comes again with equal content as well as with other.
    st.sampled_from([b"", b"x"]) | st.binary(max_size=6),
    key=st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
    once=st.none() | st.sampled_from(["one", "two", "three"]),
    headers=st.sampled_from([(), (("kind", b"Turn"),), (("a", b""), ("a", b"\0"))]),
)
_BATCH = st.lists(_RECORD, max_size=5)
_PARTITIONS = [TopicPartition(FOR_EVER.name, i) for i in range(FOR_EVER.partitions)]


@dataclass
class _Model:
    """What the log should hold."""

    records: dict[TopicPartition, list[tuple[int, NewRecord]]] = field(
        default_factory=lambda: {tp: [] for tp in _PARTITIONS}
    )
    keys: dict[str, tuple[bytes, Position]] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)

    def conflict(self, batch: list[NewRecord]) -> bool:
        content = {key: first for key, (first, _) in self.keys.items()}
        ids = [record.idempotency for record in batch if record.idempotency]
        return any(content.setdefault(one.key, one.content) != one.content for one in ids)

    def append(self, batch: list[NewRecord], receipts: list[Receipt], gapless: bool) -> None:
        """Take up a batch where its receipts say that it stands, if they can be right."""
        assert len(receipts) == len(batch)
        for record, receipt in zip(batch, receipts, strict=True):
            once = record.idempotency
            if once and once.key in self.keys:
                assert receipt == Receipt(self.keys[once.key][1], repeated=True)
                continue
            tp = TopicPartition(record.topic, partition_for(record.key, FOR_EVER.partitions))
            end, offset = self.ends()[tp], receipt.position.offset
            assert offset == end if gapless else offset >= end
            assert receipt == Receipt(Position(*tp, offset))
            self.records[tp].append((offset, record))
            if once:
                self.keys[once.key] = (once.content, receipt.position)

    def ends(self) -> dict[TopicPartition, int]:
        return {tp: records[-1][0] + 1 if records else 0 for tp, records in self.records.items()}

    def waiting(self, since: dict[TopicPartition, int]) -> int:
        """Return how many records stand at or after a position."""
        return sum(
            offset >= since.get(tp, 0)
            for tp, records in self.records.items()
            for offset, _ in records
        )


class LogMachine(RuleBasedStateMachine):
    """Subclass with `suite` set to the backend's LogTests, and collect its TestCase."""

    suite: ClassVar[type[Harness]]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory()
        self._harness = self.suite()
        self._clock = ManualClock()
        self._model = _Model()
        self._member: Membership | None = None
        self._polled: dict[TopicPartition, int] = {}
        folder = Path(self._folder.name) / "log"
        self._log: Log = self._run(self._harness.make_log(folder, self._clock))
        self._run(self._log.create_topic(FOR_EVER))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)

    @rule(batch=_BATCH)
    def append(self, batch: list[NewRecord]) -> None:
        """Append; a conflict leaves nothing."""
        self._write(batch, self._log.append(batch))

    @rule(batch=_BATCH)
    def transact(self, batch: list[NewRecord]) -> None:
        """Append in a transaction that commits nothing."""
        self._write(batch, self._log.transact(batch))

    @rule(batch=_BATCH, late=st.booleans())
    def append_at(self, batch: list[NewRecord], late: bool) -> None:
        """Append at the end as it is, or at one that it has passed."""
        if not isinstance(self._log, ConditionalAppend) or not batch:
            return
        ends = self._model.ends()
        tp = TopicPartition(batch[0].topic, partition_for(batch[0].key, FOR_EVER.partitions))
        if not late or not ends[tp]:
            self._write(batch, self._log.append_at(batch, Vector(ends)))
        elif not any(record.idempotency for record in batch):
            self._refused(PositionConflict, self._log.append_at(batch, Vector({tp: ends[tp] - 1})))

    @rule(batch=_BATCH, records_max=st.integers(1, 4))
    def work(self, batch: list[NewRecord], records_max: int) -> None:
        """Poll as a group's only member, and commit what was polled with some outputs."""
        if self._member is None:
            self._member = self._run(self._log.join(_GROUP, [FOR_EVER.name]))
            self._polled = dict(self._model.committed)
        timeout_s = self._harness.poll_s if self._harness.poll_s > 0.01 else 0
        if self._model.waiting(self._polled):
            timeout_s = self._harness.patience_s  # it ends as soon as anything comes
        polled = self._run(self._member.poll(records_max=records_max, timeout_s=timeout_s))
        done: dict[TopicPartition, int] = {}
        for record in polled:
            tp = record.position.topic_partition
            at = self._polled.get(tp, 0)
            due = next((o, r) for o, r in self._model.records[tp] if o >= at)
            assert (record.offset, record.value) == (due[0], due[1].value)
            done[tp] = self._polled[tp] = record.offset + 1
        assert polled or not self._model.waiting(self._polled)
        commit = Commit(self._member, Vector(done))
        if self._write(batch, self._log.transact(batch, commit)):
            self._model.committed.update(done)
        else:
            for tp in done:
                self._run(self._member.rewind(tp))
                self._polled[tp] = self._model.committed.get(tp, 0)

    @rule(data=st.data(), records_max=st.integers(1, 7))
    def read(self, data: st.DataObject, records_max: int) -> None:
        """Read between two vectors, also past the end."""
        # Mostly within what a run appends, where an end that is off by one shows.
        offsets = st.integers(0, 3) | st.integers(0, 12)
        places = st.dictionaries(st.sampled_from(_PARTITIONS), offsets)
        start, end = data.draw(places), data.draw(places)
        found: dict[TopicPartition, list[tuple[int, bytes, bytes]]] = {}
        read = read_all(self._log, start=Vector(start), end=Vector(end), records_max=records_max)
        for record in self._run(read):
            tp = record.position.topic_partition
            found.setdefault(tp, []).append((record.offset, record.key, record.value))
        wanted = {
            tp: [
                (offset, record.key, record.value)
                for offset, record in self._model.records[tp]
                if start.get(tp, 0) <= offset < at
            ]
            for tp, at in end.items()
        }
        assert found == {tp: some for tp, some in wanted.items() if some}

    @rule()
    def reopen(self) -> None:
        """Close the log and open it again."""
        if self._member is not None:
            self._run(self._member.leave())
            self._member = None
        self._log = self._run(self._harness.reopen(self._log))

    @invariant()
    def ends_and_commits_agree(self) -> None:
        """The log ends where the list ends, and the group stands where it committed."""
        ends = dict(self._run(self._log.end([FOR_EVER.name])))
        due = self._model.ends()
        assert ends == due if self._harness.gapless else all(ends[tp] >= due[tp] for tp in due)
        assert dict(self._run(self._log.committed(_GROUP))) == self._model.committed

    def teardown(self) -> None:
        """Compare everything once more, then let go."""
        try:
            found = {
                r.position: (r.key, r.value, r.headers) for r in self._run(read_all(self._log))
            }
            assert found == {
                Position(*tp, offset): (record.key, record.value, record.headers)
                for tp, records in self._model.records.items()
                for offset, record in records
            }
        finally:
            self._run(self._log.close())
            self._runner.close()
            self._folder.cleanup()

    def _write(self, batch: list[NewRecord], writing: Coroutine[Any, Any, list[Receipt]]) -> bool:
        if self._model.conflict(batch):
            self._refused(IdempotencyConflict, writing)
            return False
        self._model.append(batch, self._run(writing), self._harness.gapless)
        return True

    def _refused(self, error: type[Exception], writing: Coroutine[Any, Any, list[Receipt]]) -> None:
        try:
            receipts = self._run(writing)
        except error:
            return
        raise AssertionError(f"{error.__name__} was due, not {receipts}")


LogMachine.TestCase.settings = MACHINE_SETTINGS
