"""A process as a picture: Mermaid text, or a self-contained SVG with a layered layout."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from madlog.processors.lppm._layout import LOOP, Box, placed
from madlog.processors.lppm._trace import START
from madlog.processors.lppm.cases import ACTION
from madlog.processors.lppm.process import Edge, Process, Step

__all__ = ("mermaid", "svg")

_CHARACTER = 7.3  # px of a monospaced letter of 12 px, with a little air
_LINE = 16
_PAD = 12
_TEXT_MAX = 34
_LOOP_POINTS = 3  # other edges have an even number of points
_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2933}"
    ".small{font-size:10px;fill:#52606d}.box{fill:#e3f2fd;stroke:#1976d2}"
    ".words{fill:#fff8e1;stroke:#f9a825}.start{fill:#1f2933;stroke:#1f2933}"
    ".edge{fill:none;stroke:#7b8794}.back{stroke-dasharray:4 3}.halo{fill:#fff;opacity:.85}"
)


def mermaid(process: Process) -> str:
    """Return the process as a Mermaid flow chart; steps of words have round ends."""
    number = {START: "s0"} | {step.key: f"s{at}" for at, step in enumerate(process.steps, 1)}
    lines = ["flowchart TD", f"  s0(({START}))"]
    for step in process.steps:
        text = "<br/>".join(_quoted(line) for line in _lines(step))
        left, right = ('(["', '"])') if step.needs_llm else ('["', '"]')
        lines.append(f"  {number[step.key]}{left}{text}{right}")
    for edge in process.edges:
        text = _quoted(_label(edge))
        lines.append(f'  {number[edge.after]} -->|"{text}"| {number[edge.step]}')
    return "\n".join(lines) + "\n"


def svg(process: Process) -> str:
    """Return the process as an SVG image that needs nothing else."""
    sizes = {START: (30.0, 30.0)} | {step.key: _size(step) for step in process.steps}
    plan = placed(process, sizes)
    boxes = plan.boxes
    right = [x for points in plan.lines.values() for x, _ in points]
    right += [box.x + box.width for box in boxes.values()]
    width = max(right) + LOOP
    height = max(box.y + box.height for box in boxes.values()) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(process.name)}</title><style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#7b8794"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    labels = []
    most = max((edge.count for edge in process.edges), default=1)
    drawn: Counter[str] = Counter()
    for edge in sorted(process.edges, key=lambda one: plan.lines[one.after, one.step]):
        path, x, y = _curve(plan.lines[edge.after, edge.step], drawn[edge.after] % 2)
        drawn[edge.after] += 1
        kind = "edge" if plan.layers[edge.step] > plan.layers[edge.after] else "edge back"
        thick = 1 + 3 * edge.count / most
        parts.append(
            f'<path class="{kind}" d="{path}" stroke-width="{thick:.1f}" marker-end="url(#tip)"/>'
        )
        labels.append(_tag(x, y, f"{edge.count} · {edge.confidence:.0%}"))
    parts.append(_circle(boxes[START]))
    parts += [_drawn(step, boxes[step.key]) for step in process.steps]
    return "".join(parts + labels) + "</svg>\n"


def _curve(points: Sequence[tuple[float, float]], lower: int) -> tuple[str, float, float]:
    """Return the path through points, and where its label stands: near its beginning."""
    x, y = points[0]
    path = f"M{x:.1f} {y:.1f}"
    if x == points[-1][0] and len(points) == _LOOP_POINTS:
        (_, _), (out, middle), (_, end) = points
        return path + f"C{out:.1f} {y:.1f} {out:.1f} {end:.1f} {x:.1f} {end:.1f}", out + 8, middle
    for x2, y2 in points[1:]:
        bend = (y2 - y) / 2
        path += f"C{x:.1f} {y + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
        x, y = x2, y2
    (x1, y1), (x2, y2) = points[0], points[1]
    # Near to where the edge leaves, there edges lie apart; every second label a line lower.
    at, down = ((0.16, 0.3), (0.4, 0.46))[lower]
    return path, x1 + at * (x2 - x1), y1 + down * (y2 - y1)


def _lines(step: Step) -> list[str]:
    """Return what stands in a step's box."""
    told = step.key[len(step.actor) + 1 :].removeprefix(ACTION)
    return [
        _short(told),
        _short(step.actor),
        f"{step.conversations} conversations",
    ]


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"


def _label(edge: Edge) -> str:
    when = " and ".join(edge.when)
    return f"{edge.count}: {when}" if when else str(edge.count)


def _quoted(text: str) -> str:
    # Mermaid reads entities inside quotes, and a bar would end a label.
    return escape(text).replace("|", "&#124;").replace("\n", " ")


def _size(step: Step) -> tuple[float, float]:
    lines = _lines(step)
    return max(map(len, lines)) * _CHARACTER + 2 * _PAD, len(lines) * _LINE + 2 * _PAD - 6


def _tag(x: float, y: float, text: str) -> str:
    width = len(text) * 6.1 + 6
    return (
        f'<rect class="halo" x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" '
        f'height="14"/><text class="small" text-anchor="middle" x="{x:.1f}" y="{y + 3:.1f}">'
        f"{escape(text)}</text>"
    )


def _circle(box: Box) -> str:
    return (
        f'<circle class="start" cx="{box.middle}" cy="{box.y + 15}" r="11"/>'
        f'<text class="small" x="{box.middle + 18}" y="{box.y + 19}">{START}</text>'
    )


def _drawn(step: Step, box: Box) -> str:
    kind, round_by = ("box words", 20) if step.needs_llm else ("box", 5)
    parts = [
        f'<rect class="{kind}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{round_by}"/>'
    ]
    for number, line in enumerate(_lines(step)):
        small = ' class="small"' if number else ""
        parts.append(
            f'<text{small} text-anchor="middle" x="{box.middle:.1f}" '
            f'y="{box.y + _PAD + 8 + number * _LINE:.1f}">{escape(line)}</text>'
        )
    return "".join(parts)
