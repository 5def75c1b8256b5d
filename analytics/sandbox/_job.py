"""What the parent hands a child and gets back: two files without names, with an index at the end.

A job file holds Arrow streams, an answer file at most one; then JSON, then its length in 8 bytes.
"""

import fcntl
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

__all__ = (
    "HEAD",
    "WALLS",
    "Job",
    "nameless_file",
    "read_index",
    "read_stream",
    "sealed",
    "simple",
    "write_index",
)

# Each can be left out in tests, which show what the others hold.
WALLS = frozenset({"parser", "settings", "limits", "landlock", "seccomp", "clock", "output"})

# What a job comes with: its time limit in seconds, 0 for none.
HEAD = struct.Struct("=d")

_LENGTH = 8
_INDEX_BYTES_MAX = 32 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is to do: parse a text, or run it over tables and files, within walls."""

    sql: str
    walls: frozenset[str] = WALLS
    parse_only: bool = False
    # Run by us, before the settings are locked; then `functions` tells whether ours are added.
    setup: tuple[str, ...] = ()
    functions: bool = False
    files: tuple[str, ...] = ()
    threads: int = 2
    cpu_s: int = 20
    memory_bytes: int = 1 << 30
    output_bytes: int = 64 << 20
    rows_max: int = 1_000_000


def nameless_file(name: str) -> int:
    """Return the descriptor of a new file that has no name, in memory where that can be."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(f"madlog-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def sealed(fd: int) -> None:
    """Let nobody write a file any more; raises OSError where somebody still can."""
    if hasattr(fcntl, "F_ADD_SEALS"):
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def write_index(fd: int, index: Mapping[str, Any]) -> None:
    """Write the index at the end of the file."""
    text = json.dumps(index).encode()
    with open(fd, "wb", closefd=False) as file:
        file.seek(0, os.SEEK_END)
        file.write(text + len(text).to_bytes(_LENGTH, "big"))


def read_index(fd: int) -> dict[str, Any]:
    """Return the index of a file; raises ValueError where there is none."""
    end = os.fstat(fd).st_size - _LENGTH
    length = int.from_bytes(os.pread(fd, _LENGTH, end), "big") if end > 0 else 0
    if not 0 < length <= min(end, _INDEX_BYTES_MAX):
        raise ValueError("the file is cut short")
    index = json.loads(os.pread(fd, length, end - length))
    if not isinstance(index, dict):
        raise ValueError("the index is no object")
    return index


def read_stream(
    fd: int, start: int, length: int, check: Callable[[pa.Buffer], None] | None = None
) -> pa.Table:
    """Return the Arrow table that stands there; it stays in the file, which is mapped."""
    if length <= 0 or start < 0 or start + length > os.fstat(fd).st_size:
        raise ValueError("the table stands outside the file")
    mapped = mmap.mmap(fd, start + length, prot=mmap.PROT_READ)
    data = pa.py_buffer(mapped).slice(start, length)
    if check is not None:
        check(data)
    return pa.ipc.open_stream(data).read_all()


def simple(type_: pa.DataType, *, top: bool = True) -> bool:
    """Tell whether a column of a type may be handed out: as large as it looks, and no larger."""
    types = pa.types
    if types.is_null(type_):
        return top
    if types.is_struct(type_) or types.is_map(type_) or types.is_list(type_):
        return all(simple(type_.field(i).type, top=False) for i in range(type_.num_fields))
    if types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return simple(type_.value_type, top=False)
    return bool(
        types.is_primitive(type_)
        or types.is_decimal(type_)
        or types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_fixed_size_binary(type_)
    )
