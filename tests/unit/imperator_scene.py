"""A log in memory with a router's live decisions, and language models that can be counted."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tests.unit.counting import MARIA, event_id, read, run

from madlog.processors import Agent, Registry, Router
from madlog.processors.imperator import Answer, Asked, Escalations, Limits
from madlog.schemas import Event, Turn
from madlog.schemas.text import parse
from madlog.topics import EventLog, Log
from madlog.topics.memory import MemoryLog

__all__ = ("AGENTS", "SetClock", "Told", "escalations", "fields_of", "log_with", "turn_of")

AGENTS = Registry([Agent("orders", actions=frozenset({"get_order", "refund"}))])


class SetClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.us = 1_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic_ns(self) -> int:
        return self.us * 1_000

    def boot_id(self) -> str:
        return "test"


class Told:
    """An Imperator that answers as told, and holds what it was asked; it may fail or hang."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self._answer = answer
        self.asked: list[Asked] = []
        self.fails: Exception | None = None
        self.hangs: Callable[[Asked], bool] = lambda _: False
        self.at_once = self.most = 0

    async def decide(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.fails is not None:
                raise self.fails
            if self.hangs(asked):
                await asyncio.Event().wait()
            return self._answer(asked)
        finally:
            self.at_once -= 1


def turn_of(number: int, text: str, conversation: str = "c", **fields: Any) -> Turn:
    found = parse(text)
    return Turn(
        event_id=event_id(number),
        conversation_id=conversation,
        sender=MARIA,
        occurred_at=number,
        recipients=("orders",),
        mentions=found.mentions,
        tags=found.tags,
        parts=found.parts,
        **fields,
    )


async def log_with(
    *events: Event,
    clock: SetClock | None = None,
    audit_rate: float = 0.0,
    on: Log | None = None,
    **more: Any,
) -> EventLog:
    """Return a log of these events, by default in memory, decided by the router."""
    log = await EventLog.open(on or MemoryLog(clock or SetClock()))
    await log.append(events)
    await run(log, Router(AGENTS, audit_rate=audit_rate, **more))
    return log


def escalations(log: EventLog, imperator: Told, **more: Any) -> Escalations:
    limits = Limits(**{"timeout_s": 5.0, **more.pop("limits", {})})
    return Escalations(log, AGENTS, {"orders": imperator}, limits=limits, **more)


async def fields_of(log: EventLog, topic: str, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
    found = [event for event in await read(log, topic) if not kinds or event.kind in kinds]
    return [event.fields for event in sorted(found, key=lambda one: one.event_id)]
