"""What an auditor looks at first, as one HTML page that needs nothing else.

Made from the log alone: what went on and when, who talked to whom, what it cost, what went wrong,
what was refused, and whether the log is whole. What is not known is said to be unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import Any

from madlog.analytics.as_of import as_of as resolve
from madlog.analytics.audit_charts import activity, graph
from madlog.analytics.html_page import document, figure, named, short, table
from madlog.analytics.output import json_rows, rows
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.questions import ask
from madlog.analytics.sql import query
from madlog.analytics.tables import LogSource, Once, Source
from madlog.topics import EventLog, Vector

__all__ = ("AuditReport", "Integrity", "audit_report")

_PERIODS_MAX = 72
# Where importers put what has no time of its own.
_NO_TIME = date(2020, 1, 1)
_STEPS = (
    ("minute", timedelta(minutes=1), "%H:%M"),
    ("hour", timedelta(hours=1), "%m-%d %H:00"),
    ("day", timedelta(days=1), "%Y-%m-%d"),
)
_STYLE = """
.verdict{border-left:.4rem solid var(--soft);background:var(--card);padding:.7rem 1rem}
.verdict{margin:1rem 0}.verdict.whole{border-color:var(--good)}
.verdict.broken{border-color:var(--bad)}
.verdict b{display:block}.verdict ul{margin:.3rem 0;padding-left:1.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(7rem,1fr));gap:.6rem}
.scroll svg.graph{max-width:42rem;min-width:0;margin:0 auto}.graph text{font-size:15px}
.card{background:var(--card);padding:.6rem .8rem;border-radius:4px}
.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.card.bad b{color:var(--bad)}.card span{color:var(--soft);font-size:.85rem}
.said,.agent{fill:var(--lppm)}.done{fill:var(--imperator)}.person{fill:var(--dtr)}
.edge path{fill:none;stroke:var(--soft);opacity:.55}.edge:hover path{opacity:1}
.tip{fill:var(--soft)}
"""


@dataclass(frozen=True)
class Integrity:
    """What `madlog check` found: records looked at, and each thing that is wrong, in words.

    `trees` partitions were held against `checkpoints` signed ones; both 0 where there are none.
    """

    records: int
    wrong: Sequence[str] = ()
    trees: int = 0
    checkpoints: int = 0
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class AuditReport:
    """The page, and how far the log was seen."""

    html: str
    as_of: Vector
    turns: int


async def audit_report(
    log: EventLog,
    name: str,
    *,
    as_of: Vector | None = None,
    prices: PriceList = NO_PRICES,
    integrity: Integrity | None = None,
    source: Source | None = None,
) -> AuditReport:
    """Make the page of the log called `name` up to `as_of`, by default its end now.

    `integrity` is what a check found, None where none was made. Raises SqlLimit.
    """
    end = await resolve(log) if as_of is None else as_of
    once = Once(source or LogSource(log))

    async def asked(sql: str) -> list[dict[str, Any]]:
        found = await query(log, sql, as_of=end, source=once, prices=prices)
        return list(json_rows(found))

    [figures] = await asked(_FIGURES)
    periods = await query(log, _ACTIVITY, as_of=end, source=once)
    costs = await asked(_COSTS)
    failed, refused = await asked(_FAILED), await asked(_REFUSED)
    twice = list(json_rows(await ask(log, "duplicate-effects", as_of=end, source=once)))
    body = [
        f"<h1>Audit of {escape(short(name, 80))}</h1>",
        f'<p class="soft">{_when(figures)}Turns: {escape(figures["traffic"] or "none yet")}. '
        "Made from the log alone; the last lines say up to where.</p>",
        *_verdict(integrity),
        _cards(figures, costs, failed, refused, twice),
        *_over_time(list(rows(periods))),
        *_talks(await asked(_PAIRS)),
        *_costs(costs),
        *_repeated(twice),
        *table("What went wrong", failed, _FAILED_COLUMNS, nothing="No error is on the log."),
        *table("What was refused", refused, _REFUSED_COLUMNS, nothing="Nothing was refused."),
        *table("Orders that people gave", await asked(_ORDERS), _ORDER_COLUMNS),
        *_checkpoints(await _signed(log, end)),
        f"<h2>Up to where the log was read</h2><p><code>{escape(str(end))}</code></p>",
    ]
    page = document(f"madlog: audit of {short(name, 80)}", body, _STYLE)
    return AuditReport(page, end, figures["turns"])


_FIGURES = """
SELECT count(*) AS turns, count(DISTINCT conversation_id) AS conversations,
    count(DISTINCT sender) AS senders, min(occurred_at) AS first_at, max(occurred_at) AS last_at,
    (SELECT count(*) FROM tool_calls) AS tool_calls,
    (SELECT string_agg(format('{:,} ', n) || traffic, ', ' ORDER BY traffic)
        FROM (SELECT traffic, count(*) AS n FROM turns GROUP BY traffic)) AS traffic
