"""A what-if as one HTML page that needs nothing else: no network, no script."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from madlog.analytics.what_if.effects import VERDICTS
from madlog.analytics.what_if.excerpt import Excerpt
from madlog.analytics.what_if.report import WhatIfReport
from madlog.analytics.what_if.tally import Tally

__all__ = ("page",)

_ROWS_MAX = 50
_TIERS = {"dtr": "the tree", "lppm": "learned processes", "imperator": "the language model"}
# A share that is narrower has no room for its figure, on a telephone either.
_ROOM_PERCENT = 9
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--soft:#52606d;--line:#d9e2ec;--page:#fff;
--mark:#fdecea;--dtr:#1b7f79;--lppm:#3b6fb6;--imperator:#b7791f;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ee;--soft:#9fb1c1;--line:#33414e;--page:#12181e;
--mark:#3a2023;--bad:#f2786f}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;
max-width:64rem;padding:1.5rem 1rem}
h1{font-size:1.6rem;margin:0 0 .4rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}
h3{font-size:1rem;margin:1.4rem 0 .3rem}p,ul{margin:.3rem 0}ul{padding-left:1.2rem}
.lead{font-size:1.15rem;margin:.8rem 0}.soft{color:var(--soft);font-size:.9rem}
.big{display:flex;flex-wrap:wrap;gap:.6rem 2rem;margin:1rem 0}.big div{min-width:7rem}
.big b{font-size:1.5rem;display:block;font-variant-numeric:tabular-nums}
.bar{display:flex;height:1.7rem;border-radius:.2rem;overflow:hidden;margin:.1rem 0 .6rem}
.bar span{color:#fff;font-size:.85rem;line-height:1.7rem;text-align:center;overflow:hidden}
.key{display:inline-block;width:.8em;height:.8em;border-radius:.15em;margin:0 .3em}
.dtr{background:var(--dtr)}.lppm{background:var(--lppm)}.imperator{background:var(--imperator)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft)}.n{text-align:right;font-variant-numeric:tabular-nums}
.said{list-style:none;padding:0;font-size:.92rem}.said li{display:flex;gap:.7rem;
padding:.35rem .6rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
.said .unlike{background:var(--mark)}.unlike i{color:var(--bad)}i{font-style:normal}
.said b{font-weight:600;margin-right:.5rem}.said small{display:block;font-size:.9em}
code{overflow-wrap:anywhere;font-size:.88em}
"""
# The words of columns whose names are short.
_COLUMNS = {
    "what_if": "what if",
    "promised_error": "promised",
    "error_low": "95 % from",
    "error_high": "to",
    "conversation_id": "conversation",
}
_SHARES = ("promised_error", "error", "error_low", "error_high")


