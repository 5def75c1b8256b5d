"""What goes on now: who was last seen, rates, tier shares, and what each agent spends.

A pure fold: each event adds amounts to one cell, which stands for a minute, a kind of figure and a
name. Amounts are sums (and the latest time), so cells of partitions, of tables and of what came
since merge in any order to the same. Minutes are those of append time: what was imported today is
seen today, whenever it happened.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.catalog import state

__all__ = (
    "FOLDED",
    "MINUTE_US",
    "SOURCES",
    "TABLE",
    "Cell",
    "Limits",
    "LiveState",
    "add",
    "cell_of",
    "key_of",
    "live",
    "place_of",
)

# The topics that are looked at, and the changelog of the tables that a Faust worker keeps of them.
SOURCES = ("mad.conversations", "mad.decisions", "mad.llm")
TABLE = "live"
MINUTE_US = 60_000_000
# In a table's cell, beside its amounts: the offset of its partition up to which it is folded.
FOLDED = "@"
_LATEST = "last_us"

Amounts = dict[str, int]


class Cell(NamedTuple):
    """One minute of one figure: what is `agent`, `tier` or `spend`, name whose it is."""

    minute: int
    what: str
    name: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one agent may spend in the window; None: no limit is set."""

    usd: float | None = None
    tokens: int | None = None

    def over(self, usd: float | None, tokens: int) -> str | None:
        """Return what is exceeded, None where nothing is."""
        exceeded = []
        if self.usd is not None and usd is not None and usd > self.usd:
            exceeded.append("usd")
        if self.tokens is not None and tokens > self.tokens:
            exceeded.append("tokens")
        return ", ".join(exceeded) or None


def cell_of(event: LogEvent) -> tuple[Cell, Amounts] | None:
    """Return the cell that an event adds to and what it adds, None where it adds to none."""
    fields, at = event.fields, event.record.appended_at
    minute, sender = at // MINUTE_US, fields["sender"]
    if event.kind == "Decision":
        name = f"{fields['mode']}/{fields['tier']}/{fields['recipient']}"
        return Cell(minute, "tier", name), {"decisions": 1}
    if event.kind == "LlmCall":
        tokens = [fields[name] for name in ("tokens_in", "tokens_out")]
        cost = fields["cost_usd"]
        spent = {
            "calls": 1,
            "tokens": sum(count or 0 for count in tokens),
            "micro_usd": round((cost or 0) * 1e6),
            "unpriced": int(cost is None),
            "uncounted": int(None in tokens),
        }
        return Cell(minute, "spend", sender["name"]), spent
    if event.kind in ("Turn", "ToolCall", "ToolResult", "ConversationChanged"):
        seen = {"turns": int(event.kind == "Turn"), _LATEST: at}
        return Cell(minute, "agent", f"{sender['kind']}/{sender['name']}"), seen
    return None


def add(into: Amounts, amounts: Mapping[str, int]) -> None:
    """Add amounts to those of a cell; the order does not matter."""
    for name, amount in amounts.items():
        before = into.get(name, 0)
        into[name] = max(before, amount) if name == _LATEST else before + amount


def key_of(tp: TopicPartition, cell: Cell) -> str:
    """Return a cell's key in a table, where each partition of each topic has cells of its own."""
    return f"{tp.partition}|{tp.topic}|{cell.minute}|{cell.what}|{cell.name}"


def place_of(key: str) -> tuple[TopicPartition, Cell]:
    """Return what a key of a table names; raises ValueError where it is none."""
    partition, topic, minute, what, name = key.split("|")
    return TopicPartition(topic, int(partition)), Cell(int(minute), what, name)