FROM turns
"""
_ACTIVITY = """
SELECT date_trunc('minute', occurred_at) AS period, sum(said)::BIGINT AS turns,
    sum(done)::BIGINT AS tool_calls
FROM (SELECT occurred_at, 1 AS said, 0 AS done FROM turns
    UNION ALL SELECT occurred_at, 0, 1 FROM tool_calls)
WHERE occurred_at IS NOT NULL GROUP BY period ORDER BY period
"""
_PAIRS = """
SELECT sender, mode(sender_kind) AS sender_kind, recipient, count(*) AS turns,
    count(DISTINCT conversation_id) AS conversations
FROM (SELECT sender, sender_kind, conversation_id, unnest(recipients) AS recipient FROM turns)
GROUP BY sender, recipient ORDER BY turns DESC, sender, recipient
"""
_COSTS = """
SELECT coalesce(c.model, 'unknown') AS model, count(*) AS calls,
    sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out,
    fsum(cost_usd) AS usd_recorded, count(*) FILTER (cost_usd IS NULL) AS calls_of_unknown_cost,
    fsum((tokens_in * p.usd_per_million_in + tokens_out * p.usd_per_million_out) / 1e6)
        AS usd_by_price_list
FROM llm_calls c ASOF LEFT JOIN prices p ON p.model = c.model AND p.since <= c.occurred_at
GROUP BY 1 ORDER BY usd_recorded DESC NULLS LAST, calls DESC, model
"""
_FAILED = """
SELECT what, who, count(*) AS times, arg_max(said, (moment, id)) AS last_said,
    arg_max(conversation_id, (moment, id)) AS in_conversation
FROM (
    SELECT 'tool ' || coalesce(c.action, 'of unknown name') AS what, c.sender AS who,
        r.occurred_at AS moment, coalesce(r.error, r.result) AS said, r.conversation_id,
        r.event_id AS id
    FROM tool_results r LEFT JOIN tool_calls c ON c.event_id = r.call_id WHERE NOT r.ok
    UNION ALL
    SELECT 'turn that reports an error', sender, occurred_at, text, conversation_id, event_id
    FROM turns WHERE intent = 'ERROR'
    UNION ALL
    SELECT 'record that ' || processor || ' could not process', sender, occurred_at,
        error_type || ': ' || error, conversation_id, event_id
    FROM dead_letters
)
GROUP BY what, who ORDER BY times DESC, what, who
"""
_FAILED_COLUMNS = ("what", "who", "times", "last_said", "in_conversation")
_REFUSED = """
SELECT who, what, count(*) AS times, arg_max(why, (moment, id)) AS last_reason,
    arg_max(conversation_id, (moment, id)) AS in_conversation
