"""Lives the made-up month on a real log, with every part that a deployment has.

The router decides, a scripted language model answers what is handed up, the guards let acts run,
outcomes are judged, models are learned, rolled out and rolled back: all by the jobs that the worker
runs, on an embedded log, under a clock that the simulation moves.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from tests.bench.month_bad import bad_model
from tests.bench.month_world import DESK, OPS, REGISTRY, WATCH, Ask, World

from madlog.processors import Engine, Router
from madlog.processors.acting import Actor
from madlog.processors.acting.for_imperator import GuardedActs
from madlog.processors.imperator import Escalations, ScriptedImperator
from madlog.processors.learning import Learning
from madlog.processors.outcomes import Judge
from madlog.processors.rollout.job import Rollout, RolloutSettings
from madlog.processors.serving import ROUTING
from madlog.schemas import Control, ConversationChanged, Event, Outcome, Sender, Turn, new_event_id
from madlog.schemas.text import parse
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.clock import SystemClock
from madlog.topics.memory import MemoryLog

__all__ = ("Day", "Month", "MonthClock", "Scale")

T = TypeVar("T")
_START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
_DAY_US = 86_400_000_000
_ROUNDS_MAX = 40
_CONVERSATIONS = "mad.conversations"
_TOPICS = ("mad.models", _CONVERSATIONS, "mad.decisions", "mad.outcomes", "mad.control")


class MonthClock:
    """Wall time that the simulation moves; leases run on the machine's own."""

    def __init__(self) -> None:
        self._now_us = _START_US
        self._machine = SystemClock()

    def now_us(self) -> int:
        """Return wall time in µs since 1970, UTC."""
        return self._now_us

    def monotonic_ns(self) -> int:
        """Return the machine's monotonic time in ns."""
        return self._machine.monotonic_ns()

    def boot_id(self) -> str:
        """Return the machine's boot id."""
        return self._machine.boot_id()

    def begin(self, day: int) -> None:
        """Go to the morning of a day."""
        self._now_us = _START_US + day * _DAY_US

    def tick(self, us: int = 1_000_000) -> int:
        """Let a moment pass; returns the new time."""
        self._now_us += us
        return self._now_us


@dataclass(frozen=True)
class Scale:
    """How much happens a day."""

    asks: int = 480
    chores: int = 4_000
    # How often a day what happened is judged, learned from and rolled out.
    shifts: int = 2


