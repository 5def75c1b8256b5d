"""process: how an agent works, drawn."""

from pathlib import Path
from typing import Annotated

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

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("process", short_help="draw how an agent works, as it was learned")(process)


def process(
    ctx: typer.Context,
    agent: Annotated[str, typer.Argument(help="An agent: madlog ask processes lists them.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.svg|FILE.mmd", help="Where to; else it is printed."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw an agent's process, mined from conversations that ended well: Mermaid, or SVG.

    \b
    Examples:
      madlog process agent
      madlog process agent --out agent.svg
    """
    state = state_of(ctx, log, as_json)
    if out is not None and out.suffix not in (".svg", ".mmd"):
        raise fail(f"{out} ends neither with .svg (an image) nor with .mmd (Mermaid)", 2)
    run(_process(state, agent, out))


async def _process(state: State, agent: str, out: Path | None) -> None:
    from madlog.analytics.processes import newest_process
    from madlog.processors.lppm.drawing import mermaid, svg
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        found = await newest_process(log, agent)
    if found is None:
        raise fail(
            f"no process of {agent[:60]!r} was learned yet: madlog worker learns them, "
            "`madlog ask processes` lists them",
            2,
        )
    if out is not None:
        try:
            out.write_text(svg(found) if out.suffix == ".svg" else mermaid(found), encoding="utf-8")
        except OSError as error:
            raise fail(f"{out} cannot be written: {error.strerror}", 2) from error
    if state.json:
        print_object(state, found.to_document())
    elif out is None:
        print(mermaid(found), end="")
    else:
        note(f"{out}: {len(found.steps)} steps, from {len(found.conversations)} conversations")
