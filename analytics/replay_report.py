"""What a replay tells: its progress while it runs, and at its end what was equal and what not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from madlog.topics import Clock, Vector

__all__ = (
    "Compared",
    "Difference",
    "Meter",
    "OnProgress",
    "Progress",
    "RebuildReport",
    "first_difference",
)

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: events folded of `total`, where, and at what speed."""

    events: int
    total: int
    position: str
    events_per_s: float

    @property
    def percent(self) -> float:
        """The share of the events that were folded, 0 to 100."""
        return 100.0 * self.events / self.total if self.total else 100.0

    @property
    def seconds_left(self) -> float:
        """How long the rest takes at this speed."""
        return max(0, self.total - self.events) / max(self.events_per_s, 1e-9)


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a projection is not what the log says: both values as text."""

    projection: str
    key: str
    live: str
    rebuilt: str

    def __str__(self) -> str:
        return f"{self.projection}: {self.key} is {self.live}, and {self.rebuilt} by the log"


@dataclass(frozen=True, slots=True)
class Compared:
    """One projection: its digest from zero, the live one (None: there was none), positions."""

    projection: str
    digest: str
    live: str | None
    positions: Vector
    note: str = ""

    @property
    def equal(self) -> bool | None:
        """Whether both digests are equal; None where there is no live one to compare."""
        return None if self.live is None else self.live == self.digest


@dataclass
class RebuildReport:
    """What a rebuild found."""

    positions: Vector
    events: int = 0
    seconds: float = 0.0
    projections: list[Compared] = field(default_factory=list)
    difference: Difference | None = None
    damaged: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when nothing differs, else 1."""
        return 1 if self.difference else 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        found = self.difference
        return {
            "equal": found is None,
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "events_per_s": round(self.events / self.seconds) if self.seconds else None,
            "positions": str(self.positions),
            "projections": [
                {
                    "projection": one.projection,
                    "digest": one.digest,
                    "live": one.live,
                    "equal": one.equal,
                    "positions": str(one.positions),
                    "note": one.note,
                }
                for one in self.projections
            ],
            "difference": None
            if found is None
            else {
                "projection": found.projection,
                "key": found.key,
                "live": found.live,
                "rebuilt": found.rebuilt,
            },
            "damaged": self.damaged,
        }


class Meter:
    """Counts what is folded and tells a listener after each batch."""

    def __init__(self, clock: Clock, listener: OnProgress | None) -> None:
        self._clock = clock
        self._listener = listener
        self._began = clock.monotonic_ns()
        self.events = 0
        self.total = 0
        # What a replay that goes on had done before: it says nothing about the speed now.
        self.before = 0

    @property
    def seconds(self) -> float:
        """The time since it was made."""
        return (self._clock.monotonic_ns() - self._began) / 1e9

    def batch(self, count: int, position: str) -> None:
        """Count a batch whose last event stands at `position`."""
        self.events += count
        if self._listener is not None:
            speed = (self.events - self.before) / max(self.seconds, 1e-9)
            self._listener(Progress(self.events, self.total, position, speed))


def first_difference(projection: str, live: Any, rebuilt: Any) -> Difference | None:
    """Return the first place, in the order of the keys, where two JSON states differ."""
    path: list[str] = []
    while isinstance(live, dict) and isinstance(rebuilt, dict):
        keys = sorted(live.keys() | rebuilt.keys())
        key = next((key for key in keys if live.get(key, path) != rebuilt.get(key, path)), None)
        if key is None:
            return None
        path.append(key)
        if key not in live or key not in rebuilt:
            live, rebuilt = live.get(key, "nothing"), rebuilt.get(key, "nothing")
            break
        live, rebuilt = live[key], rebuilt[key]
    if live == rebuilt and path == []:
        return None
    return Difference(projection, "/".join(path), str(live)[:_SHOWN], str(rebuilt)[:_SHOWN])
