"""The routing report's charts, as SVG: shares of tiers, errors with intervals, reliability."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ("MEANINGS", "intervals", "reliability", "shares")

MEANINGS = {"dtr": "decision tree", "lppm": "learned process", "imperator": "language model"}
_WIDTH, _LEFT, _ROW = 860, 210, 26
_BAR = _WIDTH - _LEFT - 20
_LABEL_MAX = 28
# Where the axes of reliability begin, so that each fifth of them is a round figure.
_FLOORS = (0.0, 0.5, 0.8, 0.9)
# A part of a bar narrower than this has no room for its figure.
_FIGURE_MIN = 0.07


def shares(bars: Mapping[str, Mapping[str, float]]) -> str:
    """Return one bar a name, its parts the shares 0..1 of the tiers."""
    parts = []
    for number, (name, found) in enumerate(bars.items()):
        y, x = 4 + number * _ROW, float(_LEFT)
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{_name(name)}</text>')
        for tier in MEANINGS:
            share = found.get(tier) or 0.0
            width = share * _BAR
            title = f"{MEANINGS[tier]}: {share:.1%}"
            parts.append(
                f'<rect class="{tier}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="20">'
                f"<title>{title}</title></rect>"
            )
            if share >= _FIGURE_MIN:
                parts.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 15}" text-anchor="middle" '
                    f'style="fill:#fff">{share:.0%}</text>'
                )
            x += width
    return _svg(8 + len(bars) * _ROW, parts)


def intervals(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line a row of `ask promises`: delivered error, its interval, the promise."""
    highest = max([0.1, *(float(row["error_high"] or 0) for row in rows)])
    promised = [float(row["promised_error"]) for row in rows]
    # Fifths, so that each quarter of the axis is a round figure.
    span = min(1.0, math.ceil(max(highest, *promised) * 1.05 / 0.2) * 0.2)

    def at(error: float) -> float:
        return _LEFT + error / span * _BAR

    parts = []
    for number, row in enumerate(rows):
        y = 4 + number * _ROW
        name = f"{row['recipient']}, {MEANINGS[row['tier']]}"
        promise = at(row["promised_error"])
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{_name(name)}</text>',
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y + 22}" y2="{y + 22}"/>',
            f'<line class="promise" x1="{promise:.1f}" x2="{promise:.1f}" y1="{y}" y2="{y + 22}"/>',
        ]
        if row["delivered_error"] is None:
            parts.append(
                f'<text class="soft" x="{promise + 8:.1f}" y="{y + 15}">'
                f"{row['settled']:,} settled, none of them judged yet</text>"
            )
            continue
        low, high = at(row["error_low"]), at(row["error_high"])
        title = f"{row['wrong']:,} of {row['judged']:,} wrong, mode {escape(row['mode'])}"
        parts.append(
            f'<g><title>{title}</title><line class="range" x1="{low:.1f}" x2="{high:.1f}" '
            f'y1="{y + 11}" y2="{y + 11}"/><circle class="dot {escape(row["verdict"])}" '
            f'cx="{at(row["delivered_error"]):.1f}" cy="{y + 11}" r="5"/></g>'
        )
    y = 4 + len(rows) * _ROW
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<text class="soft" x="{at(share * span):.1f}" y="{y + 14}" text-anchor="middle">'
            f"{share * span:.0%}</text>"
        )
    return _svg(y + 22, parts)


def reliability(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `ask calibration`: stated confidence across, delivered share right up.

    What is on the diagonal is right as often as it says. Rows that nobody judged are left out.
    """
    shown = [row for row in rows if row["judged"]]
    ends = [float(row[name]) for row in shown for name in ("stated", "delivered_low")]
    floor = max(one for one in _FLOORS if one <= min([1.0, *ends]))
    left, top, size = _LEFT, 8, 320

    def x(share: float) -> float:
        return left + (share - floor) / (1.0 - floor) * size

    def y(share: float) -> float:
        return top + (1.0 - share) / (1.0 - floor) * size

    parts = [
        f'<line class="promise" x1="{left}" y1="{top + size}" x2="{left + size}" y2="{top}"/>',
    ]
    for number in range(6):
        share = floor + number / 5 * (1.0 - floor)
        parts += [
            f'<line class="axis" x1="{left}" x2="{left + size}" y1="{y(share):.1f}" '
            f'y2="{y(share):.1f}"/>',
            f'<text class="soft" x="{left - 8}" y="{y(share) + 4:.1f}" text-anchor="end">'
            f"{share:.0%}</text>",
            f'<text class="soft" x="{x(share):.1f}" y="{top + size + 18}" text-anchor="middle">'
            f"{share:.0%}</text>",
        ]
    for row in shown:
        across, tier = x(float(row["stated"])), escape(row["tier"])
        title = (
            f"{MEANINGS.get(row['tier'], row['tier'])}, mode {row['mode']}: said "
            f"{row['stated']:.1%}, right {row['right']:,} of {row['judged']:,}; {row['verdict']}"
        )
        parts.append(
            f'<g><title>{escape(title)}</title><line class="range" x1="{across:.1f}" '
            f'x2="{across:.1f}" y1="{y(float(row["delivered_low"])):.1f}" '
            f'y2="{y(float(row["delivered_high"])):.1f}"/><circle class="{tier}" '
            f'cx="{across:.1f}" cy="{y(float(row["delivered"])):.1f}" r="5"/></g>'
        )
    return _svg(top + size + 26, parts)


def _svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _name(text: str) -> str:
    return escape(text if len(text) <= _LABEL_MAX else text[: _LABEL_MAX - 1] + "…")
