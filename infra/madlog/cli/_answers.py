"""How an answer is printed: a table for people, or lines, files and streams for programs."""

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

from madlog.cli._context import State, note, print_rows

if TYPE_CHECKING:
    from madlog.analytics.sql import Answer

__all__ = ("print_answer",)

# What a table for people holds at most: it is laid out when all its rows are known.
_TABLE_ROWS = 10_000
_TABLE_BYTES = 64 << 20


async def print_answer(answer: "Answer", fmt: str, as_of: str | None) -> None:
    """Print an answer's rows as they come; a table holds the first 10,000 of them."""
    from madlog.analytics.output import csv_lines, json_lines, write_arrow

    if as_of:
        note(f"as of {answer.as_of}")
    if answer.unread:
        note(f"not read, because --as-of does not name them: {', '.join(answer.unread)}")
    if fmt == "parquet":
        await _parquet_to_stdout(answer)
    elif fmt == "arrow":
        await write_arrow(answer, sys.stdout.buffer)
    elif fmt == "table":
        await _table(answer)
    elif fmt == "json":
        async for part in answer.parts:
            for line in json_lines(part):
                print(line)
    else:
        await _csv(answer, csv_lines)


async def _csv(answer: "Answer", csv_lines: Any) -> None:
    from madlog.analytics.sql import Result

    head = Result(answer.columns, answer.types, answer.empty, answer.as_of)
    sys.stdout.writelines(csv_lines(head))
    async for part in answer.parts:
        sys.stdout.writelines(csv_lines(part, header=False))


async def _table(answer: "Answer") -> None:
    from madlog.analytics.output import rows

    shown: list[dict[str, Any]] = []
    size, cut = 0, False
    async for part in answer.parts:
        room = _TABLE_ROWS - len(shown) if size <= _TABLE_BYTES else 0
        shown += islice(rows(part), room)
        size += part.table.nbytes
        if part.table.num_rows > room:
            cut = True
            break
    print_rows(State(None, False), shown, answer.columns, empty="no rows")
    if cut:
        note(f"these are the first {len(shown):,} rows: --json and --format give all of them")


async def _parquet_to_stdout(answer: "Answer") -> None:
    import shutil
    import tempfile
    from pathlib import Path

    from madlog.analytics.output import write_parquet

    # Parquet is written with its end in view, so it is made whole before the pipe gets it.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.parquet"
        await write_parquet(answer, path)
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
