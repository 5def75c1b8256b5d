"""The audit report's drawings, as SVG: activity over time, and who talks to whom."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ("activity", "graph")

_WIDTH, _LEFT, _RIGHT = 860, 56, 12
_HEIGHT, _TOP, _FOOT = 190, 10, 26
_NAME_MAX = 18
_GRAPH_WIDTH = 620
_NODES_MAX = 14
_ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="13" markerHeight="13" '
    'markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker>'
    "</defs>"
)


def activity(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a stacked bar a period, each with its `label`, `turns` and `tool_calls`."""
    most = max([1, *(row["turns"] + row["tool_calls"] for row in rows)])
    top = _round_up(most)
    plot, wide = _HEIGHT - _TOP - _FOOT, _WIDTH - _LEFT - _RIGHT
    step = wide / max(1, len(rows))
    parts = []
    for share in (0, 0.5, 1):
        y = _TOP + plot * (1 - share)
        parts.append(
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{top * share:,.0f}</text>"
        )
    every = max(1, math.ceil(len(rows) / 7))
    for at, row in enumerate(rows):
        x, y = _LEFT + at * step, float(_TOP + plot)
        bars = ""
        for name, kind in (("turns", "said"), ("tool_calls", "done")):
            high = row[name] / top * plot
            y -= high
            if high:
                bars += (
                    f'<rect class="{kind}" x="{x + step * 0.1:.1f}" y="{y:.1f}" '
                    f'width="{step * 0.8:.1f}" height="{high:.1f}"/>'
                )
        title = f"{row['label']}: {row['turns']:,} turns, {row['tool_calls']:,} tool calls"
        parts.append(f"<g><title>{escape(title)}</title>{bars}</g>")
        if at % every == 0:
            anchor = "start" if at == 0 else "middle"
            parts.append(
                f'<text class="soft" x="{x + (0 if at == 0 else step / 2):.1f}" '
                f'y="{_HEIGHT - 6}" text-anchor="{anchor}">{escape(row["label"])}</text>'
            )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _round_up(value: int) -> int:
    """Return the next figure of one digit and zeros, or of half of that: what an axis ends at."""
    size = 10 ** max(0, len(str(value)) - 1)
    return (
        next(int(size * part) for part in (1, 2, 3, 4, 5, 6, 8, 10) if size * part >= value)
        if value > 1
        else 2
    )


def graph(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return who talks to whom: `sender`, `sender_kind`, `recipient`, `turns` of each pair.

    Those who say and hear most stand on an oval; the others are one node.
    """
    heard: dict[str, int] = {}
    kinds = {pair["sender"]: pair["sender_kind"] for pair in pairs}
    for pair in pairs:
        for name in {pair["sender"], pair["recipient"]}:
            heard[name] = heard.get(name, 0) + pair["turns"]
    ranked = sorted(heard, key=lambda name: (-heard[name], name))
    shown = ranked if len(ranked) <= _NODES_MAX else ranked[: _NODES_MAX - 1]
    others = f"{len(ranked) - len(shown)} others"
    edges: dict[tuple[str, str], int] = {}
    for pair in pairs:
        ends = tuple(
            name if name in shown else others for name in (pair["sender"], pair["recipient"])
        )
        edges[ends[0], ends[1]] = edges.get((ends[0], ends[1]), 0) + pair["turns"]
    names = _around(shown + ([others] if len(shown) < len(ranked) else []), edges)
    height = 220 + 18 * len(names)
    places = _places(names, height)
    most = max([1, *edges.values()])
    parts = [_ARROW]
    parts += [
        _edge(places[one], places[two], one, two, turns, most)
        for (one, two), turns in sorted(edges.items(), key=lambda item: (item[1], item[0]))
        if one != two
    ]
    total = max([1, *heard.values()])
    for name in names:
        weight = heard.get(name, sum(heard[other] for other in ranked if other not in shown))
        person = kinds.get(name) == "human"
        parts.append(_node(name, places[name], weight / total, weight, person))
    box = f"0 0 {_GRAPH_WIDTH} {height}"
    return f'<svg class="graph" viewBox="{box}" role="img">{"".join(parts)}</svg>'


def _around(names: Sequence[str], edges: Mapping[tuple[str, str], int]) -> list[str]:
    """Order names so that those who talk much stand near each other: next is who shares most."""
    left = list(names)
    order: list[str] = []
    while left:
        last = order[-1] if order else None
        left.sort(
            key=lambda name: (
                -(edges.get((last or "", name), 0) + edges.get((name, last or ""), 0)),
                names.index(name),
            )
        )
        order.append(left.pop(0))
    return order


def _places(names: Sequence[str], height: int) -> dict[str, tuple[float, float]]:
    wide, high = 170, height / 2 - 36
    return {
        name: (
            _GRAPH_WIDTH / 2 + wide * math.sin(2 * math.pi * at / len(names)),
            height / 2 - high * math.cos(2 * math.pi * at / len(names)),
        )
        for at, name in enumerate(names)
    }


def _edge(
    start: tuple[float, float], end: tuple[float, float], one: str, two: str, turns: int, most: int
) -> str:
    (x1, y1), (x2, y2) = start, end
    # Bent to the left of its way, so that both ways of a pair can be seen.
    middle_x = (x1 + x2) / 2 + (y2 - y1) * 0.14
    middle_y = (y1 + y2) / 2 - (x2 - x1) * 0.14
    length = math.hypot(x2 - middle_x, y2 - middle_y) or 1.0
    x2, y2 = x2 - (x2 - middle_x) / length * 17, y2 - (y2 - middle_y) / length * 17
    thick = 1 + 6 * math.sqrt(turns / most)
    return (
        f'<g class="edge"><title>{escape(f"{one} to {two}: {turns:,} turns")}</title>'
        f'<path d="M{x1:.1f} {y1:.1f}Q{middle_x:.1f} {middle_y:.1f} {x2:.1f} {y2:.1f}" '
        f'stroke-width="{thick:.1f}" marker-end="url(#tip)"/></g>'
    )


def _node(name: str, place: tuple[float, float], share: float, turns: int, person: bool) -> str:
    x, y = place
    radius = 6 + 9 * math.sqrt(share)
    middle = _GRAPH_WIDTH / 2
    side = 1 if x > middle + 20 else -1 if x < middle - 20 else 0
    anchor = {1: "start", -1: "end", 0: "middle"}[side]
    label_x = x + side * (radius + 6)
    label_y = y + 4 if side else (y - radius - 7 if y < 120 else y + radius + 16)
    shown = name if len(name) <= _NAME_MAX else name[: _NAME_MAX - 1] + "…"
    return (
        f"<g><title>{escape(f'{name}: said or heard {turns:,} turns')}</title>"
        f'<circle class="{"person" if person else "agent"}" cx="{x:.1f}" cy="{y:.1f}" '
        f'r="{radius:.1f}"/><text x="{label_x:.1f}" y="{label_y:.1f}" text-anchor="{anchor}">'
        f"{escape(shown)}</text></g>"
    )
