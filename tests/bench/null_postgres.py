"""The null product of a database: a table of events in Postgres, asked through psql.

The server is the one that MADLOG_POSTGRES names. All that is made there is in a schema of its own,
which is dropped at the end. psql is the client because every Postgres comes with it.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence

from tests.bench.null_turns import Said

from madlog.schemas import MadlogError

__all__ = ("CURE", "Postgres", "Refused", "Session", "copy_rows", "insert")

CURE = (
    "name a Postgres server that may be written to in MADLOG_POSTGRES "
    "(postgresql://USER@127.0.0.1:5432/postgres), with psql on the PATH"
)
SCHEMA = "madlog_null_bench"
_MARK = "--answered--"
_COLUMNS = "id, conversation_id, sender, occurred_at, kind, text, payload"
_TABLE = """
CREATE TABLE events (
    id uuid PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    conversation_id text NOT NULL,
    sender text NOT NULL,
    occurred_at timestamptz NOT NULL,
    kind text NOT NULL,
    text text,
    payload jsonb NOT NULL);
"""
_INDEXES = """
CREATE INDEX ON events (conversation_id, seq);
CREATE INDEX ON events (occurred_at);
CREATE INDEX ON events (kind) WHERE kind <> 'turn';
CREATE INDEX ON events USING gin (to_tsvector('simple', text));
"""


class Refused(MadlogError):
    """What the server said to a statement, or why there is none."""

    exit_code = 3


class Session:
    """One psql on the schema: statements go in, lines come out."""

    def __init__(self, server: str) -> None:
        if shutil.which("psql") is None:
            raise Refused(f"there is no psql here: {CURE}")
        self._psql = subprocess.Popen(
            ["psql", server, "-XqAt", "-F", "\t", "-v", "VERBOSITY=terse"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.ask(
            f"SET search_path = {SCHEMA}; SET timezone = 'UTC'; SET synchronous_commit = on; "
            "SET client_min_messages = warning;"
        )

    def ask(self, sql: str) -> list[tuple[str, ...]]:
        """Run statements and return their rows, every value as text; raises Refused."""
        self.send(f"{sql}\n\\echo {_MARK}\n")
        assert self._psql.stdout is not None
        rows: list[tuple[str, ...]] = []
        for line in self._psql.stdout:
            if line == f"{_MARK}\n".encode():
                wrong = [row[0] for row in rows if row[0].startswith(("ERROR:", "psql:"))]
                if wrong:
                    raise Refused(wrong[0])
                return rows
            rows.append(tuple(line.decode().rstrip("\n").split("\t")))
        self.kill()
        said = " ".join(rows[0]) if rows else "psql ended"
        raise Refused(f"{said}: {CURE}")

    def send(self, text: str) -> None:
        """Hand text to psql and wait for nothing."""
        assert self._psql.stdin is not None
        try:
            self._psql.stdin.write(text.encode())
            self._psql.stdin.flush()
        except BrokenPipeError:
            pass  # what psql said before it ended is in its output

    def kill(self) -> None:
        """End psql as kill -9 does."""
        self._psql.kill()
        self._psql.communicate()

    def close(self) -> None:
        """End psql."""
        self._psql.communicate()


class Postgres:
    """The table, and one session on it."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.session = Session(server)
        self.ask(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};{_TABLE}")

    def index(self) -> None:
        """Make the indexes; what is loaded before costs less than what comes after."""
        self.ask(_INDEXES)

    def settle(self) -> None:
        """Vacuum and analyze, as the server does by itself in time."""
        self.ask("VACUUM (ANALYZE) events;")

    def append(self, said: Sequence[Said]) -> None:
        """Insert a batch in one transaction, passing over ids that are there."""
        self.ask(insert(said))

    def copy(self, said: Sequence[Said]) -> None:
        """Insert a batch by COPY, which is quicker and cannot pass over what is there."""
        self.ask(f"COPY events ({_COLUMNS}) FROM STDIN;\n{copy_rows(said)}\\.")

    def ask(self, sql: str) -> list[tuple[str, ...]]:
        """Run statements and return their rows, every value as text; raises Refused."""
        return self.session.ask(sql)

    @property
    def bytes(self) -> tuple[int, int]:
        """What the table takes, and its indexes."""
        sql = "SELECT pg_table_size('events'), pg_indexes_size('events');"
        ((table, indexes),) = self.ask(sql)
        return int(table), int(indexes)

    def close(self) -> None:
        """Drop the schema and end psql."""
        self.ask(f"DROP SCHEMA {SCHEMA} CASCADE;")
        self.session.close()


def insert(said: Sequence[Said]) -> str:
    """Return the statement that inserts a batch."""
    rows = ",".join(f"({','.join(map(_quoted, _values(one)))})" for one in said)
    return f"INSERT INTO events ({_COLUMNS}) VALUES {rows} ON CONFLICT (id) DO NOTHING;"


def copy_rows(said: Sequence[Said]) -> str:
    """Return a batch as COPY takes it."""
    return "".join("\t".join(map(_escaped, _values(one))) + "\n" for one in said)


def _values(said: Said) -> tuple[str | None, ...]:
    payload = {name: value for name, value in said.fields.items() if name != "text"}
    return (
        said.event_id,
        said.conversation_id,
        said.sender,
        said.at.isoformat(),
        said.kind,
        said.fields.get("text"),
        json.dumps(payload, separators=(",", ":")),
    )


def _quoted(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def _escaped(value: str | None) -> str:
    if value is None:
        return "\\N"
    for plain, written in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n")):
        value = value.replace(plain, written)
    return value
