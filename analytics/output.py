"""A query's answer as JSON lines, CSV, Arrow or Parquet; tables for people are the CLI's."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from madlog.analytics.errors import CannotWrite
from madlog.analytics.sql import Result

__all__ = ("csv_lines", "json_lines", "json_rows", "rows", "write_arrow", "write_parquet")

_BATCH_ROWS = 1024


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


def csv_lines(result: Result) -> Iterator[str]:
    """Yield the lines of a CSV file with a header, line ends included; lists are JSON text."""
    yield _csv(result.columns)
    for row in rows(result):
        yield _csv([_cell(value) for value in row.values()])


def write_parquet(result: Result, path: Path) -> None:
    """Write a Parquet file whole or not at all. Raises CannotWrite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(result.table, part, compression="zstd")
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


def write_arrow(result: Result, file: BinaryIO) -> None:
    """Write the rows as an Arrow IPC stream."""
    import pyarrow as pa

    with pa.ipc.new_stream(file, result.table.schema) as stream:
        stream.write_table(result.table)


def _csv(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


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
