"""What the tiers settle and how often they are wrong, as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from madlog.analytics.output import json_rows
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.questions import ask
from madlog.analytics.routing_charts import MEANINGS, intervals, reliability, shares
from madlog.analytics.sql import query
from madlog.analytics.tables import LogSource
from madlog.topics import EventLog, Vector

__all__ = ("RoutingReport", "routing_report")

_ROWS_MAX = 15
_PARTS_MAX = 31
_PARTS = {"mad": "The same by agent, of model calls.", "day": "The same by day, of model calls."}
_SAVED = ("tokens_in_avoided", "tokens_out_avoided", "usd_avoided")
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--soft:#52606d;--line:#d9e2ec;--page:#fff;
--dtr:#1b7f79;--lppm:#3b6fb6;--imperator:#b7791f;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ee;--soft:#9fb1c1;--line:#33414e;--page:#12181e;
--dtr:#4fb8b0;--lppm:#7aa7e8;--imperator:#e0a84a;--bad:#f2786f}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;
max-width:60rem;padding:1.5rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}p{margin:.3rem 0}
.soft,figcaption{color:var(--soft);font-size:.9rem}figure{margin:.6rem 0}
svg{width:100%;height:auto;display:block}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft);font-size:12px}
.dtr{fill:var(--dtr)}.lppm{fill:var(--lppm)}.imperator{fill:var(--imperator)}
.axis{stroke:var(--line)}.promise{stroke:var(--bad);stroke-dasharray:4 3}
.range{stroke:var(--ink);stroke-width:2}.dot{fill:var(--ink)}.dot.broken{fill:var(--bad)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
code{overflow-wrap:anywhere}td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.88em}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .9em;border-radius:2px}
"""


@dataclass(frozen=True)
class RoutingReport:
    """The page, and how far the log was seen."""

    html: str
    as_of: Vector
    decisions: int


async def routing_report(
    log: EventLog, *, as_of: Vector | None = None, prices: PriceList = NO_PRICES
) -> RoutingReport:
    """Make the page from the log up to `as_of`, by default its end now."""
    end = await log.log.end(sorted(await log.log.topics())) if as_of is None else as_of
    told = {
        name: list(json_rows(await ask(log, name, as_of=end, prices=prices)))
        for name in ("tiers", "learned", "promises", "escalations", "regret", "savings")
    }
    of_all = await ask(log, "calibration", {"by_model": "no"}, as_of=end)
    told["calibration"] = list(json_rows(of_all))
    for name in _PARTS:
        told[f"tiers by {name}"] = list(json_rows(await ask(log, "tiers", {"by": name}, as_of=end)))
    source = LogSource(log)
    by_model = await query(log, _BY_MODEL, as_of=end, source=source)
    traffic = _said(list(json_rows(await query(log, _TRAFFIC, as_of=end, source=source))))
    decisions = sum(row["decisions"] for row in told["tiers"])
    body = [
        "<h1>What the tiers settle, and how often they are wrong</h1>",
        f'<p class="soft">{decisions:,} decisions. Traffic: {escape(traffic)}. '
        "Made from the log alone, up to "
        f"<code>{escape(_short(str(end), 160))}</code></p>",
        *_sections(told, list(json_rows(by_model))),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>madlog: routing</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )
    return RoutingReport(page, end, decisions)


_BY_MODEL = """
SELECT m.version AS model, d.mode, count(*) AS decisions,
    avg((d.tier = 'dtr')::INT) AS dtr, avg((d.tier = 'lppm')::INT) AS lppm,
    avg((d.tier = 'imperator')::INT) AS imperator
FROM decisions d JOIN models m ON m.event_id = d.model_id
GROUP BY m.version, m.event_id, d.mode
ORDER BY d.mode, min(m.appended_at), min(m."offset")
"""


_TRAFFIC = "SELECT traffic, count(*) AS turns FROM turns GROUP BY traffic ORDER BY traffic"
_LIVED = {
    "imported": "imported, decided in retrospect",
    "live": "live",
    "scripted": "scripted",
}


def _said(traffic: Sequence[Mapping[str, Any]]) -> str:
    """Say what the turns are: lived here, brought in, or scripted (made-up times, no source)."""
    said = [f"{row['turns']:,} turns {_LIVED[row['traffic']]}" for row in traffic]
    return "; ".join(said) or "no turns yet"


