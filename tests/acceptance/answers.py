"""All that a log says, without what its own clock and its own counting of offsets put in."""

from dataclasses import dataclass
from typing import Any

from madlog.analytics.digest import TopicDigest, digest
from madlog.analytics.lake import LakeSource, LakeStore
from madlog.analytics.output import json_rows
from madlog.analytics.questions import ask, questions
from madlog.analytics.sql import query
from madlog.analytics.tables import LogSource, Once
from madlog.wiring import opened

__all__ = ("Answers", "answers_of")

_OWN = {
    "appended_at",
    "partition",
    "offset",
    "duration_us",
    "p50_us",
    "p95_us",
    "p99_us",
    "oldest_at",
    "signed_up_to_offset",
}
# About offsets, or about what each backend's transactions leave between them.
_OF_PLACES = frozenset(("checkpoints", "completeness", "gaps"))
# Sums of the same numbers in another order.
_DIGITS = 9
_GIVEN = {"limit": "1000000", "by": "month"}
# Those whose `by` is a period of time.
_BY_PERIOD = frozenset(("activity", "growth", "traffic", "unreadable"))


@dataclass(frozen=True)
class Answers:
    """Digests by topic, Decisions by event_id, and the rows of each named question."""

    digests: dict[str, TopicDigest]
    decisions: dict[str, dict[str, Any]]
    questions: dict[str, list[dict[str, Any]]]


async def answers_of(url: str, conversation: str, lake: LakeStore | None = None) -> Answers:
    """Ask a log, or its lake, all that has a name; `conversation` stands in for the latest."""
    given = {**_GIVEN, "conversation": conversation, **await _named(url, conversation)}
    async with opened(url, create=False) as log:
        digests = await digest(log)
        over = None if lake is None else LakeSource(log, lake)
        found = await query(log, "select * from decisions order by event_id", source=over)
        decisions = {row["event_id"]: _lasting(row) for row in json_rows(found)}
        told = {}
        read = Once(over or LogSource(log))
        for name, question in questions().items():
            if name in _OF_PLACES:
                continue
            named = {p.name for p in question.parameters}
            if name not in _BY_PERIOD:
                named.discard("by")
            if name == "invocations":
                named.discard("agent")
            params = {key: given[key] for key in named & given.keys()}
            # Of one conversation little is read, and that is to be equal too.
            source = None if question.one_conversation else read
            result = await ask(log, name, params, source=source)
            told[name] = [_lasting(row) for row in json_rows(result)]
    # Decisions are timed by the clock of this machine.
    told["slowest"] = [row for row in told["slowest"] if row["what"] != "decision"]
    return Answers(digests, decisions, told)


async def _named(url: str, conversation: str) -> dict[str, str]:
    """Return what must be given, as the last turn of a conversation's agents has it."""
    sql = (
        "select sender as agent, sender as role, sender as person, event_id as event, "
        "coalesce(correlation_id, 'none') as correlation from turns "
        "where conversation_id = $conversation and sender_kind = 'mad' "
        "order by turn_number desc limit 1"
    )
    async with opened(url, create=False) as log:
        found = await query(log, sql, parameters={"conversation": conversation})
        (row,) = json_rows(found)
    return {name: str(value) for name, value in row.items()}


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in row.items()
        if name not in _OWN
    }
