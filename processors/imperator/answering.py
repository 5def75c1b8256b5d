"""What an answer of a language model becomes on the log: pure functions to events.

All ids and keys come from the decision that asked, whatever was answered: so of two answers to one
decision the log and its readers keep one. Times are when it was answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from madlog.processors.imperator.comparing import Did, agrees, did_of
from madlog.processors.imperator.errors import InvalidAnswer
from madlog.processors.imperator.ports import Answer, Asked
from madlog.schemas import (
    Decision,
    Event,
    LlmCall,
    Outcome,
    Sender,
    ToolCall,
    Turn,
    derived_event_id,
)
from madlog.schemas.text import escape, parse
from madlog.topics import LogEvent

__all__ = ("AUDIT", "AUDITOR", "PURPOSE", "Made", "call_id_of", "made")

# Who judges: the tier above, of the audited share. See madlog.processors.outcomes.rules.
AUDIT: Final = "audit"
AUDITOR: Final = Sender(name="auditor", kind="system")
# The parameter of an LlmCall that says what it was for.
PURPOSE: Final = "purpose"
_ESCALATION: Final = "escalation"
_NAME: Final = "imperator"
_TEXT_MAX = 500


@dataclass(frozen=True)
class Made:
    """What is to be appended together; `call` is the act, where the answer was one."""

    asked: Asked
    events: tuple[Event, ...]
    call: ToolCall | None = None


def call_id_of(decision_id: str) -> str:
    """Return the id of the LlmCall that a decision leads to: it says that it was answered."""
    return derived_event_id(decision_id, _NAME, 0)


def made(
    decision: Decision,
    asked: Asked,
    answer: Answer,
    trigger: LogEvent,
    now: int,
    asker: str | None = None,
) -> Made:
    """Return what an answer is on the log: the call, and with it the turn, act or outcome.

    `asker` is who gets the answer where it is one in words.
    """
    refused: str | None = None
    try:
        answer = answer.checked(asked.actions)
        did: Did | None = did_of(answer, trigger)
    except InvalidAnswer as error:
        refused, did = str(error), None
    if decision.tier != _NAME:
        call = _call(decision, asked, answer, did, refused, now)
        return Made(asked, (call, *_judged(decision, answer, did, call)))
    envelope = {
        **_envelope(decision, asked, now, 1),
        # What it answers, so that outcomes are found along it.
        "causation_id": decision.turn_id,
        "idempotency_key": f"{_NAME}/{decision.event_id}",
    }
    call = _call(decision, asked, answer, did, refused, now, envelope["event_id"])
    if answer.action is not None and refused is None:
        return Made(asked, (call,), _act(asked, answer, envelope))
    return Made(asked, (call, _turn(answer, asker, refused, envelope)))


def _envelope(decision: Decision, asked: Asked, now: int, index: int) -> dict[str, Any]:
    return {
        "event_id": derived_event_id(decision.event_id, _NAME, index),
        "conversation_id": decision.conversation_id,
        "correlation_id": decision.correlation_id,
        "seen": decision.turn_id,
        "handler_step": index,
        "sender": Sender(name=asked.agent.name, kind=asked.agent.kind, version=asked.agent.version),
        "occurred_at": now,
        "subject": decision.subject,
    }


def _call(
    decision: Decision,
    asked: Asked,
    answer: Answer,
    did: Did | None,
    refused: str | None,
    now: int,
    answer_id: str | None = None,
) -> LlmCall:
    purpose = _ESCALATION if decision.tier == _NAME else AUDIT
    return LlmCall(
        **_envelope(decision, asked, now, 0),
        causation_id=decision.event_id,
        idempotency_key=f"{_NAME}/{decision.event_id}",
        extra=_extra(did) if refused is None else {"refused": refused},
        provider=answer.provider,
        model=answer.model,
        parameters={**answer.parameters, PURPOSE: purpose},
        messages=tuple(act.event_id for act in asked.past),
        answer_id=answer_id,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=answer.cost_usd,
        latency_ms=answer.latency_ms,
    )


def _extra(did: Did | None) -> dict[str, str]:
    if did is None:
        return {}
    return {"route": did.route, **({} if did.arguments is None else {"arguments": did.arguments})}


def _turn(
    answer: Answer, asker: str | None, refused: str | None, envelope: Mapping[str, Any]
) -> Turn:
    # Who asked is told that nothing was done, and that it is an error, rather than nothing at all.
    said = answer.text or "" if refused is None else escape(f"I could not do that: {refused}.")
    found = parse(said)
    return Turn(
        **envelope,
        recipients=() if asker is None else (asker,),
        mentions=found.mentions,
        tags=found.tags,
        intent="RESPONSE" if refused is None else "ERROR",
        parts=found.parts,
    )


def _act(asked: Asked, answer: Answer, envelope: Mapping[str, Any]) -> ToolCall:
    action = answer.action or ""
    contract = asked.agent.contracts.get(action)
    return ToolCall(
        **envelope,
        action=action,
        arguments=answer.arguments or "{}",
        preconditions=() if contract is None else contract.preconditions,
        idempotent=None if contract is None else contract.idempotent,
    )


def _judged(
    decision: Decision, answer: Answer, did: Did | None, call: LlmCall
) -> Sequence[Outcome]:
    if did is None:
        return ()
    right = agrees(decision, did.done(decision.recipient, call.event_id))
    said = {} if answer.action is not None else {"text": (answer.text or "")[:_TEXT_MAX]}
    outcome_id = derived_event_id(decision.event_id, AUDIT, 0)
    return (
        Outcome(
            event_id=outcome_id,
            conversation_id=decision.conversation_id,
            correlation_id=decision.correlation_id,
            causation_id=call.event_id,
            sender=AUDITOR,
            occurred_at=call.occurred_at,
            idempotency_key=f"{AUDIT}/{decision.event_id}",
            subject=decision.subject,
            extra={**_extra(did), **said},
            mad=decision.recipient,
            result="success" if right else "failure",
            judged_by=AUDIT,
            about="decision",
            about_id=decision.event_id,
        ),
    )
