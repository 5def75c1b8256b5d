"""Draws the month: the tiers' shares by day, and the errors that were promised and delivered."""

from collections.abc import Sequence

from tests.bench.month_run import Day

__all__ = ("drawn",)

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 900, 220, 60, 56, 74
_COLOURS = {"dtr": "#2f6f4f", "lppm": "#d08a1d", "imperator": "#8a8f98"}
_NAMES = {"dtr": "decision tree", "lppm": "learned process", "imperator": "language model"}
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.soft{fill:#777}"
    ".axis{stroke:#ccc}.mark{stroke:#999;stroke-dasharray:3 3}.promise{stroke:#b3261e}"
)
_ERROR_MAX = 0.25


def drawn(days: Sequence[Day], marks: Sequence[tuple[int, str]], max_error: float) -> str:
    """Return the drawing as SVG; `marks` are (day, what happened)."""
    step = (_WIDTH - _LEFT - 20) / len(days)
    parts = [*_shares(days, step), *_errors(days, step, max_error)]
    bottom = _TOP + 2 * _HEIGHT + _GAP
    for number, (day, what) in enumerate(marks):
        x = _LEFT + day * step
        # Three lines of words, so that neighbours do not lie over one another.
        y = 14 + 15 * (number % 3)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 3}" y2="{bottom}"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{y}">{what}</text>')
    height = bottom + 66
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}"><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _shares(days: Sequence[Day], step: float) -> list[str]:
    parts = [_axis(_TOP, "share of decisions", ("0 %", "50 %", "100 %"))]
    for number, day in enumerate(days):
        total, y = sum(day.tiers.values()), float(_TOP + _HEIGHT)
        for tier, colour in _COLOURS.items():
            height = day.tiers[tier] / total * _HEIGHT
            y -= height
            parts.append(
                f'<rect x="{_LEFT + number * step + 1:.1f}" y="{y:.1f}" '
                f'width="{step - 2:.1f}" height="{height:.1f}" fill="{colour}"/>'
            )
    x = float(_LEFT)
    y = _TOP + _HEIGHT + 18
    for tier, colour in _COLOURS.items():
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 11}">{_NAMES[tier]}</text>')
        x += 160
    return parts


def _errors(days: Sequence[Day], step: float, max_error: float) -> list[str]:
    top = _TOP + _HEIGHT + _GAP
    bottom = top + _HEIGHT
    parts = [_axis(top, "wrong of what learned processes did", ("0 %", "12.5 %", "25 %"))]
    promise = bottom - max_error / _ERROR_MAX * _HEIGHT
    parts.append(
        f'<line class="promise" x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{promise:.1f}" '
        f'y2="{promise:.1f}"/>'
    )
    for number, day in enumerate(days):
        share = min(_ERROR_MAX, day.acted_wrong / day.acted if day.acted else 0.0)
        height = share / _ERROR_MAX * _HEIGHT
        parts.append(
            f'<rect x="{_LEFT + number * step + 1:.1f}" y="{bottom - height:.1f}" '
            f'width="{step - 2:.1f}" height="{max(height, 0.5):.1f}" fill="#5b7fb5"/>'
        )
    for number in range(0, len(days), 5):
        x = _LEFT + (number + 0.5) * step
        parts.append(f'<text class="soft" x="{x:.1f}" y="{bottom + 16}">day {number + 1}</text>')
    parts.append(
        f'<text class="soft" x="{_LEFT}" y="{bottom + 38}">Scripted traffic. The bars are what the '
        "world knows: acts that its policy did not ask for.</text>"
        f'<text class="soft" x="{_LEFT}" y="{bottom + 54}">The line is the promise, which is one '
        "over all that the cheap tiers settle, the tree's part included.</text>"
    )
    return parts


def _axis(top: float, title: str, labels: Sequence[str]) -> str:
    lines = [f'<text x="{_LEFT}" y="{top - 8}">{title}</text>' if top > _TOP else ""]
    for number, label in enumerate(labels):
        y = top + _HEIGHT - number * _HEIGHT / (len(labels) - 1)
        lines.append(
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        lines.append(
            f'<text class="soft" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return "".join(lines)
