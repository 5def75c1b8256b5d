"""What differs, counted; plain JSON throughout, so that a stopped replay goes on from it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from madlog.analytics.what_if.deciding import Decided
from madlog.processors.promise import interval
from madlog.topics import Position

__all__ = ("SETTLED_BY", "Tally", "route_of")

SETTLED_BY: Final = {"dtr": "tree", "lppm": "process", "imperator": "llm"}
_TIERS = tuple(SETTLED_BY)
_SIDES = ("record", "what_if")

OnRow = Callable[[Mapping[str, Any]], None]


def route_of(tier: str, route: str, arguments: str | None) -> str:
    """Return in a few words who settled a turn, and how."""
    if tier == "imperator":
        return "llm"
    words = f"{SETTLED_BY[tier]} {route.removeprefix('action:')}"
    return words if arguments is None else f"{words} {arguments}"


class Tally:
    """Counts by mode, the moves from route to route, and the conversations where any differs."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state: dict[str, Any] = state or {"modes": {}, "moves": {}, "conversations": {}}

    def add(self, decided: Decided, position: Position, on_row: OnRow) -> None:
        """Count a decision that was made again, and tell of it where it differs."""
        made, was = decided.made, decided.was
        modes = self.state["modes"]
        counts = modes.get(made.mode)
        if counts is None:
            counts = modes[made.mode] = _nothing()
        if was is None:
            counts["undecided"][made.tier] += 1
            return
        counts["decisions"] += 1
        _count(counts["what_if"], made.tier, made.max_error, decided.right)
        _count(counts["record"], was.tier, was.max_error, was.right)
        if not decided.differs:
            return
        counts["changed"] += 1
        move = "\t".join((made.recipient, was.tier, was.route, made.tier, made.route))
        moves = self.state["moves"]
        moves[move] = moves.get(move, 0) + 1
        row = {
            "what": "decision",
            "conversation_id": made.conversation_id,
            "position": str(position),
            "event_id": made.event_id,
            "turn_id": made.turn_id,
            "recipient": made.recipient,
            "mode": made.mode,
            "record": {"tier": was.tier, "route": was.route, "arguments": was.arguments},
            "what_if": {
                "tier": made.tier,
                "route": made.route,
                "arguments": made.arguments,
                "reason": made.reason,
                "escalation": made.escalation,
            },
            "record_right": was.right,
            "what_if_right": decided.right,
        }
        on_row(row)
        there = self.state["conversations"]
        there[made.conversation_id] = there.get(made.conversation_id, 0) + 1

    @property
    def decisions(self) -> int:
        """How many decisions of the record were made again."""
        return sum(counts["decisions"] for counts in self.state["modes"].values())

    @property
    def changed(self) -> int:
        """How many of them came out otherwise."""
        return sum(counts["changed"] for counts in self.state["modes"].values())

    @property
    def undecided(self) -> int:
        """How many decisions were made that the record has none of."""
        return sum(sum(counts["undecided"].values()) for counts in self.state["modes"].values())

    def calls(self, side: str) -> int:
        """Return how many decisions go to the language model: of the `record`, or `what_if`."""
        told = 0
        for counts in self.state["modes"].values():
            told += counts[side]["tiers"]["imperator"]
        return int(told)

    def tiers(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each mode and tier: how many it settled, and would have."""
        for mode, counts in sorted(self.state["modes"].items()):
            for tier in _TIERS:
                was, now = (counts[side]["tiers"][tier] for side in _SIDES)
                yield {
                    "mode": mode,
                    "tier": tier,
                    "settled_by": SETTLED_BY[tier],
                    "record": was,
                    "what_if": now,
                    "undecided": counts["undecided"][tier],
                }

    def promises(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each mode and side: the promised error of cheap tiers, and the kept."""
        for mode, counts in sorted(self.state["modes"].items()):
            for side in _SIDES:
                told = counts[side]
                settled = told["tiers"]["dtr"] + told["tiers"]["lppm"]
                judged = told["right"] + told["wrong"]
                low, high = interval(told["wrong"], judged) if judged else (None, None)
                yield {
                    "mode": mode,
                    "side": side,
                    "settled": settled,
                    "promised_error": round(told["promised"] / settled, 6) if settled else None,
                    "judged": judged,
                    "wrong": told["wrong"],
                    "error": round(told["wrong"] / judged, 6) if judged else None,
                    "error_low": None if low is None else round(low, 6),
                    "error_high": None if high is None else round(high, 6),
                }

    def moves(self) -> list[dict[str, Any]]:
        """Return from which route to which decisions went, the most frequent first."""
        rows = []
        for move, count in self.state["moves"].items():
            recipient, was_tier, was, tier, route = move.split("\t")
            rows.append(
                {
                    "recipient": recipient,
                    "record": route_of(was_tier, was, None),
                    "what_if": route_of(tier, route, None),
                    "decisions": count,
                }
            )
        rows.sort(key=lambda row: (-row["decisions"], *(row[name] for name in _MOVE)))
        return rows


_MOVE = ("recipient", "record", "what_if")


def _nothing() -> dict[str, Any]:
    sides = {
        name: {"tiers": dict.fromkeys(_TIERS, 0), "promised": 0.0, "right": 0, "wrong": 0}
        for name in _SIDES
    }
    return {"decisions": 0, "changed": 0, "undecided": dict.fromkeys(_TIERS, 0), **sides}


def _count(side: dict[str, Any], tier: str, max_error: float, right: bool | None) -> None:
    side["tiers"][tier] += 1
    if tier == "imperator":
        return
    side["promised"] += max_error
    if right is not None:
        side["right" if right else "wrong"] += 1
