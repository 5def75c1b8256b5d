"""A what-if as one HTML page that needs nothing else: no network, no script."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from madlog.analytics.routing_charts import shares
from madlog.analytics.what_if.effects import VERDICTS
from madlog.analytics.what_if.excerpt import Excerpt
from madlog.analytics.what_if.report import WhatIfReport
from madlog.analytics.what_if.tally import Tally

__all__ = ("page",)

_ROWS_MAX = 50
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--soft:#52606d;--line:#d9e2ec;--page:#fff;
--mark:#fdecea;--dtr:#1b7f79;--lppm:#3b6fb6;--imperator:#b7791f;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ee;--soft:#9fb1c1;--line:#33414e;--page:#12181e;
--mark:#3a2023;--dtr:#4fb8b0;--lppm:#7aa7e8;--imperator:#e0a84a;--bad:#f2786f}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;
max-width:64rem;padding:1.5rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}
h3{font-size:1rem;margin:1.4rem 0 .3rem}p{margin:.3rem 0}figure{margin:.6rem 0}
.soft,figcaption{color:var(--soft);font-size:.9rem}
svg{width:100%;height:auto;display:block}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft);font-size:12px}
.dtr{fill:var(--dtr)}.lppm{fill:var(--lppm)}.imperator{fill:var(--imperator)}
.big{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:1rem 0}.big b{font-size:1.5rem;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:break-word}.n{text-align:right;font-variant-numeric:tabular-nums}
tr.unlike td{background:var(--mark)}td.mark{font-size:1.1rem}tr.unlike td.mark{color:var(--bad)}
code{overflow-wrap:anywhere;font-size:.88em}
"""


def page(report: WhatIfReport) -> str:
    """Return the page."""
    body = [
        "<h1>What if</h1>",
        f'<p class="soft">{escape(_asked(report.asked))}</p>',
        f'<p class="soft">From the log alone, up to <code>{escape(_short(report))}</code>. Nothing '
        "was appended, no tool ran and no language model was asked: decisions are made at the "
        "recorded past, and what others would have said after another one is not made up.</p>",
        *_notes(report),
        *_figures(report),
        *_routes(report.tally),
        *_guard(report),
        *_excerpts(report.excerpts),
        *_table("Conversations most affected", report.conversations),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>madlog: what if</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )


def _asked(asked: Mapping[str, Any]) -> str:
    """Say what was otherwise."""
    said = []
    if asked["model"] is not None:
        said.append(f"all decided by the model {asked['model']}")
    if asked["max_error"] is not None:
        said.append(f"a promised error of {asked['max_error']:.4g}")
    said += [f"without {tier}" for tier in asked["without"]]
    if asked["guard"] is not None:
        said.append(f"a guard before each tool call: {asked['guard']}")
    if asked["prices"]:
        said.append(f"a list of {asked['prices']} prices")
    for word, place in (("from", asked["since"]), ("to", asked["until"])):
        if place is not None:
            said.append(f"{word} {place}")
    return "; ".join(said)


def _short(report: WhatIfReport) -> str:
    text = str(report.end.only(["mad.conversations"]))
    return text if len(text) <= 160 else text[:158] + " …"


def _notes(report: WhatIfReport) -> Iterator[str]:
    for note in report.notes:
        yield f"<p><strong>{escape(note)}</strong></p>"
    for model_id, why in report.failed.items():
        yield f"<p>Not decided again: what model {escape(model_id)} decided ({escape(why)}).</p>"
    for damage in report.damaged[:_ROWS_MAX]:
        yield f"<p>Damaged, and passed over: {escape(damage)}</p>"


