"""Replay, fourth strength: what if. The same log, decided by others, or with a guard before acts.

Nothing is appended, no language model is asked and no tool runs: decisions are made by the router's
own pure steps at the recorded past, and a guard sees of each recorded call what was known then.
What others would have said after another decision nobody knows, and it is not made up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from madlog.analytics.decided_by import decided_end, read_decided_by
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.replay_range import Range, replay_range
from madlog.analytics.replay_report import Meter, OnProgress
from madlog.analytics.what_if.acts import Acts, read_acts
from madlog.analytics.what_if.cost import read_calls
from madlog.analytics.what_if.deciding import Again
from madlog.analytics.what_if.effects import VERDICTS, repeats, verdict_of
from madlog.analytics.what_if.errors import NothingAsked
from madlog.analytics.what_if.excerpt import Difference, Excerpt, excerpts
from madlog.analytics.what_if.guards import Guard
from madlog.analytics.what_if.report import Blocked, GuardReport, WhatIfReport
from madlog.analytics.what_if.routes import Replay
from madlog.analytics.what_if.rows import Rows
from madlog.analytics.what_if.shown import decided_otherwise
from madlog.analytics.what_if.snapshot import Progressed, load, question_of, store
from madlog.analytics.what_if.tally import Tally
from madlog.analytics.what_if.variant import Variant
from madlog.processors.ports import Registry
from madlog.topics import Damage, EventLog, Vector
from madlog.topics.log import OnDamage, log_damage

__all__ = ("Asked", "what_if")

_CONVERSATIONS = "mad.conversations"
# What decisions and their judgement are read from, always up to the log's end: they come later
# than what they are about.
_ABOUT = ("mad.models", "mad.control", "mad.outcomes", "mad.llm")
_CONVERSATIONS_SHOWN = 20


@dataclass(frozen=True)
class Asked:
    """What is to be otherwise, and over which part of the log.

    `since` and `until` are places as replay_range takes them; `shown` is how many conversations
    are shown at their turn of difference.
    """

    variant: Variant = field(default_factory=Variant)
    guard: Guard | None = None
    prices: PriceList = NO_PRICES
    since: str | None = None
    until: str | None = None
    shown: int = 3

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return {
            **self.variant.as_json(),
            "prices": len(self.prices.prices),
            "guard": None if self.guard is None else self.guard.named,
            "since": self.since,
            "until": self.until,
        }


@dataclass
class _Work:
    """One run: the log, what is asked, and what it finds on its way."""

    log: EventLog
    asked: Asked
    meter: Meter
    on_damage: OnDamage
    damaged: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)

    def damage(self, damage: Damage) -> None:
        if str(damage) not in self.named:
            self.named.add(str(damage))
            self.damaged.append(str(damage))
            self.on_damage(damage)


async def what_if(
    log: EventLog,
    asked: Asked,
    get_blob: Callable[[str], bytes],
    *,
    registry: Registry | None = None,
    snapshot: Path | None = None,
    rows: Path | None = None,
    progress: OnProgress | None = None,
    on_damage: OnDamage = log_damage,
) -> WhatIfReport:
    """Decide a range of the log again, and ask a guard about its tool calls.

    The log's end is taken once, at the start. Stopped (cancelled), it leaves in `snapshot` what it
    needs to go on; called again with the same question it goes on from there, and in the end takes
    the file away. All that differs goes to the file `rows`, as JSON lines.

    Raises NothingAsked, NoSuchPlace, BadSnapshot, GuardFailed, BadGuard.
    """
    if not (asked.variant.decides or asked.guard or asked.prices.prices):
        raise NothingAsked
    work = _Work(log, asked, Meter(log.log.clock, progress), on_damage)
    question = question_of(
        asked.variant.as_json(), asked.since, asked.until, None if rows is None else str(rows)
    )
    now = None if snapshot is None else load(snapshot, question)
    if now is None:
        where = await replay_range(log, asked.since, asked.until, on_damage=work.damage)
        now = Progressed(where, await decided_end(log, _ABOUT))
    kept = Rows(rows, now.rows)
    try:
        report = await _run(work, now, get_blob, registry, kept, snapshot, question)
        kept.done()
    finally:
        kept.close()
    if snapshot is not None:
        snapshot.unlink(missing_ok=True)
    return report


async def _run(
    work: _Work,
    now: Progressed,
    get_blob: Callable[[str], bytes],
    registry: Registry | None,
    rows: Rows,
    snapshot: Path | None,
    question: str,
) -> WhatIfReport:
    log, asked, where = work.log, work.asked, now.where
    tally: Tally | None = None
    again: Again | None = None
    failed: Mapping[str, str] = {}
    conversations = where.end.only([_CONVERSATIONS])
    low = await log.log.start(sorted({tp.topic for tp in conversations}))
    records = sum(conversations[tp] - low.get(tp, 0) for tp in conversations)
    # A guard's calls are read by themselves.
    work.meter.total = records * (asked.variant.decides + (asked.guard is not None))
    if asked.variant.decides:
        work.meter.events = work.meter.before = now.events
        by = await read_decided_by(log, now.read_to, get_blob, work.damage)
        again = Again(by, registry, asked.variant)
        replay = Replay(log, again, rows, work.meter, work.damage, snapshot, question)
        tally = await replay.run(now)
        failed = by.failed
        if snapshot is not None and asked.guard is not None:
            # Stopped at the guard, or by what it raises, nothing is decided twice.
            now.rows = rows.state()
            store(snapshot, question, now)
    guard = None
    if asked.guard is not None:
        acts = await read_acts(log, where.start, where.end, work.damage, work.meter)
        guard = await _guarded(work, asked.guard, acts, now.read_to)
        for one in guard.blocked:
            rows.add(one.as_json())
    priced = bool(asked.prices.prices)
    calls = await read_calls(log, *_of_calls(where, now.read_to), asked.prices, work.damage)
    fewer = 0 if tally is None else tally.calls("record") - tally.calls("what_if")
    affected = _affected(tally, guard)
    return WhatIfReport(
        asked.as_json(),
        where.start,
        where.end,
        work.meter.events,
        work.meter.seconds,
        tally,
        calls.as_json(fewer, priced),
        guard,
        affected[:_CONVERSATIONS_SHOWN],
        await _shown(work, now, again, guard, affected[: asked.shown]),
        rows.first,
        rows.count,
        failed,
        work.damaged,
        asked.variant.notes,
    )


def _of_calls(where: Range, read_to: Vector) -> tuple[Vector, Vector]:
    """Return the range of the calls; all of them where the range names no place among them."""
    end = where.end.only(["mad.llm"])
    return where.start.only(["mad.llm"]), end or read_to.only(["mad.llm"])


async def _guarded(work: _Work, guard: Guard, acts: Acts, read_to: Vector) -> GuardReport:
    """Ask a guard about the calls, and tell what those had been that it blocks."""
    reasons = await guard.blocked(acts)
    found = [act for act in acts.all if act.event_id in reasons]
    failed = await _failed(work, {act.conversation_id for act in found}, read_to)
    again = repeats(acts)
    blocked = [
        Blocked(
            act,
            acts.positions[act.event_id],
            reasons[act.event_id],
            verdict_of(act, again, failed),
        )
        for act in found
    ]
    return GuardReport(guard.named, len(acts.counted), blocked)


async def _failed(work: _Work, names: set[str], read_to: Vector) -> frozenset[str]:
    """Return which of the conversations ended in failure, by the last word said of each."""
    ended: dict[str, tuple[tuple[int, int, int], str]] = {}
    if not names:
        return frozenset()
    batches = work.log.read_topics(["mad.outcomes"], end=read_to, on_damage=work.damage)
    async for events in batches:
        for event in events:
            fields, record = event.fields, event.record
            if event.kind != "Outcome" or fields["about"] != "conversation":
                continue
            if fields["about_id"] in names:
                at = record.appended_at, record.partition, record.offset
                before = ended.get(fields["about_id"])
                if before is None or before[0] < at:
                    ended[fields["about_id"]] = at, fields["result"]
    return frozenset(name for name, (_, result) in ended.items() if result == "failure")


def _affected(tally: Tally | None, guard: GuardReport | None) -> list[dict[str, Any]]:
    """Return the conversations where anything differs, those most affected first.

    An act that does not happen weighs more than one that another tier decides.
    """
    rows: dict[str, dict[str, Any]] = {}

    def row(name: str) -> dict[str, Any]:
        blank = {"conversation_id": name, "differs": 0, "blocked": 0}
        return rows.setdefault(name, {**blank, **dict.fromkeys(VERDICTS, 0)})

    if tally is not None:
        for name, found in tally.state["conversations"].items():
            row(name)["differs"] = found
    for one in () if guard is None else guard.blocked:
        there = row(one.act.conversation_id)
        there["blocked"] += 1
        there[one.verdict] += 1
    return sorted(
        rows.values(),
        key=lambda one: (-one["blocked"], -one["differs"], one["conversation_id"]),
    )


async def _shown(
    work: _Work,
    now: Progressed,
    again: Again | None,
    guard: GuardReport | None,
    rows: Sequence[Mapping[str, Any]],
) -> list[Excerpt]:
    """Return the excerpts of some conversations: around what is blocked, else what differs."""
    names = [row["conversation_id"] for row in rows]
    found: dict[str, list[Difference]] = {name: [] for name in names}
    for one in () if guard is None else guard.blocked:
        if one.act.conversation_id in found:
            ran = {True: "ran, ok", False: "ran, failed", None: "ran"}[one.act.ok]
            why = "" if one.reason == "blocked" else f": {one.reason}"
            blocked = Difference(one.act.event_id, ran, f"blocked{why}")
            found[one.act.conversation_id].append(blocked)
    if again is not None:
        unlike = await decided_otherwise(work.log, again, names, now, work.damage)
        for name, differences in unlike.items():
            found[name] += differences
    counts = {row["conversation_id"]: row["differs"] + row["blocked"] for row in rows}
    return await excerpts(work.log, now.where.end, found, counts, work.damage)
