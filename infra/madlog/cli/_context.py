"""What every command shares: where the log is, how to print, how to run async code."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madlog.config import Settings

__all__ = (
    "JsonOption",
    "LogOption",
    "State",
    "dump",
    "fail",
    "note",
    "print_object",
    "print_rows",
    "progress_bar",
    "run",
    "state_of",
)

T = TypeVar("T")

# A table up to this much wider than the screen is folded; a wider one is printed as records.
_FOLDED_MAX = 1.3
_PIPE_WIDTH = 10_000

LogOption = Annotated[
    str | None,
    typer.Option(
        "--log", metavar="URL", help="The log: a folder (default .madlog, or $MADLOG_LOG)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@dataclass(frozen=True)
class State:
    """The options that may stand before or after a command's name."""

    log: str | None = None
    json: bool = False

    @property
    def settings(self) -> "Settings":
        """The settings of this run."""
        from madlog.config import from_environment

        settings = from_environment()
        return settings.model_copy(update={"log": self.log}) if self.log else settings

    @property
    def url(self) -> str:
        """The log's address."""
        return self.settings.log


def state_of(ctx: typer.Context, log: str | None, as_json: bool) -> State:
    """Return the options, those after the command's name winning."""
    before = ctx.find_root().obj or State()
    return State(log or before.log, as_json or before.json)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(main)


def note(text: str) -> None:
    """Say something to the person, apart from the output."""
    print(text, file=sys.stderr)


def fail(text: str, code: int) -> typer.Exit:
    """Say what is wrong on stderr; returns the exit to raise."""
    note(f"madlog: {text}")
    return typer.Exit(code)


def dump(value: Any) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=_jsonable, allow_nan=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return str(value)


def print_object(state: State, value: Mapping[str, Any], *, title: str | None = None) -> None:
    """Print one object: JSON for programs, two columns for people."""
    if state.json:
        print(dump(value))
        return
    if title:
        print(title)
    width = max((len(name) for name in value), default=0)
    for name, item in value.items():
        shown = item if isinstance(item, str) else dump(item)
        print(f"  {name.replace('_', ' '):<{width}}  {shown}")


def print_rows(
    state: State,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    empty: str = "nothing",
) -> None:
    """Print rows: JSON lines for programs, a table for people."""
    if state.json:
        for row in rows:
            print(dump({name: row.get(name) for name in columns}))
        return
    rows = list(rows)
    if not rows:
        note(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # On a pipe there is no width to fit into, unless one is asked for: nothing is folded there.
    fitted = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if fitted else _PIPE_WIDTH)
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [
        max(len(name), *(len(line[number]) for line in cells)) + 1
        for number, name in enumerate(columns)
    ]
    if fitted and sum(widths) > console.width * _FOLDED_MAX:
        _print_records(columns, cells)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        number = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table, crop=False)


def _print_records(columns: Sequence[str], cells: list[list[str]]) -> None:
    """Print rows one under the other: a table that wide would be folded past reading."""
    width = max(len(name) for name in columns)
    for number, line in enumerate(cells):
        if number:
            print()
        for name, cell in zip(columns, line, strict=True):
            print(f"{name:<{width}}  {cell}")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if hasattr(value, "hour"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    return dump(value)


@contextmanager
def progress_bar(label: str, total: int | None = None) -> "Iterator[Callable[[int], None]]":
    """Show progress on stderr when that is a terminal; yields a function of what is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda done: bars.update(task, completed=done)
