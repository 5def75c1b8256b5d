"""worker, groups, dead-letters: the processors at work."""

from collections.abc import Callable
from enum import StrEnum
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
from madlog.cli._lake import Archiving

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from madlog.processors import Report
    from madlog.processors.conducting.timers import Timers
    from madlog.processors.learning import Learning
    from madlog.processors.router import Decides
    from madlog.topics import EventLog, Vector
    from madlog.topics.evidence import Keeper

__all__ = ("register",)

groups_app = typer.Typer(invoke_without_command=True, subcommand_metavar="[reset …]")
# How long a worker goes on before it looks again for what can be learned.
_LEARN_EVERY_S = 10.0
_LOOK_AT_TIMES_S = 1.0


class Retrospect(StrEnum):
    """Which conversations are decided in retrospect."""

    IMPORTED = "imported"
    ALL = "all"
    NONE = "none"


class EngineName(StrEnum):
    """What runs the processors."""

    TRANSACTIONAL = "transactional"
    FAUST = "faust"


dead_app = typer.Typer(help="what could not be processed: list, show, retry", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("worker", short_help="run the processors: route each turn")(worker)
    app.add_typer(groups_app, name="groups", short_help="who has read how far; reset")
    app.add_typer(dead_app, name="dead-letters")


def worker(
    ctx: typer.Context,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME,…", help="Run these processors only.")
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Stop when everything is processed.")
    ] = False,
    retrospect: Annotated[
        Retrospect,
        typer.Option("--retrospect", help="Which conversations are decided in retrospect."),
    ] = Retrospect.IMPORTED,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="What runs the processors; faust: on Kafka.")
    ] = EngineName.TRANSACTIONAL,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the processors: each turn goes to the cheapest tier that can settle it.

    Imported conversations are decided in retrospect: nothing runs, nothing is sent or spent.
    With --retrospect all, so are those that were lived here, beside their live decisions. Each
    is decided by models learned from the conversations before it: madlog ask tiers.

    \b
    Examples:
      madlog worker --until-idle
      madlog worker --until-idle --retrospect all
      madlog worker --engine faust --log kafka://broker:9092
    """
    state = state_of(ctx, log, as_json)
    run(_worker(state, only, until_idle, retrospect, engine))


async def _worker(
    state: State, only: str | None, until_idle: bool, which: Retrospect, by: EngineName
) -> None:
    from dataclasses import asdict

    from madlog.analytics.replay import refresh
    from madlog.beside import Beside
    from madlog.processors.conducting.timers import Timers
    from madlog.wiring import (
        faust_cluster,
        folder_beside,
        open_faust,
        open_keeper,
        open_learning,
        open_worker,
        opened,
    )

    names = tuple(name.strip() for name in only.split(",")) if only else None
    decides: Decides | None = "all" if which is Retrospect.ALL else "imported"
    decides = None if which is Retrospect.NONE else decides
    cluster = faust_cluster(state.url, state.settings) if by is EngineName.FAUST else None
    async with (
        opened(state.url, state.settings, create=False) as log,
        open_keeper(log, state.url, state.settings, names) as keeper,
        Beside() as beside,
    ):
        if cluster is not None:
            engine = open_faust(log, cluster, state.settings, names)
        else:
            engine = open_worker(log, state.settings, names)
        evidence = _Evidence(keeper, state.settings.evidence_interval_s)
        lake = await Archiving.opened(log, state.url, state.settings, names)
        learning = open_learning(log, state.url, state.settings, names, decides, beside.run)
        with progress_bar("events processed") as show:
            working = engine.run(
                until_idle=until_idle,
                progress=lambda now: show(now.events),
                recovering=_sparse_note(),
            )
            if not until_idle:
                working = _beside(working, learning, Timers(log), evidence, lake)
            report = await working
        with progress_bar("outcomes and decisions in retrospect") as show:
            await learning.run(show)
        # The live projections, which `replay rebuild` holds against a fold from zero.
        await refresh(log, folder_beside(state.url, state.settings) / "projections")
        await evidence.run()
        if until_idle:
            await lake.finish()
    print_object(
        state,
        {
            "events": report.events,
            "outputs": report.outputs,
            "dead_letters": report.dead_letters,
            "idle": report.idle,
            **asdict(learning.learned),
        },
    )


class _Evidence:
    """Signs what was appended, where the log has a key; says once what cannot be signed."""

    def __init__(self, keeper: "Keeper | None", interval_s: float) -> None:
        self.keeper = keeper
        self.interval_s = interval_s
        self._said: set[str] = set()

    async def run(self) -> None:
        if self.keeper is None:
            return
        for sentence in (await self.keeper.run()).broken:
            if sentence not in self._said:
                self._said.add(sentence)
                note(f"madlog: {sentence}")


async def _beside(
    working: "Coroutine[Any, Any, Report]",
    learning: "Learning",
    timers: "Timers",
    evidence: _Evidence,
    lake: Archiving,
) -> "Report":
    """Work; learn and sign once in a while meanwhile, and say when times are up."""
    import asyncio

    async def learn() -> None:
        while True:
            await learning.run(lambda _: None)
            await asyncio.sleep(_LEARN_EVERY_S)

    async def look_at_times() -> None:
        while True:
            await timers.run()
            await asyncio.sleep(_LOOK_AT_TIMES_S)

    async def sign() -> None:
        while True:
            await evidence.run()
            await asyncio.sleep(evidence.interval_s)

    # The first that ends, ends all: the engine because it was told to, the others by their error.
    engine = asyncio.ensure_future(working)
    others = [asyncio.ensure_future(one()) for one in (learn, look_at_times, sign, lake.go_on)]
    tasks: list[asyncio.Future[Any]] = [engine, *others]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException) and not isinstance(one, asyncio.CancelledError):
            raise one
    return engine.result()


def _sparse_note(every_s: float = 1.0) -> Callable[[str], None]:
    """Return what says how far each thing is, SUBJECT: HOW FAR, at most once in a while."""
    import time

    said: dict[str, float] = {}

    def say(text: str) -> None:
        subject, now = text.rpartition(":")[0], time.monotonic()
        if now - said.get(subject, -every_s) >= every_s:
            said[subject] = now
            note(f"madlog: {text}")

    return say


@groups_app.callback()
def groups(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List consumer groups: state, position, end, lag and member of each partition.

    The lag is counted in records where it is small; where `exact` is false it is the distance of
    offsets, of which some may hold no record on Kafka.

    Example: madlog groups
    """
    state = state_of(ctx, log, as_json)
    if ctx.invoked_subcommand is None:
        run(_groups(state))
    else:
        ctx.find_root().obj = state


