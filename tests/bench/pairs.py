"""What a benchmark found, as rows for people and programs."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.broker import Sample

__all__ = ("Pair", "by_turns")


@dataclass(slots=True)
class Pair:
    """Rounds of ours and of a baseline, run by turns; `reach` None: told, not aimed at.

    Of rates a ratio of at least `reach` is wanted; of a `figure`, which is a time in ms, at most.
    """

    what: str
    reach: float | None = None
    figure: str | None = None
    ours: list[Sample] = field(default_factory=list)
    base: list[Sample] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return medians, the median and spread of the rounds' ratios, µs of CPU an event."""
        ours, base = ([self._value(one) for one in side] for side in (self.ours, self.base))
        ratios = [a / b for a, b in zip(ours, base, strict=True)]
        ratio = statistics.median(ratios)
        time = self.figure is not None
        met = None
        if self.reach is not None:
            met = ratio <= self.reach if time else ratio >= self.reach
        return {
            "what": self.what,
            "ours": round(statistics.median(ours), 2 if time else None),
            "baseline": round(statistics.median(base), 2 if time else None),
            "unit": "ms" if time else "/s",
            "ratio": round(ratio, 3),
            "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
            "reach": None if self.reach is None else f"{'≤' if time else '≥'} {self.reach}",
            "met": met,
            "cpu": f"{_cpu(self.ours)} / {_cpu(self.base)} µs",
        }

    def _value(self, sample: Sample) -> float:
        return sample.rate if self.figure is None else sample.values[self.figure]


def _cpu(samples: Sequence[Sample]) -> str:
    """Return the medians of the client's and the broker's µs an event: 20.1+9.4."""
    client = statistics.median(one.client_us for one in samples)
    broker = [one.broker_us for one in samples if one.broker_us is not None]
    return f"{client:.1f}+" + (f"{statistics.median(broker):.1f}" if broker else "?")


async def by_turns(
    pair: Pair,
    rounds: int,
    ours: Callable[[int], Awaitable[Sample]],
    base: Callable[[int], Awaitable[Sample]],
) -> Pair:
    """Run ours, the baseline, ours, the baseline, so many rounds of each."""
    for number in range(rounds):
        pair.ours.append(await ours(number))
        pair.base.append(await base(number))
    return pair
