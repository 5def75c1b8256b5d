"""What the record's calls of language models took, and would have at other prices or for others.

A call's cost is the log's, or with a price list the list's; one of unknown cost is counted, not
guessed. What a call more or fewer takes is the mean of those whose figures are known.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from madlog.analytics.prices import PriceList
from madlog.topics import EventLog, Vector
from madlog.topics.log import OnDamage

__all__ = ("Calls", "read_calls")

_TOPIC = "mad.llm"


@dataclass
class _Sum:
    """A sum of what is known, and of how many."""

    total: float = 0.0
    known: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.known += 1

    @property
    def mean(self) -> float | None:
        return self.total / self.known if self.known else None


@dataclass
class Calls:
    """The calls of language models in a range."""

    calls: int = 0
    usd: _Sum = field(default_factory=_Sum)
    priced_usd: _Sum = field(default_factory=_Sum)
    tokens_in: _Sum = field(default_factory=_Sum)
    tokens_out: _Sum = field(default_factory=_Sum)
    latency_ms: _Sum = field(default_factory=_Sum)

    def add(self, fields: Mapping[str, Any], price: "_Prices") -> None:
        """Count a call."""
        self.calls += 1
        self.usd.add(fields["cost_usd"])
        self.priced_usd.add(price.of(fields))
        self.tokens_in.add(fields["tokens_in"])
        self.tokens_out.add(fields["tokens_out"])
        self.latency_ms.add(fields["latency_ms"])

    def as_json(self, fewer: int, priced: bool) -> dict[str, Any]:
        """Return what calls took, and what `fewer` of them would have saved (less: cost)."""
        usd = self.priced_usd if priced else self.usd
        mean_ms = self.latency_ms.mean
        return {
            "record": {
                "calls": self.calls,
                "usd": _rounded(self.usd),
                "calls_of_unknown_cost": self.calls - self.usd.known,
                "tokens_in": int(self.tokens_in.total) if self.tokens_in.known else None,
                "tokens_out": int(self.tokens_out.total) if self.tokens_out.known else None,
                "latency_s": None if mean_ms is None else round(self.latency_ms.total / 1e3, 3),
            },
            "at_these_prices": {
                "usd": _rounded(self.priced_usd),
                "calls_of_unknown_cost": self.calls - self.priced_usd.known,
            }
            if priced
            else None,
            "calls_fewer": fewer,
            "usd_less": None if usd.mean is None else round(fewer * usd.mean, 6),
            "latency_s_less": None if mean_ms is None else round(fewer * mean_ms / 1e3, 3),
        }


def _rounded(sum_: _Sum) -> float | None:
    return round(sum_.total, 6) if sum_.known else None


class _Prices:
    """Finds the price of a call: the newest of its model that held when it was made."""

    def __init__(self, prices: PriceList) -> None:
        self._of: dict[str, list[tuple[int, float, float]]] = {}
        for one in prices.prices:
            self._of.setdefault(one.model, []).append((one.since_us, one.usd_in, one.usd_out))
        for held in self._of.values():
            held.sort()

    def of(self, fields: Mapping[str, Any]) -> float | None:
        """Return what a call costs by the list, else what the log says that it did."""
        held = self._of.get(fields["model"] or "", [])
        place = bisect_right(held, fields["occurred_at"], key=lambda one: one[0]) - 1
        tokens = fields["tokens_in"], fields["tokens_out"]
        if place < 0 or None in tokens:
            cost: float | None = fields["cost_usd"]
            return cost
        _, usd_in, usd_out = held[place]
        return float((tokens[0] * usd_in + tokens[1] * usd_out) / 1e6)


async def read_calls(
    log: EventLog, start: Vector, end: Vector, prices: PriceList, on_damage: OnDamage
) -> Calls:
    """Read the calls of language models in a range."""
    calls, price = Calls(), _Prices(prices)
    batches = log.read_topics([_TOPIC], start=start, end=end, on_damage=on_damage)
    async for events in batches:
        for event in events:
            if event.kind == "LlmCall":
                calls.add(event.fields, price)
    return calls
