"""The sandbox's parts alone: the list of functions, the walk over trees, answers that lie."""

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from madlog.analytics.errors import SqlLimit, SqlRefused
from madlog.analytics.questions import questions
from madlog.analytics.sandbox._answer import answer_of, table_of
from madlog.analytics.sandbox._job import Job, nameless_file, read_index, read_stream, write_index
from madlog.analytics.sandbox._kernel import _filter
from madlog.analytics.sandbox._process import End
from madlog.analytics.sandbox._tree import functions, views_read
from madlog.analytics.views import VIEWS

NAMES = [*VIEWS, "prices"]


@cache
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:")


def parsed(sql: str) -> str:
    ((tree,),) = connection().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    return str(tree)


def test_every_function_that_duckdb_has_is_reviewed() -> None:
    found = connection().execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
        "WHERE function_type <> 'pragma'"
    )
    names = {name for (name,) in found.fetchall()}
    reviewed = functions().allowed | set(functions().refused)
    assert names - reviewed == set(), (
        f"DuckDB {duckdb.__version__} has functions that {functions().reviewed} had not: put each "
        "where it belongs in analytics/sandbox/functions.toml"
    )


def test_no_function_is_both_allowed_and_refused() -> None:
    assert functions().allowed & set(functions().refused) == set()


@pytest.mark.parametrize("name", ["read_text", "query", "query_table", "glob", "duckdb_settings"])
def test_a_function_that_reads_outside_is_allowed_nowhere(name: str) -> None:
    assert functions().refusal(name, in_from=True)
    assert functions().refusal(name, in_from=False)


@pytest.mark.parametrize("name", sorted(questions()))
def test_each_named_question_asks_for_no_more_than_others_may(name: str) -> None:
    sql = questions()[name].sql
    assert views_read(sql, parsed(sql), NAMES) <= set(NAMES)


def test_the_views_that_a_query_reads_are_told() -> None:
    sql = 'WITH a AS (FROM Turns), turns AS (FROM a) SELECT (SELECT 1 FROM "DECISIONS") FROM turns'
    assert views_read(sql, parsed(sql), NAMES) == {"turns", "decisions"}


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (FROM b), b AS (SELECT 1) FROM a",
        "WITH a AS (FROM a) FROM a",
        "WITH RECURSIVE a AS (FROM a UNION FROM a) FROM a",
        "SELECT (WITH a AS (SELECT 1) FROM a) FROM a",
        "FROM (WITH a AS (SELECT 1) FROM a) UNION ALL FROM a",
    ],
)
def test_a_name_of_with_is_known_only_where_it_stands(sql: str) -> None:
    with pytest.raises(SqlRefused, match=r"there is no view '[ab]'"):
        views_read(sql, parsed(sql), NAMES)


@pytest.mark.parametrize(
    "tree",
    [
        "",
        "[]",
        "{}",
        '{"error": false}',
        '{"error": false, "statements": [{"node": {"type": "NEW_NODE"}}]}',
        '{"error": 0, "statements": [{"node": {"type": "SELECT_NODE", "x": {"class": "NEW"}}}]}',
        '{"error": 0, "statements": [{"node": {"type": "SELECT_NODE", "x": {"type": "NEW"}}}]}',
        "[" * 100_000,
    ],
)
def test_a_tree_that_is_not_known_is_refused(tree: str) -> None:
    with pytest.raises(SqlRefused):
        views_read("SELECT 1", tree, NAMES)


def changed(node: Any) -> Iterator[None]:
    """Put a name that nobody knows in each place of a tree that names something, one at a time."""
    if isinstance(node, list):
        for item in node:
            yield from changed(item)
    elif isinstance(node, dict):
        names = ["function_name", "table_name", "class" if "class" in node else "type"]
        for name in names:
            if isinstance(node.get(name), str):
                was, node[name] = node[name], "unheard_of"
                yield
                node[name] = was
        for item in list(node.values()):
            yield from changed(item)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (FROM turns WHERE text LIKE 'x%') SELECT count(*), max(n) FROM a, range(3) b(n)",
        "SELECT sum(x) OVER (ORDER BY y), [i FOR i IN l IF i > 1], x::INT[] FROM (VALUES (1, [2])) "
        "t(x, l) JOIN decisions d ON NOT true GROUP BY ALL ORDER BY 1 LIMIT 2",
        "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT 2 FROM a) SELECT CASE WHEN true THEN "
        "(SELECT 1 FROM a) END FROM a UNION SELECT DISTINCT reason FROM audit",
    ],
)
def test_a_tree_is_refused_wherever_it_names_what_is_not_known(sql: str) -> None:
    tree = json.loads(parsed(sql))
    assert views_read(sql, json.dumps(tree), NAMES)
    places = 0
    for _ in changed(tree["statements"]):
        places += 1
        with pytest.raises(SqlRefused):
            views_read(sql, json.dumps(tree), NAMES)
    assert places > 10


@pytest.fixture
def answer_fd() -> Any:
    fd = nameless_file("test")
    yield fd
    os.close(fd)


def written(fd: int, table: pa.Table, **options: Any) -> dict[str, Any]:
    with open(fd, "wb", closefd=False) as file:
        with pa.ipc.new_stream(
            file, table.schema, options=pa.ipc.IpcWriteOptions(**options)
        ) as writer:
            writer.write_table(table)
        return {"types": ["X"] * table.num_columns, "table": [0, file.tell()]}


