"""A log with turns, and what is asked of it with its lake and without."""

import json
from collections.abc import Sequence
from typing import Any

from madlog.analytics.lake import Archiver, ArchiverOptions, LakeSource, LakeStore
from madlog.analytics.sql import connect, query
from madlog.schemas import Event, Outcome, Part, Sender, TimerFired, ToolCall, Turn, new_event_id
from madlog.topics import EventLog, Vector

__all__ = ("NOW", "answers", "archive", "mixed", "query_rows", "turn")

# Archive at once, however little there is.
NOW = ArchiverOptions(records_min=1, age_s=0.0)
_JSON = {"parts", "payload"}
VIEWS = ("events", "turns", "tool_calls", "outcomes")


def _about(n: int) -> dict[str, Any]:
    return {
        "event_id": new_event_id(n * 1000, n.to_bytes(10, "big")),
        "conversation_id": f"c{n % 7}",
        "sender": Sender(name="anna", kind="human"),
        "occurred_at": n * 1000,
    }


def turn(n: int, text: str = "please refund") -> Turn:
    return Turn(**_about(n), parts=(Part(content_class="prose", text=f"{text} {n}"),))


def mixed(count: int, first: int = 0) -> list[Event]:
    """Return events of several kinds; turns of no part, one and three, one with a control code."""
    made: list[Event] = []
    for n in range(first, first + count):
        parts = (
            Part(content_class="prose", text="naïve 𝄞 "),
            Part(content_class="fixed", uri="file:///x", sha256="0" * 64, size=3),
            Part(content_class="deterministic", text="refund 4711\x1b", language="sh"),
        )
        kinds: Sequence[Event] = (
            turn(n),
            Turn(**_about(n), parts=parts, tags=("urgent",)),
            Turn(**_about(n)),
            ToolCall(**_about(n), action="refund", arguments='{"order": 4711}'),
            TimerFired(**_about(n), about_id=_about(n)["event_id"], deadline=n),
            Outcome(
                **_about(n),
                mad="bot",
                result="success",
                quality=1e-7,
                judged_by="x",
                about="conversation",
                about_id=f"c{n % 7}",
            ),
        )
        made.append(kinds[n % len(kinds)])
    return made


async def archive(
    log: EventLog, store: LakeStore, options: ArchiverOptions | None = None
) -> Archiver:
    """Archive all that there is."""
    archiver = Archiver(log, store, options)
    await archiver.run(until_idle=True)
    return archiver


async def query_rows(
    log: EventLog, sql: str, store: LakeStore | None = None, at: Vector | None = None
) -> list[dict[str, Any]]:
    source = None if store is None else LakeSource(log, store)
    rows: list[dict[str, Any]] = (await query(log, sql, as_of=at, source=source)).table.to_pylist()
    return rows


async def answers(
    log: EventLog, store: LakeStore | None = None, at: Vector | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return each view's rows in one order; of events those that are not about the lake."""
    source = None if store is None else LakeSource(log, store)
    con = await connect(log, as_of=at, source=source)
    found = {}
    for view in VIEWS:
        where = "WHERE kind <> 'RangeArchived'" if view == "events" else ""
        sql = f'SELECT * FROM {view} {where} ORDER BY topic, partition, "offset"'
        rows: list[dict[str, Any]] = con.sql(sql).to_arrow_table().to_pylist()
        found[view] = rows
        for row in rows:
            for name in _JSON & row.keys():
                row[name] = json.loads(row[name])
    con.close()
    return found
