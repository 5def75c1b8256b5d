"""sql, ask: questions about the log."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._answers import print_answer
from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    dump,
    fail,
    note,
    run,
    state_of,
)
from madlog.cli._lake import open_source
from madlog.cli.untrusted import PrincipalOption, TimeoutOption, UntrustedOption, Walled

if TYPE_CHECKING:
    from madlog.analytics.prices import PriceList
    from madlog.analytics.questions import Question

__all__ = ("PricesOption", "price_list", "register")

AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="POSITIONS|@FILE|TIME|EVENT", help="Ask the log as it was then."
    ),
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="A price list by model, CSV or JSON."),
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="table|json|csv|parquet|arrow", help="Default: table."),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("sql", short_help="one SELECT over what was said, done and decided")(sql)
    app.command("ask", short_help="questions that have a name")(ask)


def sql(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar='"SELECT …"', help="One SELECT.")],
    as_of: AsOf = None,
    prices: PricesOption = None,
    fmt: FormatOption = None,
    untrusted: UntrustedOption = False,
    principal: PrincipalOption = None,
    timeout: TimeoutOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask in SQL: one SELECT over the log's views, no access to files.

    The table prices holds the price list of --prices, else of MADLOG_PRICES. With --untrusted the
    SQL may come from anybody: it is held to 10 s, 1 GiB of memory, 64 MiB and a million rows, and
    who asked what is on the log (view audit) before the answer.

    \b
    Examples:
      madlog sql "select sender, count(*) from turns group by 1 order by 2 desc"
      madlog sql "from search('refund late') join turns using (event_id) order by score desc"
      madlog sql "from decisions" --format parquet > decisions.parquet
      madlog sql --untrusted --principal ada "select count(*) from turns"
    """
    state = state_of(ctx, log, as_json)
    walled = Walled.chosen(untrusted, principal, timeout)
    run(_sql(state, query, as_of, _format(state, fmt), price_list(state, prices), walled))


def price_list(state: State, given: Path | None) -> "PriceList":
    """Return the price list of this option, else of the settings; raises BadPrices."""
    from madlog.analytics.prices import NO_PRICES, read_prices

    named = given or (Path(state.settings.prices) if state.settings.prices else None)
    return NO_PRICES if named is None else read_prices(named)


def _format(state: State, fmt: str | None) -> str:
    chosen = fmt or ("json" if state.json else "table")
    if chosen not in ("table", "json", "csv", "parquet", "arrow"):
        raise fail(f"{chosen!r} is not a format: table, json, csv, parquet or arrow", 2)
    if chosen in ("parquet", "arrow") and sys.stdout.isatty():
        raise fail(f"{chosen} is for a file: add > FILE.{chosen}", 2)
    return chosen


async def _sql(
    state: State,
    text: str,
    as_of: str | None,
    fmt: str,
    prices: "PriceList",
    walled: Walled | None,
) -> None:
    from madlog.analytics.as_of import as_of as resolve
    from madlog.analytics.output import as_answer
    from madlog.analytics.sql import stream
    from madlog.wiring import open_search, opened

    async with opened(state.url, state.settings, create=False) as log:
        lake = await open_source(log, state.url, state.settings)
        at = await resolve(log, as_of, lake.find if lake else None) if as_of else None
        if walled is not None:
            result = await walled.query(log, text, at, prices, lake)
            await print_answer(as_answer(result), fmt, as_of)
            return
        with closing(open_search(state.url, state.settings, note)) as index:
            more: Any = {"as_of": at, "prices": prices, "source": lake, "search": index}
            async with stream(log, text, **more) as answer:
                await print_answer(answer, fmt, as_of)


def ask(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A question's name; none lists them.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="KEY=VALUE", help="Repeat.")
    ] = None,
    as_of: AsOf = None,
    show_sql: Annotated[
        bool, typer.Option("--sql", help="Print its SQL and parameters instead.")
    ] = False,
    prices: PricesOption = None,
    fmt: FormatOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question that has a name; without one, list them.

    \b
    Examples:
      madlog ask
      madlog ask transcript -p conversation=order-4711
      madlog ask savings --prices prices.csv
    """
    state = state_of(ctx, log, as_json)
    if name is None:
        _list(state)
        return
    if show_sql:
        from madlog.analytics.questions import question

        _explain(state, question(name))
        return
    given = _parameters(param or [])
    run(_ask(state, name, given, as_of, _format(state, fmt), price_list(state, prices)))


def _list(state: State) -> None:
    from madlog.analytics.questions import GROUPS, questions

    listed = sorted(questions().values(), key=lambda item: (GROUPS.index(item.group), item.name))
    if state.json:
        for item in listed:
            print(dump(_row(item)))
        return
    width = max(len(item.name) for item in listed) + 4
    for group in GROUPS:
        print(group)
        for item in listed:
            if item.group == group:
                print(_folded(item, width))
    note("ask one: madlog ask NAME [-p KEY=VALUE]; its SQL: madlog ask NAME --sql")


def _row(item: "Question") -> dict[str, Any]:
    return {
        "name": item.name,
        "group": item.group,
        "asks": item.sentence,
        "parameters": _told(item),
        "waits_for": item.waits_for,
    }


def _told(item: "Question") -> str:
    """Return a question's parameters in one line, with their defaults."""
    given = (f"{p.name}={p.default}" if p.default is not None else p.name for p in item.parameters)
    return ", ".join(given)


def _folded(item: "Question", width: int) -> str:
    """Return a question's lines in the list, folded to the screen, to 80 columns where none is."""
    import shutil
    import textwrap

    text = item.sentence + (f" ({_told(item)})" if item.parameters else "")
    if item.waits_for:
        text += f" Waits for {item.waits_for.partition(':')[0]}."
    return textwrap.fill(
        text,
        max(width + 30, shutil.get_terminal_size((80, 24)).columns),
        initial_indent=f"  {item.name}".ljust(width),
        subsequent_indent=" " * width,
        break_on_hyphens=False,
    )


def _explain(state: State, item: "Question") -> None:
    """Print a question's SELECT, whose first lines say its parameters."""
    if state.json:
        print(dump({**_row(item), "sql": item.sql.strip()}))
    else:
        print(item.sql.strip())
    _waits(item)


def _waits(item: "Question") -> None:
    if item.waits_for:
        note(f"{item.name} waits for {item.waits_for}")


def _parameters(given: list[str]) -> dict[str, str]:
    pairs = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise fail(f"{item!r} is not KEY=VALUE", 2)
        pairs[key] = value
    return pairs


async def _ask(
    state: State,
    name: str,
    parameters: dict[str, str],
    as_of: str | None,
    fmt: str,
    prices: "PriceList",
) -> None:
    from madlog.analytics.as_of import as_of as resolve
    from madlog.analytics.output import as_answer
    from madlog.analytics.questions import ask as ask_question
    from madlog.analytics.questions import question
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        lake = await open_source(log, state.url, state.settings)
        at = await resolve(log, as_of, lake.find if lake else None) if as_of else None
        result = await ask_question(log, name, parameters, as_of=at, prices=prices, source=lake)
    _waits(question(name))
    await print_answer(as_answer(result), fmt, as_of)
