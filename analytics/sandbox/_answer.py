"""What a child answered, looked at before it is believed: one that was taken over can lie."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from madlog.analytics.errors import BadSql, LakeDamaged, SqlLimit, SqlRefused
from madlog.analytics.sandbox._job import Job, read_index, read_stream, sealed, simple
from madlog.analytics.sandbox._process import End

__all__ = ("answer_of", "error_of", "table_of")

_CPU, _FILE, _KILLED = -24, -25, -9
_REFUSED = ("Permission", "IO", "HTTP", "Extension", "Missing Extension", "Network")
_RECORD_BATCH, _SCHEMA = 3, 1


def answer_of(end: End, answer_fd: int, job: Job, limit_s: float) -> dict[str, Any]:
    """Return what a child wrote of a job that it had `limit_s` for.

    Raises SqlLimit, BadSql where it met a wall or could not go on, LakeDamaged.
    """
    memory = f"{job.memory_bytes >> 20} MiB"
    if end.overdue or end.code == _CPU:
        raise SqlLimit(f"the query took longer than {limit_s:g} s: ask for less, or allow it more")
    if end.code != 0:
        raise SqlLimit(
            f"the query's process was ended by signal {-end.code}: it needs more memory than "
            f"{memory}, or nests too deeply; ask for less"
            if end.code < 0
            else "the query's process failed: ask for less"
        )
    try:
        sealed(answer_fd)
        answer = read_index(answer_fd)
    except (ValueError, OSError) as error:
        raise SqlLimit(f"the query's process gave no answer ({error}): ask for less") from error
    if answer.get("file") in job.files and "parser" in job.walls:
        # The query itself names no file: that was seen to.
        raise LakeDamaged(
            f"the lake's file {Path(answer['file']).name} cannot be read: `madlog lake check` "
            "names all such files, `madlog lake repair` archives them again"
        )
    if "error" in answer:
        raise error_of(str(answer["error"]), str(answer.get("message")), memory)
    return answer


def error_of(kind: str, message: str, memory: str) -> Exception:
    """Return our error for one of the child's."""
    if kind == "Out of Memory":
        return SqlLimit(f"the query needs more memory than {memory}: select fewer rows or columns")
    if kind == "Too Large":
        return SqlLimit(
            f"the answer is too large ({message}): select fewer rows or columns, or count them"
        )
    if kind == "Wall":
        return SqlLimit(f"this machine does not let SQL of others be walled in ({message})")
    if kind in _REFUSED:
        # Its own words may name what is none of the asker's business.
        return SqlRefused(
            "the query asks for files, the network or settings: only views can be read"
        )
    return BadSql(f"the query cannot be run: {message}")


def table_of(answer: Mapping[str, Any], answer_fd: int, rows_max: int) -> pa.Table:
    """Return an answer's table, every offset in it checked. Raises SqlLimit."""
    try:
        start, length = answer["table"]
        stream = read_stream(answer_fd, int(start), int(length), _plain_messages)
        if not all(simple(type_) for type_ in stream.schema.types):
            raise ValueError("a column's type is not one that is handed out")
        stream.validate(full=True)
        if stream.num_rows > rows_max or len(answer["types"]) != stream.num_columns:
            raise ValueError("it has other rows or columns than it says")
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        raise SqlLimit(f"the query's process gave a wrong answer ({error!s:.80})") from error
    return stream


def _plain_messages(data: pa.Buffer) -> None:
    """Raise ValueError where a stream holds what grows when it is read: a message is compressed."""
    for message in pa.ipc.MessageReader.open_stream(data):
        kind, compressed = _kind_and_compression(message.metadata.to_pybytes())
        if kind not in (_SCHEMA, _RECORD_BATCH) or compressed:
            raise ValueError("a message of it is a dictionary or compressed")


def _kind_and_compression(flat: bytes) -> tuple[int, bool]:
    """Return a message's kind, and whether its header has a compression, from its flatbuffer."""
    (message,) = struct.unpack_from("<I", flat)
    kind_at, header_at = _field(flat, message, 1), _field(flat, message, 2)
    if not kind_at or not header_at:
        raise ValueError("a message has no header")
    header = header_at + struct.unpack_from("<I", flat, header_at)[0]
    return flat[kind_at], flat[kind_at] == _RECORD_BATCH and bool(_field(flat, header, 3))


def _field(flat: bytes, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table stands, 0 where it has none."""
    vtable = table - struct.unpack_from("<i", flat, table)[0]
    (size,) = struct.unpack_from("<H", flat, vtable)
    at = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", flat, vtable + at) if at < size else (0,)
    return table + offset if offset else 0
