"""A query's answer as JSON lines, CSV, Arrow or Parquet; tables for people are the CLI's.

An answer that comes in parts is written part by part, in as much memory as one of them takes.
"""

import csv
import io
import json
import math
import os
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from madlog.analytics.errors import CannotWrite
from madlog.analytics.sql import Answer, Result

__all__ = (
    "as_answer",
    "csv_lines",
    "json_lines",
    "json_rows",
    "rows",
    "write_arrow",
    "write_parquet",
)

_BATCH_ROWS = 1024
# A row group of a Parquet file is written when it has this many rows or bytes.
_GROUP_ROWS = 122_880
_GROUP_BYTES = 64 << 20


def as_answer(result: Result) -> Answer:
    """Return a whole result as an answer of one part."""

    async def once() -> AsyncIterator[Result]:
        yield result

    empty = result.table.slice(0, 0)
    return Answer(result.columns, result.types, empty, once(), result.as_of, result.unread)


def rows(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the rows, values as Python has them."""
    for batch in result.table.to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


def json_rows(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the rows, values as JSON has them: JSON columns nested, times in ISO 8601, UTC."""
    nested = {
        name for name, type_ in zip(result.columns, result.types, strict=True) if type_ == "JSON"
    }
    for row in rows(result):
        yield {
            name: json.loads(value) if name in nested and value is not None else _jsonable(value)
            for name, value in row.items()
        }


def json_lines(result: Result) -> Iterator[str]:
    """Yield one line of JSON a row, without its line end."""
    for row in json_rows(result):
        yield json.dumps(row, ensure_ascii=False, allow_nan=False)


def csv_lines(result: Result, *, header: bool = True) -> Iterator[str]:
    """Yield the lines of a CSV file, line ends included; lists are JSON text."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    if header:
        writer.writerow(result.columns)
        yield line.getvalue()
    for row in rows(result):
        line.seek(0)
        line.truncate()
        writer.writerow([_cell(value) for value in row.values()])
        yield line.getvalue()


async def write_parquet(answer: Answer, path: Path) -> None:
    """Write a Parquet file whole or not at all. Raises CannotWrite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with pq.ParquetWriter(part, answer.empty.schema, compression="zstd") as file:
            async for table in _groups(answer):
                file.write_table(table)
        part.replace(path)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise CannotWrite(
            f"Parquet has no form for a column of this result ({str(error).splitlines()[0]}): "
            "cast it to VARCHAR"
        ) from error
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


async def _groups(answer: Answer) -> AsyncIterator[Any]:
    import pyarrow as pa

    held = [answer.empty]
    async for part in answer.parts:
        held.append(part.table)
        if (
            sum(table.num_rows for table in held) >= _GROUP_ROWS
            or sum(table.nbytes for table in held) >= _GROUP_BYTES
        ):
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


async def write_arrow(answer: Answer, file: BinaryIO) -> None:
    """Write the rows as an Arrow IPC stream."""
    import pyarrow as pa

    with pa.ipc.new_stream(file, answer.empty.schema) as stream:
        async for part in answer.parts:
            stream.write_table(part.table)


def _cell(value: Any) -> Any:
    value = _jsonable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.isoformat() + ("" if value.tzinfo else "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return str(value)
