"""What the tiers settle and how often they are wrong, as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from madlog.analytics.html_page import document, figure, named, short, table
from madlog.analytics.output import json_rows
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.questions import ask
from madlog.analytics.routing_charts import MEANINGS, intervals, reliability, shares
from madlog.analytics.sql import query
from madlog.analytics.tables import LogSource, Once, Source
from madlog.topics import EventLog, Vector

__all__ = ("RoutingReport", "routing_report")

_PARTS_MAX = 31
_PARTS = {"mad": "The same by agent, of model calls.", "day": "The same by day, of model calls."}
_SAVED = ("tokens_in_avoided", "tokens_out_avoided", "usd_avoided")


@dataclass(frozen=True)
class RoutingReport:
    """The page, and how far the log was seen."""

    html: str
    as_of: Vector
    decisions: int


async def routing_report(
    log: EventLog,
    *,
    as_of: Vector | None = None,
    prices: PriceList = NO_PRICES,
    source: Source | None = None,
) -> RoutingReport:
    """Make the page from the log up to `as_of`, by default its end now. Raises SqlLimit."""
    end = await log.log.end(sorted(await log.log.topics())) if as_of is None else as_of
    once = Once(source or LogSource(log))

    async def asked(name: str, **given: str) -> list[dict[str, Any]]:
        found = await ask(log, name, given, as_of=end, prices=prices, source=once)
        return list(json_rows(found))

    told = {
        name: await asked(name)
        for name in ("tiers", "learned", "promises", "escalations", "regret", "savings")
    }
    told["calibration"] = await asked("calibration", by_model="no")
    for part in _PARTS:
        told[f"tiers by {part}"] = await asked("tiers", by=part)
    by_model = await query(log, _BY_MODEL, as_of=end, source=once)
    traffic = _said(list(json_rows(await query(log, _TRAFFIC, as_of=end, source=once))))
    decisions = sum(row["decisions"] for row in told["tiers"])
    body = [
        "<h1>What the tiers settle, and how often they are wrong</h1>",
        f'<p class="soft">{decisions:,} decisions. Traffic: {escape(traffic)}. '
        "Made from the log alone, up to "
        f"<code>{escape(short(str(end), 160))}</code></p>",
        *_sections(told, list(json_rows(by_model))),
    ]
    page = document("madlog: routing", body)
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
        parts += [f"<h2>{escape(_title(mode))}</h2>", figure(shares(bars), _against(rows))]
        learned = {
            f"{row['model']} ({row['decisions']:,})": {tier: row[tier] for tier in MEANINGS}
            for row in by_model
            if row["mode"] == mode
        }
        if len(learned) > 1:
            caption = "The same by model, oldest first: its name and how many decisions name it."
            parts.append(figure(shares(learned), caption))
        for name, caption in _PARTS.items():
            mine = [row for row in told[f"tiers by {name}"] if row["mode"] == mode]
            parts += _by_part(mine, caption)
    if told["promises"]:
        parts += [
            "<h2>Promised and delivered</h2>",
            figure(
                intervals(told["promises"]),
                "Share of wrong decisions of each agent's cheap tiers with its 95 % interval; the "
                "dashed line is what was promised. Live, only the audited share counts.",
            ),
        ]
    parts += _calibrated(told["calibration"])
    parts += table(
        "What was saved, or would have been",
        told["savings"],
        ("mode", "calls_avoided", *_SAVED, "calls_of_unknown_cost", "models_of_unknown_cost"),
    )
    parts += table(
        "Why turns went up to the language model",
        told["escalations"],
        ("mode", "recipient", "escalation", "decisions", "share", "for_example"),
    )
    parts += table(
        "What would have been wrong",
        told["regret"],
        ("recipient", "tier", "route", "arguments", "did", "did_arguments", "conversation_id"),
    )
    learned_columns = ("model", "mode", "decisions", "settled", "delivered_error")
    seen = ("conversations_seen", "conversations_learned", "code_version")
    return parts + table("What was learned", told["learned"], (*learned_columns, *seen))


def _calibrated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    judged = [row for row in rows if row["judged"]]
    parts = ["<h2>How sure, and how often right</h2>"] if judged else []
    for mode in dict.fromkeys(row["mode"] for row in judged):
        parts.append(
            figure(
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
    keys = "".join(named(tier, meaning) for tier, meaning in MEANINGS.items())
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
    return [figure(shares(shown), caption)] if len(parts) > 1 else []
