"""A small log, a lake's file beside it, and a folder with what nobody may see or change."""

import hashlib
import json
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from madlog.analytics.columns import KINDS, schema_of
from madlog.analytics.errors import BadSql, SqlLimit
from madlog.analytics.sandbox import Limits, Sandbox
from madlog.analytics.tables import LogSource, Scan, Table, Tables
from madlog.schemas import Part, Sender, Turn, new_event_id
from madlog.topics import EventLog, Vector
from madlog.topics.memory import MemoryLog

__all__ = ("CANARY", "ESCAPES", "Escape", "Scene", "small_log")

CANARY = "CANARY"


@dataclass(frozen=True)
class Escape:
    """One way out: a name, the text, what it tries, and the walls that hold it alone."""

    name: str
    tries: str
    sql: str
    held: tuple[str, ...] = ()


_FILE = Path(__file__).parents[1] / "fixtures" / "escapes.toml"
ESCAPES = [
    Escape(**{**item, "held": tuple(item["held"])})
    for item in tomllib.loads(_FILE.read_text("utf-8"))["escape"]
]


async def small_log() -> EventLog:
    """Return a log of three turns, in memory."""
    log = await EventLog.open(MemoryLog())
    await log.append(
        [
            Turn(
                event_id=new_event_id(n * 1000, n.to_bytes(10, "big")),
                conversation_id="c1",
                sender=Sender(name="anna", kind="human"),
                occurred_at=n * 1000,
                parts=(Part(content_class="prose", text=text),),
            )
            for n, text in enumerate(("hello", "refund 4711", "thanks"), 1)
        ]
    )
    return log


class Scene:
    """Runs escapes in sandboxes over one log, and tells whether something came of them."""

    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log = log
        self._tables: Tables | None = None
        self.folder = folder / "others"
        self.lake = folder / "others" / "lake"
        self.lake.mkdir(parents=True)
        self.lake_file = self.lake / "control.parquet"
        pq.write_table(schema_of(KINDS["Control"]).empty_table(), self.lake_file)
        self.names = {
            "folder": str(self.folder),
            "lake": str(self.lake),
            "lake_file": str(self.lake_file),
            "canary": self._write("canary.csv", f"{CANARY},1\n".encode()),
            "canary_json": self._write("canary.json", json.dumps({"x": CANARY}).encode()),
            "canary_parquet": str(self.folder / "canary.parquet"),
        }
        table = pa.table({"x": [CANARY]}).replace_schema_metadata({"x": CANARY})
        pq.write_table(table, self.names["canary_parquet"])
        self._before = self._contents()

    def _write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def sandbox(self, walls: Collection[str], limits: Limits) -> Sandbox:
        """Return a sandbox with these walls and no other."""
        return Sandbox(self.log, limits=limits, source=self, walls=frozenset(walls))

    async def tables(self, names: Collection[str], end: Vector) -> Tables:
        """Return the log's tables, one of them with a file of the lake; read once."""
        if self._tables is None or not set(names) <= set(self._tables.kinds):
            found = dict((await LogSource(self.log).tables(names, end)).kinds)
            if "Control" in found:
                scan = Scan((str(self.lake_file),), "*")
                found["Control"] = Table(found["Control"].rows, (scan,))
            self._tables = Tables(found)
        return self._tables

    def text(self, escape: Escape) -> str:
        """Return an escape's SQL with the names of this folder in it."""
        text = escape.sql
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    async def escapes(self, sandbox: Sandbox, escape: Escape) -> str:
        """Return what an escape got out of a sandbox in a few words: nothing, where it is held."""
        try:
            result = await sandbox.query(self.text(escape), principal="mallory")
        except (BadSql, SqlLimit) as error:
            told = str(error)
            got = f"told: {told}" if f"{CANARY}," in told else ""
        else:
            got = "an answer"
            values = str([list(row.values()) for row in result.table.to_pylist()])
            if escape.tries == "reads" and CANARY.lower() not in values.lower():
                got = ""
        after = self._contents()
        if after != self._before:
            got = f"changed: {sorted(set(after.items()) ^ set(self._before.items()))}"
            self._before = after
        return got

    def _contents(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
