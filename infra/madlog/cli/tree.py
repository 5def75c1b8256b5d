"""tree: what led to an event, and what came of it."""

import sys
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
    from rich.text import Text

    from madlog.analytics.causes import CausalTree, Row

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("tree", short_help="what led to a turn, and what came of it")(tree)


def tree(
    ctx: typer.Context,
    event: Annotated[
        str,
        typer.Argument(help="An event_id, CONVERSATION#TURN, or TOPIC/PARTITION@OFFSET."),
    ],
    whole: Annotated[
        bool, typer.Option("--whole", help="All that came of its first cause.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.svg|FILE.mmd", help="Where to; else it is printed."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what led to an event and what came of it: printed, or drawn as SVG or Mermaid.

    \b
    Examples:
      madlog tree latest#1
      madlog tree order-4711#7 --out why.svg
    """
    state = state_of(ctx, log, as_json)
    if out is not None and out.suffix not in (".svg", ".mmd"):
        raise fail(f"{out} ends neither with .svg (an image) nor with .mmd (Mermaid)", 2)
    run(_tree(state, event, whole, out))


async def _tree(state: State, event: str, whole: bool, out: Path | None) -> None:
    from madlog.analytics.causes import causal_tree
    from madlog.analytics.causes_drawing import mermaid, svg
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        found = await causal_tree(log, event)
    if out is not None:
        drawn = svg(found, whole=whole) if out.suffix == ".svg" else mermaid(found, whole=whole)
        try:
            out.write_text(drawn, encoding="utf-8")
        except OSError as error:
            raise fail(f"{out} cannot be written: {error.strerror}", 2) from error
    if state.json:
        print_object(state, found.as_json(whole=whole))
    elif out is None:
        _print(found, whole)
    else:
        rows = len(found.rows(whole=whole))
        note(f"{out}: {rows} events, {len(found.causes()) - 1} of them led to it")


def _print(found: "CausalTree", whole: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    console.print(Text(found.conversation_id, style="bold"), soft_wrap=True)
    if found.outside is not None:
        console.print(Text(f"caused outside this conversation, by {found.outside}", style="dim"))
    rows = found.rows(whole=whole)
    width = max(len(row.node.event.fields["sender"]["name"]) for row in rows)
    for row in rows:
        line = _line(rows, row, width, row.node is found.asked)
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    if found.asked.cause is None and len(rows) == 1:
        note("nothing that the log holds led to it or came of it")


def _line(rows: "list[Row]", row: "Row", width: int, asked: bool) -> "Text":
    from rich.text import Text

    from madlog.analytics.causes import what

    event = row.node.event
    begins = row.above is not None and rows[row.above].lane < row.lane
    made = Text("│ " * (row.lane - 1) + "├─" if begins else "│ " * row.lane, style="dim")
    said = what(event)
    failed = said.startswith("✗") or said.startswith("failure")
    style = "bold yellow" if asked else "red" if failed else ""
    made.append("◉ " if asked else "● ", style=style)
    made.append(f"{event.fields['sender']['name']:<{width}}  ", style="dim")
    quiet = event.kind not in ("Turn", "ToolCall", "ToolResult")
    return made.append(said, style=style or ("dim" if quiet else ""))
