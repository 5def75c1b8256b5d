"""outcomes: how what was decided ended, concluded from the log or brought in from outside."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    note,
    print_object,
    run,
    state_of,
)

if TYPE_CHECKING:
    from madlog.analytics.outcomes_csv import CsvReport, Join, Result

__all__ = ("register",)

_UNJOINED_SHOWN_MAX = 20

outcomes_app = typer.Typer(help="how it ended: judge, import", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(outcomes_app, name="outcomes")


@outcomes_app.command("judge", short_help="conclude outcomes from what the log says")
def outcomes_judge(
    ctx: typer.Context,
    rules: Annotated[
        str | None,
        typer.Option("--rules", metavar="NAME,…", help="These rules only; -NAME: all but that."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Conclude from the log how the handling of each turn ended; twice adds nothing.

    \b
    Examples:
      madlog outcomes judge
      madlog outcomes judge --rules=-clarification,-repeat
    """
    state = state_of(ctx, log, as_json)
    run(_judge(state, rules))


async def _judge(state: State, rules: str | None) -> None:
    from madlog.processors.outcomes import Judge, chosen, judge_log
    from madlog.schemas import Outcome
    from madlog.wiring import opened

    settings = state.settings
    judge = Judge(
        rules=chosen(settings.outcome_rules if rules is None else rules),
        timeout_s=settings.outcome_timeout_s,
        conversations_max=settings.outcome_conversations_max,
    )
    written: list[Outcome] = []
    async with opened(state.url, settings, create=False) as target:
        await judge_log(target, judge, appended=written.extend)
    print_object(
        state,
        {
            "conversations": sum(1 for _ in judge.conversations()),
            "outcomes": len(written),
            "by_rule": dict(Counter(one.judged_by for one in written)),
            "by_result": dict(Counter(one.result for one in written)),
            "not_judged": judge.forgotten,
        },
    )
    if judge.forgotten:
        note(
            f"madlog: {judge.forgotten} older conversations were not judged: set "
            "MADLOG_OUTCOME_CONVERSATIONS_MAX higher to judge them too"
        )


@outcomes_app.command("import", short_help="bring in outcomes from a CSV of another system")
def outcomes_import(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CSV, UTF-8; its first line names the columns.")],
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="conversation|correlation|decision|KEY",
            help="What a row names; KEY is a key of the conversation's metadata.",
        ),
    ],
    column: Annotated[
        str | None, typer.Option("--column", help="The column that names it; else KEY, or BY_id.")
    ] = None,
    result: Annotated[
        str | None, typer.Option("--result", help="The column of results; else `result`.")
    ] = None,
    as_result: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="success|failure|partial|novel", help="The result of all rows."
        ),
    ] = None,
    quality: Annotated[
        str | None, typer.Option("--quality", help="The column of qualities, 0 to 1.")
    ] = None,
    judged_by: Annotated[
        str | None, typer.Option("--judged-by", help="Who judged; else csv:FILE's name.")
    ] = None,
    mad: Annotated[
        str | None, typer.Option("--mad", help="The agent; else the one that spoke last.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Join all, append nothing.")] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import how conversations or decisions ended; twice adds nothing, a changed row corrects.

    Rows that find nothing, or more than one conversation, are named with their line, the rest is
    imported, and the exit code is 1.

    \b
    Examples:
      madlog outcomes import reopened.csv --by ticket_id --as failure
      madlog outcomes import reviews.csv --by decision --result verdict --quality score
    """
    from madlog.analytics.outcomes_csv import RESULTS, Join

    state = state_of(ctx, log, as_json)
    if result is not None and as_result is not None:
        raise fail("--result and --as exclude each other: name the column, or the result", 2)
    given: Result | None = next((one for one in RESULTS if one == as_result), None)
    if as_result is not None and given is None:
        raise fail(f"--as {as_result[:60]!r} is none of {', '.join(RESULTS)}", 2)
    report = run(
        _import(state, file, Join(by, column, result, given, quality, judged_by, mad), dry_run)
    )
    if report.unknown or report.ambiguous:
        raise typer.Exit(1)


async def _import(state: State, file: Path, join: "Join", dry_run: bool) -> "CsvReport":
    from madlog.analytics.outcomes_csv import import_csv
    from madlog.wiring import opened

    if not file.is_file():
        raise fail(f"{file} is not a file: name the CSV that holds the outcomes", 2)
    async with opened(state.url, state.settings, create=False) as target:
        report = await import_csv(target, file, join, dry_run=dry_run)
    for line, value, reason in report.unjoined[:_UNJOINED_SHOWN_MAX]:
        note(f"madlog: {file.name}:{line}: {value[:80]!r}: {reason}")
    if (more := report.unknown + report.ambiguous - _UNJOINED_SHOWN_MAX) > 0:
        note(f"madlog: … and {more} more (--json names them)")
    names = ("rows", "joined", "appended", "corrected", "unchanged", "superseded")
    counts = (*names, "unknown", "ambiguous")
    answer = {"file": str(file), "judged_by": report.judged_by, "dry_run": dry_run}
    answer |= {name: getattr(report, name) for name in counts}
    if state.json:
        answer["unjoined"] = [
            {"line": line, "value": value, "reason": reason}
            for line, value, reason in report.unjoined
        ]
    print_object(state, answer)
    return report
