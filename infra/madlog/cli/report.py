"""report: an HTML page for people who would rather look."""

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
from madlog.cli._lake import open_source
from madlog.cli.ask import PricesOption, price_list

if TYPE_CHECKING:
    from madlog.analytics.prices import PriceList

__all__ = ("register",)

report_app = typer.Typer(help="HTML pages that need nothing else", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.add_typer(report_app, name="report")


@report_app.callback()
def reports() -> None:
    """Make an HTML page of what the log says: one file, no network, no script."""


@report_app.command("routing")
def routing(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="Where to.")],
    prices: PricesOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """What each tier settles, promised against delivered error, what was learned, what was wrong.

    Example: madlog report routing --out routing.html
    """
    state = state_of(ctx, log, as_json)
    run(_routing(state, out, price_list(state, prices)))


async def _routing(state: State, out: Path, prices: "PriceList") -> None:
    from madlog.analytics.routing_report import routing_report
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        lake = await open_source(log, state.url, state.settings)
        made = await routing_report(log, prices=prices, source=lake)
    _write(out, made.html)
    note(f"up to {made.as_of}")
    print_object(state, {"file": str(out), "decisions": made.decisions})


@report_app.command("audit")
def audit(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="Where to.")],
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Look at every record first, as check does.")
    ] = True,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", metavar="POSITIONS|@FILE|TIME|EVENT", help="What the log said then."
        ),
    ] = None,
    prices: PricesOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """What went on, who talked to whom, what it cost, went wrong, was refused; is the log whole.

    Exit code 1 where the log is not whole, which is looked at up to its end; the page says where.

    Example: madlog report audit --out audit.html
    """
    state = state_of(ctx, log, as_json)
    if not run(_audit(state, out, check, as_of, price_list(state, prices))):
        raise typer.Exit(1)


async def _audit(
    state: State, out: Path, check: bool, as_of: str | None, prices: "PriceList"
) -> bool:
    from madlog.analytics.as_of import as_of as resolve
    from madlog.analytics.audit_report import Integrity, audit_report
    from madlog.cli.integrity import checked
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        lake = await open_source(log, state.url, state.settings)
        at = await resolve(log, as_of, lake.find if lake else None) if as_of else None
        integrity = None
        if check:
            found = await checked(state, log)
            integrity = Integrity(
                found.records,
                [f"damaged: {damage}" for damage in found.damages]
                + [str(f) for f in found.differs],
                found.verdict.trees if found.verdict else 0,
                found.verdict.checkpoints if found.verdict else 0,
                found.verdict.notes if found.verdict else (),
            )
        made = await audit_report(
            log, state.url, as_of=at, prices=prices, integrity=integrity, source=lake
        )
    _write(out, made.html)
    note(f"up to {made.as_of}")
    whole = None if integrity is None else not integrity.wrong
    print_object(state, {"file": str(out), "turns": made.turns, "whole": whole})
    return whole is not False


def _write(out: Path, page: str) -> None:
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise fail(f"{out} cannot be written: {error.strerror}", 2) from error
