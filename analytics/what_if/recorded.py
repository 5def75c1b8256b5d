"""What the record says of each turn's decisions, held small: a partition of a million fits.

What was decided of a turn is one of few things, so each is kept once; ids are kept as their 16
bytes.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from madlog.processors.acting.writing import GUARD
from madlog.schemas import SchemaError
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.log import OnDamage

__all__ = ("Recorded", "RecordedDecisions", "Verdicts", "named", "read_verdicts")

_GUARD = GUARD.name
_RECORDS = 2_000
_NAMES = frozenset(
    (
        "event_id",
        "sender",
        "turn_id",
        "recipient",
        "mode",
        "tier",
        "route",
        "arguments",
        "model_id",
        "control_id",
        "max_error",
    )
)


class Recorded(NamedTuple):
    """A Decision as far as it is compared; `right` is what was judged of it, None: nothing."""

    recipient: str
    mode: str
    tier: str
    route: str
    arguments: str | None
    model_id: str
    control_id: str | None
    max_error: float
    right: bool | None


def _small(event_id: str) -> bytes:
    return bytes.fromhex(event_id.replace("-", ""))


class Verdicts:
    """Which decisions were judged right, which wrong: by the record, or live by an audit."""

    def __init__(self) -> None:
        self._right: set[bytes] = set()
        self._wrong: set[bytes] = set()

    def fold(self, event: LogEvent) -> None:
        """Take up an Outcome; the newest of a decision counts."""
        fields = event.fields
        if event.kind != "Outcome" or fields["about"] != "decision":
            return
        if fields["judged_by"] not in ("record", "audit"):
            return
        about = _small(fields["about_id"])
        right = fields["result"] == "success"
        (self._wrong if right else self._right).discard(about)
        (self._right if right else self._wrong).add(about)

    def of(self, decision_id: str) -> bool | None:
        """Return whether a decision was judged right, None where nobody judged."""
        about = _small(decision_id)
        return True if about in self._right else False if about in self._wrong else None


async def read_verdicts(log: EventLog, end: Vector, on_damage: OnDamage) -> Verdicts:
    """Read what was judged of decisions, up to `end`."""
    verdicts = Verdicts()
    async for events in log.read_topics(["mad.outcomes"], end=end, on_damage=on_damage):
        for event in events:
            verdicts.fold(event)
    return verdicts


class RecordedDecisions:
    """The decisions of turns, by the turn; those in shadow and what guards sent up are left out."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self._of: dict[bytes, tuple[Recorded, ...]] = {}
        self._once: dict[tuple[Recorded, ...], tuple[Recorded, ...]] = {}

    def fold(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take up a Decision."""
        if kind != "Decision" or fields["mode"] == "shadow":
            return
        if fields["sender"]["name"] == _GUARD:
            return
        cheap = fields["tier"] != "imperator"
        made = Recorded(
            fields["recipient"],
            fields["mode"],
            fields["tier"],
            fields["route"],
            fields["arguments"],
            fields["model_id"],
            fields["control_id"],
            fields["max_error"],
            self._verdicts.of(fields["event_id"]) if cheap else None,
        )
        key = _small(fields["turn_id"])
        before = self._of.get(key, ())
        # A decision that was appended twice is one.
        if any((one.recipient, one.mode) == (made.recipient, made.mode) for one in before):
            return
        both = (*before, made)
        self._of[key] = self._once.setdefault(both, both)

    def of(self, turn_id: str) -> tuple[Recorded, ...]:
        """Return what was decided of a turn, or of what a tool answered."""
        return self._of.get(_small(turn_id), ())

    async def read(
        self, log: EventLog, end: Vector, partitions: Collection[int], on_damage: OnDamage
    ) -> "RecordedDecisions":
        """Read the decisions of some partitions, and of each what is compared alone."""
        upto = Vector({tp: at for tp, at in end.items() if tp.partition in partitions})
        decode = log.schemas.decode_fields
        batches = log.log.read(Vector(), upto, records_max=_RECORDS, on_damage=on_damage)
        async for records in batches:
            for record in records:
                try:
                    self.fold(*decode(record.value, _NAMES))
                except SchemaError:
                    # Damaged, or of a schema that another process has registered since.
                    for event in await log.decode_all([record], on_damage):
                        self.fold(event.kind, event.fields)
        return self


def named(recorded: Sequence[Recorded], recipient: str, mode: str) -> Recorded | None:
    """Return what was decided for one recipient, None where the record has nothing."""
    for one in recorded:
        if one.recipient == recipient and one.mode == mode:
            return one
    return None
