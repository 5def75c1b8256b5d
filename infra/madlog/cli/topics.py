"""topics: list them, show one, make them as the catalogue has them."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from madlog.topics import Topic
    from madlog.topics.plan import Change, TopicPlan

__all__ = ("register",)

topics_app = typer.Typer(help="the topics: list, show one, make them", no_args_is_help=True)

_OUTCOMES = {
    "make": ("to be made", "made"),
    "set": ("to be set", "set"),
    "refuse": ("refused", "refused"),
    "advise": ("by hand", "by hand"),
}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(topics_app, name="topics")


@topics_app.command("list")
def topics_list(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List the topics there are, and what each holds.

    Example: madlog topics list
    """
    from madlog.topics import CATALOG
    from madlog.topics.catalog import topic

    state = state_of(ctx, log, as_json)
    present = run(_present(state))
    rows = []
    for name in sorted({*CATALOG, *present}):
        entry = topic(name)
        rows.append(
            {
                "topic": name,
                "key": entry.key,
                "holds": ", ".join(entry.holds) or "–",
                "kept": entry.keeps,
                "partitions": present.get(name, entry.partitions),
                "in_log": name in present,
            }
        )
    print_rows(state, rows, ("topic", "key", "holds", "kept", "partitions", "in_log"))


async def _present(state: State) -> dict[str, int]:
    from madlog.topics import LogUnavailable
    from madlog.wiring import is_kafka, log_folder, opened

    on_kafka = is_kafka(state.url)
    if not on_kafka and not log_folder(state.url).exists():
        return {}
    try:
        async with opened(state.url, state.settings, create=on_kafka) as log:
            return await log.log.topics()
    except LogUnavailable as error:
        note(f"madlog: {error}")
        raise typer.Exit(error.exit_code) from None


@topics_app.command("show", short_help="one topic: records, size, growth, forecast")
def topics_show(
    ctx: typer.Context, name: str, log: LogOption = None, as_json: JsonOption = False
) -> None:
    """Show one topic: schemas, positions, size, how fast it grows and what that comes to.

    It reads the whole topic. Growth is measured from the oldest record that is kept until now,
    and not from less than an hour. On Kafka, settings that drifted are shown too.

    Example: madlog topics show mad.conversations
    """
    state = state_of(ctx, log, as_json)
    run(_topics_show(state, name))


async def _topics_show(state: State, name: str) -> None:
    from dataclasses import asdict

    from madlog.schemas.codec import fingerprint
    from madlog.topics import UnknownTopic
    from madlog.topics.catalog import topic
    from madlog.topics.plan import Planned
    from madlog.topics.sizes import OnDisk, growth, measure
    from madlog.wiring import opened

    entry = topic(name)
    async with opened(state.url, state.settings, create=False) as log:
        if name not in await log.log.topics():
            raise UnknownTopic(
                f"{name} is in the catalogue, but this log holds nothing of it yet: "
                "`madlog topics list` shows what it holds"
            )
        start, end = await log.log.start([name]), await log.log.end([name])
        with progress_bar("reading records") as show:
            size = await measure(log.log, name, show)
        disk = await log.log.disk_bytes(name) if isinstance(log.log, OnDisk) else None
        drifted = (await log.log.plan([entry])).drifted if isinstance(log.log, Planned) else []
        # An embedded log drops nothing by itself.
        kept_s = _retention_s(entry, drifted) if isinstance(log.log, Planned) else None
        grown = None if entry.compacted else growth(size, log.log.clock.now_us(), kept_s)
    answer: dict[str, Any] = {
        "topic": name,
        "key": entry.key,
        "kept": entry.keeps,
        "schemas": {kind: fingerprint(kind).hex() for kind in entry.holds},
        "start": str(start),
        "end": str(end),
        "records": size.records,
        "bytes": size.bytes,
        "disk_bytes": disk,
        "damaged": size.damaged,
        "oldest": _time(size.oldest_at),
        "newest": _time(size.newest_at),
        "retention_s": kept_s,
        "growth": asdict(grown) if grown else None,
        "drifted": [asdict(change) for change in drifted],
    }
    if state.json:
        print_object(state, answer)
    else:
        _print_topic(state, answer)


def _retention_s(entry: "Topic", drifted: "Sequence[Change]") -> int | None:
    """Return how long records are really kept, None for ever."""
    for change in drifted:
        if change.what == "retention.ms" and change.now is not None:
            return int(change.now) // 1000 if int(change.now) >= 0 else None
    return entry.retention_s


