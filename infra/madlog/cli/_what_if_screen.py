"""What a what-if found, on the screen."""

from typing import TYPE_CHECKING

from madlog.cli._context import State, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madlog.analytics.what_if import WhatIfReport
    from madlog.analytics.what_if.excerpt import Excerpt

__all__ = ("print_report",)

_TABLE = State(None, False)
_MOVES_SHOWN = 8
_BLOCKED_SHOWN = 10


def print_report(report: "WhatIfReport") -> None:
    """Print a report: sentences, tables, and the turns of difference."""
    _routes(report)
    _guard(report)
    _cost(report)
    for excerpt in report.excerpts:
        _excerpt(excerpt)
    for told in report.notes:
        print(f"note: {told}")
    for model_id, why in report.failed.items():
        print(f"not decided again: what model {model_id} decided, because {why}")


def _routes(report: "WhatIfReport") -> None:
    tally = report.tally
    if tally is None:
        return
    print(
        f"{tally.decisions:,} decisions made again, {tally.changed:,} come out otherwise"
        + (f"; {tally.undecided:,} more, of which the record has none" * bool(tally.undecided))
    )
    print_rows(_TABLE, tally.tiers(), ("mode", "settled_by", "record", "what_if", "undecided"))
    promises = [row for row in tally.promises() if row["settled"]]
    names = ("mode", "side", "settled", "promised_error", "judged", "wrong", "error")
    if promises:
        print_rows(_TABLE, promises, (*names, "error_low", "error_high"))
    moves = tally.moves()
    if moves:
        print_rows(_TABLE, moves[:_MOVES_SHOWN], ("decisions", "recipient", "record", "what_if"))
    if len(moves) > _MOVES_SHOWN:
        print(f"… {len(moves) - _MOVES_SHOWN} more, all with --json")


def _guard(report: "WhatIfReport") -> None:
    guard = report.guard
    if guard is None:
        return
    verdicts = ", ".join(
        f"{guard.count(one)} {one}" for one in ("duplicate", "failed", "unsure", "legitimate")
    )
    print(f"{guard.acts:,} tool calls seen, {len(guard.blocked):,} blocked: {verdicts}")
    if guard.blocked:
        rows = [
            {
                "conversation": one.act.conversation_id,
                "action": one.act.action,
                "arguments": one.act.text,
                "verdict": one.verdict,
            }
            for one in guard.blocked[:_BLOCKED_SHOWN]
        ]
        print_rows(_TABLE, rows, ("conversation", "action", "arguments", "verdict"))
    if len(guard.blocked) > _BLOCKED_SHOWN:
        print(f"… {len(guard.blocked) - _BLOCKED_SHOWN} more, all with --out FILE.jsonl")
    for name, amount in guard.amounts().items():
        print(f"{name} of what is blocked: {amount:,.10g}")


def _cost(report: "WhatIfReport") -> None:
    cost = report.cost
    record, prices = cost["record"], cost["at_these_prices"]
    if not record["calls"]:
        return
    known = record["calls"] - record["calls_of_unknown_cost"]
    usd = "unknown" if record["usd"] is None else f"{record['usd']:,.2f}"
    print(f"the record's calls of language models: {record['calls']:,}, USD {usd} of {known:,}")
    if prices is not None:
        usd = "unknown" if prices["usd"] is None else f"{prices['usd']:,.2f}"
        known = record["calls"] - prices["calls_of_unknown_cost"]
        print(f"at the prices given: USD {usd} of {known:,}")
    fewer = cost["calls_fewer"]
    if fewer:
        words = "no longer need one" if fewer > 0 else "need one now"
        sums = [
            "unknown" if cost[name] is None else f"{abs(cost[name]):,.2f}"
            for name in ("usd_less", "latency_s_less")
        ]
        print(
            f"decisions that {words}: {abs(fewer):,}; at the mean of the record's calls USD "
            f"{sums[0]} and {sums[1]} s {'less' if fewer > 0 else 'more'}"
        )


def _excerpt(excerpt: "Excerpt") -> None:
    more = ", the first of them here" if excerpt.differs > 1 else ""
    print(f"{excerpt.conversation_id}: {excerpt.differs} otherwise{more}")
    for line in _lines(excerpt):
        print(line)


def _lines(excerpt: "Excerpt") -> "Iterator[str]":
    from rich.console import Console

    width = min(Console().width, 120) - 1
    for line in excerpt.lines:
        text = f"{line.mark} {line.who}: {line.what}"
        yield text if len(text) <= width else text[: width - 1] + "…"
        if line.record or line.what_if:
            yield f"{line.mark}   record: {line.record}   what if: {line.what_if}"
