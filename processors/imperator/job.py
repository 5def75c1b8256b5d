"""Asks the language models what was handed up to them, and what the audits are to judge.

First the call is appended with its answer, then what the answer leads to is made from the first
call that the log shows. So what was answered is never asked again: a crash costs the calls that
were under way, and what it left out follows. Of two at work the first call on the log counts, also
where a log cannot refuse the second, and both make the same of it.
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
from madlog.processors.imperator.answering import call_id_of, call_of, followed, follows_id
from madlog.processors.imperator.live import CONVERSATIONS_MAX, LiveConversations, Place
from madlog.processors.imperator.ports import Acts, Asked, Imperator
from madlog.processors.ports import Agent, Registry
from madlog.schemas import Decision, Event, LlmCall, MadlogError, ToolCall
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.errors import IdempotencyConflict, NotWritten
from madlog.topics.log import OnDamage, log_damage

__all__ = ("Answered", "Escalations", "Limits")

_CALLS, _DECISIONS = ("mad.llm",), ("mad.decisions",)
_REST = ("mad.control", "mad.conversations", "mad.processes", "mad.outcomes")
# The ends are taken in this order, so that the Decision of an LlmCall, and the turn and the Control
# event of a Decision, are read in the same pass at the latest.
_ENDS = (_CALLS, _DECISIONS, _REST)
# And read in this one, so that only the calls of open decisions need be kept.
_GROUPS = (_DECISIONS, _CALLS, _REST)
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
    # The call as it was made here, and the fields of the one that counts.
    call: LlmCall | None = None
    first: bool = False
    answer: Mapping[str, Any] | None = None
    failures: int = 0
    due_ns: int = 0


@dataclass
class _Known:
    """What was read of the log."""

    live: LiveConversations
    controls: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    # What held after each Control event: a decision names the one it was made under.
    by_control: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    open: dict[str, _Open] = field(default_factory=dict)
    # The open decision by the id of what follows from its answer; those that were just read.
    follows: dict[str, str] = field(default_factory=dict)
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
            ends = {
                group: await self._log.log.end([name for name in group if name in there])
                for group in _ENDS
            }
            for group in _GROUPS:
                end = ends[group]
                batches = self._log.read_topics(
                    group, start=self._read, end=end, on_damage=self._on_damage
                )
                async for events in batches:
                    for event in events:
                        self._fold(event)
                    self._known.live.trim(self._waiting())
                self._read = Vector({**self._read, **end})
            for decision_id in self._known.fresh:
                one = self._known.open.get(decision_id)
                if one is not None and one.answer is None and self._nobody_may(one.decision):
                    self._close(one.decision)
            self._known.fresh.clear()

    def _waiting(self) -> Iterable[str]:
        return (one.decision.conversation_id for one in self._known.open.values())

    def _fold(self, event: LogEvent) -> None:
        known = self._known
        done = known.open.get(known.follows.get(event.event_id, ""))
        if done is not None:
            self._close(done.decision)
        if event.kind == "LlmCall":
            one = known.open.get(event.fields["causation_id"] or "")
            named = one is not None and event.event_id == call_id_of(one.decision.event_id)
            if one is not None and named and one.answer is None:
                one.answer = event.fields
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
        self._known.follows[follows_id(decision)] = event.event_id
        self._known.fresh.append(event.event_id)

    def _close(self, decision: Decision) -> None:
        self._known.open.pop(decision.event_id, None)
        self._known.follows.pop(follows_id(decision), None)
        self._failing.discard(decision.event_id)

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
        """Ask, append, and do what follows; tells whether the decision is settled by this."""
        await self._catch_up()
        place = self._place(one)
        if place is None or one.decision.event_id not in self._known.open or self._stopped(one):
            return False
        audit = one.decision.tier != _TIER
        if place.answered and not audit and one.answer is None:
            # The agent did something about it by itself.
            self._close(one.decision)
            return False
        try:
            if one.answer is None:
                if one.call is None:
                    one.call = await self._ask(one, place)
                one.first = await self._append(one.call) or one.first
                await self._catch_up()
            # Another worker may have done the rest meanwhile, or the agent may be stopped by now.
            if one.decision.event_id not in self._known.open or self._stopped(one):
                return False
            if not await self._follow(one, place):
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

    def _question(self, one: _Open, place: Place) -> Asked:
        decision = one.decision
        return Asked(
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

    async def _ask(self, one: _Open, place: Place) -> LlmCall:
        asked = self._question(one, place)
        imperator = self._imperators[one.agent.name]
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                answer = await imperator.decide(asked)
        except TimeoutError as error:
            raise TimeoutError(f"it did not answer in {self._limits.timeout_s:g} s") from error
        self._failing.discard(one.agent.name)
        now = self._log.log.clock.now_us()
        return call_of(one.decision, asked, answer, place.event, now)

    async def _append(self, call: LlmCall) -> bool:
        """Append a call; tells whether it is the first, as far as the log can tell by now."""
        try:
            (receipt,) = await self._log.append([call])
        except IdempotencyConflict:
            # Another worker was quicker: its call, which is read next, is the one that counts.
            return False
        return not receipt.repeated

    async def _follow(self, one: _Open, place: Place) -> bool:
        """Do what follows from the answer that counts; tells whether this one did it."""
        if one.answer is None:
            raise NotWritten("the call was appended, and the log does not show it yet")
        event = followed(one.decision, one.agent, one.answer, place.asker)
        if isinstance(event, ToolCall):
            await self._acts(self._question(one, place), event, ())
            mine = one.first or one.call is None
        else:
            receipts = [] if event is None else await self._log.append([event])
            mine = not any(receipt.repeated for receipt in receipts)
        self._close(one.decision)
        return mine

    async def _append_call(
        self, asked: Asked, call: ToolCall, along_with: Collection[Event]
    ) -> None:
        await self._log.transact([*along_with, call])

    def _failed(self, one: _Open, error: Exception) -> None:
        wait_s = min(self._limits.wait_s * 2**one.failures, self._limits.wait_max_s)
        one.failures = min(one.failures + 1, 32)
        one.due_ns = self._log.log.clock.monotonic_ns() + int(wait_s * _NS)
        asking = one.call is None and one.answer is None
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
