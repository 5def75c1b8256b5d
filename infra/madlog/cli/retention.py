"""retention: what each topic takes, how it grows, and moving what is cold out of the log's file."""

import re
from typing import TYPE_CHECKING, Annotated, Any

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
from madlog.cli._lake import open_lake, packs_place

if TYPE_CHECKING:
    from madlog.analytics.lake.growth import ColdLimit
    from madlog.topics import EventLog
    from madlog.topics.cold import Pack

__all__ = ("register",)

_AGE = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_COLUMNS = (
    "topic",
    "keeps",
    "records",
    "bytes",
    "disk_bytes",
    "moved",
    "pack_bytes",
    "archived",
    "waiting",
    "lake_files",
    "lake_bytes",
    "archived_to",
)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("retention", short_help="what each topic takes; move what is cold to the lake")(
        retention
    )


def retention(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what --apply would move; write nothing.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Move cold records out of the log's file.")
    ] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Cold is what is older: 30d, 12h, 0s")
    ] = "30d",
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each topic takes, in the log and in the lake, and how it grows; reads all of it.

    With --apply, records of topics kept for ever that are archived, old enough and read by every
    consumer group move into compressed packs in the lake, byte for byte, and are read from there
    as before. Nothing is removed before it was read back and compared. Begin with --dry-run.

    \b
    Examples:
      madlog retention
      madlog retention --dry-run
      madlog retention --apply --older-than 90d
    """
    state = state_of(ctx, log, as_json)
    age = _AGE.fullmatch(older_than)
    if age is None:
        raise fail(f"{older_than[:40]!r} is not an age: a number and s, m, h or d, as in 30d", 2)
    if dry_run or apply:
        run(_move(state, int(age[1]) * _SECONDS[age[2]], dry_run))
    else:
        run(_show(state))


async def _show(state: State) -> None:
    from dataclasses import asdict

    from madlog.analytics.lake.growth import retention as measured
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        rows = [asdict(one) for one in await measured(log)]
    if state.json:
        print_rows(state, rows, (*_COLUMNS, "growth"))
        return
    for row in rows:
        grown = row["growth"]
        row["bytes_a_day"] = None if grown is None else round(grown["bytes_a_day"])
    print_rows(state, rows, (*_COLUMNS[:-1], "bytes_a_day"), empty="no topics")


async def _move(state: State, age_s: int, dry_run: bool) -> None:
    from madlog.analytics.lake.growth import cold_limits
    from madlog.topics import UnsupportedByBackend
    from madlog.wiring import give_back, is_kafka, opened

    if is_kafka(state.url):
        raise UnsupportedByBackend(
            "only a log in a folder moves its records: on Kafka the brokers keep them, in tiered "
            "storage where that is set up; madlog retention alone shows what they take"
        )
    async with opened(state.url, state.settings, create=False) as log:
        limits = await cold_limits(log, log.log.clock.now_us() - age_s * 1_000_000)
        packs = await _packs(state, log, limits, dry_run)
    freed = None if dry_run else await give_back(state.url)
    _tell(state, limits, packs, dry_run, freed)


async def _packs(
    state: State, log: "EventLog", limits: "list[ColdLimit]", dry_run: bool
) -> "list[Pack]":
    """Move what is cold, or only say what that is."""
    from madlog.analytics.lake.archiver import check_lake
    from madlog.analytics.lake.manifest import read_manifest
    from madlog.topics import Vector
    from madlog.topics.cold import ColdStorage

    upto = Vector({one.tp: one.offset for one in limits if one.offset})
    store, place = open_lake(state.url, state.settings), packs_place(state.url, state.settings)
    if not dry_run and upto:
        await check_lake(store, await read_manifest(log))  # not among another log's packs
    assert isinstance(log.log, ColdStorage)
    packs: list[Pack] = []
    moved = 0
    with progress_bar("records") as show:
        async for pack in log.log.move_cold(upto, place, dry_run=dry_run):
            packs.append(pack)
            moved += pack.records
            show(moved)
    return packs


def _tell(
    state: State,
    limits: "list[ColdLimit]",
    packs: "list[Pack]",
    dry_run: bool,
    freed: int | None,
) -> None:
    rows = [
        {
            "topic": one.tp.topic,
            "partition": one.tp.partition,
            "offset": one.offset,
            "offset_end": one.offset_end,
            "records": one.records,
            "bytes": one.bytes,
            "pack_bytes": one.size,
            "place": one.place or None,
        }
        for one in packs
    ]
    total: dict[str, Any] = {
        "dry_run": dry_run,
        "records": sum(one.records for one in packs),
        "bytes": sum(one.bytes for one in packs),
        "pack_bytes": sum(one.size for one in packs),
        "given_back": freed,
    }
    if state.json:
        stays = [
            {"topic": one.tp.topic, "partition": one.tp.partition, "from": one.offset}
            | {"because": one.because}
            for one in limits
        ]
        print_object(state, {**total, "packs": rows, "stays": stays})
        return
    columns = ("topic", "partition", "offset", "offset_end", "records", "bytes", "pack_bytes")
    print_rows(state, rows, columns, empty=_nothing(limits))
    if not packs:
        return
    verb = "would move" if dry_run else "moved"
    note(
        f"{verb} {total['records']:,} records: {total['bytes']:,} bytes become "
        f"{total['pack_bytes']:,} in {len(packs)} packs"
    )
    for because in sorted({one.because for one in limits} - {"not that old"}):
        note(f"what is {because} stays where it is")
    if dry_run:
        note("next: madlog retention --apply")
    elif freed is None:
        note(
            "another process has the log open, so its file keeps its size and what is appended "
            "next fills it: to make it smaller, stop that process and type this again"
        )
    else:
        note(f"the log's file is {freed:,} bytes smaller")


def _nothing(limits: "list[ColdLimit]") -> str:
    """Say why nothing is to be moved."""
    reasons = sorted({one.because for one in limits})
    return f"nothing to move: what is left is {' or '.join([*reasons, 'too little to be a pack'])}"