class LiveState:
    """The cells of a time, folded."""

    def __init__(self) -> None:
        self.cells: dict[Cell, Amounts] = {}

    def fold(self, events: Iterable[LogEvent]) -> None:
        """Take up events."""
        for event in events:
            found = cell_of(event)
            if found is not None:
                self.merge(*found)

    def merge(self, cell: Cell, amounts: Mapping[str, int]) -> None:
        """Take up a cell's amounts."""
        add(self.cells.setdefault(cell, {}), amounts)

    def agents(self, now_us: int, minutes: float, limits: Limits) -> list[dict[str, Any]]:
        """Return a row for each sender and each that spends: seen, rate, spent, over its limits."""
        seen: dict[str, Amounts] = {}
        kinds: dict[str, str] = {}
        for cell, amounts in self.cells.items():
            kind, _, name = cell.name.rpartition("/")
            if cell.what in ("agent", "spend"):
                add(seen.setdefault(name, {}), amounts)
            if cell.what == "agent":
                kinds[name] = max(kind, kinds.get(name, ""))
        return [
            _agent(name, kinds.get(name), seen[name], now_us, minutes, limits)
            for name in sorted(seen)
        ]

    def tiers(self, minutes: float) -> list[dict[str, Any]]:
        """Return a row for each mode and tier: decisions, share of its mode, rate."""
        counts: dict[tuple[str, str], int] = {}
        modes: dict[str, int] = {}
        for cell, amounts in self.cells.items():
            if cell.what == "tier":
                mode, tier, _ = cell.name.split("/")
                counts[mode, tier] = counts.get((mode, tier), 0) + amounts["decisions"]
                modes[mode] = modes.get(mode, 0) + amounts["decisions"]
        return [
            {
                "what": "tier",
                "name": tier,
                "mode": mode,
                "decisions": count,
                "share": count / modes[mode],
                "per_minute": count / minutes,
            }
            for (mode, tier), count in sorted(counts.items())
        ]


def _agent(
    name: str, kind: str | None, amounts: Amounts, now_us: int, minutes: float, limits: Limits
) -> dict[str, Any]:
    calls, tokens = amounts.get("calls", 0), amounts.get("tokens", 0)
    # Unknown is not nothing: a sum is known where at least one call has its price.
    priced = calls > amounts.get("unpriced", 0)
    usd = amounts.get("micro_usd", 0) / 1e6 if priced else None
    last = amounts.get(_LATEST)
    return {
        "what": "agent",
        "name": name,
        "kind": kind,
        "seen_s_ago": None if last is None else max(0, (now_us - last) // 1_000_000),
        "turns": amounts.get("turns", 0),
        "per_minute": amounts.get("turns", 0) / minutes,
        "llm_calls": calls,
        "tokens": tokens if calls > amounts.get("uncounted", 0) else None,
        "cost_usd": usd,
        "calls_of_unknown_cost": amounts.get("unpriced", 0),
        "over": limits.over(usd, tokens),
    }


async def live(log: EventLog, since_us: int) -> LiveState:
    """Return the cells of what was appended since the begin of a minute, `since_us`.

    Where a Faust worker keeps tables, they are read, and of the log only what came after.
    """
    there = await log.log.topics()
    sources = [name for name in SOURCES if name in there]
    made = LiveState()
    start = dict(await log.log.at_time(sources, since_us))
    end = await log.log.end(sources)
    if state(TABLE).name in there:
        for key, cell in (await _tables(log)).items():
            try:
                tp, place = place_of(key)
                folded = cell.pop(FOLDED) + 1
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # no cell of ours
            if tp not in start or folded > end[tp] or place.minute < since_us // MINUTE_US:
                continue
            made.merge(place, cell)
            start[tp] = max(start[tp], folded)
    async for events in log.read(Vector(start), end):
        made.fold(events)
    return made


async def _tables(log: EventLog) -> dict[str, Any]:
    """Return the tables' cells by key, as their changelog has them."""
    found: dict[bytes, bytes] = {}
    end = await log.log.end([state(TABLE).name])
    async for records in log.log.read(Vector(), end):
        for record in records:
            found[record.key] = record.value
    return {json.loads(key): json.loads(value) for key, value in found.items() if value}