def _figures(report: WhatIfReport) -> Iterator[str]:
    """Yield the few figures that matter most."""
    told: dict[str, str] = {}
    if report.tally is not None:
        told["decisions made again"] = f"{report.tally.decisions:,}"
        told["come out otherwise"] = f"{report.tally.changed:,}"
    if report.guard is not None:
        told["tool calls looked at"] = f"{report.guard.acts:,}"
        told["blocked"] = f"{len(report.guard.blocked):,}"
        told["legitimate ones among them"] = f"{report.guard.count('legitimate'):,}"
        told |= {
            f"{name} blocked": f"{amount:,.10g}" for name, amount in report.guard.amounts().items()
        }
    cost, prices = report.cost, report.cost["at_these_prices"]
    if cost["record"]["usd"] is not None:
        told["USD, the record's known calls"] = f"{cost['record']['usd']:,.2f}"
    if prices is not None and prices["usd"] is not None:
        told["USD at these prices"] = f"{prices['usd']:,.2f}"
    fewer = cost["calls_fewer"]
    if fewer:
        told[f"model calls {'fewer' if fewer > 0 else 'more'}"] = f"{abs(fewer):,}"
        for name, unit in (("usd_less", "USD"), ("latency_s_less", "s of waiting")):
            if cost[name] is not None:
                told[f"{unit} {'less' if fewer > 0 else 'more'}"] = f"{abs(cost[name]):,.2f}"
    yield '<div class="big">'
    for words, figure in told.items():
        yield f"<div><b>{escape(figure)}</b>{escape(words)}</div>"
    yield "</div>"


def _routes(tally: Tally | None) -> Iterator[str]:
    if tally is None or not tally.decisions:
        return
    for mode, counts in sorted(tally.state["modes"].items()):
        if not counts["decisions"]:
            continue
        bars = {
            words: {
                tier: count / counts["decisions"] for tier, count in counts[side]["tiers"].items()
            }
            for side, words in (("record", "the record"), ("what_if", "what if"))
        }
        yield f"<h2>Who settles {escape(mode)} decisions</h2>"
        yield (
            f"<figure>{shares(bars)}<figcaption>Share of decisions by the tree, by learned "
            "processes, by the language model.</figcaption></figure>"
        )
    yield from _table("Promised and kept", list(tally.promises()))
    yield from _table("From which route to which", tally.moves())


def _guard(report: WhatIfReport) -> Iterator[str]:
    guard = report.guard
    if guard is None:
        return
    told = [
        {"of what is blocked": f"{verdict}: {meaning}", "calls": guard.count(verdict)}
        for verdict, meaning in VERDICTS.items()
    ]
    yield from _table("What the guard blocks", told)
    rows = [one.as_json() for one in guard.blocked]
    names = ("conversation_id", "agent", "action", "arguments", "verdict", "reason", "position")
    yield from _table("The calls", [{name: row[name] for name in names} for row in rows])


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield f'<h2>{escape(title)}</h2><div class="scroll"><table><tr>'
    for name, value in rows[0].items():
        kind = " class=n" if isinstance(value, int | float) else ""
        yield f"<th{kind}>{escape(name.replace('_', ' '))}</th>"
    yield "</tr>"
    for row in rows[:_ROWS_MAX]:
        yield "<tr>"
        for value in row.values():
            number = isinstance(value, int | float)
            shown = "–" if value is None else f"{value:,.6g}" if number else str(value)
            yield f"<td{' class=n' if number else ''}>{escape(shown)}</td>"
        yield "</tr>"
    yield "</table></div>"
    if len(rows) > _ROWS_MAX:
        yield f'<p class="soft">and {len(rows) - _ROWS_MAX:,} more</p>'


def _excerpts(excerpts: Sequence[Excerpt]) -> Iterator[str]:
    if excerpts:
        yield "<h2>The turns of difference</h2>"
    for one in excerpts:
        yield f"<h3>{escape(one.conversation_id)}</h3>"
        if one.differs > 1:
            yield f'<p class="soft">{one.differs:,} otherwise, the first of them here</p>'
        yield '<div class="scroll"><table><tr><th></th><th>who</th><th>what</th>'
        yield "<th>record</th><th>what if</th></tr>"
        for line in one.lines:
            kind = ' class="unlike"' if line.record or line.what_if else ""
            cells = (line.who, line.what, line.record, line.what_if)
            yield f'<tr{kind}><td class="mark">{line.mark}</td>'
            yield "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        yield "</table></div>"
