"""worker, groups, dead-letters: the processors at work."""

from typing import Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    note,
    print_object,
    print_rows,
    progress_bar,
    run,
    state_of,
)

__all__ = ("register",)

dead_app = typer.Typer(help="what could not be processed: list, show, retry", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("worker", short_help="run the processors: route each turn")(worker)
    app.command("groups", short_help="who has read how far")(groups)
    app.add_typer(dead_app, name="dead-letters")


def worker(
    ctx: typer.Context,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME,…", help="Run these processors only.")
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Stop when everything is processed.")
    ] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the processors: each turn goes to the cheapest tier that can settle it.

    Imported conversations are decided in retrospect: nothing runs, nothing is sent or spent.

    Example: madlog worker --until-idle
    """
    state = state_of(ctx, log, as_json)
    run(_worker(state, only, until_idle))


async def _worker(state: State, only: str | None, until_idle: bool) -> None:
    from madlog.analytics.replay import refresh
    from madlog.wiring import folder_beside, open_worker, opened

    names = tuple(name.strip() for name in only.split(",")) if only else None
    async with opened(state.url, state.settings, create=False) as log:
        engine = open_worker(log, state.settings, names)
        with progress_bar("events processed") as show:
            report = await engine.run(
                until_idle=until_idle,
                progress=lambda now: show(now.events),
                recovering=lambda text: note(f"madlog: {text}"),
            )
            # The live projections, which `replay rebuild` holds against a fold from zero.
            await refresh(log, folder_beside(state.url, state.settings) / "projections")
    print_object(
        state,
        {
            "events": report.events,
            "outputs": report.outputs,
            "dead_letters": report.dead_letters,
            "idle": report.idle,
        },
    )


def groups(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List consumer groups: position, end and lag of each partition.

    Example: madlog groups
    """
    state = state_of(ctx, log, as_json)
    run(_groups(state))


async def _groups(state: State) -> None:
    from madlog.processors.groups import group_rows
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        rows = await group_rows(log)
    columns = ("group", "topic", "partition", "committed", "end", "lag", "member")
    print_rows(state, rows, columns, empty="no group has read this log: madlog worker makes one")


@dead_app.command("list")
def dead_list(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List what could not be processed.

    Example: madlog dead-letters list
    """
    state = state_of(ctx, log, as_json)
    run(_dead_list(state))


async def _dead_list(state: State) -> None:
    from madlog.processors.dead_letters import dead_letters
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        rows = [_row(letter) for letter in await dead_letters(log)]
    columns = ("event_id", "processor", "position", "error_type", "error", "attempts", "settled")
    print_rows(state, rows, columns, empty="no dead letters")


def _row(letter: Any) -> dict[str, Any]:
    fields = letter.fields
    return {
        **{name: fields[name] for name in ("event_id", "processor", "error_type", "error")},
        "position": f"{fields['topic']}/{fields['partition']}@{fields['offset']}",
        "attempts": fields["attempts"],
        "settled": letter.settled,
    }


@dead_app.command("show")
def dead_show(
    ctx: typer.Context, event_id: str, log: LogOption = None, as_json: JsonOption = False
) -> None:
    """Show one dead letter with its bytes, error and attempts.

    Example: madlog dead-letters show 0198…
    """
    state = state_of(ctx, log, as_json)
    run(_dead_show(state, event_id))


async def _dead_show(state: State, event_id: str) -> None:
    from madlog.processors.dead_letters import dead_letters
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        found = [item for item in await dead_letters(log) if item.fields["event_id"] == event_id]
    if not found:
        raise fail(f"no dead letter {event_id[:60]!r}: madlog dead-letters list", 2)
    fields = found[0].fields
    print_object(
        state,
        {
            **_row(found[0]),
            "record_key": fields["record_key"].decode("utf-8", "backslashreplace"),
            "record_value_hex": fields["record_value"].hex(),
            "record_headers": {
                name: value.decode("utf-8", "backslashreplace")
                for name, value in fields["record_headers"].items()
            },
        },
    )


@dead_app.command("retry")
def dead_retry(
    ctx: typer.Context,
    event_id: Annotated[str, typer.Argument(help="A dead letter's id, or all.")],
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Process a dead letter again from its original bytes; exit code 1 when it fails again.

    Example: madlog dead-letters retry all
    """
    state = state_of(ctx, log, as_json)
    if run(_dead_retry(state, event_id)):
        raise typer.Exit(1)


async def _dead_retry(state: State, event_id: str) -> int:
    from dataclasses import asdict

    from madlog.processors.dead_letters import retry_letters
    from madlog.wiring import opened, processors

    async with opened(state.url, state.settings, create=False) as log:
        rows = [
            asdict(item) for item in await retry_letters(log, processors(state.settings), event_id)
        ]
    if not rows and event_id != "all":
        raise fail(f"no dead letter {event_id[:60]!r}: madlog dead-letters list", 2)
    print_rows(state, rows, ("event_id", "processor", "settled", "error"), empty="nothing to retry")
    return sum(not row["settled"] for row in rows)
