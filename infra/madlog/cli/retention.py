"""retention: what each topic takes and how it grows."""

import typer

from madlog.cli._context import JsonOption, LogOption, State, print_rows, run, state_of

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("retention", short_help="what each topic takes, in the log and in the lake")(
        retention
    )


def retention(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Show what each topic takes: in the log, in the lake, archived up to where, growth a day.

    It reads the whole log. Nothing is ever removed from a topic kept for ever.

    Example: madlog retention
    """
    state = state_of(ctx, log, as_json)
    run(_retention(state))


async def _retention(state: State) -> None:
    from dataclasses import asdict

    from madlog.analytics.lake.growth import retention as measured
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        rows = [asdict(one) for one in await measured(log)]
    columns = (
        "topic",
        "keeps",
        "records",
        "bytes",
        "disk_bytes",
        "archived",
        "waiting",
        "lake_files",
        "lake_bytes",
        "archived_to",
    )
    if state.json:
        print_rows(state, rows, (*columns, "growth"))
        return
    for row in rows:
        grown = row["growth"]
        row["bytes_a_day"] = None if grown is None else round(grown["bytes_a_day"])
    print_rows(state, rows, (*columns[:-1], "bytes_a_day"), empty="no topics")
