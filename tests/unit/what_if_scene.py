"""Logs to ask what-if of: one that was lived, one that was brought in, one where money went out."""

import asyncio
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from tests.unit.history import history
from tests.unit.test_retrospect import log_of, settings

from madlog.processors import Agent, Engine, Registry, Router
from madlog.processors.retrospect.job import Retrospector
from madlog.schemas import (
    Event,
    LlmCall,
    Outcome,
    Part,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    new_event_id,
)
from madlog.topics import EventLog
from madlog.topics.errors import BlobMissing

__all__ = ("REGISTRY", "brought_in", "eid", "ended", "lived", "no_blob", "refund", "refunds")

REGISTRY = Registry([Agent("orders", actions=frozenset({"get_order"}))])
MARIA = Sender(name="maria", kind="human")
PAYMENTS = Sender(name="payments", kind="mad")
_TEXTS = ("HRU?", "EXECUTE: get_order 1", "Where is it?", "@orders #ack", "get_order 2")


def no_blob(sha256: str) -> bytes:
    raise BlobMissing(f"there is no blob {sha256}")


def eid(number: int) -> str:
    return new_event_id(number * 1000, number.to_bytes(10, "big"))


def _turn(number: int, conversations: int) -> Turn:
    text = _TEXTS[number % len(_TEXTS)]
    return Turn(
        event_id=eid(number),
        conversation_id=f"c{number % conversations}",
        sender=MARIA,
        occurred_at=number * 1000,
        recipients=("orders",),
        parts=(Part(content_class="prose" if number % 5 == 2 else "deterministic", text=text),),
    )


async def lived(turns: int = 20, conversations: int = 3) -> EventLog:
    """Return a log whose turns to `orders` the live router has decided."""
    log = await log_of([_turn(number, conversations) for number in range(turns)])
    await Engine(log, [Router(REGISTRY, audit_rate=0.3)]).run(until_idle=True)
    return log


@cache
def _brought_in(conversations: int) -> tuple[tuple[Event, ...], dict[str, bytes]]:
    """Learn once: return the events of a log that was decided in retrospect, and its blobs."""

    async def made() -> tuple[Event, ...]:
        log = await log_of(*history(conversations))
        await Retrospector(log, settings(blobs)).run()
        names = sorted(name for name in await log.log.topics() if name != "mad.schemas")
        return tuple([e.event async for es in log.read_topics(names) for e in es])

    blobs: dict[str, bytes] = {}
    return asyncio.run(made()), blobs


async def brought_in(conversations: int = 90, blobs: dict[str, bytes] | None = None) -> EventLog:
    """Return a log of conversations that were decided in retrospect; it is learned once."""
    events, made = await asyncio.to_thread(_brought_in, conversations)
    if blobs is not None:
        blobs |= made
    return await log_of(events)


def refund(
    number: int,
    order: str | None,
    conversation: str = "c1",
    *,
    ok: bool | None = True,
    action: str = "refund",
    eur: float = 10,
) -> list[Event]:
    """Return a call, at second `number`, and its answer half a second later, if it came."""
    arguments: dict[str, Any] = {"amount_eur": eur, "order_id": order}
    about: dict[str, Any] = {"conversation_id": conversation, "sender": PAYMENTS}
    call = ToolCall(
        event_id=eid(2 * number),
        occurred_at=number * 1_000_000,
        action=action,
        arguments="no JSON" if order is None else json.dumps(arguments),
        **about,
    )
    if ok is None:
        return [call]
    result = ToolResult(
        event_id=eid(2 * number + 1),
        occurred_at=number * 1_000_000 + 500_000,
        call_id=call.event_id,
        action=action,
        ok=ok,
        result="{}" if ok else None,
        error=None if ok else "declined",
        **about,
    )
    return [call, result]


async def refunds(*events: Sequence[Event]) -> EventLog:
    """Return a log of calls; one call of a language model costs USD 0.5 and takes 2 s."""
    asked = LlmCall(
        event_id=eid(900),
        conversation_id="c1",
        sender=PAYMENTS,
        occurred_at=1_000_000,
        model="m-1",
        tokens_in=1_000,
        tokens_out=100,
        cost_usd=0.5,
        latency_ms=2_000.0,
    )
    return await log_of(*events, [asked])


def ended(conversation: str, result: Any) -> Outcome:
    """Return what was said of how a conversation ended."""
    return Outcome(
        event_id=eid(950),
        conversation_id=conversation,
        sender=MARIA,
        occurred_at=90_000_000,
        mad="payments",
        result=result,
        judged_by="maria",
        about="conversation",
        about_id=conversation,
    )
