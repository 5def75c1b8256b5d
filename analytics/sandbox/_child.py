"""The child that one text is parsed or run in: gives up what it can, works, writes, ends."""

import errno
import os
import re
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

# Loaded before the child forks: afterwards it can open no file.
import pyarrow.dataset
import pyarrow.ipc

from madlog.analytics.sandbox import _kernel
from madlog.analytics.sandbox._job import (
    WALLS,
    read_index,
    read_stream,
    simple,
    write_index,
)
from madlog.analytics.sql import add_functions

__all__ = ("open_database", "prepare", "work")

_BATCH_ROWS = 2048
_MESSAGE_CHARS = 400
_TOO_LARGE = "Too Large"
# What a child needs of files and written bytes beside the lake's files and the answer.
_FILES, _BYTES = 64, 4 << 20

# They hold from the first statement on; a child locks them before it runs what it was given.
_LOCKS = (
    "autoinstall_known_extensions=false",
    "autoload_known_extensions=false",
    "allow_community_extensions=false",
    "python_enable_replacements=false",
    "python_scan_all_frames=false",
    "allow_persistent_secrets=false",
    "temp_directory=''",
    "enable_external_access=false",
    "lock_configuration=true",
)


def open_database() -> duckdb.DuckDBPyConnection:
    """Return an empty database without threads, which a process that forks must not have."""
    try:
        con = duckdb.connect(":memory:", config={"threads": 1, "async_threads": 0})
    except duckdb.Error:  # before 2.0 there were no such threads
        con = duckdb.connect(":memory:", config={"threads": 1})
    con.execute("SELECT json_serialize_sql('SELECT 1')").fetchall()
    # What it loads for its first table it has loaded then in each child.
    con.register("first", pa.table({"x": [1]}))
    con.unregister("first")
    return con


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Do once what each query does, before there is one; no thread comes of it."""
    _kernel.no_new_privileges()
    con.execute("SELECT json_serialize_sql(?::VARCHAR)", ["SELECT 1"]).fetchall()
    relation = con.sql("SELECT count(*) AS n, max(x) AS x FROM (VALUES (1), (2)) AS t(x)")
    for batch in relation.to_arrow_reader(_BATCH_ROWS):
        batch.validate()


def work(con: duckdb.DuckDBPyConnection, job_fd: int, answer_fd: int) -> int:
    """Do the job that stands in a file and write the answer to another; returns the exit code."""
    job = read_index(job_fd)
    walls = WALLS & set(job["walls"])
    kind = "Wall"
    try:
        _give_up(job, walls)
        kind = "IO"
        write_index(answer_fd, _do(con, job, walls, job_fd, answer_fd))
    except duckdb.Error as error:
        _say(answer_fd, job, "", str(error))
    except (MemoryError, pa.ArrowMemoryError):
        _say(answer_fd, job, "Out of Memory", "")
    except _TooMuch as error:
        _say(answer_fd, job, _TOO_LARGE, str(error))
    except OSError as error:
        # DuckDB's own errors come by this way too, once rows are on their way.
        _say(answer_fd, job, _TOO_LARGE if error.errno == errno.EFBIG else kind, str(error))
    except (pa.ArrowException, UnicodeError) as error:
        _say(answer_fd, job, "Conversion", str(error))
    return 0


class _TooMuch(Exception):
    pass


def _say(answer_fd: int, job: Mapping[str, Any], error: str, message: str) -> None:
    # What was written of the answer goes: the file may be full.
    os.ftruncate(answer_fd, 0)
    line = " ".join(re.split(r"\n\nLINE \d", message)[0].split())[:_MESSAGE_CHARS]
    told = re.match(r"([A-Z][\w -]{1,30}) Error: ", line, re.IGNORECASE)
    file = next((name for name in job["files"] if name in message), None)
    write_index(answer_fd, {"error": told[1] if told else error, "message": line, "file": file})


def _give_up(job: Mapping[str, Any], walls: frozenset[str]) -> None:
    if "limits" in walls:
        _kernel.limit(
            cpu_s=job["cpu_s"],
            memory_bytes=job["memory_bytes"],
            file_bytes=job["output_bytes"] + _BYTES,
            files=_FILES + len(job["files"]),
        )
    if "landlock" in walls:
        _kernel.landlock(job["files"])
    if "seccomp" in walls:
        _kernel.seccomp(opens=bool(job["files"]))


def _do(
    con: duckdb.DuckDBPyConnection,
    job: Mapping[str, Any],
    walls: frozenset[str],
    job_fd: int,
    answer_fd: int,
) -> dict[str, Any]:
    if job["parse_only"]:
        ((tree,),) = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [job["sql"]]).fetchall()
        return {"tree": tree}
    for name, (start, length) in job["tables"].items():
        con.register(name, read_stream(job_fd, start, length))
    if job["functions"]:
        add_functions(con)
    settings = [f"threads={job['threads']}"]
    if "limits" in walls:
        settings.append(f"memory_limit='{job['memory_bytes'] * 3 // 4 >> 20}MiB'")
    for setting in settings:
        con.execute(f"SET {setting}")
    for statement in job["setup"]:
        con.execute(statement)
    if "settings" in walls:
        if job["files"]:
            names = ", ".join("'" + name.replace("'", "''") + "'" for name in job["files"])
            con.execute(f"SET allowed_paths=[{names}]")
        con.execute(";".join(f"SET {lock}" for lock in _LOCKS))
    return _answer(con, job, walls, answer_fd)


def _answer(
    con: duckdb.DuckDBPyConnection,
    job: Mapping[str, Any],
    walls: frozenset[str],
    answer_fd: int,
) -> dict[str, Any]:
    relation = con.sql(job["sql"])
    if relation is None:
        raise duckdb.InvalidInputException("the text gives no rows")
    types = [str(type_) for type_ in relation.types]
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    schema = pa.schema([pa.field(field.name, _plain(field)) for field in reader.schema])
    rows = size = 0
    with open(answer_fd, "wb", closefd=False) as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in reader:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if "output" in walls and rows > job["rows_max"]:
                raise _TooMuch(f"more than {job['rows_max']:,} rows")
            if "output" in walls and size > job["output_bytes"]:
                raise _TooMuch(f"more than {job['output_bytes'] >> 20} MiB")
            columns = [
                column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                for column in batch.columns
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return {"types": types, "rows": rows, "size": size, "table": [0, os.fstat(answer_fd).st_size]}


def _plain(field: pa.Field) -> pa.DataType:
    type_ = field.type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if not simple(type_):
        raise pa.ArrowNotImplementedError(
            f"column {field.name[:60]!r} is of a type that is not handed out ({type_}): "
            "cast it to VARCHAR"
        )
    return type_
