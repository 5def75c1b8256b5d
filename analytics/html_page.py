"""What the HTML reports share: one page that needs nothing else, its style, tables and figures."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ("document", "figure", "named", "short", "table")

_ROWS_MAX = 15
_LIST_MAX = 2
_CELL_MAX = 140
# Longer texts keep some width on a narrow screen, so that their row does not become a tower.
_NARROW_MAX = 24
# Light and dark by the reader's setting; no script, no font, no address.
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--soft:#52606d;--line:#d9e2ec;--page:#fff;
--card:#f5f7fa;--dtr:#1b7f79;--lppm:#3b6fb6;--imperator:#b7791f;--bad:#b3261e;--good:#1b7f3b}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ee;--soft:#9fb1c1;--line:#33414e;--page:#12181e;
--card:#1b242d;--dtr:#4fb8b0;--lppm:#7aa7e8;--imperator:#e0a84a;--bad:#f2786f;--good:#63c583}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;
max-width:60rem;padding:1.5rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}p{margin:.3rem 0}
.soft,figcaption{color:var(--soft);font-size:.9rem}figure{margin:.6rem 0}
svg{width:100%;height:auto;display:block}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft);font-size:12px}
.dtr{fill:var(--dtr)}.lppm{fill:var(--lppm)}.imperator{fill:var(--imperator)}
.axis{stroke:var(--line)}.promise{stroke:var(--bad);stroke-dasharray:4 3}
.range{stroke:var(--ink);stroke-width:2}.dot{fill:var(--ink)}.dot.broken{fill:var(--bad)}
.scroll{overflow-x:auto}.scroll svg{min-width:34rem}
table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td{overflow-wrap:break-word;max-width:28rem}td.w{min-width:11rem}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}td.n,td.t{white-space:nowrap}
code{font-size:.88em;overflow-wrap:anywhere}
.named{white-space:nowrap}
@media print{.scroll{overflow:visible}.scroll svg{min-width:0}table{font-size:.75rem}}
@media print{td{overflow-wrap:anywhere}td.n,td.t{white-space:normal}td.w{min-width:0}}
@media print{tr,figure,.card,.verdict{break-inside:avoid}h2{break-after:avoid}}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .9em;border-radius:2px}
"""


def document(title: str, body: Sequence[str], style: str = "") -> str:
    """Return the whole page; `style` is CSS of its own."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )


def named(kind: str, meaning: str) -> str:
    """Return the colour of a class of shapes, with what it means."""
    patch = f'<svg class="key" viewBox="0 0 8 8"><rect width="8" height="8" class="{kind}"/></svg>'
    return f'<span class="named">{patch}{escape(meaning)}</span> '


def figure(svg: str, caption: str) -> str:
    """Return a drawing with what it shows in words; `caption` is HTML."""
    return f'<figure><div class="scroll">{svg}</div><figcaption>{caption}</figcaption></figure>'


def table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    nothing: str = "Nothing.",
) -> list[str]:
    """Return a heading and the first rows under it; numbers stand to the right."""
    if not rows:
        return [f"<h2>{escape(title)}</h2>", f'<p class="soft">{escape(nothing)}</p>']
    numbers = {name for name in columns if any(_number(row[name]) for row in rows)}
    head = "".join(
        f"<th{' class=n' if name in numbers else ''}>{escape(name.replace('_', ' '))}</th>"
        for name in columns
    )
    lines = ["".join(_cell(name, row[name]) for name in columns) for row in rows[:_ROWS_MAX]]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = len(rows) - _ROWS_MAX
    note = f'<p class="soft">and {more:,} more</p>' if more > 0 else ""
    return [
        f"<h2>{escape(title)}</h2>",
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>{note}',
    ]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(name: str, value: Any) -> str:
    """Return a value as a cell; what is not known is a dash, of a long list the first stand."""
    if value is None:
        return "<td>–</td>"
    if _number(value):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        text = f"${value:,.4f}" if name.startswith("usd") else text
        return f'<td class="n">{text}</td>'
    if isinstance(value, list):
        more = len(value) - _LIST_MAX
        value = ", ".join(str(one) for one in value[:_LIST_MAX])
        value += f" and {more} more" if more > 0 else ""
    if name.endswith("_at"):
        return f'<td class="t">{escape(str(value)[:16].replace("T", " "))}</td>'
    text = short(str(value), _CELL_MAX)
    wide = ' class="w"' if len(text) > _NARROW_MAX else ""
    return f"<td{wide}>{escape(text)}</td>"


def short(text: str, most: int) -> str:
    """Return a text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