FROM (
    SELECT judged_by AS who, coalesce(extra->>'action', 'an act') AS what, occurred_at AS moment,
        extra->>'reason' AS why, conversation_id, event_id AS id
    FROM outcomes WHERE judged_by LIKE 'guard-%'
    UNION ALL
    SELECT sender, command || ' ' || target, occurred_at, reason, conversation_id, event_id
    FROM control WHERE command IN ('refuse', 'expire')
    UNION ALL
    SELECT 'sandbox: ' || verdict, action, occurred_at, reason, NULL, event_id
    FROM audit WHERE verdict NOT IN ('answered', 'interrupted')
)
GROUP BY who, what ORDER BY times DESC, who, what
"""
_REFUSED_COLUMNS = ("who", "what", "times", "last_reason", "in_conversation")
_ORDERS = """
SELECT occurred_at AS at, sender, command, target, value, reason FROM control
WHERE command NOT IN ('ask', 'rollout') ORDER BY occurred_at DESC, event_id LIMIT 100
"""
_ORDER_COLUMNS = ("at", "sender", "command", "target", "value", "reason")
_SIGNED_COLUMNS = ("partition", "records", "root", "checkpoints", "newest_at", "origin")
_TWICE = ("action", "same", "times", "amount_repeated", "first_at", "in_conversations")


def _when(figures: Mapping[str, Any]) -> str:
    if figures["first_at"] is None:
        return ""
    if figures["last_at"].startswith(str(_NO_TIME)):
        return "Its source told no times. "
    return f"{_day(figures['first_at'])} to {_day(figures['last_at'])}, UTC. "


def _day(text: str) -> str:
    return escape(text[:16].replace("T", " "))


def _verdict(integrity: Integrity | None) -> list[str]:
    """Say first whether the log is whole, and what that rests on."""
    if integrity is None:
        return ['<div class="verdict"><b>Not checked</b>No check was made for this page.</div>']
    looked = f"{integrity.records:,} records looked at"
    if integrity.wrong:
        items = "".join(f"<li>{escape(short(one, 300))}</li>" for one in integrity.wrong[:20])
        more = len(integrity.wrong) - 20
        items += f"<li>and {more:,} more: madlog check</li>" if more > 0 else ""
        count = len(integrity.wrong)
        title = f"The log is not whole: {count:,} finding{'s' if count > 1 else ''}"
        body = f"<b>{title}</b>{looked}.<ul>{items}</ul>"
        return [f'<div class="verdict broken">{body}</div>']
    if integrity.checkpoints:
        rests = (
            f"{looked}; checksums, chains and the Merkle trees of {integrity.trees:,} partitions "
            f"agree with {integrity.checkpoints:,} signed checkpoints."
        )
        title = "No damage and no tampering found"
    else:
        rests = (
            f"{looked}; checksums and chains agree. Nothing is signed, so who can write the log's "
            "files could have changed it (madlog evidence signs)."
        )
        title = "No damage found"
    notes = "".join(f"<p>{escape(short(one, 300))}</p>" for one in integrity.notes)
    return [f'<div class="verdict whole"><b>{title}</b>{rests}{notes}</div>']


def _cards(
    figures: Mapping[str, Any],
    costs: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
    twice: Sequence[Mapping[str, Any]],
) -> str:
    known = [row["usd_recorded"] for row in costs if row["usd_recorded"] is not None]
    unknown = sum(row["calls_of_unknown_cost"] for row in costs)
    calls = sum(row["calls"] for row in costs)
    cost = f"${sum(known):,.2f}" if known else "unknown" if calls else "–"
    of = "language model calls" if calls else "no language model call"
    of += f", {unknown:,} of unknown cost" if unknown else ""
    cards = (
        (f"{figures['conversations']:,}", "conversations", False),
        (f"{figures['turns']:,}", f"turns of {figures['senders']:,} senders", False),
        (f"{figures['tool_calls']:,}", "tool calls", False),
        (cost, f"{calls:,} {of}" if calls else of, False),
        (f"{len(twice):,}", "effects more than once", bool(twice)),
        (f"{sum(row['times'] for row in failed):,}", "errors", bool(failed)),
        (f"{sum(row['times'] for row in refused):,}", "refusals", False),
    )
    made = "".join(
        f'<div class="card{" bad" if bad else ""}"><b>{escape(number)}</b>'
        f"<span>{escape(label)}</span></div>"
        for number, label, bad in cards
    )
    return f'<div class="cards">{made}</div>'


def _over_time(minutes: Sequence[Mapping[str, Any]]) -> list[str]:
    if not minutes:
        return []
    bars, unit = _periods(minutes)
    keys = named("said", "turns") + named("done", "tool calls")
    caption = f"By {unit}, UTC, as the events' own times say. {keys}"
    if any(row["period"].date() == _NO_TIME for row in minutes):
        caption += f"<br>On {_NO_TIME} stand imported turns whose source told no time."
    return ["<h2>Activity</h2>", figure(activity(bars), caption)]


def _periods(minutes: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Put minutes together into the smallest periods that are not too many, none left out."""
    first, last = minutes[0]["period"], minutes[-1]["period"]
    span = last - first
    unit, step, form = next(
        (one for one in _STEPS if span / one[1] < _PERIODS_MAX), ("", timedelta(), "")
    )
    if not unit:
        days = max(1, round(span / timedelta(days=1) / _PERIODS_MAX))
        unit, step, form = f"{days} days" if days > 1 else "day", timedelta(days=days), "%Y-%m-%d"
    start = _floored(first, step)
    count = int((last - start) / step) + 1
    made = [
        {"label": (start + at * step).strftime(form), "turns": 0, "tool_calls": 0}
        for at in range(count)
    ]
    for row in minutes:
        one = made[int((row["period"] - start) / step)]
        one["turns"] += row["turns"]
        one["tool_calls"] += row["tool_calls"]
    return made, unit


