"""check, digest: what proves that the log is whole, and the same as another."""

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


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("check", short_help="look for damage, name it by position")(check)
    app.command("digest", short_help="a digest per topic, equal where events are equal")(digest)


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