@dataclass
class Day:
    """What came of one day: live decisions by tier, and how many of the cheap ones were wrong."""

    day: int
    turns: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    # Of the decisions of cheap tiers that an audit judged.
    audited: int = 0
    audited_wrong: int = 0
    # Of all acts of cheap tiers at the desk, as the world knows it.
    acted: int = 0
    acted_wrong: int = 0
    asks: int = 480
    asks_wrong: int = 0
    # (version, stage, why) of each step of a roll-out.
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Month:
    """The simulation; `day` lives one day."""

    def __init__(
        self,
        log: EventLog,
        clock: MonthClock,
        world: World,
        scale: Scale,
        *,
        seed: int = 1,
        max_error: float = 0.05,
        audit_rate: float = 0.05,
        **rollout: Any,
    ) -> None:
        """`rollout` are further settings of roll-outs, where the defaults ask for more traffic."""
        self.log = log
        self.clock = clock
        self.world = world
        self._scale = scale
        self._random = Random(seed)
        self._blobs: dict[str, bytes] = {}
        self._learning = Learning(log, Judge(), None)
        self._rollout = Rollout(
            log,
            RolloutSettings(
                "simulation",
                self._put_blob,
                self._blobs.__getitem__,
                registry=REGISTRY,
                max_error=max_error,
                audit_rate=audit_rate,
                **rollout,
            ),
        )
        self._router = Router(
            REGISTRY,
            max_error=max_error,
            audit_rate=audit_rate,
            get_blob=self._blobs.__getitem__,
        )
        self._actor = Actor(log, REGISTRY, world, "month")
        self._escalations = Escalations(
            log,
            REGISTRY,
            {DESK: ScriptedImperator(world.answer), OPS: ScriptedImperator(world.answer)},
            GuardedActs(self._actor),
        )
        self._read = Vector()
        self._ran: dict[str, list[str]] = {}
        self._calls: dict[str, tuple[str, str]] = {}
        self._cheap: set[str] = set()
        self._watched: set[str] = set()
        self._askers: dict[str, str] = {}
        self._numbers = 0
        self._stopping = asyncio.Event()
        self._versions: dict[str, str] = {}

    registry = REGISTRY

    def get_blob(self, sha256: str) -> bytes:
        """Return the parameters of a large model."""
        return self._blobs[sha256]

    def _put_blob(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self._blobs[name] = content
        return name

    async def publish_bad_model(self, stage: str) -> None:
        """Publish a model that does wrong, and let a person roll it out to a stage by hand."""
        model = await asyncio.to_thread(bad_model, self.world.day, self.clock.now_us())
        at = self.clock.tick()
        person = Sender(name="admin", kind="human")
        told = Control(
            event_id=new_event_id(at, b"a bad model"),
            conversation_id="mad.control",
            sender=person,
            occurred_at=at,
            target=ROUTING,
            command="rollout",
            value=stage,
            about_id=model.event_id,
            reason="published by hand, on purpose",
        )
        await self.log.append([model, told])

    async def day(self, number: int) -> Day:
        """Live one day to its end, then learn from it."""
        self.world.day = number
        self.clock.begin(number)
        said = Day(number)
        for _ in range(self._scale.shifts):
            await self._shift(said)
        return said

    async def _shift(self, said: Day) -> None:
        asks = self.world.opened(self._scale.asks // self._scale.shifts)
        turns = [self._turn(ask.name, ask.customer, "human", DESK, ask.opening) for ask in asks]
        for name, sender, to, text in self.world.chores(self._scale.chores // self._scale.shifts):
            if name not in self._watched and to == WATCH:
                self._watched.add(name)
                turns.append(self._joined(name, to))
            turns.append(self._turn(name, sender, "mad", to, text))
        said.asks += len(asks)
        for _ in range(_ROUNDS_MAX):
            said.turns += sum(isinstance(turn, Turn) for turn in turns)
            if turns:
                await self.log.append(turns)
            await self._timed(said, "routing", self._routed())
            answered = await self._timed(said, "asking", self._escalations.run())
            done = await self._timed(said, "acting", self._actor.run())
            self.clock.tick()
            turns = await self._replies(said)
            if not turns and not (answered.escalations or done.succeeded or done.failed):
                break
        await self._timed(said, "judging", self._learning.run(lambda _: None))
        await self._timed(said, "learning", self._rollout.run())
        await self._replies(said)

    async def _routed(self) -> None:
        """Wait until the router has taken all that is in the conversations."""
        while not self._routing.done():
            end = await self.log.log.end([_CONVERSATIONS])
            committed = await self.log.log.committed(Router.name)
            if all(committed.get(place, 0) >= at for place, at in end.items()):
                return
            await asyncio.sleep(0)
        self._routing.result()

    async def __aenter__(self) -> "Month":
        self._routing = asyncio.create_task(
            Engine(self.log, [self._router]).run(stop=self._stopping)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await self._routing

    async def _timed(self, said: Day, what: str, work: Coroutine[Any, Any, T]) -> T:
        began = self.clock.monotonic_ns()
        try:
            return await work
        finally:
            took = (self.clock.monotonic_ns() - began) / 1e9
            said.seconds[what] = said.seconds.get(what, 0.0) + took

    def _joined(self, conversation: str, agent: str) -> Event:
        at = self.clock.tick(1_000)
        self._numbers += 1
        return ConversationChanged(
            event_id=new_event_id(at, self._numbers.to_bytes(10, "big")),
            conversation_id=conversation,
            sender=Sender(name=agent, kind="mad"),
            occurred_at=at,
            change="joined",
            participant=agent,
            participant_kind="mad",
        )

    def _turn(
        self, conversation: str, sender: str, kind: Any, to: str, text: str, **more: Any
    ) -> Event:
        parsed = parse(text)
        at = self.clock.tick(1_000)
        self._numbers += 1
        return Turn(
            event_id=new_event_id(at, self._numbers.to_bytes(10, "big")),
            conversation_id=conversation,
            sender=Sender(name=sender, kind=kind),
            occurred_at=at,
            recipients=(to,),
            parts=parsed.parts,
            tags=parsed.tags,
            mentions=parsed.mentions,
            **more,
        )

    async def _replies(self, said: Day) -> list[Event]:
        """Read what happened, count it, and return what customers say and judge next."""
        found: list[Event] = []
        there = await self.log.log.topics()
        end = await self.log.log.end([name for name in _TOPICS if name in there])
        async for events in self.log.read_topics(_TOPICS, start=self._read, end=end):
            for event in events:
                found += self._heard(said, event)
        self._read = end
        return found

    def _heard(self, said: Day, event: LogEvent) -> list[Event]:
        fields = event.fields
        if event.kind == "Decision" and fields["mode"] == "live":
            said.tiers[fields["tier"]] += 1
            if fields["route"] == "health":
                asked = fields["turn_id"]
                asker, name = self._askers.pop(asked), fields["conversation_id"]
                return [self._turn(name, WATCH, "mad", asker, "All is well.", causation_id=asked)]
        elif event.kind == "Outcome" and fields["judged_by"] == "audit":
            said.audited += 1
            said.audited_wrong += fields["result"] != "success"
        elif event.kind == "Control" and fields["command"] == "rollout":
            version = self._versions.get(fields["about_id"], "?")
            said.steps.append((version, fields["value"], fields["reason"]))
        elif event.kind == "ModelPublished":
            self._versions[event.event_id] = fields["version"]
        elif event.kind == "ToolCall":
            self._calls[event.event_id] = fields["conversation_id"], fields["action"]
            if fields["extra"].get("tier") == "lppm":
                said.acted += 1
                said.acted_wrong += not self._right(fields)
        elif event.kind == "ToolResult" and fields["ok"]:
            name, action = self._calls.pop(fields["call_id"], ("", ""))
            self._ran.setdefault(name, []).append(action)
        elif event.kind == "Turn":
            if WATCH in fields["recipients"]:
                self._askers[event.event_id] = fields["sender"]["name"]
            said.turns += fields["sender"]["kind"] == "mad" and fields["sender"]["name"] == DESK
            ask = self.world.asks.get(fields["conversation_id"])
            if ask is not None and fields["sender"]["name"] == DESK and not ask.told:
                return self._told(said, ask)
        return []

    def _right(self, fields: Any) -> bool:
        """Tell whether a cheap tier's act is the one that the policy asks for next."""
        ask = self.world.asks.get(fields["conversation_id"])
        if ask is None:
            return True
        ran = self._ran.get(ask.name, [])
        wanted = [one for one in self.world.policy.actions(ask.kind) if one not in ran]
        return bool(wanted) and fields["action"] == wanted[0]

    def _told(self, said: Day, ask: Ask) -> list[Event]:
        """Return what a customer says at the end, and seven times of ten what it thinks of it."""
        ask.told = True
        right = self.world.settled(ask.name, self._ran.pop(ask.name, []))
        said.asks_wrong += not right
        ending = [self._turn(ask.name, ask.customer, "human", DESK, ask.thanks)]
        if self._random.random() < 0.7:
            ending.append(self._thumb(ask, right))
        return ending

    def _thumb(self, ask: Ask, right: bool) -> Event:
        at = self.clock.tick(1_000)
        self._numbers += 1
        return Outcome(
            event_id=new_event_id(at, self._numbers.to_bytes(10, "big")),
            conversation_id=ask.name,
            sender=Sender(name=ask.customer, kind="human"),
            occurred_at=at,
            mad=DESK,
            result="success" if right else "failure",
            judged_by="thumbs",
            about="conversation",
            about_id=ask.name,
        )


async def opened() -> tuple[EventLog, MonthClock]:
    """Return a new log under the month's clock."""
    clock = MonthClock()
    return await EventLog.open(MemoryLog(clock=clock)), clock
