"""The events that acting writes: ids and keys come from the act, so that twice adds nothing."""

from typing import Any

from madlog.processors.acting.facts import CALL_KEY, REFUSAL_KEY, UNKNOWN, VOID, Call
from madlog.processors.acting.guards import STALE, Verdict
from madlog.processors.acting.ports import Answer
from madlog.processors.acting.proposal import Proposal, object_of
from madlog.processors.dtr.tree import IMPERATOR
from madlog.processors.lppm.values import canonical
from madlog.processors.ports import Agent
from madlog.schemas import (
    Control,
    Decision,
    Event,
    Outcome,
    Sender,
    ToolCall,
    ToolResult,
    Turn,
    derived_event_id,
)
from madlog.schemas.text import escape, parse

__all__ = (
    "GUARD",
    "ask",
    "late_result",
    "refusal",
    "result",
    "tool_call",
    "unknown",
    "void",
    "went_up",
)

GUARD = Sender(name="guard", kind="system")
TOOLS = Sender(name="tools", kind="system")
_SECOND_US = 1_000_000
# What people ordered, or did not answer, says nothing about whether the route was right.
_OF_PEOPLE = frozenset(("stopped", "override", "flag", "approval", STALE))


def _envelope(proposal: Proposal, name: str, index: int, key: str) -> dict[str, Any]:
    return {
        "event_id": derived_event_id(proposal.act_id, name, index),
        "conversation_id": proposal.conversation_id,
        "correlation_id": proposal.correlation_id,
        "causation_id": proposal.decision_id,
        "occurred_at": proposal.occurred_at,
        "idempotency_key": key,
        "subject": proposal.subject,
    }


def tool_call(proposal: Proposal, agent: Agent, attempt: int) -> ToolCall:
    """Return what announces an act; an attempt that did not come to run is followed by the next."""
    contract = agent.contract(proposal.action)
    envelope = _envelope(proposal, CALL_KEY, attempt, f"{CALL_KEY}/{proposal.act_id}/{attempt}")
    if proposal.call_id is not None and attempt == 0:
        envelope["event_id"] = proposal.call_id
    extra = {"tier": proposal.tier, "decision": proposal.decision_id, **_asker(proposal)}
    if proposal.number:
        extra["number"] = str(proposal.number)
    return ToolCall(
        **{**envelope, "causation_id": proposal.cause_id or proposal.decision_id},
        sender=Sender(name=agent.name, kind=agent.kind),
        seen=proposal.turn_id,
        extra=extra,
        action=proposal.action,
        arguments=proposal.arguments or "",
        preconditions=contract.preconditions,
        idempotent=contract.idempotent,
    )


def _asker(proposal: Proposal) -> dict[str, str]:
    return {} if proposal.asker is None else {"asker": proposal.asker}


def result(call: Call, answer: Answer) -> ToolResult:
    """Return what an act came to."""
    return _result(call, "result", answer.ok, answer.result, answer.error)


def late_result(call: Call, answer: Answer) -> ToolResult:
    """Return what an act came to after others had given it up."""
    return _result(call, "late-result", answer.ok, answer.result, answer.error)


def unknown(call: Call, why: str) -> ToolResult:
    """Return that nobody knows whether an act happened."""
    return _result(call, "result", False, None, f"outcome unknown: {why}", {UNKNOWN: "1"})


def void(call: Call, said: Verdict) -> ToolResult:
    """Return that an act that was announced did not run, and why."""
    why = f"not run: {said.rule}: {said.reason}"
    return _result(call, "result", False, None, why, {VOID: "1"})


