"""Decides the conversations of a log in retrospect: reads, learns round by round, appends.

Ids, keys and rounds come from the log alone, so after a crash the rest is done as it would have
been. What was decided before stays: conversations that come later follow in their own order.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.retrospect.conversation import Conversation, conversations_of
from madlog.processors.retrospect.deciding import RECORD, decide
from madlog.processors.retrospect.models import published, train
from madlog.processors.retrospect.processes import mined
from madlog.processors.retrospect.proposing import proposals
from madlog.processors.retrospect.rounds import rounds
from madlog.processors.router import Decides, Router, is_imported
from madlog.processors.tiers import Published, TierModels
from madlog.schemas import Decision, Event
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.errors import IdempotencyConflict
from madlog.topics.log import OnDamage, log_damage

__all__ = ("Retrospection", "Retrospector", "Settled")

_TOPICS = ("mad.conversations", "mad.decisions", "mad.outcomes")
_BATCH_EVENTS_MAX = 500
_ATTEMPTS_MAX = 20


@dataclass(slots=True)
class Settled:
    """How many conversations and decisions were added, and by how many new models."""

    conversations: int = 0
    decisions: int = 0
    models: int = 0


@dataclass(frozen=True)
class Retrospection:
    """What is decided in retrospect and how; `put_blob` stores a model that is large."""

    code_version: str
    put_blob: Callable[[bytes], str]
    max_error: float = 0.05
    audit_rate: float = 0.02
    decides: Decides = "imported"


class _Past:
    """What a log holds: conversations, how they ended, which were decided in retrospect."""

    def __init__(self, decides: Decides) -> None:
        self._decides = decides
        self._events: dict[str, list[LogEvent]] = {}
        self._results: dict[str, str] = {}
        self._verdicts: dict[str, dict[str, str]] = defaultdict(dict)
        self.decided: set[str] = set()

    def fold(self, event: LogEvent) -> None:
        fields = event.fields
        name = fields["conversation_id"]
        if event.kind == "Outcome":
            if fields["about"] == "conversation":
                self._results[fields["about_id"]] = fields["result"]
            elif fields["judged_by"] != RECORD and "withdrawn" not in fields["extra"]:
                self._verdicts[name][fields["about_id"]] = fields["result"]
        elif event.kind == "Decision":
            if fields["mode"] == "retrospective":
                self.decided.add(name)
        # Of a conversation that is lived here nothing is kept where it is not decided.
        elif name in self._events or self._decides == "all" or is_imported(fields):
            self._events.setdefault(name, []).append(event)

    def undecided(self) -> bool:
        """Tell whether there is anything to do."""
        return not self._events.keys() <= self.decided

    def conversations(self) -> list[Conversation]:
        """Return the conversations to decide, those decided before first."""
        made = conversations_of(self._events, self._ended())
        return sorted(made, key=lambda one: one.conversation_id not in self.decided)

    def _ended(self) -> dict[str, str]:
        """Return how each conversation ended: as was said of it, else as its decisions did."""
        by_decisions = {
            name: "failure" if "failure" in found.values() else "success"
            for name, found in self._verdicts.items()
            if "failure" in found.values() or "success" in found.values()
        }
        return {**by_decisions, **self._results}


def _silent(now: Settled) -> None:
    """Say nothing."""


class Retrospector:
    """Decides what was not decided in retrospect yet, each time from where it has read to.

    The conversations that it decides, and learned from, are held in memory.
    """

    def __init__(self, log: EventLog, settings: Retrospection) -> None:
        self._log = log
        self._settings = settings
        self._past = _Past(settings.decides)
        self._read = Vector()
        self._router = Router(
            max_error=settings.max_error, audit_rate=settings.audit_rate, decides=settings.decides
        )

    async def run(
        self,
        progress: Callable[[Settled], None] = _silent,
        on_damage: OnDamage = log_damage,
    ) -> Settled:
        """Read on to the log's end and decide; raises what EventLog.append raises."""
        report = Settled()
        for attempt in range(_ATTEMPTS_MAX):
            try:
                await self._run(report, progress, on_damage)
            except IdempotencyConflict:
                # Another worker decided some of these from another view of the log: its decisions
                # count, and are read now.
                if attempt == _ATTEMPTS_MAX - 1:
                    raise
            else:
                break
        return report

    async def _run(
        self, report: Settled, progress: Callable[[Settled], None], on_damage: OnDamage
    ) -> None:
        there = await self._log.log.topics()
        end = await self._log.log.end([name for name in _TOPICS if name in there])
        batches = self._log.read_topics(_TOPICS, start=self._read, end=end, on_damage=on_damage)
        async for events in batches:
            for event in events:
                self._past.fold(event)
        self._read = end
        if not self._past.undecided():
            return
        conversations = self._past.conversations()
        first = seed_model()
        await self._log.append([first])
        by = Published(first.event_id, first.version, TierModels.seed())
        for start, stop in rounds(len(conversations)):
            new = [
                one
                for one in conversations[start:stop]
                if one.conversation_id not in self._past.decided
            ]
            if not any(next(proposals(one, self._router, by.state), None) for one in new):
                # Nobody had to decide anything there, so there is nothing to learn a model for.
                self._past.decided.update(one.conversation_id for one in new)
                continue
            if start:
                by = await self._learned(conversations[:start], report)
            await self._decide(new, by, report, progress)
        processes = await asyncio.to_thread(mined, conversations, self._settings.code_version)
        if processes:
            await self._log.append(processes)

    async def _learned(self, seen: Sequence[Conversation], report: Settled) -> Published:
        # In a thread, because a fit takes seconds and leases must be renewed meanwhile.
        models = await asyncio.to_thread(train, seen, self._router)
        settings = self._settings
        event = published(models, seen, settings.code_version, settings.put_blob)
        await self._log.append([event])
        report.models += 1
        return Published(event.event_id, event.version, models)

    async def _decide(
        self,
        conversations: Sequence[Conversation],
        by: Published,
        report: Settled,
        progress: Callable[[Settled], None],
    ) -> None:
        waiting: list[Event] = []
        names: list[str] = []
        for conversation in conversations:
            outputs = decide(conversation, self._router, by, self._settings.max_error)
            waiting += outputs
            names.append(conversation.conversation_id)
            # A conversation's decisions are on the log all or none: none is left half decided.
            if len(waiting) >= _BATCH_EVENTS_MAX or conversation is conversations[-1]:
                await self._log.transact(waiting)
                report.conversations += len(names)
                report.decisions += sum(isinstance(output, Decision) for output in waiting)
                self._past.decided.update(names)
                waiting, names = [], []
                progress(report)