GOOD = pa.table({"a": [1, 2], "b": ["x", None], "c": [[1], []]})


def test_an_answer_is_read_as_it_was_written(answer_fd: int) -> None:
    answer = written(answer_fd, GOOD)
    write_index(answer_fd, answer)
    assert answer_of(End(0, False), answer_fd, Job("SELECT 1"), 1.0) == answer
    assert table_of(answer, answer_fd, 10).equals(GOOD)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (GOOD, {"compression": "zstd"}),
        (GOOD, {"compression": "lz4"}),
        (pa.table({"a": pa.array(["x", "x"]).dictionary_encode()}), {}),
        (pa.table({"a": pa.array([[None]], pa.list_(pa.null()))}), {}),
        (pa.table({"a": pa.array(["x" * 50] * 2, pa.string_view())}), {}),
        (pa.table({"a": [1] * 11}), {}),
    ],
    ids=["zstd", "lz4", "dictionary", "list of null", "string view", "rows"],
)
def test_an_answer_that_could_grow_is_not_believed(
    answer_fd: int, table: pa.Table, options: dict[str, Any]
) -> None:
    answer = written(answer_fd, table, **options)
    with pytest.raises(SqlLimit, match="wrong answer"):
        table_of(answer, answer_fd, 10)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"types": [], "table": [0, 0]},
        {"types": [], "table": [0, 1 << 40]},
        {"types": [], "table": [-8, 16]},
        {"types": [], "table": ["x", None]},
        {"types": [], "table": [0, 8]},
    ],
)
def test_an_answer_that_lies_of_where_its_table_is_is_not_believed(
    answer_fd: int, answer: dict[str, Any]
) -> None:
    written(answer_fd, GOOD)
    with pytest.raises(SqlLimit, match="wrong answer"):
        table_of(answer, answer_fd, 10)


def test_offsets_that_point_outside_are_found(answer_fd: int) -> None:
    answer = written(answer_fd, pa.table({"b": ["abc", "def"]}))
    data = Path(f"/dev/fd/{answer_fd}").read_bytes() if os.path.exists("/dev/fd") else b""
    at = data.index(struct.pack("<3i", 0, 3, 6))
    os.pwrite(answer_fd, struct.pack("<3i", 0, 3, 1 << 30), at)
    with pytest.raises(SqlLimit, match="wrong answer"):
        table_of(answer, answer_fd, 10)


@pytest.mark.parametrize("size", [0, 4, 8, 9])
def test_a_file_without_an_index_is_cut_short(answer_fd: int, size: int) -> None:
    os.ftruncate(answer_fd, size)
    with pytest.raises(ValueError, match="cut short"):
        read_index(answer_fd)
    with pytest.raises(ValueError, match="outside"):
        read_stream(answer_fd, 0, 10)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (End(-9, True), "longer than 2 s"),
        (End(-24, False), "longer than 2 s"),
        (End(-11, False), "signal 11"),
        (End(70, False), "failed"),
        (End(0, False), "gave no answer"),
    ],
)
def test_how_a_child_ended_is_said_in_one_sentence(answer_fd: int, end: End, says: str) -> None:
    with pytest.raises(SqlLimit, match=says) as caught:
        answer_of(end, answer_fd, Job("SELECT 1"), 2.0)
    assert caught.value.exit_code == 3


def decided(code: bytes, number: int, arguments: tuple[int, ...] = (0, 0, 0), arch: int = 7) -> int:
    """Return what a filter answers to a system call, by running its instructions."""
    data = struct.pack("<IIQ3Q", number, arch, 0, *arguments)
    lines = list(struct.iter_unpack("<HBBI", code))
    at = value = 0
    while True:
        operation, yes, no, operand = lines[at]
        at += 1
        if operation == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x06:
            return int(operand)
        else:
            hits = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            at += yes if hits[operation] else no


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
SPECIAL = {"openat": 50, "clone": 60, "clone3": 70, "fcntl": 80}


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        (1, (0, 0, 0), ALLOW),
        (2, (0, 0, 0), EPERM),
        (60, (0x10000, 0, 0), ALLOW),
        (60, (17, 0, 0), EPERM),
        (70, (0x10000, 0, 0), ENOSYS),
        (50, (0, 0, os.O_RDONLY), ALLOW),
        (50, (0, 0, os.O_WRONLY), EPERM),
        (50, (0, 0, os.O_RDWR), EPERM),
        (50, (0, 0, os.O_CREAT), EPERM),
        (50, (0, 0, os.O_TRUNC), EPERM),
        (80, (0, fcntl.F_GETFL, 0), ALLOW),
        (80, (0, fcntl.F_SETLK, 0), ALLOW),
        (80, (0, fcntl.F_DUPFD_CLOEXEC, 0), ALLOW),
        (80, (0, fcntl.F_SETOWN, 0), EPERM),
        (80, (0, 10, 0), EPERM),  # F_SETSIG
        (80, (0, 15, 0), EPERM),  # F_SETOWN_EX
    ],
)
def test_the_filter_lets_calls_through_by_their_arguments(
    call: int, arguments: tuple[int, ...], answer: int
) -> None:
    code = _filter(7, SPECIAL, (1, 3), True)
    assert decided(code, call, arguments) == answer
    assert decided(code, call, arguments, arch=8) == KILL
    if call == 50:
        assert decided(_filter(7, SPECIAL, (1, 3), False), call, arguments) == EPERM
