"""A log, agents, an engine that remembers what it did, and a clock: for the tests of acting."""

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from itertools import count
from typing import Any, TypeVar

from madlog.processors.acting import Actor, Answer, Terms
from madlog.processors.acting.job import Done
from madlog.processors.ports import Action, Agent, Registry
from madlog.schemas import Control, Decision, LlmCall, Sender, Turn, new_event_id
from madlog.schemas.text import parse
from madlog.topics import EventLog, LogEvent
from madlog.topics.memory import MemoryLog

__all__ = ("ANN", "OPS", "SECOND", "SHOP", "FakeClock", "FakeEngine", "Scene", "agent")

T = TypeVar("T")
# No two workers have one name, whatever scene they are in.
_NUMBERS = count(1)
SECOND = 1_000_000
ANN = Sender(name="ann", kind="human")
OPS = Sender(name="ops", kind="human")
ROUTER = Sender(name="router", kind="system")
MODEL = "01890000-0000-7000-8000-000000000000"


def agent(*actions: Action, name: str = "shop") -> Agent:
    contracts = {one.name: one for one in actions}
    return Agent(name, actions=frozenset(contracts), contracts=contracts)


SHOP = agent(
    Action("lookup_order"),
    Action("refund", "medium", ("once-per:order_id", "argument:amount_eur<=100")),
    Action("close_account", "high"),
)


class FakeClock:
    """A clock that a test moves."""

    def __init__(self, now_us: int = 1_700_000_000 * SECOND) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def monotonic_ns(self) -> int:
        return self.us * 1000

    def boot_id(self) -> str:
        return "test"

    def move(self, seconds: float) -> None:
        self.us += int(seconds * SECOND)


class FakeEngine:
    """Does what functions say; `hold` keeps an action until it is let go."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str, str]] = []
        self.answers: dict[str, Answer | Exception] = {}
        self.holds: dict[str, asyncio.Event] = {}
        self.began: dict[str, asyncio.Event] = {}

    def hold(self, action: str) -> tuple[asyncio.Event, asyncio.Event]:
        self.began[action], self.holds[action] = asyncio.Event(), asyncio.Event()
        return self.began[action], self.holds[action]

    async def run(self, agent: str, action: str, arguments: str, key: str) -> Answer:
        self.did.append((action, arguments, key))
        if action in self.holds:
            self.began[action].set()
            await self.holds[action].wait()
        answer = self.answers.get(action, Answer(True, "{}"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def actions(self) -> list[str]:
        return [action for action, _, _ in self.did]


class Scene:
    """One log; each actor that is made reads it from the start."""

    def __init__(self, *agents: Agent, log: EventLog | None = None, **terms: Any) -> None:
        self.clock = FakeClock()
        self.log = log or EventLog(MemoryLog(self.clock))
        self.registry = Registry(agents or (SHOP,))
        self.terms = Terms(**terms)
        self.engine = FakeEngine()
        self._ids = 0
        self._actor: Actor | None = None

    @property
    def actor(self) -> Actor:
        self._actor = self._actor or self.another()
        return self._actor

    def another(self, engine: Any = None) -> Actor:
        return Actor(
            self.log,
            self.registry,
            engine or self.engine,
            f"worker-{next(_NUMBERS)}",
            self.terms,
        )

    async def run(self) -> Done:
        return await self.actor.run()

    async def race(self, *works: Coroutine[Any, Any, T]) -> list[T]:
        """Let workers work; each has asked its guards before any of them writes anything."""
        memory: Any = self.log.log
        transact, barrier, waited = memory.transact, asyncio.Barrier(len(works)), list[int]()

        async def together(records: Any, commit: Any = None) -> Any:
            if len(waited) < len(works):
                waited.append(len(records))
                await barrier.wait()
            return await transact(records, commit)

        memory.transact = together
        try:
            return await asyncio.gather(*works)
        finally:
            memory.transact = transact

    def envelope(self, sender: Sender, conversation: str = "c") -> dict[str, Any]:
        self._ids += 1
        return {
            "event_id": new_event_id(self.clock.us, self._ids.to_bytes(10, "big")),
            "conversation_id": conversation,
            "sender": sender,
            "occurred_at": self.clock.us,
        }

    async def decide(
        self,
        action: str,
        arguments: Mapping[str, Any] | str | None = None,
        text: str = "please do it",
        conversation: str = "c",
        **more: Any,
    ) -> str:
        """A turn, and the live decision of a cheap tier on it; returns the decision's id."""
        turn = Turn(
            **self.envelope(ANN, conversation),
            recipients=(more.get("recipient", "shop"),),
            parts=parse(text).parts,
        )
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments)
        fields: dict[str, Any] = {
            "recipient": "shop",
            "tier": "dtr" if arguments is None else "lppm",
            "mode": "live",
            "confidence": 0.99,
            "max_error": 0.05,
            "model_version": "1",
            "reason": "the tree says so",
            "propensity": 0.02,
            "audited": False,
            **more,
        }
        decision = Decision(
            **self.envelope(ROUTER, conversation),
            turn_id=turn.event_id,
            route=f"action:{action}",
            arguments=arguments,
            model_id=MODEL,
            **fields,
        )
        await self.log.append([turn, decision])
        return decision.event_id

    async def control(self, command: str, target: str = "shop", **fields: Any) -> str:
        event = Control(**self.envelope(OPS, "control"), target=target, command=command, **fields)
        await self.log.append([event])
        return event.event_id

    async def spent(self, cost_usd: float | None, who: str = "shop") -> None:
        sender = Sender(name=who, kind="mad")
        await self.log.append([LlmCall(**self.envelope(sender), cost_usd=cost_usd)])

    async def read(self, *topics: str) -> list[LogEvent]:
        return [event async for events in self.log.read_topics(topics) for event in events]

    async def of(self, kind: str) -> list[dict[str, Any]]:
        names = ("mad.conversations", "mad.decisions", "mad.outcomes", "mad.control")
        return [event.fields for event in await self.read(*names) if event.kind == kind]

    async def refusals(self) -> list[str]:
        """The rules that refused, in order."""
        found: Sequence[dict[str, Any]] = await self.of("Outcome")
        return [one["judged_by"].removeprefix("guard-") for one in found]
