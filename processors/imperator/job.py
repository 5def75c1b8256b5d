"""Asks the language models what was handed up to them, and what the audits are to judge.

A decision is answered when its LlmCall is on the log: the call and what the answer leads to are
appended in one transaction, so what is answered is never asked again, and after a crash only the
calls that were under way are paid twice. Keys come from the decisions, so of two at work the first
counts. Before anything is appended, what others have appended meanwhile is read.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from madlog.processors.control import NOTHING, fold, stopped
from madlog.processors.errors import InvalidControl
from madlog.processors.escalations import STOPPED
from madlog.processors.imperator.answering import Made, call_id_of, made
from madlog.processors.imperator.live import CONVERSATIONS_MAX, LiveConversations, Place
from madlog.processors.imperator.ports import Acts, Asked, Imperator
from madlog.processors.ports import Agent, Registry
from madlog.schemas import Decision, Event, MadlogError, ToolCall
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.errors import IdempotencyConflict
from madlog.topics.log import OnDamage, log_damage

__all__ = ("Answered", "Escalations", "Limits")

# Read in this order, each up to its end at that time: so the Decision of an LlmCall that is read is
# read in the same pass at the latest, and so are a Decision's turn and what controlled it.
_GROUPS = (("mad.llm",), ("mad.decisions",), ("mad.control", "mad.conversations", "mad.processes"))
_TIER = "imperator"
_NS = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """How many are asked at once, how long an answer may take, how failures are retried."""

    at_once: int = 8
    timeout_s: float = 120.0
    # After a failure, twice as long each time.
    wait_s: float = 1.0
    wait_max_s: float = 300.0
    conversations_max: int = CONVERSATIONS_MAX


@dataclass(slots=True)
class Answered:
    """How many decisions were answered, how many judged; `failed` calls are tried again."""

    escalations: int = 0
    audits: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Open:
    """A decision that waits for its answer."""

    decision: Decision
    agent: Agent
    made: Made | None = None
    failures: int = 0
    due_ns: int = 0


@dataclass
class _Known:
    """What was read of the log."""

    live: LiveConversations
    controls: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    # What held after each Control event: a decision names the one it was made under.
    by_control: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    open: dict[str, _Open] = field(default_factory=dict)
    # The decision that each call of a model would answer, and those that were just read.
    asked: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)


def _silent(_: Answered) -> None:
    """Say nothing."""


def _log_error(text: str) -> None:
    logging.getLogger("madlog").error("%s", text)


class Escalations:
    """Asks for each agent that has an Imperator; each run goes on from where it has read to."""

    def __init__(
        self,
        log: EventLog,
        registry: Registry,
        imperators: Mapping[str, Imperator],
        acts: Acts | None = None,
        limits: Limits | None = None,
        *,
        say: Callable[[str], None] = _log_error,
        on_damage: OnDamage = log_damage,
    ) -> None:
        """`imperators` are by agent; `acts` runs actions, by default as a ToolCall on the log."""
        self._log = log
        self._imperators = imperators
        self._registry = registry
        self._acts: Acts = acts or self._append_call
        self._limits = limits or Limits()
        self._say = say
        self._on_damage = on_damage
        self._known = _Known(LiveConversations(self._limits.conversations_max))
        self._read = Vector()
        self._reading = asyncio.Lock()
        # Agents whose Imperator was said to fail, decisions whose answer was said not to go in.
        self._failing: set[str] = set()

    async def run(self, progress: Callable[[Answered], None] = _silent) -> Answered:
        """Ask what is due once; returns what came of it."""
        report = Answered()
        if not self._imperators:
            return report
        await self._catch_up()
        due = deque(self._due())
        if due:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._limits.at_once, len(due))):
                    group.create_task(self._work(due, report, progress))
        return report

    async def follow(
        self, stopping: asyncio.Event, progress: Callable[[Answered], None] = _silent
    ) -> None:
        """Ask as decisions come, until told to stop."""
        await self._log.ensure_topics(["mad.control", "mad.decisions"])
        while not stopping.is_set():
            await self.run(progress)
            await self._news(stopping)

    async def _news(self, stopping: asyncio.Event) -> None:
        """Wait for a Decision or a Control event, or until something is due again."""
        start = self._read.only(["mad.control", "mad.decisions"])
        now = self._log.log.clock.monotonic_ns()
        waits = [one.due_ns - now for one in self._known.open.values() if one.due_ns > now]
        news = asyncio.ensure_future(self._first_after(start))
        told = asyncio.ensure_future(stopping.wait())
        try:
            timeout = min(waits) / _NS if waits else None
            await asyncio.wait({news, told}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (news, told):
                task.cancel()
            await asyncio.gather(news, told, return_exceptions=True)

    async def _first_after(self, start: Vector) -> None:
        async for events in self._log.subscribe(start, on_damage=self._on_damage):
            if events:
                return

    async def _catch_up(self) -> None:
        """Read what is new of all that matters here."""
        async with self._reading:
            there = await self._log.log.topics()
            ends = [
                await self._log.log.end([name for name in group if name in there])
                for group in _GROUPS
            ]
            for group, end in zip(_GROUPS, ends, strict=True):
                start = self._read
                batches = self._log.read_topics(
                    group, start=start, end=end, on_damage=self._on_damage
                )
                async for events in batches:
                    for event in events:
                        self._fold(event)
                    self._known.live.trim(self._waiting())
                self._read = Vector({**self._read, **end})
            open_ = self._known.open
            for call_id in self._known.calls & self._known.asked.keys():
                open_.pop(self._known.asked.pop(call_id), None)
            self._known.calls.clear()
            for decision_id in self._known.fresh:
                if decision_id in open_ and self._nobody_may(open_[decision_id].decision):
                    self._close(decision_id)
            self._known.fresh.clear()

    def _waiting(self) -> Iterable[str]:
        return (one.decision.conversation_id for one in self._known.open.values())

    def _fold(self, event: LogEvent) -> None:
        known = self._known
        if event.kind == "LlmCall":
            known.calls.add(event.event_id)
        elif event.kind == "Control":
            try:
                known.controls = fold(known.controls, event.fields)
            except InvalidControl:
                return
            finally:
                known.by_control[event.event_id] = known.controls
        elif event.kind == "Decision":
            self._decided(event)
        else:
            known.live.fold(event)

    def _decided(self, event: LogEvent) -> None:
        fields = event.fields
        name = fields["recipient"]
        if fields["mode"] != "live" or name not in self._imperators or name not in self._registry:
            return
        if fields["tier"] != _TIER and not fields["audited"]:
            return
        decision = event.event
        assert isinstance(decision, Decision)
        self._known.open[event.event_id] = _Open(decision, self._registry[name])
        self._known.asked[call_id_of(event.event_id)] = event.event_id
        self._known.fresh.append(event.event_id)

    def _close(self, decision_id: str) -> None:
        self._known.open.pop(decision_id, None)
        self._known.asked.pop(call_id_of(decision_id), None)

    def _nobody_may(self, decision: Decision) -> bool:
        """Tell whether the language model itself was stopped when the decision was made."""
        if decision.escalation != STOPPED:
            return False
        controls = self._known.by_control.get(decision.control_id or "", self._known.controls)
        return stopped(controls, decision.recipient, _TIER, decision.occurred_at) is not None

    def _due(self) -> list[list[_Open]]:
        """Return what is due, by conversation: one's answers come in the order of its turns."""
        now = self._log.log.clock.monotonic_ns()
        by_name: dict[str, list[_Open]] = {}
        for one in self._known.open.values():
            if one.due_ns <= now:
                by_name.setdefault(one.decision.conversation_id, []).append(one)
        return list(by_name.values())

    async def _work(
        self,
        due: deque[list[_Open]],
        report: Answered,
        progress: Callable[[Answered], None],
    ) -> None:
        while due:
            for one in due.popleft():
                if await self._settle(one, report):
                    progress(report)

    def _stopped(self, one: _Open) -> bool:
        now = self._log.log.clock.now_us()
        return stopped(self._known.controls, one.agent.name, _TIER, now) is not None

    async def _settle(self, one: _Open, report: Answered) -> bool:
        """Ask and append; tells whether the decision is answered by this."""
        await self._catch_up()
        place = self._place(one)
        if place is None or one.decision.event_id not in self._known.open or self._stopped(one):
            return False
        audit = one.decision.tier != _TIER
        if place.answered and not audit:
            # The agent did something about it by itself.
            self._close(one.decision.event_id)
            return False
        try:
            if one.made is None:
                one.made = await self._asked(one, place)
            if not await self._append(one, one.made):
                return False
        # Whatever an Imperator or what runs actions raises: the decision is tried again.
        except Exception as error:
            self._failed(one, error)
            report.failed += 1
            return False
        report.escalations += not audit
        report.audits += audit
        return True

    def _place(self, one: _Open) -> Place | None:
        decision = one.decision
        return self._known.live.place(
            decision.conversation_id, decision.turn_id, decision.recipient
        )

    async def _asked(self, one: _Open, place: Place) -> Made:
        decision = one.decision
        asked = Asked(
            decision.event_id,
            decision.conversation_id,
            decision.turn_id,
            one.agent,
            place.trigger.past,
            _text(place.event),
            one.agent.actions,
            self._known.live.steps(
                decision.conversation_id, decision.recipient, decision.occurred_at
            ),
            decision.escalation,
            place.asker,
        )
        imperator = self._imperators[one.agent.name]
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                answer = await imperator.decide(asked)
        except TimeoutError as error:
            raise TimeoutError(f"it did not answer in {self._limits.timeout_s:g} s") from error
        self._failing.discard(one.agent.name)
        now = self._log.log.clock.now_us()
        return made(decision, asked, answer, place.event, now, place.asker)

    async def _append(self, one: _Open, what: Made) -> bool:
        """Append an answer and what it leads to; tells whether it was this one that counts."""
        await self._catch_up()
        decision_id = one.decision.event_id
        if decision_id not in self._known.open or self._stopped(one):
            # Another worker was quicker; or the answer is kept until its agent may act again.
            return False
        repeated = False
        try:
            if what.call is None:
                receipts = await self._log.transact(what.events)
                repeated = all(receipt.repeated for receipt in receipts)
            else:
                await self._acts(what.asked, what.call, what.events)
        except IdempotencyConflict:
            await self._catch_up()
            if decision_id in self._known.open:
                raise
            return False
        self._close(decision_id)
        self._failing.discard(decision_id)
        return not repeated

    async def _append_call(
        self, asked: Asked, call: ToolCall, along_with: Collection[Event]
    ) -> None:
        await self._log.transact([*along_with, call])

    def _failed(self, one: _Open, error: Exception) -> None:
        wait_s = min(self._limits.wait_s * 2**one.failures, self._limits.wait_max_s)
        one.failures = min(one.failures + 1, 32)
        one.due_ns = self._log.log.clock.monotonic_ns() + int(wait_s * _NS)
        asking = one.made is None
        key = one.agent.name if asking else one.decision.event_id
        if key in self._failing:
            return
        self._failing.add(key)
        known = isinstance(error, MadlogError | TimeoutError)
        what = str(error) if known else f"{type(error).__name__}: {error}"
        who, when = one.agent.name, f"at first after {self._limits.wait_s:g} s"
        if asking:
            self._say(
                f"the language model of {who} gave no answer to decision "
                f"{one.decision.event_id}: {what}. It is asked again, {when}; nothing is lost"
            )
        else:
            self._say(
                f"the answer to decision {key} of {who} could not be carried out: {what}. It is "
                f"kept and tried again, {when}"
            )


def _text(event: LogEvent) -> str:
    if event.kind == "Turn":
        return "".join(part["text"] or "" for part in event.fields["parts"])
    return str(event.fields["result"] or event.fields["error"] or "")
