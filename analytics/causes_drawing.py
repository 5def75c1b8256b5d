"""A tree of causes as a picture: Mermaid text, or an SVG that needs nothing else."""

from collections.abc import Sequence
from html import escape

from madlog.analytics.causes import CausalTree, Row, what

__all__ = ("mermaid", "svg")

_LANE, _LINE, _LEFT, _TOP = 20, 26, 18, 44
_CHARACTER = 7.3  # px of a monospaced letter of 12 px, with a little air
_TEXT_MAX = 110
_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2933}"
    ".who{fill:#52606d}.title{font-weight:bold}.edge{fill:none;stroke:#9aa5b1;stroke-width:1.5}"
    ".Turn{fill:#1976d2}.ToolCall,.ToolResult{fill:#00897b}.Decision{fill:#7b1fa2}"
    ".LlmCall{fill:#f9a825}.failed{fill:#d32f2f}.other{fill:#7b8794}.asked{fill:#fff3c4}"
)
_SHAPES = {"Turn": ('(["', '"])'), "Decision": ('{{"', '"}}')}


def mermaid(tree: CausalTree, *, whole: bool = False) -> str:
    """Return the tree as a Mermaid flow chart; the event that was asked for stands out."""
    rows = tree.rows(whole=whole)
    lines = ["flowchart TD"]
    for at, row in enumerate(rows):
        event = row.node.event
        left, right = _SHAPES.get(event.kind, ('["', '"]'))
        who = event.fields["sender"]["name"]
        lines.append(f"  e{at}{left}{_quoted(f'{who}: {what(event, _TEXT_MAX)}')}{right}")
    lines += [f"  e{row.above} --> e{at}" for at, row in enumerate(rows) if row.above is not None]
    asked = next(at for at, row in enumerate(rows) if row.node is tree.asked)
    lines.append(f"  style e{asked} fill:#fff3c4,stroke:#f9a825")
    return "\n".join(lines) + "\n"


def svg(tree: CausalTree, *, whole: bool = False) -> str:
    """Return the tree as an SVG image, a line an event, effects under their causes."""
    rows = tree.rows(whole=whole)
    texts = [
        (row.node.event.fields["sender"]["name"], what(row.node.event, _TEXT_MAX)) for row in rows
    ]
    lanes = max(row.lane for row in rows) + 1
    left = _LEFT + lanes * _LANE
    width = left + max(len(who) + len(said) + 2 for who, said in texts) * _CHARACTER + 20
    height = _TOP + len(rows) * _LINE + 10
    title = f"What led to {tree.asked.event.event_id}, and what came of it"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="title" x="{_LEFT - 6}" y="22">{escape(tree.conversation_id)}</text>',
    ]
    parts += _edges(rows)
    for at, (row, (who, said)) in enumerate(zip(rows, texts, strict=True)):
        x, y = _place(row, at)
        event = row.node.event
        if row.node is tree.asked:
            parts.insert(3, f'<rect class="asked" y="{y - 13}" width="100%" height="{_LINE}"/>')
        parts.append(
            f"<g><title>{escape(f'{event.kind} {event.event_id}')}</title>"
            f'<circle class="{_kind(row)}" cx="{x}" cy="{y}" r="5"/>'
            f'<text x="{left}" y="{y + 4}"><tspan class="who">{escape(who)}</tspan>  '
            f"{escape(said)}</text></g>"
        )
    return "".join(parts) + "</svg>\n"


def _place(row: Row, at: int) -> tuple[int, int]:
    return _LEFT + row.lane * _LANE, _TOP + at * _LINE + 6


def _edges(rows: Sequence[Row]) -> list[str]:
    """Draw each line of effects down its lane, and a bend where another lane begins."""
    parts = []
    for at, row in enumerate(rows):
        if row.above is None:
            continue
        (x1, y1), (x2, y2) = _place(rows[row.above], row.above), _place(row, at)
        path = f"M{x1} {y1}V{y2}" if x1 == x2 else f"M{x1} {y2 - _LINE}Q{x1} {y2} {x2} {y2}"
        parts.append(f'<path class="edge" d="{path}"/>')
    return parts


def _kind(row: Row) -> str:
    event = row.node.event
    failed = (event.kind == "ToolResult" and not event.fields["ok"]) or (
        event.kind == "Outcome" and event.fields["result"] == "failure"
    )
    if failed:
        return "failed"
    known = ("Turn", "ToolCall", "ToolResult", "Decision", "LlmCall")
    return event.kind if event.kind in known else "other"


def _quoted(text: str) -> str:
    # Mermaid reads entities inside quotes, and a bar would end a label.
    return escape(text).replace("|", "&#124;").replace("`", "&#96;")
