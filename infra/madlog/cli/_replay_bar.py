"""How far a replay is, on a terminal: events, speed, time left."""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from madlog.analytics.replay_report import Progress as Told

__all__ = ("replay_bar",)


@contextmanager
def replay_bar(label: str) -> "Iterator[Callable[[Told], None]]":
    """Show a replay's progress on stderr when that is a terminal; yields what is told of it."""
    if not sys.stderr.isatty():
        yield lambda told: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None, told="")

        def show(now: "Told") -> None:
            left = f"{now.seconds_left:,.0f} s left"
            told = f"{now.events:,} events, {now.events_per_s:,.0f} a second, {left}"
            bars.update(task, completed=now.events, total=now.total, told=told)

        yield show
