"""A log on which an agent lives, with decisions and verdicts made by hand: to test roll-outs."""

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Any

from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.ports import Agent, Registry
from madlog.processors.retrospect.models import model_event
from madlog.processors.rollout import Rollout, RolloutSettings
from madlog.processors.serving import ROUTING
from madlog.processors.tiers import TierModels
from madlog.schemas import (
    Control,
    Decision,
    Event,
    ModelPublished,
    Outcome,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.schemas.text import parse
from madlog.topics import EventLog
from madlog.topics.errors import BlobMissing
from madlog.topics.memory import MemoryLog

__all__ = ("AGENT", "BEGAN", "MARIA", "ORDERS", "Scene", "published")

AGENT = Agent("orders", actions=frozenset({"get_order"}))
MARIA = Sender(name="maria", kind="human")
ORDERS = Sender(name="orders", kind="mad")
_TOOLS = Sender(name="tools", kind="system")
_SECOND = 1_000_000
BEGAN = 1_764_000_000 * _SECOND
_ASKED = (
    "Hello, where is my order {order}?",
    "I would like to know where order {order} is, please.",
    "Order {order} has not come yet, can you look?",
    "What about order {order}?",
)


def published(version: str, models: TierModels | None = None, **more: Any) -> ModelPublished:
    """Return the event of a model that somebody publishes by hand."""
    text = (models or TierModels.seed()).text()
    given = {"parameters": text, "code_version": "test", **more}
    component = given.pop("component", ROUTING)
    made = model_event(component, version, text, given.pop("code_version"), **given)
    return made.model_copy(update={"sender": MARIA})


class Scene:
    """A log, an agent that looks up orders, and what is said of its decisions."""

    def __init__(self, log: EventLog, seed: int = 0) -> None:
        self.log = log
        self.now = BEGAN
        self.blobs: dict[str, bytes] = {}
        self.random = Random(seed)
        self._number = 0

    @classmethod
    async def opened(cls, seed: int = 0) -> "Scene":
        made = cls(await EventLog.open(MemoryLog()), seed)
        await made.log.append([seed_model()])
        return made

    def rollout(self, **more: Any) -> Rollout:
        given: dict[str, Any] = {"registry": Registry([AGENT]), **more}
        return Rollout(self.log, RolloutSettings("test", self._put, self.get_blob, **given))

    def _put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self.blobs[name] = content
        return name

    def get_blob(self, sha256: str) -> bytes:
        if sha256 not in self.blobs:
            raise BlobMissing(f"no blob {sha256[:12]}")
        return self.blobs[sha256]

    def _envelope(self, conversation: str, sender: Sender, after_s: float = 1) -> dict[str, Any]:
        self._number += 1
        self.now += int(after_s * _SECOND)
        return {
            "event_id": new_event_id(self.now, self._number.to_bytes(10, "big")),
            "conversation_id": conversation,
            "sender": sender,
            "occurred_at": self.now,
        }

    def decision(self, turn_id: str, model_id: str, conversation: str, **more: Any) -> Decision:
        tier = more.pop("tier", "imperator")
        return Decision(
            **{
                **self._envelope(conversation, Sender(name="router", kind="system"), 0),
                "turn_id": turn_id,
                "recipient": "orders",
                "mode": "live",
                "tier": tier,
                "route": "imperator" if tier == "imperator" else "action:get_order",
                "confidence": 1.0,
                "max_error": 0.05,
                "model_id": model_id,
                "model_version": "1",
                "reason": "because",
                "propensity": 1.0,
                "audited": False,
                **more,
            }
        )

    def outcome(self, decision: Decision, well: bool, judged_by: str = "csv:desk") -> Outcome:
        return Outcome(
            **self._envelope(decision.conversation_id, MARIA, 0),
            mad="orders",
            result="success" if well else "failure",
            judged_by=judged_by,
            about="decision",
            about_id=decision.event_id,
        )

    async def control(self, model_id: str, stage: str) -> str:
        """Let a person say a stage."""
        event = Control(
            **self._envelope("mad.control", MARIA),
            target=ROUTING,
            command="rollout",
            value=stage,
            about_id=model_id,
            reason="by hand",
        )
        await self.log.append([event])
        return event.event_id

    async def live(self, count: int, *, well: bool = True, first: int = 0) -> list[str]:
        """Let the agent answer in so many conversations; returns their names."""
        names = []
        for number in range(first, first + count):
            name = f"lived-{number:05}"
            order = str(self.random.randrange(10_000, 99_999))
            text = parse(self.random.choice(_ASKED).format(order=order))
            turn = Turn(**self._envelope(name, MARIA), recipients=("orders",), parts=text.parts)
            decided = self.decision(turn.event_id, seed_model().event_id, name)
            call = ToolCall(
                **self._envelope(name, ORDERS),
                causation_id=turn.event_id,
                action="get_order",
                arguments=f'{{"order": "{order if well else 1}"}}',
            )
            result = ToolResult(
                **self._envelope(name, _TOOLS),
                call_id=call.event_id,
                action="get_order",
                ok=True,
                result=f'{{"order": "{order}", "status": "sent"}}',
            )
            said = parse(f"Order {order} was sent yesterday.")
            answer = Turn(**self._envelope(name, ORDERS), recipients=("maria",), parts=said.parts)
            told: list[Event] = [turn, decided, call, result, answer, self.outcome(decided, well)]
            await self.log.append(told)
            names.append(name)
        return names

    async def decide(
        self,
        model_id: str,
        decisions: int,
        wrong: int = 0,
        *,
        settles: bool = True,
        judged_by: str = "csv:desk",
        **more: Any,
    ) -> list[Decision]:
        """Append so many decisions that name a model, each of its own turn, and their verdicts."""
        tier = "lppm" if settles else "imperator"
        made = [
            self.decision(
                self._envelope("c", MARIA)["event_id"], model_id, f"by-hand-{n}", tier=tier, **more
            )
            for n in range(decisions)
        ]
        bad = set(self.random.sample(range(decisions), wrong))
        told = [self.outcome(one, n not in bad, judged_by) for n, one in enumerate(made)]
        await self.log.append(made)
        await self.log.append(told)
        return made

    async def shadow(self, model_id: str, live: Sequence[Decision], wrong: int = 0) -> None:
        """Let a candidate decide beside, so many times not as was done."""
        bad = set(self.random.sample(range(len(live)), wrong))
        made = [
            one.model_copy(
                update={
                    **self._envelope(one.conversation_id, Sender(name="shadow", kind="system"), 0),
                    "mode": "shadow",
                    "tier": "lppm",
                    "route": "action:get_order",
                    "model_id": model_id,
                    "control_id": await self.last_control(),
                }
            )
            for one in live
        ]
        told = [self.outcome(one, n not in bad, "record") for n, one in enumerate(made)]
        await self.log.append(made)
        await self.log.append(told)

    async def last_control(self) -> str | None:
        found = await self.fields("mad.control")
        return str(found[-1]["event_id"]) if found else None

    async def fields(self, topic: str) -> list[dict[str, Any]]:
        return [event.fields async for events in self.log.read_topics([topic]) for event in events]

    async def said(self, model_id: str | None = None) -> list[str]:
        """Return the stages that were said, of all models or of one, in order."""
        return [
            str(one["value"])
            for one in await self.fields("mad.control")
            if one["command"] == "rollout" and model_id in (None, one["about_id"])
        ]

    async def reasons(self, model_id: str) -> list[str]:
        found = await self.fields("mad.control")
        return [str(one["reason"]) for one in found if one["about_id"] == model_id]

    async def models(self) -> list[dict[str, Any]]:
        found = await self.fields("mad.models")
        return [one for one in found if one["component"] == ROUTING]