def _result(
    call: Call,
    name: str,
    ok: bool,
    text: str | None,
    error: str | None,
    extra: dict[str, str] | None = None,
) -> ToolResult:
    fields = call.event.fields
    return ToolResult(
        event_id=derived_event_id(call.call_id, name, 0),
        conversation_id=call.conversation_id,
        correlation_id=fields["correlation_id"],
        causation_id=call.call_id,
        sender=TOOLS,
        occurred_at=fields["occurred_at"],
        idempotency_key=f"{name}/{call.call_id}",
        subject=fields["subject"],
        extra=extra or {},
        call_id=call.call_id,
        action=call.action,
        ok=ok,
        # NUL cannot stand in an event's text.
        result=None if text is None else text.replace("\x00", "\ufffd"),
        error=None if error is None else error.replace("\x00", "\ufffd"),
    )


def ask(proposal: Proposal, timeout_s: int) -> Control:
    """Return the question whether an act may run."""
    value: dict[str, Any] = {
        "action": proposal.action,
        "arguments": object_of(proposal.arguments),
    }
    if proposal.number:
        value["number"] = proposal.number
    ids = {"call": proposal.call_id, "cause": proposal.cause_id}
    named = {name: one for name, one in ids.items() if one is not None}
    return Control(
        **_envelope(proposal, "ask", 0, key=f"ask/{proposal.act_id}"),
        sender=GUARD,
        extra={**named, **_asker(proposal)},
        target=proposal.agent,
        command="ask",
        tier=proposal.tier,
        value=canonical(value),
        about_id=proposal.act_id,
        expires_at=proposal.occurred_at + timeout_s * _SECOND_US,
    )


def _told(proposal: Proposal, text: str) -> Turn:
    """Return what tells who asked that nothing was done: above a language model is nobody else."""
    return Turn(
        **_envelope(proposal, "refused", 0, key=f"refused/{proposal.act_id}"),
        sender=Sender(name=proposal.agent, kind="mad"),
        recipients=(proposal.asker or "",),
        intent="ERROR",
        parts=parse(escape(text)).parts,
    )


def refusal(
    proposal: Proposal, said: Verdict, decision: Decision | None, control_id: str | None
) -> list[Event]:
    """Return what a refusal writes: its Outcome, and for a cheap tier the Decision that goes up."""
    key = f"{REFUSAL_KEY}/{proposal.act_id}"
    why = f"{said.rule}: {said.reason}"
    events: list[Event] = [
        Outcome(
            **_envelope(proposal, REFUSAL_KEY, 0, key=key),
            sender=GUARD,
            extra={"reason": why, "action": proposal.action},
            mad=proposal.agent,
            result="partial" if said.rule in _OF_PEOPLE else "failure",
            judged_by=f"guard-{said.rule}",
            about="decision",
            about_id=proposal.decision_id,
        )
    ]
    if said.expired:
        events.append(
            Control(
                **_envelope(proposal, "expire", 0, key=f"expire/{proposal.act_id}"),
                sender=GUARD,
                target=proposal.agent,
                command="expire",
                tier=proposal.tier,
                about_id=proposal.act_id,
                reason=said.reason,
            )
        )
    if said.rule == STALE:
        return events
    if proposal.tier == IMPERATOR and proposal.asker is not None:
        events.append(_told(proposal, f"I may not do that: {said.reason}."))
    if decision is not None and proposal.tier != IMPERATOR:
        events.append(went_up(decision, proposal.act_id, why, control_id or decision.control_id))
    return events


def went_up(decision: Decision, act_id: str, why: str, control_id: str | None) -> Decision:
    """Return the Decision by which a refused one goes up to the language model."""
    return decision.model_copy(
        update={
            "event_id": derived_event_id(act_id, REFUSAL_KEY, 1),
            "causation_id": decision.event_id,
            "idempotency_key": f"{REFUSAL_KEY}/{act_id}",
            "sender": GUARD,
            "tier": IMPERATOR,
            "route": IMPERATOR,
            "arguments": None,
            "control_id": control_id,
            "reason": f"a guard refused {decision.route}: {why}",
            "escalation": "guard",
            "propensity": 1.0,
            "audited": False,
        }
    )
