"""A process as a picture: Mermaid text, or a self-contained SVG with a layered layout."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from madlog.processors.lppm._trace import START
from madlog.processors.lppm.process import Edge, Process, Step

__all__ = ("mermaid", "svg")

_CHARACTER = 7.3  # px of a monospaced letter of 12 px, with a little air
_LINE = 16
_PAD = 12
_GAP_X, _GAP_Y = 36, 70
_TEXT_MAX = 34
_SWEEPS = 4
_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2933}"
    ".small{font-size:10px;fill:#52606d}.box{fill:#e3f2fd;stroke:#1976d2}"
    ".words{fill:#fff8e1;stroke:#f9a825}.start{fill:#1f2933;stroke:#1f2933}"
    ".edge{fill:none;stroke:#7b8794}.back{stroke-dasharray:4 3}.halo{fill:#fff;opacity:.85}"
)


class _Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


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
    boxes, layers = _layout(process)
    width = max(box.x + box.width for box in boxes.values()) + 130
    height = max(box.y + box.height for box in boxes.values()) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(process.name)}</title><style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#7b8794"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    labels = []
    leaving = dict.fromkeys(boxes, 0)
    most = max((edge.count for edge in process.edges), default=1)
    for edge in sorted(process.edges, key=lambda one: (one.after, -one.count, one.step)):
        path, x, y = _curve(edge, boxes, layers, leaving[edge.after])
        leaving[edge.after] += 1
        kind = "edge" if layers[edge.step] > layers[edge.after] else "edge back"
        thick = 1 + 3 * edge.count / most
        parts.append(
            f'<path class="{kind}" d="{path}" stroke-width="{thick:.1f}" marker-end="url(#tip)"/>'
        )
        labels.append(_tag(x, y, f"{edge.count} · {edge.confidence:.0%}"))
    parts += labels
    parts.append(_circle(boxes[START]))
    parts += [_drawn(step, boxes[step.key]) for step in process.steps]
    return "".join(parts) + "</svg>\n"


def _lines(step: Step) -> list[str]:
    """Return what stands in a step's box."""
    told = step.what if step.key.endswith(step.what) else step.key[len(step.actor) + 1 :]
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


def _layout(process: Process) -> tuple[dict[str, _Box], dict[str, int]]:
    """Place each step below what it follows, and near it."""
    following: dict[str, list[str]] = defaultdict(list)
    for edge in sorted(process.edges, key=lambda one: (-one.count, one.step)):
        following[edge.after].append(edge.step)
    layers = _layers([START, *(step.key for step in process.steps)], following)
    rows: dict[int, list[str]] = defaultdict(list)
    for key in sorted(layers):
        rows[layers[key]].append(key)
    order = [rows[at] for at in sorted(rows)]
    _untangle(order, process.edges)
    sizes = {START: (30.0, 30.0)} | {step.key: _size(step) for step in process.steps}
    widths = [sum(sizes[key][0] for key in row) + _GAP_X * (len(row) - 1) for row in order]
    boxes: dict[str, _Box] = {}
    y = 20.0
    for row, row_width in zip(order, widths, strict=True):
        x = 24.0 + (max(widths) - row_width) / 2
        for key in row:
            boxes[key] = _Box(x, y, *sizes[key])
            x += sizes[key][0] + _GAP_X
        y += max(sizes[key][1] for key in row) + _GAP_Y
    return boxes, layers


def _size(step: Step) -> tuple[float, float]:
    lines = _lines(step)
    return max(map(len, lines)) * _CHARACTER + 2 * _PAD, len(lines) * _LINE + 2 * _PAD - 6


def _layers(keys: Sequence[str], following: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return how deep each step lies: the longest way to it, without going in circles."""
    forward: dict[str, list[str]] = defaultdict(list)
    finished: list[str] = []
    state: dict[str, int] = {}
    for root in keys:
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(following.get(root, ())))]
        while stack:
            key, steps = stack[-1]
            for step in steps:
                if state.get(step) != 1:  # what lies on the way here would close a circle
                    forward[key].append(step)
                if step not in state:
                    state[step] = 1
                    stack.append((step, iter(following.get(step, ()))))
                    break
            else:
                state[key] = 2
                finished.append(key)
                stack.pop()
    layers = dict.fromkeys(keys, 0)
    for key in reversed(finished):
        for step in forward[key]:
            layers[step] = max(layers[step], layers[key] + 1)
    return layers


def _untangle(order: list[list[str]], edges: Sequence[Edge]) -> None:
    """Sort each row by where its neighbours stand, downwards and upwards in turn."""
    near: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        near[edge.after].append(edge.step)
        near[edge.step].append(edge.after)
    for sweep in range(_SWEEPS):
        rows = list(range(1, len(order))) if sweep % 2 == 0 else list(range(len(order) - 2, -1, -1))
        for at in rows:
            beside = order[at - 1] if sweep % 2 == 0 else order[at + 1]
            place = {key: (n + 0.5) / len(beside) for n, key in enumerate(beside)}
            middle = {}
            for key in order[at]:
                found = [place[one] for one in near[key] if one in place]
                middle[key] = sum(found) / len(found) if found else 0.5
            order[at].sort(key=lambda key: (middle[key], key))


def _curve(
    edge: Edge, boxes: Mapping[str, _Box], layers: Mapping[str, int], number: int
) -> tuple[str, float, float]:
    """Return an edge's path and where its label stands."""
    a, b = boxes[edge.after], boxes[edge.step]
    if edge.after == edge.step:
        x, y = a.x + a.width, a.y + a.height / 2
        return f"M{x} {y - 10}C{x + 34} {y - 22} {x + 34} {y + 22} {x} {y + 10}", x + 26, y + 18
    if layers[edge.step] > layers[edge.after]:
        x1, y1, x2, y2 = a.middle, a.y + a.height, b.middle, b.y
        bend = (y2 - y1) / 2
        at = 0.35 + 0.12 * (number % 4)  # labels of one step's edges stand at different heights
        x = _bezier(x1, x1, x2, x2, at)
        y = _bezier(y1, y1 + bend, y2 - bend, y2, at)
        return f"M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}", x, y
    x1, y1, x2, y2 = a.x + a.width, a.y + 14, b.x + b.width, b.y + b.height - 14
    out = max(x1, x2) + 40 + 14 * (number % 4)
    y = _bezier(y1, y1, y2, y2, 0.5)
    x = _bezier(x1, out, out, x2, 0.5)
    return f"M{x1} {y1}C{out} {y1} {out} {y2} {x2} {y2}", x, y


def _bezier(a: float, b: float, c: float, d: float, at: float) -> float:
    rest = 1 - at
    return rest**3 * a + 3 * rest**2 * at * b + 3 * rest * at**2 * c + at**3 * d


def _tag(x: float, y: float, text: str) -> str:
    width = len(text) * 6.1 + 6
    return (
        f'<rect class="halo" x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" '
        f'height="14"/><text class="small" text-anchor="middle" x="{x:.1f}" y="{y + 3:.1f}">'
        f"{escape(text)}</text>"
    )


def _circle(box: _Box) -> str:
    return (
        f'<circle class="start" cx="{box.middle}" cy="{box.y + 15}" r="11"/>'
        f'<text class="small" x="{box.middle + 18}" y="{box.y + 19}">{START}</text>'
    )


def _drawn(step: Step, box: _Box) -> str:
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