async def _groups(state: State) -> None:
    from madlog.processors.groups import group_rows
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        rows = await group_rows(log)
    columns = ("group", "state", "topic", "partition", "committed", "end", "lag", "exact", "member")
    print_rows(state, rows, columns, empty="no group has read this log: madlog worker makes one")


@groups_app.command("reset", short_help="let a group go on from another position")
def groups_reset(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(help="A group: madlog groups lists them.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="start|end|OFFSET|POSITIONS|TIME", help="Where to go on."),
    ],
    topic: Annotated[str | None, typer.Option("--topic", help="Of this topic only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, change nothing.")] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a group go on from another position; refused while it has members.

    A processor's state says how far it has worked, so going back does not make it process events
    a second time; what is skipped is not processed.

    \b
    Examples:
      madlog groups reset router --to start --dry-run
      madlog groups reset reports --to mad.decisions/0@120
      madlog groups reset reports --to 2026-11-24T12:00:00Z --topic mad.decisions
    """
    state = state_of(ctx, log, as_json)
    run(_groups_reset(state, group, to, topic, dry_run))


async def _groups_reset(state: State, name: str, to: str, topic: str | None, dry_run: bool) -> None:
    from madlog.processors.groups import consequences, group_state, plan_reset
    from madlog.topics import Vector
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        group = await group_state(log, name)
        moves = await plan_reset(log, group, await _target(log, group.topics, to, topic))
        said = consequences(name, moves, await log.log.topics())
        if not dry_run:
            await log.log.reset(name, Vector({move.tp: move.to for move in moves}))
    rows = [
        {
            "topic": move.tp.topic,
            "partition": move.tp.partition,
            "from": move.now,
            "to": move.to,
            "records": move.records,
            "exact": move.exact,
            "effect": move.effect,
        }
        for move in moves
    ]
    before = str(Vector({move.tp: move.now for move in moves if move.now is not None}))
    if state.json:
        answer = {"group": name, "dry_run": dry_run, "moves": rows, "before": before}
        print_object(state, {**answer, "consequences": said})
        return
    print_rows(state, rows, ("topic", "partition", "from", "to", "records", "exact", "effect"))
    for sentence in said:
        note(f"madlog: {sentence}")
    if dry_run:
        note("nothing was changed: without --dry-run it is")
    elif before:
        note(f"it was at: {before}")


async def _target(
    log: "EventLog", topics: tuple[str, ...], text: str, topic: str | None
) -> "Vector":
    """Return the positions that --to and --topic stand for."""
    from madlog.analytics.as_of import as_of, parse_time
    from madlog.analytics.errors import BadTime
    from madlog.topics import Vector
    from madlog.topics.errors import InvalidPosition

    present = await log.log.topics()
    wanted = [name for name in topics if name in present and topic in (None, name)]
    if not topics:
        raise InvalidPosition(
            "the group has not committed any position yet: its members begin at the start"
        )
    if not wanted:
        raise InvalidPosition(
            f"the group reads nothing of {topic or 'this log'}: it reads {', '.join(topics)}"
        )
    if text == "start":
        return await log.log.start(wanted)
    end = await log.log.end(wanted)
    if text == "end":
        return end
    if text.isdecimal():
        return Vector(dict.fromkeys(end, int(text)))
    if "@" in text:
        named = await as_of(log, text)
        return named if topic is None else named.only([topic])
    try:
        at = parse_time(text)
    except BadTime as error:
        raise BadTime(
            f"--to {text[:80]!r} is none of start, end, an offset, TOPIC/PARTITION@OFFSET, and a "
            "time such as 2026-11-24T12:00:00"
        ) from error
    return await log.log.at_time(wanted, at)


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
