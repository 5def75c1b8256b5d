"""Decides the conversations of a log in retrospect: reads, learns round by round, appends.

Ids, keys and rounds come from the log alone, so after a crash the rest is done as it would have
been. What was decided before stays: conversations that come later follow in their own order, and
what is added to a decided conversation is decided by the model that decided its beginning. So no
model decides of what it saw, and each decision comes out of the log again.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.errors import ProcessorError
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.deciding import decide
from madlog.processors.retrospect.models import learned_from, published, read_model, train
from madlog.processors.retrospect.past import Decided, Past
from madlog.processors.retrospect.processes import mined
from madlog.processors.retrospect.proposing import proposals
from madlog.processors.retrospect.rounds import rounds
from madlog.processors.router import Decides, Router
from madlog.processors.tiers import Published, TierModels
from madlog.schemas import Decision, Outcome
from madlog.topics import EventLog, Vector
from madlog.topics.errors import BlobMissing, IdempotencyConflict, LogError
from madlog.topics.log import OnDamage, log_damage

__all__ = ("Elsewhere", "Retrospection", "Retrospector", "Settled")

T = TypeVar("T")

_TOPICS = ("mad.conversations", "mad.decisions", "mad.outcomes")
_BATCH_EVENTS_MAX = 500
_ATTEMPTS_MAX = 20
# Models read from the log that are kept for what is added next.
_MODELS_KEPT = 4
# A process takes a second or two to begin, in which some hundred conversations are decided.
_MANY = 1_000


class Elsewhere(Protocol):
    """Runs a pure function where it holds nobody up: a thread, another process."""

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Awaitable[T]:
        """Return what the function returns; raises what it raises."""


@dataclass(slots=True)
class Settled:
    """How many conversations and decisions were added, and by how many new models.

    `continued` counts the conversations that had been decided and had more added since.
    """

    conversations: int = 0
    continued: int = 0
    decisions: int = 0
    models: int = 0


def _no_blobs(sha256: str) -> bytes:
    raise BlobMissing(f"there is no store of blobs to read {sha256[:12]}… from")


@dataclass(frozen=True)
class Retrospection:
    """What is decided in retrospect and how; large models go by `put_blob` and `get_blob`."""

    code_version: str
    put_blob: Callable[[bytes], str]
    max_error: float = 0.05
    audit_rate: float = 0.02
    decides: Decides = "imported"
    get_blob: Callable[[str], bytes] = _no_blobs
    # Where models are learned of many conversations, while those before them are decided here.
    beside: Elsewhere = asyncio.to_thread


def _silent(now: Settled) -> None:
    """Say nothing."""


class Retrospector:
    """Decides what was not decided in retrospect yet, each time from where it has read to.

    The conversations that it decides, and learned from, are held in memory.
    """

    def __init__(self, log: EventLog, settings: Retrospection) -> None:
        self._log = log
        self._settings = settings
        self._past = Past(settings.decides)
        self._read = Vector()
        self._models: dict[str, Published] = {}
        self._router_of = partial(
            Router,
            max_error=settings.max_error,
            audit_rate=settings.audit_rate,
            decides=settings.decides,
        )
        self._router = self._router_of()

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
        await self._continue(report, progress)
        if not self._past.undecided():
            return
        conversations = self._past.conversations()
        first = seed_model()
        await self._log.append([first])
        plan: list[tuple[int, list[Conversation]]] = []
        for start, stop in rounds(len(conversations)):
            new = [one for one in conversations[start:stop] if self._past.new(one)]
            # Whether anything is decided does not hang on the model.
            if any(next(proposals(one, self._router, _SEED.state), None) for one in new):
                plan.append((start, new))
            else:
                # Nobody had to decide anything there, so there is nothing to learn a model for.
                self._past.passed(one.conversation_id for one in new)
        await self._rounds(conversations, plan, report, progress)

    async def _rounds(
        self,
        conversations: Sequence[Conversation],
        plan: Sequence[tuple[int, Sequence[Conversation]]],
        report: Settled,
        progress: Callable[[Settled], None],
    ) -> None:
        """Decide round after round; what the next one needs is learned meanwhile."""
        version = self._settings.code_version
        # Elsewhere, because a fit takes seconds and leases must be renewed meanwhile.
        run = self._settings.beside if len(conversations) >= _MANY else asyncio.to_thread
        starts = [start for start, _ in plan]

        def ahead(number: int) -> "asyncio.Future[Any]":
            """Begin to learn what round `number` decides by; after the last, the processes."""
            if number == len(plan):
                return asyncio.ensure_future(run(mined, learned_from(conversations), version))
            start = starts[number]
            good = learned_from(conversations[:start])
            # With a router of its own: this one decides at the same time.
            router_of = self._router_of if start else None
            return asyncio.ensure_future(run(_trained, good, router_of))

        learning = ahead(0)
        try:
            for number, (start, new) in enumerate(plan):
                models = await learning
                learning = ahead(number + 1)
                by = _SEED
                if models is not None:
                    by = await self._published(models, conversations[:start], report)
                await self._decide([(one, None) for one in new], by, report, progress)
            if processes := await learning:
                await self._log.append(processes)
        finally:
            learning.cancel()

    async def _continue(self, report: Settled, progress: Callable[[Settled], None]) -> None:
        """Decide what was added to conversations after they were decided."""
        by_model: dict[str, list[tuple[Conversation, Decided]]] = defaultdict(list)
        for conversation, decided in self._past.continued():
            by_model[decided.model_id].append((conversation, decided))
        if by_model:
            await self._read_models(by_model)
        for model_id, continued in by_model.items():
            await self._decide(continued, self._models.get(model_id, _SEED), report, progress)

    async def _read_models(self, wanted: Iterable[str]) -> None:
        """Read models from the log, but for those that are known and those that cannot be read."""
        missing = set(wanted) - self._models.keys() - {_SEED.event_id}
        if not missing:
            return
        found: dict[str, Mapping[str, Any]] = {}
        async for events in self._log.read_topics(["mad.models"]):
            found |= {event.event_id: event.fields for event in events if event.event_id in missing}
        self._models = dict(list(self._models.items())[-_MODELS_KEPT:])
        for model_id in sorted(missing):
            try:
                model = read_model(model_id, found.get(model_id), self._settings.get_blob)
            except (ProcessorError, LogError) as error:
                logging.getLogger("madlog").warning(
                    "model %s cannot be read, so what was added to the conversations that it "
                    "decided is decided by the first tree: %s",
                    model_id,
                    error,
                )
                continue
            self._models[model_id] = model

    async def _published(
        self, models: TierModels, seen: Sequence[Conversation], report: Settled
    ) -> Published:
        settings = self._settings
        event = published(models, seen, settings.code_version, settings.put_blob)
        await self._log.append([event])
        report.models += 1
        return Published(event.event_id, event.version, models)

    async def _decide(
        self,
        conversations: Sequence[tuple[Conversation, Decided | None]],
        by: Published,
        report: Settled,
        progress: Callable[[Settled], None],
    ) -> None:
        """Decide conversations, each with what was decided of it before."""
        waiting: list[Decision | Outcome] = []
        names: list[str] = []
        new = continued = 0
        for number, (conversation, before) in enumerate(conversations, 1):
            known = before or _NOTHING
            outputs = decide(
                conversation,
                self._router,
                by,
                self._settings.max_error,
                decided=known.decisions,
                unjudged=known.unjudged,
            )
            waiting += outputs
            names.append(conversation.conversation_id)
            new += before is None
            continued += before is not None and bool(outputs)
            # A conversation's decisions are on the log all or none: none is left half decided.
            if len(waiting) >= _BATCH_EVENTS_MAX or number == len(conversations):
                if waiting:
                    await self._log.transact(waiting)
                report.conversations += new
                report.continued += continued
                report.decisions += sum(isinstance(output, Decision) for output in waiting)
                self._past.add(waiting)
                self._past.passed(names)
                waiting, names, new, continued = [], [], 0, 0
                progress(report)


def _trained(
    good: Sequence[Conversation], router_of: Callable[[], Router] | None
) -> TierModels | None:
    """Return what is learned of conversations; without a router, for the first round, nothing."""
    return None if router_of is None else train(good, router_of())


_FIRST = seed_model()
_SEED = Published(_FIRST.event_id, _FIRST.version, TierModels.seed())
_NOTHING = Decided("")
