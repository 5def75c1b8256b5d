"""check, digest, replay: what proves that the log is whole and that it comes out the same."""

from pathlib import Path
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

replay_app = typer.Typer(help="run the log again from its start", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("check", short_help="look for damage, name it by position")(check)
    app.command("digest", short_help="a digest per topic, equal where events are equal")(digest)
    app.add_typer(replay_app, name="replay")


def check(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Look at every record for damage; exit code 1 and its positions when there is any.

    Example: madlog check
    """
    state = state_of(ctx, log, as_json)
    if run(_check(state)):
        raise typer.Exit(1)


async def _check(state: State) -> int:
    from madlog.topics import Damage
    from madlog.topics.log import Checkable
    from madlog.wiring import opened

    found: list[Damage] = []
    looked = 0
    async with opened(state.url, state.settings, create=False) as log:
        if not isinstance(log.log, Checkable):
            raise fail("this log's backend checks its own files", 2)
        backend = log.log
        with progress_bar("checking records") as show:

            def counted(done: int) -> None:
                nonlocal looked
                looked = done
                show(done)

            found += [damage async for damage in backend.check(counted)]
        undecodable: list[Damage] = []
        async for _ in log.read_topics(
            [name for name in await log.log.topics() if not name.startswith("mad.state.")],
            on_damage=undecodable.append,
        ):
            pass
    known = {(damage.topic, damage.partition, damage.offset) for damage in found}
    found += [
        damage
        for damage in undecodable
        if (damage.topic, damage.partition, damage.offset) not in known
    ]
    if state.json:
        rows = [{**damage._asdict(), "position": _place(damage)} for damage in found]
        print_object(state, {"ok": not found, "records": looked, "damage": rows})
    else:
        for damage in found:
            print(f"damaged: {damage}")
        print(f"{looked} records looked at, {len(found)} damaged places found")
    if found:
        note("restore the named ranges from a backup, or go on: everything else can be read")
    return len(found)


def _place(damage: Any) -> str | None:
    topic, partition, offset = damage.topic, damage.partition, damage.offset
    return f"{topic}/{partition}@{offset}" if topic else None


def digest(
    ctx: typer.Context,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Positions, @FILE, or a time.")
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a digest per topic, equal on every log that holds the same events.

    Example: madlog digest --as-of 2026-11-24T12:00:00Z
    """
    state = state_of(ctx, log, as_json)
    run(_digest(state, as_of))


async def _digest(state: State, as_of: str | None) -> None:
    from madlog.analytics.as_of import as_of as resolve
    from madlog.analytics.digest import digest as digest_of
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        at = await resolve(log, as_of) if as_of else None
        found = await digest_of(log, at=at)
    if state.json:
        print_object(state, {"topics": {name: item._asdict() for name, item in found.items()}})
        return
    rows = [{"topic": name, **item._asdict()} for name, item in found.items()]
    print_rows(state, rows, ("topic", "events", "digest"), empty="the log holds no events yet")


@replay_app.command("rebuild")
def rebuild(
    ctx: typer.Context,
    snapshots: Annotated[
        Path | None,
        typer.Option("--snapshots", help="Where the live projections are (LOG/projections)."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fold everything from offset zero again and compare with the live projections.

    Exit code 1 and the first difference when they differ.

    Example: madlog replay rebuild
    """
    state = state_of(ctx, log, as_json)
    if not run(_rebuild(state, snapshots)):
        raise typer.Exit(1)


async def _rebuild(state: State, snapshots: Path | None) -> bool:
    from madlog.analytics.replay import rebuild as rebuild_log
    from madlog.wiring import folder_beside, opened, processors

    folder = snapshots or folder_beside(state.url, state.settings) / "projections"
    with progress_bar("replaying from zero", 100) as show:
        async with opened(state.url, state.settings, create=False) as log:
            report = await rebuild_log(
                log,
                folder,
                processors=processors(state.settings),
                progress=lambda now: show(round(now.percent)),
            )
    if state.json:
        print_object(state, report.as_json())
        return not report.exit_code
    rows = [
        {
            "projection": item.projection,
            "equal": {True: "yes", False: "NO", None: "no live one yet"}[item.equal],
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
def verify(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Compute every decision on the log again, by the model that it names, and compare.

    Exit code 1 and the list of differences when there are any.

    Example: madlog replay verify
    """
    state = state_of(ctx, log, as_json)
    if run(_verify(state)):
        raise typer.Exit(1)


async def _verify(state: State) -> int:
    from dataclasses import asdict

    from madlog.analytics.verify import verify as verify_log
    from madlog.wiring import open_blobs, open_registry, opened

    blobs = open_blobs(state.url, state.settings)
    # Live decisions depend on who was registered: on the same file of agents they come out again.
    registry = open_registry(state.settings).registry
    with progress_bar("deciding again", 100) as show:
        async with opened(state.url, state.settings, create=False) as log:
            report = await verify_log(
                log,
                blobs.get,
                registry=registry,
                progress=lambda now: show(round(now.percent)),
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
