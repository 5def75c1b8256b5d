"""replay: the log again from its start, to see that it comes out the same, or what if not."""

from pathlib import Path
from typing import Annotated

import typer

from madlog.cli import what_if
from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    note,
    print_object,
    print_rows,
    run,
    state_of,
)
from madlog.cli._replay_bar import replay_bar
from madlog.cli.what_if import FromOption, ToOption

__all__ = ("register",)

replay_app = typer.Typer(help="run the log again from its start", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    what_if.register(replay_app)
    app.add_typer(replay_app, name="replay")


@replay_app.command("rebuild")
def rebuild(
    ctx: typer.Context,
    snapshots: Annotated[
        Path | None,
        typer.Option("--snapshots", help="Where the live projections are (LOG/projections)."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="PLACE",
            help="Up to a position, time, event or conversation; nothing is stored.",
        ),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fold everything from offset zero again and compare with the live projections.

    Exit code 1 and the first difference when they differ. It always begins at zero: that is what
    makes it a proof. With --to what is live is compared only where it is not past that place.

    Example: madlog replay rebuild
    """
    state = state_of(ctx, log, as_json)
    if not run(_rebuild(state, snapshots, until)):
        raise typer.Exit(1)


async def _rebuild(state: State, snapshots: Path | None, until: str | None) -> bool:
    from madlog.analytics.replay import rebuild as rebuild_log
    from madlog.analytics.replay_range import replay_range
    from madlog.wiring import folder_beside, opened, processors

    folder = snapshots or folder_beside(state.url, state.settings) / "projections"
    with replay_bar("replaying from zero") as show:
        async with opened(state.url, state.settings, create=False) as log:
            place = None if until is None else (await replay_range(log, None, until)).end
            report = await rebuild_log(
                log,
                folder,
                processors=processors(state.settings),
                until=place,
                progress=show,
            )
    if state.json:
        print_object(state, report.as_json())
        return not report.exit_code
    rows = [
        {
            "projection": item.projection,
            "equal": {True: "yes", False: "NO", None: "not compared"}[item.equal],
            "digest": item.digest[:16],
            "note": item.note,
        }
        for item in report.projections
    ]
    print_rows(state, rows, ("projection", "equal", "digest", "note"))
    speed = report.events / report.seconds if report.seconds else 0
    print(f"{report.events:,} events from zero in {report.seconds:.1f} s, {speed:,.0f} a second")
    if report.difference:
        print(f"first difference: {report.difference}")
        note(f"the live projections stay in {folder} as evidence; without it they are made anew")
    return not report.exit_code


@replay_app.command("verify")
def verify(
    ctx: typer.Context,
    since: FromOption = None,
    until: ToOption = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", "-c", help="Of this conversation alone.")
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute every decision on the log again, by the model that it names, and compare.

    Exit code 1 and the list of differences when there are any. A range or a conversation says
    which decisions are compared; what was said before them counts all the same.

    \b
    Examples:
      madlog replay verify
      madlog replay verify --from 2026-11-01
      madlog replay verify -c order-4711
    """
    state = state_of(ctx, log, as_json)
    if run(_verify(state, since, until, conversation)):
        raise typer.Exit(1)


async def _verify(
    state: State, since: str | None, until: str | None, conversation: str | None
) -> int:
    from dataclasses import asdict

    from madlog.analytics.verify import verify as verify_log
    from madlog.wiring import open_blobs, open_registry, opened

    blobs = open_blobs(state.url, state.settings)
    # Live decisions depend on who was registered: on the same file of agents they come out again.
    registry = open_registry(state.settings).registry
    with replay_bar("deciding again") as show:
        async with opened(state.url, state.settings, create=False) as log:
            report = await verify_log(
                log,
                blobs.get,
                registry=registry,
                since=since,
                until=until,
                conversation=conversation,
                progress=show,
            )
    found = [asdict(item) for item in report.differences]
    if state.json:
        answer = {"decisions": report.decisions, "differences": found}
        print_object(state, {"equal": not found, **answer})
        return len(found)
    columns = ("position", "conversation_id", "event_id", "why")
    if found:
        print_rows(state, found, columns)
    print(f"{report.decisions:,} decisions computed again, {len(found)} differ")
    return len(found)
