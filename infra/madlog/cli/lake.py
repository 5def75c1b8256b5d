"""lake: what is archived as Parquet files, and making, checking and mending them."""

from typing import TYPE_CHECKING, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    note,
    print_object,
    print_rows,
    progress_bar,
    run,
    state_of,
)
from madlog.cli._lake import open_archiver, open_lake

if TYPE_CHECKING:
    from madlog.analytics.lake import Archiver
    from madlog.topics import EventLog

__all__ = ("register",)

lake_app = typer.Typer(invoke_without_command=True, subcommand_metavar="[archive|check|…]")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    short = "the log's past as Parquet files: archive, check, repair, list"
    app.add_typer(lake_app, name="lake", short_help=short)


@lake_app.callback()
def lake(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Show the lake: where it is, what it holds, what is not archived yet.

    A log has a lake from the first madlog lake archive on, or where MADLOG_LAKE names one;
    madlog worker then keeps it up to date, and questions are asked over it by themselves.

    Example: madlog lake
    """
    state = state_of(ctx, log, as_json)
    if ctx.invoked_subcommand is None:
        run(_show(state))
    else:
        ctx.find_root().obj = state


async def _show(state: State) -> None:
    from madlog.analytics.lake import read_manifest
    from madlog.topics import CATALOG
    from madlog.topics.catalog import kept_for_ever
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        manifest = await read_manifest(log)
        there = await log.log.topics()
        names = kept_for_ever(topic for topic in CATALOG.values() if topic.name in there)
        end = await log.log.end(names)
    ranges = list(manifest)
    if manifest.lake is None and not state.json:
        note("this log has no lake: madlog lake archive makes one")
    print_object(
        state,
        {
            "lake": open_lake(state.url, state.settings).url if manifest.lake else None,
            "id": manifest.lake,
            "ranges": len(ranges),
            "files": sum(len(one.files) for one in ranges),
            "events": sum(one.rows for one in ranges),
            "bytes": sum(one.size for one in ranges),
            "unreadable": sum(end - at for one in ranges for at, end, _ in one.unreadable),
            "not_archived": sum(at - manifest.archived_to(tp) for tp, at in end.items()),
        },
    )


@lake_app.command("archive", short_help="archive all that there is, now")
def archive(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Archive all that is committed and is not archived yet, however little; makes the lake.

    \b
    Examples:
      madlog lake archive
      MADLOG_LAKE=s3://bucket/lake madlog lake archive
    """
    state = state_of(ctx, log, as_json)
    run(_archive(state))


async def _archive(state: State) -> None:
    from dataclasses import asdict

    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        archiver = await _archiver(log, state)
        with progress_bar("events archived") as show:
            await archiver.run(until_idle=True, progress=show)
    print_object(state, asdict(archiver.archived))


async def _archiver(log: "EventLog", state: State) -> "Archiver":
    archiver = await open_archiver(log, state.url, state.settings, wanted=True)
    assert archiver is not None
    return archiver


@lake_app.command("check", short_help="read every file: is it what was archived?")
def check(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Read every file of the lake and compare it with its SHA-256; exit code 1 if one differs.

    Example: madlog lake check
    """
    state = state_of(ctx, log, as_json)
    if run(_check(state)):
        raise typer.Exit(1)


async def _check(state: State) -> int:
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        flaws = await (await _archiver(log, state)).check()
    rows = [
        {
            "path": flaw.path,
            "topic": flaw.range.tp.topic,
            "partition": flaw.range.tp.partition,
            "offset": flaw.range.offset,
            "offset_end": flaw.range.offset_end,
            "reason": flaw.reason,
        }
        for flaw in flaws
    ]
    columns = ("path", "topic", "partition", "offset", "offset_end", "reason")
    print_rows(state, rows, columns, empty="every file is what was archived")
    return len(flaws)


@lake_app.command("repair", short_help="archive what is damaged again, from the log")
def repair(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Archive the ranges of damaged and missing files again from the log.

    Example: madlog lake repair
    """
    state = state_of(ctx, log, as_json)
    run(_repair(state))


async def _repair(state: State) -> None:
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        mended = await (await _archiver(log, state)).repair()
    print_object(state, {"ranges_archived_again": mended})


@lake_app.command("files", short_help="the files that count, for other engines")
def files(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List the files that count now, with the range and kind of events of each.

    \b
    Examples:
      madlog lake files
      madlog lake files --json | jq -r 'select(.holds == "Turn").place'
    """
    state = state_of(ctx, log, as_json)
    run(_files(state))


async def _files(state: State) -> None:
    from madlog.analytics.lake import read_manifest
    from madlog.wiring import opened

    store = open_lake(state.url, state.settings)
    async with opened(state.url, state.settings, create=False) as log:
        manifest = await read_manifest(log)
    rows: list[dict[str, Any]] = [
        {
            "holds": file.table,
            "topic": one.tp.topic,
            "partition": one.tp.partition,
            "offset": one.offset,
            "offset_end": one.offset_end,
            "rows": file.rows,
            "bytes": file.size,
            "sha256": file.sha256,
            "place": store.place(file.path),
        }
        for one in manifest
        for file in one.files
    ]
    shown = ("holds", "topic", "partition", "offset", "offset_end", "rows", "bytes", "place")
    columns = (*shown[:-1], "sha256", "place") if state.json else shown
    print_rows(state, rows, columns, empty="nothing is archived: madlog lake archive")