def page(report: WhatIfReport) -> str:
    """Return the page."""
    body = [
        "<h1>What if</h1>",
        *_asked(report.asked),
        *_lead(report),
        *_notes(report),
        *_figures(report),
        *_guard(report),
        *_routes(report.tally),
        *_excerpts(report.excerpts),
        *_table("Conversations most affected", _counted(report.conversations)),
        f'<p class="soft">From the log alone, up to <code>{escape(_short(report))}</code>. Nothing '
        "was appended, no tool ran and no language model was asked: decisions are made at the "
        "recorded past, and what others would have said after another one is not made up.</p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>madlog: what if</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )


def _asked(asked: Mapping[str, Any]) -> Iterator[str]:
    """Say what was otherwise."""
    said = []
    if asked["model"] is not None:
        said.append(f"all decided by the model {escape(asked['model'])}")
    if asked["max_error"] is not None:
        said.append(f"a promised error of {100 * asked['max_error']:.4g} %")
    said += [f"without {_TIERS[tier]}" for tier in asked["without"]]
    if asked["guard"] is not None:
        said.append(f"a guard before each tool call: <code>{escape(asked['guard'])}</code>")
    if asked["prices"]:
        said.append(f"a list of {asked['prices']} prices")
    for word, place in (("from", asked["since"]), ("to", asked["until"])):
        if place is not None:
            said.append(f"{word} {escape(place)}")
    yield "<ul>" + "".join(f"<li>{one}</li>" for one in said) + "</ul>"


def _lead(report: WhatIfReport) -> Iterator[str]:
    """Yield the answer in a sentence or two."""
    tally, guard = report.tally, report.guard
    said = []
    if tally is not None:
        said.append(f"{tally.changed:,} of {tally.decisions:,} decisions come out otherwise.")
    if guard is not None:
        legitimate = guard.count("legitimate") or "none"
        said.append(
            f"The guard blocks {len(guard.blocked):,} of {guard.acts:,} tool calls, "
            f"{legitimate} of them legitimate."
        )
    if said:
        yield f'<p class="lead">{" ".join(said)}</p>'


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
        if report.tally.undecided:
            told["more, not on the record"] = f"{report.tally.undecided:,}"
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
        yield f'<h2>Who settles {escape(mode)} decisions</h2><p class="soft">'
        yield "".join(f'<span class="key {tier}"></span>{name}' for tier, name in _TIERS.items())
        yield "</p>"
        for side, words in (("record", "the record"), ("what_if", "what if")):
            yield f"{words}{_bar(counts[side]['tiers'], counts['decisions'])}"
    promises = [row for row in tally.promises() if row["settled"] or row["side"] == "what_if"]
    yield from _table("Promised and kept", promises)
    yield from _table("From which route to which", tally.moves())


def _bar(tiers: Mapping[str, int], whole: int) -> str:
    """Return one bar of shares, each with its share in it where there is room."""
    parts = []
    for tier, count in tiers.items():
        share = 100 * count / whole
        if count:
            shown = f"{share:.0f} %" if share >= _ROOM_PERCENT else ""
            title = f"{_TIERS[tier]}: {count:,}"
            parts.append(
                f'<span class="{tier}" style="width:{share:.3f}%" title="{title}">{shown}</span>'
            )
    return f'<div class="bar">{"".join(parts)}</div>'


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
    names = ["conversation_id", "verdict", "agent", "action", "arguments", "reason", "position"]
    if all(row["reason"] == "blocked" for row in rows):
        names.remove("reason")
    yield from _table("The calls", [{name: row[name] for name in names} for row in rows])


def _counted(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out the columns in which nothing is counted."""
    empty = {name for name in (rows[0] if rows else ()) if not any(row[name] for row in rows)}
    return [{name: row[name] for name in row if name not in empty} for row in rows]


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    numbers = {
        name for name in rows[0] if all(isinstance(row[name], int | float | None) for row in rows)
    }
    kinds = {name: " class=n" if name in numbers else "" for name in rows[0]}
    yield f'<h2>{escape(title)}</h2><div class="scroll"><table><tr>'
    for name, kind in kinds.items():
        yield f"<th{kind}>{escape(_COLUMNS.get(name, name.replace('_', ' ')))}</th>"
    yield "</tr>"
    for row in rows[:_ROWS_MAX]:
        yield "<tr>"
        for name, value in row.items():
            yield f"<td{kinds[name]}>{escape(_cell(name, value))}</td>"
        yield "</tr>"
    yield "</table></div>"
    if len(rows) > _ROWS_MAX:
        yield f'<p class="soft">and {len(rows) - _ROWS_MAX:,} more</p>'


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in _SHARES:
        return f"{100 * value:.3g} %"
    return f"{value:,}" if isinstance(value, int | float) else _COLUMNS.get(value, str(value))


def _excerpts(excerpts: Sequence[Excerpt]) -> Iterator[str]:
    if excerpts:
        yield "<h2>The turns of difference</h2>"
    for one in excerpts:
        yield f"<h3>{escape(one.conversation_id)}</h3>"
        if one.differs > 1:
            yield f'<p class="soft">{one.differs:,} otherwise, the first of them here</p>'
        yield '<ul class="said">'
        for line in one.lines:
            unlike = bool(line.record or line.what_if)
            yield f"<li{' class=unlike' if unlike else ''}><i>{line.mark}</i><div>"
            yield f"<b>{escape(line.who)}</b>{escape(line.what)}"
            if unlike:
                yield f"<small>record: {escape(line.record or 'nothing')}<br>"
                yield f"what if: <b>{escape(line.what_if or 'nothing')}</b></small>"
            yield "</div></li>"
        yield "</ul>"
