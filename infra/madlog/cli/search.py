"""search: words in what was said, the best turns first."""

import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    dump,
    fail,
    note,
    progress_bar,
    run,
    state_of,
)
from madlog.cli._lake import open_source
from madlog.cli._times import iso, utc

if TYPE_CHECKING:
    from madlog.analytics.search import Filters, Found, Hit

__all__ = ("register",)

# What stands around a found word until it is shown; no text that is typed holds it.
_MARKS = ("\x01", "\x02")
_TIME = typer.Option(metavar="TIME", help="ISO 8601, UTC unless it names a zone.")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("search", short_help="words in what was said, the best turns first")(search)


def search(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help='Words; "a phrase", begin*, OR, NOT.')],
    sender: Annotated[str | None, typer.Option("--sender", help="Who said it.")] = None,
    recipient: Annotated[str | None, typer.Option("--recipient", help="To whom.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="With this tag.")] = None,
    conversation: Annotated[str | None, typer.Option("-c", "--conversation")] = None,
    since: Annotated[str | None, _TIME] = None,
    until: Annotated[str | None, _TIME] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000)] = 20,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="POSITIONS|@FILE|TIME|EVENT", help="No turn after that."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find turns by their words: all of them must be there, in any order; best first.

    The index stands beside the log, takes up what is new by itself, and is made anew when it is
    damaged; the first search of a log makes it.

    \b
    Examples:
      madlog search refund late
      madlog search '"arrived broken" OR damag*' --sender maria
      madlog search refund NOT credit --since 2026-01-01 --tag urgent
    """
    from madlog.analytics.as_of import parse_time
    from madlog.analytics.search import Filters

    state = state_of(ctx, log, as_json)
    filters = Filters(
        sender,
        recipient,
        tag,
        conversation,
        None if since is None else parse_time(since),
        None if until is None else parse_time(until),
    )
    if filters.since is not None and filters.until is not None and filters.since >= filters.until:
        raise fail(f"--since {since} is not before --until {until}: no turn can be between", 2)
    run(_search(state, " ".join(words), filters, limit, as_of))


async def _search(
    state: State, words: str, filters: "Filters", limit: int, as_of: str | None
) -> None:
    from madlog.analytics.as_of import as_of as resolve
    from madlog.wiring import open_search, opened

    async with opened(state.url, state.settings, create=False) as log:
        lake = await open_source(log, state.url, state.settings) if as_of else None
        at = await resolve(log, as_of, lake.find if lake else None) if as_of else None
        index = open_search(state.url, state.settings, lambda text: note(f"madlog: {text}"))
        with closing(index), progress_bar("turns taken into the index", 100) as show:
            found = await index.search(
                log,
                words,
                filters,
                limit=limit,
                as_of=at,
                marks=("[", "]") if state.json else _MARKS,
                progress=lambda done, total: show(round(100 * done / total)),
            )
    if as_of:
        note(f"as of {found.as_of}")
    if state.json:
        for hit in found.hits:
            print(dump(_row(hit)))
    else:
        _print(found)


def _row(hit: "Hit") -> dict[str, Any]:
    return {**asdict(hit), "position": str(hit.position), "occurred_at": iso(hit.occurred_at)}


def _print(found: "Found") -> None:
    """Print each turn in two lines or more: where it stands, and its words."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    # On a pipe nothing is folded.
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    for hit in found.hits:
        head = Text(hit.conversation_id, style="bold")
        head.append(f"  #{hit.turn_number}", style="not bold")
        said_to = f" → {', '.join(hit.recipients)}" if hit.recipients else ""
        head.append(f"  {hit.sender}{said_to}", style="not bold")
        tags = "".join(f" #{tag}" for tag in hit.tags)
        head.append(f"  {utc(hit.occurred_at)}{tags}", style="not bold dim")
        console.print(head, soft_wrap=True)
        words = _marked(hit.snippet, console.is_terminal)
        console.print(Padding(words, (0, 0, 0, 4), expand=False))
    if not found.hits:
        note("no turn has these words: fewer words find more, and refund* finds refunds too")
        return
    shown = f"{len(found.hits):,} of {found.matches:,} turns that match, the best first"
    note(f"{shown}; read on: madlog show {found.hits[0].conversation_id}")


def _marked(snippet: str, coloured: bool) -> Any:
    from rich.text import Text

    made = Text()
    for number, piece in enumerate(snippet.split(_MARKS[0])):
        inside, _, after = piece.rpartition(_MARKS[1]) if number else ("", "", piece)
        made.append(inside if coloured or not inside else f"[{inside}]", style="bold yellow")
        made.append(after)
    return made
