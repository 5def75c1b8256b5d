"""status: what goes on now: who was seen, rates, tier shares, what each agent spends."""

from typing import Annotated

import typer

from madlog.cli._context import JsonOption, LogOption, State, note, print_rows, run, state_of

__all__ = ("register",)

_AGENT = (
    "what",
    "name",
    "kind",
    "seen_s_ago",
    "turns",
    "per_minute",
    "llm_calls",
    "tokens",
    "cost_usd",
    "calls_of_unknown_cost",
    "over",
)
_TIER = ("what", "name", "mode", "decisions", "share", "per_minute")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("status", short_help="who is there, rates, tier shares, spending")(status)


def status(
    ctx: typer.Context,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            metavar="MINUTES",
            min=1,
            max=1440,
            help="How far back to look (default 60, or $MADLOG_STATUS_WINDOW_S).",
        ),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what went on in the last hour: who was seen, rates, tier shares, spending.

    Counted by when it was appended, in whole minutes. Agents over MADLOG_BUDGET_USD or
    MADLOG_BUDGET_TOKENS are marked. Where `madlog worker --engine faust` keeps its tables, they
    are read, and of the log only what came after.

    \b
    Examples:
      madlog status
      madlog status --window 10 --json
    """
    state = state_of(ctx, log, as_json)
    seconds = 60.0 * window if window is not None else state.settings.status_window_s
    run(_status(state, seconds))


async def _status(state: State, window_s: float) -> None:
    from madlog.processors.live import MINUTE_US, live
    from madlog.wiring import limits, opened

    async with opened(state.url, state.settings, create=False) as log:
        now_us = log.log.clock.now_us()
        since_us = (now_us - int(window_s * 1e6)) // MINUTE_US * MINUTE_US
        found = await live(log, since_us)
    minutes = (now_us - since_us) / MINUTE_US
    agents = found.agents(now_us, minutes, limits(state.settings))
    tiers = found.tiers(minutes)
    if not state.json:
        note(f"the last {minutes:.0f} minutes, by when it was appended")
    print_rows(state, agents, _AGENT, empty="nobody was seen in that time")
    print_rows(state, tiers, _TIER, empty="nothing was decided in that time")
    for row in agents:
        if row["over"]:
            note(f"madlog: {row['name']} is over its limit of {row['over']}")