def _print_topic(state: State, answer: dict[str, Any]) -> None:
    shown = {name: value for name, value in answer.items() if name not in ("growth", "drifted")}
    shown["bytes"] = f"{answer['bytes']:,} in keys and values"
    if answer["disk_bytes"] is None:
        del shown["disk_bytes"]
    else:
        shown["disk_bytes"] = f"{answer['disk_bytes']:,} on the disks of all that keep it"
    for name in ("damaged", "retention_s"):
        if not answer[name]:
            del shown[name]
    shown |= _growth_texts(answer)
    for change in answer["drifted"]:
        shown[change["what"]] = f"{change['now']}, to be {change['wanted']}: madlog topics apply"
    print_object(state, shown)


def _growth_texts(answer: dict[str, Any]) -> dict[str, str]:
    grown = answer["growth"]
    if grown is None:
        if answer["kept"] == "last of each key":
            why = "follows the number of its keys, not time"
        else:
            why = "not enough history: it takes an hour since the oldest record"
        return {"growth": why}
    span_h = grown["span_s"] / 3600
    span = f"{span_h / 24:,.1f} days" if span_h >= 48 else f"{span_h:,.1f} hours"
    texts = {
        "growth": f"{grown['records_a_day']:,.0f} records and {grown['bytes_a_day']:,.0f} bytes a "
        f"day, over the {span} from the oldest record until now",
        "forecast": f"{grown['bytes_in_30_days']:,} bytes in 30 days at this growth",
    }
    if grown["bytes_level"] is not None:
        texts["levels_off"] = f"at {grown['bytes_level']:,} bytes, as old records are dropped"
    return texts


def _time(at_us: int | None) -> str | None:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat() if at_us else None


@topics_app.command("apply")
def topics_apply(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, change nothing.")
    ] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the topics as the catalogue has them, and set right what has drifted.

    What would lose records or break the order of keys is refused; then nothing is changed, and
    the exit code is 1. Settings beyond ours are left alone.

    \b
    Examples:
      madlog topics apply --log kafka://localhost:9092 --dry-run
      madlog topics apply --log kafka://localhost:9092
    """
    state = state_of(ctx, log, as_json)
    if run(_topics_apply(state, dry_run)):
        raise typer.Exit(1)


async def _topics_apply(state: State, dry_run: bool) -> bool:
    """Plan and apply; tells whether anything was refused."""
    import tempfile

    from madlog.topics.plan import apply_plan, plan_topics
    from madlog.wiring import is_kafka, log_folder, open_log

    url, create = state.url, not dry_run or is_kafka(state.url)
    with ExitStack() as stack:
        if not create and not _holds_files(log_folder(url)):
            # A dry run must not make a log where there was none.
            url, create = stack.enter_context(tempfile.TemporaryDirectory()), True
        log = await open_log(url, state.settings, create=create)
        try:
            plan = await plan_topics(log, _wanted(state, await log.topics()))
            applied = not dry_run and await apply_plan(log, plan)
        finally:
            await log.close()
    _print_plan(state, plan, dry_run, applied)
    return bool(plan.refused)


def _holds_files(folder: "Path") -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _wanted(state: State, present: dict[str, int]) -> "list[Topic]":
    """Return the topics that are to be there, and those that are, of names the catalogue has."""
    from madlog.topics import UnknownTopic
    from madlog.topics.catalog import topic
    from madlog.wiring import wanted_topics

    topics = {one.name: one for one in wanted_topics(state.settings)}
    for name in present:
        try:
            topics.setdefault(name, topic(name))
        except UnknownTopic:
            continue  # another program's
    return list(topics.values())


def _print_plan(state: State, plan: "TopicPlan", dry_run: bool, applied: bool) -> None:
    from dataclasses import asdict

    if state.json:
        changes = [asdict(change) for change in plan.changes]
        answer = {"dry_run": dry_run, "applied": applied, "changes": changes}
        answer |= {"brokers": plan.brokers, "not_promised": plan.not_promised}
        print_object(state, answer)
        for change in plan.refused:
            note(f"madlog: refused: {change.note}")
        return
    rows = [
        {**asdict(change), "outcome": _OUTCOMES[change.action][applied]} for change in plan.changes
    ]
    if rows:
        print_rows(state, rows, ("topic", "what", "now", "wanted", "outcome"))
    else:
        print("all topics are as they are to be")
    for change in plan.changes:
        if change.note:
            mark = "refused: " if change.action == "refuse" else f"{change.topic} {change.what}: "
            note(f"madlog: {mark}{change.note}")
    for sentence in plan.not_promised:
        note(f"not promised: {sentence}")
    if plan.brokers is None:
        note("an embedded log has no other settings: there is nothing else to set")
    if plan.refused:
        note("madlog: nothing was changed, because of what is refused")
    elif dry_run and any(change.action in ("make", "set") for change in plan.changes):
        note("nothing was changed: without --dry-run it is")
