"""topics: list them, show one, make them as the catalogue has them."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

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

if TYPE_CHECKING:
    from pathlib import Path

    from madlog.topics import Topic
    from madlog.topics.plan import TopicPlan

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


@topics_app.command("show", short_help="one conversation: transcript, tool calls, costs")
def topics_show(
    ctx: typer.Context, name: str, log: LogOption = None, as_json: JsonOption = False
) -> None:
    """Show one topic: its schemas, positions, and size.

    Example: madlog topics show mad.conversations
    """
    state = state_of(ctx, log, as_json)
    run(_topics_show(state, name))


async def _topics_show(state: State, name: str) -> None:
    from madlog.schemas.codec import fingerprint
    from madlog.topics import UnknownTopic
    from madlog.topics.catalog import topic
    from madlog.wiring import opened

    entry = topic(name)
    async with opened(state.url, state.settings, create=False) as log:
        if name not in await log.log.topics():
            raise UnknownTopic(
                f"{name} is in the catalogue, but this log holds nothing of it yet: "
                "`madlog topics list` shows what it holds"
            )
        start, end = await log.log.start([name]), await log.log.end([name])
        size = 0
        async for batch in log.log.read(start, end):
            size += sum(len(record.value) + len(record.key) for record in batch)
    print_object(
        state,
        {
            "topic": name,
            "key": entry.key,
            "kept": entry.keeps,
            "schemas": {kind: fingerprint(kind).hex() for kind in entry.holds},
            "start": str(start),
            "end": str(end),
            "records": sum(end.values()) - sum(start.values()),
            "bytes": size,
        },
    )


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