def _floored(moment: datetime, step: timedelta) -> datetime:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // step * step if step < timedelta(days=1) else midnight


def _talks(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not pairs:
        return ["<h2>Who talks to whom</h2>", '<p class="soft">No turn names a recipient.</p>']
    keys = named("person", "person") + named("agent", "other")
    caption = f"The thicker an arrow, the more turns went that way. {keys}"
    columns = ("sender", "recipient", "turns", "conversations")
    return [
        "<h2>Who talks to whom</h2>",
        figure(graph(pairs), caption),
        *table("", pairs, columns)[1:],
    ]


def _repeated(twice: Sequence[Mapping[str, Any]]) -> list[str]:
    note = (
        '<p class="soft">Over all conversations, those within one first: '
        "<code>madlog ask duplicate-effects</code>. Runs of a test repeat each other: "
        "<code>-p across=false</code> looks within each.</p>"
    )
    title = "Effects that happened more than once"
    found = table(title, twice, _TWICE, nothing="None was found.")
    return [*found, note] if twice else found


def _costs(costs: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = ["model", "calls", "tokens_in", "tokens_out", "usd_recorded"]
    columns.append("calls_of_unknown_cost")
    if any(row["usd_by_price_list"] is not None for row in costs):
        columns.append("usd_by_price_list")
    nothing = "No call of a language model is on the log: what was spent is unknown."
    return table("What the language models cost", costs, columns, nothing=nothing)


async def _signed(log: EventLog, end: Vector) -> list[dict[str, Any]]:
    """Return the largest signed checkpoint of each partition, and how many there are."""
    found: dict[str, dict[str, Any]] = {}
    async for events in log.read_topics(["mad.system"], end=end):
        for event in events:
            if event.kind != "CheckpointSigned":
                continue
            fields = event.fields
            tree = f"{fields['topic']}/{fields['partition']}"
            one = found.setdefault(tree, {"partition": tree, "records": -1, "checkpoints": 0})
            one["checkpoints"] += 1
            if fields["size"] > one["records"]:
                moment = datetime.fromtimestamp(fields["occurred_at"] / 1e6, UTC)
                one |= {"records": fields["size"], "root": fields["root_sha256"]}
                one |= {"newest_at": f"{moment:%Y-%m-%d %H:%M:%S}", "origin": fields["origin"]}
    return [found[tree] for tree in sorted(found)]


def _checkpoints(signed: Sequence[Mapping[str, Any]]) -> list[str]:
    nothing = "None: madlog evidence signs what the log holds, so that a change can be proven."
    return table("Signed checkpoints", signed, _SIGNED_COLUMNS, nothing=nothing)
