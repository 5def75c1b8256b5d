"""Runs what was decided, through the guards: announce, look again, run, tell what it came to.

An act is announced by a ToolCall before it runs. Who announced it first, as the log shows it, runs
it; then the log is read to its end again and the guards are asked again, so that of two workers
that announce conflicting acts at the same time at most one runs. What a worker left behind when it
died is run again only where the action is idempotent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from madlog.processors.acting.facts import WORKER, Call, Facts
from madlog.processors.acting.guards import (
    RERUN_GUARDS,
    Situation,
    Terms,
    Verdict,
    spending,
    verdict,
)
from madlog.processors.acting.orders import place_of
from madlog.processors.acting.ports import ActionEngine
from madlog.processors.acting.proposal import Proposal, normal, object_of
from madlog.processors.acting.turns import proposals_of
from madlog.processors.acting.writing import (
    ask,
    late_result,
    refusal,
    result,
    tool_call,
    unknown,
    void,
)
from madlog.processors.ports import Registry
from madlog.schemas import Decision, Event, ToolResult
from madlog.topics import EventLog
from madlog.topics.errors import IdempotencyConflict
from madlog.topics.event_log import NewEvent
from madlog.topics.log import OnDamage, log_damage

__all__ = ("ACTS_AT_ONCE", "Acted", "Actor", "Done")

ACTS_AT_ONCE = 16
# A worker is taken for dead this long after its act's time is up: clocks of machines differ.
GRACE_S = 5.0
_LOOK_S = 0.2
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Acted:
    """What became of a proposal: its verdict, and where it ran the call and the result.

    `written` says that the log holds something about it, and with it what was to be along with it.
    """

    verdict: Verdict
    written: bool
    call_id: str | None = None
    result: ToolResult | None = None


@dataclass(slots=True)
class Done:
    """What a run did, and what waits: verdicts by act; `until` is when to look again at last."""

    succeeded: int = 0
    failed: int = 0
    unknown: int = 0
    refused: int = 0
    asked: int = 0
    waiting: dict[str, Verdict] = field(default_factory=dict)

    @property
    def until(self) -> int | None:
        """The earliest time at which time alone lets something run, None where it never does."""
        return min((one.until for one in self.waiting.values() if one.until), default=None)


class Actor:
    """Acts for the agents of a registry; `worker` names this one among all that ever work."""

    def __init__(
        self,
        log: EventLog,
        registry: Registry,
        engine: ActionEngine,
        worker: str,
        terms: Terms | None = None,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self._log = log
        self._registry = registry
        self._engine = engine
        self._worker = worker
        self._terms = terms or Terms()
        self._grace_us = int(grace_s * _SECOND_US)
        self._facts = Facts(registry)
        self._proposals: dict[str, tuple[tuple[int, int, int], Proposal]] = {}
        self._running: set[str] = set()
        # What guards see must not change between their verdict and the announcement.
        self._deciding = asyncio.Lock()

    async def run(self, on_damage: OnDamage = log_damage) -> Done:
        """Do all that can be done now; raises what EventLog.append raises.

        What is decided meanwhile is done too. What waits for people or for time is left waiting.
        """
        done = Done()
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                moved = await self._pass(done, tasks, on_damage)
                if tasks:
                    ended, _ = await asyncio.wait(
                        tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    tasks -= ended
                    for task in ended:
                        task.result()
                elif not moved:
                    return done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def act(self, proposal: Proposal, along_with: Sequence[Event] = ()) -> Acted:
        """Run one act through the guards, or say why not; raises what EventLog.append raises.

        `along_with` is appended in one transaction with what is written first (the ToolCall, the
        question, the refusal); give its events idempotency keys. On a verdict `wait` the caller
        proposes again later; what waits for an approval is also run by `run` when it is given.
        """
        proposal = replace(proposal, arguments=normal(proposal.arguments))
        said, call = await self._begin(proposal, along_with)
        if call is None:
            return Acted(said, self._facts.known(proposal.act_id))
        return Acted(said, True, call.call_id, await self._finish(call))

    async def spending(self, agent: str) -> Verdict:
        """Say whether an agent may call its language model now, by kill switch and money."""
        async with self._deciding:
            await self._facts.read(self._log)
            return spending(agent, self._facts, self._terms, self._now())

    def _now(self) -> int:
        return self._log.log.clock.now_us()

    async def _pass(self, done: Done, tasks: set[asyncio.Task[None]], on_damage: OnDamage) -> bool:
        """Look once at all that is open; tell whether anything moved."""
        async with self._deciding:
            await self._facts.read(self._log, on_damage)
            await self._take_up()
            left_behind = self._left_behind()
        moved = False
        done.waiting.clear()
        for dead in left_behind:
            moved |= await self._recover(dead, done, tasks)
        coming: dict[str, set[str]] = {}
        for _, proposal in sorted(self._proposals.values(), key=lambda one: one[0]):
            before = coming.setdefault(proposal.conversation_id, set())
            said, call = await self._try(proposal, frozenset(before), len(tasks), done)
            if call is not None:
                tasks.add(asyncio.create_task(self._counted(call, done)))
            if said.what == "wait" and said.rule != "settled":
                done.waiting.setdefault(proposal.act_id, said)
            if said.what != "refuse":
                before.add(proposal.action)
            moved |= call is not None or said.what == "refuse"
        return moved

    async def _try(
        self, proposal: Proposal, coming: frozenset[str], running: int, done: Done
    ) -> tuple[Verdict, Call | None]:
        said = verdict(self._situation(proposal, coming))
        if said.what == "wait" and not said.ask:
            return said, None
        if said.what == "run" and running >= ACTS_AT_ONCE:
            return Verdict("wait", "busy", f"{running} acts are under way"), None
        said, call = await self._begin(proposal, (), coming)
        done.refused += said.what == "refuse" and said.rule != "settled"
        done.asked += said.ask
        return said, call

    async def _take_up(self) -> None:
        """Make proposals of the decisions and questions that are not settled."""
        facts = self._facts
        held = list(self._proposals.items())
        for act_id, (_, proposal) in held:
            if act_id in facts.settled or facts.done_otherwise(proposal):
                del self._proposals[act_id]
        new = [event for one, event in facts.decisions.items() if one not in self._proposals]
        made = await proposals_of(self._log, new)
        for event in new:
            if not facts.done_otherwise(made[event.event_id]):
                self._proposals[event.event_id] = place_of(event), made[event.event_id]
        for act_id, call in facts.voided.items():
            self._proposals.setdefault(act_id, (place_of(call.event), call.proposal))
        for act_id, one in facts.orders.asks.items():
            if act_id not in facts.settled and act_id not in self._proposals:
                self._proposals[act_id] = one.place, one.proposal

    def _situation(
        self, proposal: Proposal, coming: frozenset[str] = frozenset(), claimed: str | None = None
    ) -> Situation:
        given = object_of(proposal.arguments)
        return Situation(
            proposal,
            given,
            self._registry,
            self._facts,
            self._terms,
            self._now(),
            claimed,
            coming,
        )

    async def _begin(
        self,
        proposal: Proposal,
        along_with: Sequence[Event] = (),
        coming: frozenset[str] = frozenset(),
    ) -> tuple[Verdict, Call | None]:
        """Ask the guards at the log's end and write what follows; the call is to be run."""
        async with self._deciding:
            await self._facts.read(self._log)
            said = verdict(self._situation(proposal, coming))
            if said.rule == "settled" or (said.what == "wait" and not said.ask):
                return said, None
            try:
                if said.what == "run":
                    return await self._announce(proposal, along_with, coming, said)
                events = self._told(proposal, said)
                await self._log.transact([*events, *along_with])
            except IdempotencyConflict:
                # Another worker wrote about this act from another view of the log: that counts.
                said = Verdict("wait", "under-way", "another worker is at it")
            await self._facts.read(self._log)
            return said, None

    def _told(self, proposal: Proposal, said: Verdict) -> list[Event]:
        """Return the question or the refusal."""
        if said.ask:
            return [ask(proposal, self._terms.approval_timeout_s)]
        event = self._facts.decisions.get(proposal.decision_id)
        decision = None if event is None else cast(Decision, event.event)
        return refusal(proposal, said, decision, self._facts.orders.last_id)

    async def _announce(
        self,
        proposal: Proposal,
        along_with: Sequence[Event],
        coming: frozenset[str],
        said: Verdict,
    ) -> tuple[Verdict, Call | None]:
        """Announce an act, look at the log again, and return the call if it is to be run."""
        agent, facts = self._registry[proposal.agent], self._facts
        event = tool_call(proposal, agent, facts.void.get(proposal.act_id, 0))
        headers = ((WORKER, self._worker.encode()),)
        await self._log.transact([NewEvent(event, headers), *along_with])
        await facts.read(self._log)
        call = facts.calls.get(event.event_id)
        if call is None or call.worker != self._worker:
            return Verdict("wait", "under-way", "another worker is at it"), None
        again = verdict(self._situation(proposal, coming, call.call_id))
        if again.what == "run" and self._left_s(call) <= 0:
            again = Verdict("wait", "late", "its time was up before it could begin")
        if again.what == "run":
            # From here on it is not one that a dead worker left behind.
            self._running.add(call.call_id)
            return said, call
        events: list[Event] = [void(call, again)]
        if again.what == "refuse":
            events += self._told(proposal, again)
        await self._log.transact(events)
        await facts.read(self._log)
        return again, None

    def _left_s(self, call: Call) -> float:
        """Return how long an act may still take: nobody may run what others take for dead."""
        return (self._facts.time_up(call) - self._now()) / _SECOND_US

    async def _counted(self, call: Call, done: Done) -> None:
        """Run an announced act and count it."""
        self._count(await self._finish(call), done)

    def _count(self, told: ToolResult, done: Done) -> None:
        if told.ok:
            done.succeeded += 1
        elif told.extra:
            done.unknown += 1
        else:
            done.failed += 1

    async def _finish(self, call: Call, left_s: float | None = None) -> ToolResult:
        """Run an announced act and append what it came to."""
        arguments = call.event.fields["arguments"]
        act_id = call.act_id or call.call_id
        started = self._log.log.clock.monotonic_ns()
        try:
            async with asyncio.timeout(self._left_s(call) if left_s is None else left_s):
                answer = await self._engine.run(call.agent, call.action, arguments, act_id)
            told, late = result(call, answer), late_result(call, answer)
        except TimeoutError:
            told = late = unknown(call, "it did not answer in time")
        except Exception as error:
            why = f"{type(error).__name__}: {error}"[:500]
            told = late = unknown(call, why)
        took_us = (self._log.log.clock.monotonic_ns() - started) // 1000
        headers = (("duration-us", str(took_us).encode()),)
        try:
            await self._log.append([NewEvent(told, headers)])
        except IdempotencyConflict:
            async with self._deciding:
                await self._facts.read(self._log)
            # Where others had given it up, what it came to is said beside that. Else another
            # worker ran it again as well, and its result is as good.
            if late is not told and call.call_id in self._facts.unknown:
                await self._log.append([NewEvent(late, headers)])
                told = late
        finally:
            self._running.discard(call.call_id)
        return told

    def _left_behind(self) -> list[Call]:
        """Return the acts that a worker announced and whose time is long up."""
        now = self._now()
        return [
            call
            for call in self._facts.calls.values()
            if call.act_id is not None
            and call.call_id not in self._running
            and now >= self._facts.time_up(call) + self._grace_us
        ]

    async def _recover(self, call: Call, done: Done, tasks: set[asyncio.Task[None]]) -> bool:
        """Run again what was left behind where that does no harm, else say that nobody knows."""
        agent = self._registry.get(call.agent)
        if not (call.idempotent and agent and agent.contract(call.action).idempotent):
            async with self._deciding:
                told = unknown(call, "the worker died while it ran")
                try:
                    await self._log.append([told])
                except IdempotencyConflict:
                    return False  # it has told by itself just now
            done.unknown += 1
            return True
        said = verdict(self._situation(call.proposal), RERUN_GUARDS)
        if said.what != "run" or len(tasks) >= ACTS_AT_ONCE:
            done.waiting[call.act_id or ""] = replace(said, what="wait")
            return False
        self._running.add(call.call_id)
        tasks.add(asyncio.create_task(self._again(call, done)))
        return True

    async def _again(self, call: Call, done: Done) -> None:
        self._count(await self._finish(call, self._facts.timeout_us(call) / _SECOND_US), done)