def _sections(
    told: Mapping[str, Sequence[Mapping[str, Any]]], by_model: Sequence[Mapping[str, Any]]
) -> list[str]:
    parts = [_legend()]
    for mode in dict.fromkeys(row["mode"] for row in told["tiers"]):
        rows = [row for row in told["tiers"] if row["mode"] == mode]
        bars = {
            name: {row["tier"]: row[share] for row in rows if row[share] is not None}
            for name, share in (("of messages", "message_share"), ("of model calls", "share"))
        }
        parts += [f"<h2>{escape(_title(mode))}</h2>", _figure(shares(bars), _against(rows))]
        learned = {
            f"{row['model']} ({row['decisions']:,})": {tier: row[tier] for tier in MEANINGS}
            for row in by_model
            if row["mode"] == mode
        }
        if len(learned) > 1:
            caption = "The same by model, oldest first: its name and how many decisions name it."
            parts.append(_figure(shares(learned), caption))
        for name, caption in _PARTS.items():
            mine = [row for row in told[f"tiers by {name}"] if row["mode"] == mode]
            parts += _by_part(mine, caption)
    if told["promises"]:
        parts += [
            "<h2>Promised and delivered</h2>",
            _figure(
                intervals(told["promises"]),
                "Share of wrong decisions of each agent's cheap tiers with its 95 % interval; the "
                "dashed line is what was promised. Live, only the audited share counts.",
            ),
        ]
    parts += _calibrated(told["calibration"])
    parts += _table(
        "What was saved, or would have been",
        told["savings"],
        ("mode", "calls_avoided", *_SAVED, "calls_of_unknown_cost", "models_of_unknown_cost"),
    )
    parts += _table(
        "Why turns went up to the language model",
        told["escalations"],
        ("mode", "recipient", "escalation", "decisions", "share", "for_example"),
    )
    parts += _table(
        "What would have been wrong",
        told["regret"],
        ("recipient", "tier", "route", "arguments", "did", "did_arguments", "conversation_id"),
    )
    learned_columns = ("model", "mode", "decisions", "settled", "delivered_error")
    seen = ("conversations_seen", "conversations_learned", "code_version")
    return parts + _table("What was learned", told["learned"], (*learned_columns, *seen))


def _calibrated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    judged = [row for row in rows if row["judged"]]
    parts = ["<h2>How sure, and how often right</h2>"] if judged else []
    for mode in dict.fromkeys(row["mode"] for row in judged):
        parts.append(
            _figure(
                reliability([row for row in judged if row["mode"] == mode]),
                f"{escape(_title(mode))}. Across: the confidence that decisions state; up: the "
                "share of them that was right, with its 95 % interval. On the dashed line a tier "
                "is right as often as it says. The decision tree states a lower bound, so it "
                "should lie above.",
            )
        )
    return parts


def _title(mode: str) -> str:
    return {
        "live": "Live",
        "shadow": "In shadow: recorded, not acted on",
        "retrospective": "In retrospect: what would have been settled",
    }.get(mode, mode)


def _legend() -> str:
    keys = "".join(
        f'<svg class="key" viewBox="0 0 8 8"><rect width="8" height="8" class="{tier}"/></svg>'
        f"{escape(meaning)}"
        for tier, meaning in MEANINGS.items()
    )
    return f'<p class="soft">{keys}</p>'


def _against(rows: Sequence[Mapping[str, Any]]) -> str:
    said = []
    for row in sorted(rows, key=lambda one: list(MEANINGS).index(one["tier"])):
        share = row["share"] if row["message_share"] is None else row["message_share"]
        said.append(
            f"{MEANINGS[row['tier']]}: {share:.1%} (a grown ecosystem is expected at "
            f"{row['target_low']:.0%} to {row['target_high']:.0%})"
        )
    traffic = ", ".join(sorted({one for row in rows for one in (row["traffic"] or "").split(", ")}))
    return escape(f"{'; '.join(said)}. Traffic: {traffic or 'unknown'}.")


def _by_part(rows: Sequence[Mapping[str, Any]], caption: str) -> list[str]:
    """Return the bars of the newest or largest parts, where there is more than one."""
    parts: dict[str, dict[str, float]] = {}
    for row in rows:
        parts.setdefault(row["part"], {})[row["tier"]] = row["share"]
    shown = dict(list(parts.items())[-_PARTS_MAX:])
    return [_figure(shares(shown), caption)] if len(parts) > 1 else []


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    if not rows:
        return [f"<h2>{escape(title)}</h2>", '<p class="soft">Nothing.</p>']
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    lines = ["".join(_cell(row[name]) for name in columns) for row in rows[:_ROWS_MAX]]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = len(rows) - _ROWS_MAX
    note = f'<p class="soft">and {more:,} more</p>' if more > 0 else ""
    return [
        f"<h2>{escape(title)}</h2>",
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>{note}',
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        return f'<td class="n">{text}</td>'
    return f"<td>{escape(_short(str(value), 140))}</td>"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
