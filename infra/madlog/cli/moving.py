"""import, export, backup, restore: what brings conversations in and out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    note,
    print_object,
    progress_bar,
    run,
    state_of,
)

if TYPE_CHECKING:
    from madlog.analytics.importing import ImportReport

__all__ = ("register",)

_BAD_LINES_SHOWN_MAX = 20


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("import", short_help="bring in the logs of agents that you already run")(import_)
    app.command("export", short_help="get conversations out: openai, tau-bench, transcript")(export)
    app.command("backup", short_help="copy the log while it is in use")(backup)
    app.command("restore", short_help="make a log from a backup")(restore)


def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file; .gz is read as it is.")],
    fmt: Annotated[str, typer.Option("--format", help="openai-chat or tau-bench.")],
    redact: Annotated[
        bool, typer.Option("--redact", help="Take out secrets, e-mail, phone and card numbers.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read all, append nothing.")] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import the conversations of agents that you already run; twice adds nothing.

    Lines that cannot be imported are named with their number and reason, the rest is imported,
    and the exit code is 1.

    \b
    Examples:
      madlog import runs.jsonl --format openai-chat --redact
      madlog import runs.jsonl.gz --format tau-bench --dry-run
    """
    state = state_of(ctx, log, as_json)
    report = run(_import(state, file, fmt, redact, dry_run))
    if report.bad_lines:
        raise typer.Exit(1)


async def _import(
    state: State, file: Path, fmt: str, redact: bool, dry_run: bool
) -> "ImportReport":
    import tempfile

    from madlog.analytics.importing import import_file
    from madlog.wiring import open_blobs, opened

    if not file.is_file():
        raise fail(f"{file} is not a file: name the file that holds the conversations", 2)
    # A dry run must not make a log where there was none.
    with tempfile.TemporaryDirectory() as empty:
        url = empty if dry_run else state.url
        blobs = open_blobs(state.url, state.settings)
        with progress_bar(f"importing {file.name}", 2 * file.stat().st_size) as show:
            async with opened(url, state.settings) as target:
                report = await import_file(
                    target,
                    file,
                    fmt,
                    redact=redact,
                    dry_run=dry_run,
                    put_blob=blobs.put,
                    event_bytes_max=state.settings.record_bytes_max,
                    progress=lambda now: show(now.bytes_done),
                )
    for line, reason in report.bad[:_BAD_LINES_SHOWN_MAX]:
        note(f"madlog: {file.name}:{line}: {reason}")
    if report.bad_lines > _BAD_LINES_SHOWN_MAX:
        more = report.bad_lines - _BAD_LINES_SHOWN_MAX
        note(f"madlog: … and {more} more (--json names them)")
    answer: dict[str, Any] = {
        "file": str(file),
        "format": fmt,
        "dry_run": dry_run,
        "conversations": report.conversations,
        "events": report.events,
        "repeated": report.repeated,
        "lines": report.lines,
        "bad_lines": report.bad_lines,
        "redacted": dict(report.redacted),
    }
    if state.json:
        answer["bad"] = [{"line": at, "reason": why} for at, why in report.bad]
    print_object(state, answer)
    if report.conversations and not state.json and not dry_run:
        note("next: madlog worker --until-idle, then madlog ask")
    return report


def export(
    ctx: typer.Context,
    fmt: Annotated[str, typer.Argument(metavar="FORMAT", help="openai, tau-bench, transcript.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; else stdout.")] = None,
    conversation: Annotated[
        str | None, typer.Option("-c", "--conversation", help="One conversation, or latest.")
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export conversations from the log's events alone.

    \b
    Examples:
      madlog export openai --out conversations.jsonl
      madlog export transcript -c latest
    """
    state = state_of(ctx, log, as_json)
    run(_export(state, fmt, out, conversation))


async def _export(state: State, fmt: str, out: Path | None, conversation: str | None) -> None:
    import os

    from madlog.analytics.conversation_view import latest_conversation
    from madlog.analytics.exporting import export as export_to
    from madlog.wiring import open_blobs, opened

    get_blob = open_blobs(state.url, state.settings).get

    async with opened(state.url, state.settings, create=False) as log:
        if conversation == "latest":
            conversation = await latest_conversation(log)
        if out is None:
            await export_to(log, fmt, sys.stdout, conversation=conversation, get_blob=get_blob)
            return
        # Written beside and renamed: whoever finds the file finds all of it.
        partial = out.with_name(out.name + ".partial")
        try:
            with partial.open("w", encoding="utf-8", newline="\n") as stream:
                report = await export_to(
                    log, fmt, stream, conversation=conversation, get_blob=get_blob
                )
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    print_object(state, {"format": fmt, "file": str(out), "conversations": report.conversations})


def backup(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the log while it is in use, and check the copy; a log on Kafka is refused.

    Example: madlog backup /backups/2026-11-24
    """
    state = state_of(ctx, log, as_json)
    run(_backup(state, out))


async def _backup(state: State, out: Path) -> None:
    from madlog.topics import UnsupportedByBackend
    from madlog.topics.log import Backup
    from madlog.wiring import is_kafka, opened

    if is_kafka(state.url):
        raise UnsupportedByBackend(
            "a log on Kafka is not copied into a folder: its replicas keep it (madlog topics apply "
            "--dry-run says how safely), MirrorMaker keeps a copy on a second cluster, and madlog "
            "export gets the conversations out"
        )
    _check_folder(out)
    with progress_bar("copying") as show:
        async with opened(state.url, state.settings, create=False) as log:
            if not isinstance(log.log, Backup):
                raise fail("this log's backend keeps its own copies: use its tools", 2)
            await log.log.backup(out, lambda done, total: show(done))
            end = await log.log.end(await log.log.topics())
    print_object(state, {"backup": str(out), "records": sum(end.values()), "checked": True})


def restore(
    ctx: typer.Context,
    copy: Annotated[Path, typer.Argument(help="A folder that backup wrote.")],
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a log from a backup; refuses to write over a log that is there.

    Example: madlog restore /backups/2026-11-24 --log restored
    """
    state = state_of(ctx, log, as_json)
    run(_restore(state, copy))


async def _restore(state: State, copy: Path) -> None:
    from madlog.topics import UnsupportedByBackend
    from madlog.topics.log import Backup
    from madlog.wiring import is_kafka, log_folder, opened

    if is_kafka(state.url):
        raise UnsupportedByBackend(
            "a backup is the files of an embedded log, so it is restored into a folder: name one "
            "with --log; madlog export and madlog import bring its conversations onto Kafka"
        )
    _check_folder(copy)
    target = log_folder(state.url)
    if target.exists() and any(target.iterdir()):
        raise fail(f"{target} holds something already: restore into a new folder with --log", 2)
    async with opened(str(copy), state.settings, create=False) as source:
        assert isinstance(source.log, Backup)
        await source.log.backup(target)
        end = await source.log.end(await source.log.topics())
    print_object(state, {"restored": str(target), "records": sum(end.values())})


def _check_folder(named: Path) -> None:
    """Refuse what is meant as an address: it would become a folder of that name."""
    if named.parts[:1] == ("kafka:",):
        raise fail(f"{named} is to be a folder: a backup is made of, and into, files", 2)
