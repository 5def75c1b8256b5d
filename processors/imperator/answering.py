"""What an answer of a language model becomes on the log: pure functions to events.

First the LlmCall, which holds the answer; what it leads to (a turn, an act, an audit's outcome) is
made from the first LlmCall that the log shows and from nothing else. Ids and keys come from the
decision. So whoever makes it, once or again, makes the same, and what a crash left out follows.
"""

from collections.abc import Mapping
from typing import Any, Final

from madlog.processors.dtr.tree import ACTION_PREFIX
from madlog.processors.imperator.comparing import Did, agrees, did_of
from madlog.processors.imperator.errors import InvalidAnswer
from madlog.processors.imperator.ports import Answer, Asked
from madlog.processors.ports import Agent
from madlog.schemas import (
    Decision,
    LlmCall,
    Outcome,
    Sender,
    ToolCall,
    Turn,
    derived_event_id,
)
from madlog.schemas.text import escape, parse
from madlog.topics import LogEvent

__all__ = ("AUDIT", "AUDITOR", "PURPOSE", "call_id_of", "call_of", "followed", "follows_id")

# Who judges: the tier above, of the audited share. See madlog.processors.outcomes.rules.
AUDIT: Final = "audit"
AUDITOR: Final = Sender(name="auditor", kind="system")
# The parameter of an LlmCall that says what it was for.
PURPOSE: Final = "purpose"
_ESCALATION: Final = "escalation"
_NAME: Final = "imperator"
_TEXT_MAX = 500


def call_id_of(decision_id: str) -> str:
    """Return the id of the LlmCall that a decision leads to."""
    return derived_event_id(decision_id, _NAME, 0)


def follows_id(decision: Decision) -> str:
    """Return the id of what follows from the answer: then there is nothing more to do."""
    if decision.tier == _NAME:
        return derived_event_id(decision.event_id, _NAME, 1)
    return derived_event_id(decision.event_id, AUDIT, 0)


def call_of(
    decision: Decision, asked: Asked, answer: Answer, trigger: LogEvent, now: int
) -> LlmCall:
    """Return the call of a language model with its answer, also where nothing can follow it."""
    extra: dict[str, str] = {}
    try:
        answer = answer.checked(asked.actions)
        did = did_of(answer, trigger)
        extra["route"] = did.route
        if did.arguments is not None:
            extra["arguments"] = did.arguments
        if answer.action is None:
            extra["text"] = answer.text or ""
    except InvalidAnswer as error:
        extra["refused"] = str(error)
    agent = asked.agent
    return LlmCall(
        **_envelope(decision, 0, now),
        event_id=call_id_of(decision.event_id),
        sender=Sender(name=agent.name, kind=agent.kind, version=agent.version),
        causation_id=decision.event_id,
        idempotency_key=f"{_NAME}/{decision.event_id}",
        extra=extra,
        provider=answer.provider,
        model=answer.model,
        parameters={
            **answer.parameters,
            PURPOSE: _ESCALATION if decision.tier == _NAME else AUDIT,
        },
        messages=tuple(act.event_id for act in asked.past),
        answer_id=follows_id(decision) if decision.tier == _NAME else None,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=answer.cost_usd,
        latency_ms=answer.latency_ms,
    )


def followed(
    decision: Decision, agent: Agent, call: Mapping[str, Any], asker: str | None
) -> Turn | ToolCall | Outcome | None:
    """Return what follows from an answer, given the fields of its LlmCall; None: nothing does.

    `asker` is who gets the answer where it is one in words.
    """
    extra = call["extra"]
    did = Did(extra["route"], extra.get("arguments")) if "route" in extra else None
    if decision.tier != _NAME:
        return None if did is None else _judged(decision, did, call)
    envelope = {
        **_envelope(decision, 1, call["occurred_at"]),
        "event_id": follows_id(decision),
        "sender": Sender(**call["sender"]),
        # What it answers, so that outcomes are found along it.
        "causation_id": decision.turn_id,
        "idempotency_key": f"{_NAME}/{decision.event_id}",
    }
    if did is not None and did.acts:
        return _act(agent, did, envelope)
    return _turn(extra, asker, envelope)


def _envelope(decision: Decision, index: int, at: int) -> dict[str, Any]:
    return {
        "conversation_id": decision.conversation_id,
        "correlation_id": decision.correlation_id,
        "seen": decision.turn_id,
        "handler_step": index,
        "occurred_at": at,
        "subject": decision.subject,
    }


def _turn(extra: Mapping[str, str], asker: str | None, envelope: Mapping[str, Any]) -> Turn:
    refused = extra.get("refused")
    # Who asked is told that nothing was done, and that it is an error, rather than nothing at all.
    text = extra["text"] if refused is None else escape(f"I could not do that: {refused}.")
    found = parse(text)
    return Turn(
        **envelope,
        recipients=() if asker is None else (asker,),
        mentions=found.mentions,
        tags=found.tags,
        intent="RESPONSE" if refused is None else "ERROR",
        parts=found.parts,
    )


def _act(agent: Agent, did: Did, envelope: Mapping[str, Any]) -> ToolCall:
    action = did.route.removeprefix(ACTION_PREFIX)
    contract = agent.contracts.get(action)
    return ToolCall(
        **envelope,
        action=action,
        arguments=did.arguments or "{}",
        preconditions=() if contract is None else contract.preconditions,
        idempotent=None if contract is None else contract.idempotent,
    )


def _judged(decision: Decision, did: Did, call: Mapping[str, Any]) -> Outcome:
    right = agrees(decision, did.done(decision.recipient, call["event_id"]))
    extra = {name: text[:_TEXT_MAX] for name, text in call["extra"].items()}
    if did.arguments is not None:
        extra["arguments"] = did.arguments
    return Outcome(
        event_id=follows_id(decision),
        conversation_id=decision.conversation_id,
        correlation_id=decision.correlation_id,
        causation_id=call["event_id"],
        sender=AUDITOR,
        occurred_at=call["occurred_at"],
        idempotency_key=f"{AUDIT}/{decision.event_id}",
        subject=decision.subject,
        extra=extra,
        mad=decision.recipient,
        result="success" if right else "failure",
        judged_by=AUDIT,
        about="decision",
        about_id=decision.event_id,
    )
