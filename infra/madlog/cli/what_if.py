"""replay what-if: the log decided by another model, promise, tiers or prices, or behind a guard."""

import asyncio
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
    run,
    state_of,
)
from madlog.cli._replay_bar import replay_bar
from madlog.cli._what_if_screen import print_report
from madlog.cli.ask import PricesOption, price_list

if TYPE_CHECKING:
    from madlog.analytics.what_if import WhatIfReport

__all__ = ("FromOption", "ToOption", "register")

_TIERS = ("dtr", "lppm")
_Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="VERSION|EVENT_ID|FILE", help="Another model for all decisions."
    ),
]
_MaxError = Annotated[
    float | None, typer.Option("--max-error", min=0, max=1, help="Another promised error.")
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="PLACE", help="A position, time, event or conversation."),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="PLACE", help="The same; what is named counts.")
]
_Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="FILE", help="Where to leave off when stopped, and to go on."),
]
_Show = Annotated[int, typer.Option("--show", min=0, max=50, help="Conversations to show.")]
_Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="dtr|lppm", help="A tier switched off; repeat."),
]
_Guard = Annotated[
    str | None,
    typer.Option(
        "--guard",
        metavar="SQL|FILE.sql|FILE.py:NAME",
        help="A predicate that is true, or a function that says so, where a call is blocked.",
    ),
]
_Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        metavar="FILE.html|FILE.jsonl",
        help="The report as a page; all that differs as JSON lines.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("what-if")(what_if)


def what_if(
    ctx: typer.Context,
    model: _Model = None,
    max_error: _MaxError = None,
    without: _Without = None,
    prices: PricesOption = None,
    guard: _Guard = None,
    since: FromOption = None,
    until: ToOption = None,
    resume: _Resume = None,
    out: _Out = None,
    show: _Show = 3,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide the log again with something otherwise, and compare; nothing is appended or run.

    A guard is asked about each tool call: in SQL over call, and past (what was answered before it).

    \b
    Examples:
      madlog replay what-if --max-error 0.01 --out what-if.html
      madlog replay what-if --model lived-320 --without lppm
      madlog replay what-if --guard "call.action = 'refund' and exists (from past where
        past.ok and past.action = 'refund'
        and past.arguments->>'order_id' = call.arguments->>'order_id')"
      madlog replay what-if --guard guards.py:no_second_refund --from 2026-11-01
    """
    state = state_of(ctx, log, as_json)
    wrong = [tier for tier in without or () if tier not in _TIERS]
    if wrong:
        raise fail(f"{wrong[0][:40]!r} is no tier to switch off: dtr or lppm", 2)
    page, rows = _outputs(out or [])
    named = price_list(state, prices) if prices is not None else None
    report = run(
        _what_if(
            state,
            model=model,
            max_error=max_error,
            without=without or (),
            prices=named,
            guard=guard,
            places=(since, until),
            resume=resume,
            rows=rows,
            shown=show,
        )
    )
    if page is not None:
        _write(page, report)
    if state.json:
        print_object(state, report.as_json())
    else:
        print_report(report)
    for path in out or ():
        note(f"written: {path}")


def _outputs(out: list[Path]) -> tuple[Path | None, Path | None]:
    """Return the page's file and the rows' file."""
    found: dict[str, Path] = {}
    for path in out:
        kind = path.suffix.lower()
        if kind not in (".html", ".jsonl"):
            raise fail(f"{path} must end in .html (a page) or .jsonl (rows)", 2)
        if not path.absolute().parent.is_dir():
            raise fail(f"{path.parent} is no folder: make it first", 2)
        found[kind] = path
    return found.get(".html"), found.get(".jsonl")


async def _what_if(
    state: State,
    *,
    model: str | None,
    max_error: float | None,
    without: Any,
    prices: Any,
    guard: str | None,
    places: tuple[str | None, str | None],
    resume: Path | None,
    rows: Path | None,
    shown: int,
) -> "WhatIfReport":
    from madlog.analytics.prices import NO_PRICES
    from madlog.analytics.what_if import Asked, Variant, find_model, load_guard
    from madlog.analytics.what_if import what_if as replay
    from madlog.wiring import open_blobs, open_registry, opened

    loaded = None if guard is None else load_guard(guard)
    blobs = open_blobs(state.url, state.settings)
    registry = open_registry(state.settings).registry
    with replay_bar("what if") as show:
        async with opened(state.url, state.settings, create=False) as log:
            found, notes = (None, ()) if model is None else await find_model(log, model, blobs.get)
            asked = Asked(
                Variant(found, max_error, frozenset(without), notes),
                loaded,
                prices or NO_PRICES,
                *places,
                shown,
            )
            try:
                return await replay(
                    log,
                    asked,
                    blobs.get,
                    registry=registry,
                    snapshot=resume,
                    rows=rows,
                    progress=show,
                )
            except asyncio.CancelledError:
                if resume is not None and resume.exists():
                    note(f"stopped: the same command goes on from {resume}")
                raise


def _write(path: Path, report: "WhatIfReport") -> None:
    from madlog.analytics.what_if.page import page

    try:
        path.write_text(page(report), encoding="utf-8")
    except OSError as error:
        raise fail(f"{path} cannot be written: {error.strerror}", 2) from error
