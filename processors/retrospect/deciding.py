"""Decides one conversation of the past, event by event, and judges it by what was done then.

The tree goes first; what it leaves goes to the next-step predictor; what that leaves would have
gone to the language model. The record is the judge: right is the route that the agent took next,
with the same arguments.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from madlog.processors.dtr.tree import ACTION_PREFIX
from madlog.processors.lppm.values import canonical
from madlog.processors.retrospect.conversation import Conversation, Done, Trigger
from madlog.processors.retrospect.models import SENDER
from madlog.processors.retrospect.proposing import proposals
from madlog.processors.router import Router
from madlog.processors.tiers import Published, TierModels
from madlog.schemas import Candidate, Decision, Outcome, derived_event_id

__all__ = ("RECORD", "agrees", "decide", "judged")

# Who judges: what the agent did then, as the log has it.
RECORD = "record"


def decide(
    conversation: Conversation,
    router: Router,
    by: Published,
    max_error: float,
    *,
    decided: Collection[str] = (),
    unjudged: Mapping[str, Decision] = MappingProxyType({}),
) -> list[Decision | Outcome]:
    """Return the Decisions on a conversation, each of a cheap tier followed by its Outcome.

    What was `decided` (by its id) is not decided again; of what is `unjudged` the Outcome alone is
    returned, where the log now holds what the agent did.
    """
    outputs: list[Decision | Outcome] = []
    for proposed, trigger in proposals(conversation, router, by.state):
        if proposed.event_id in decided:
            earlier = unjudged.get(proposed.event_id)
            if earlier is not None and trigger.done is not None:
                outputs.append(judged(earlier, trigger.done))
            continue
        decision = _settled(proposed, trigger, by.models, max_error)
        if decision.tier != proposed.tier:
            decision = decision.model_copy(update=router.audit(decision.turn_id))
        # Derived from its turn, so that the same work done again adds nothing.
        decision = decision.model_copy(update={"idempotency_key": decision.event_id})
        outputs.append(decision)
        if decision.tier != "imperator" and trigger.done is not None:
            outputs.append(judged(decision, trigger.done))
    return outputs


def _settled(
    proposed: Decision, trigger: Trigger, models: TierModels, max_error: float
) -> Decision:
    """Let the next-step predictor try what the tree leaves."""
    if proposed.tier != "imperator" or models.steps is None or not trigger.past:
        return proposed
    step = models.steps.predict(trigger.past, max_error)
    if step.action is None or step.arguments is None or step.confidence is None:
        return proposed.model_copy(update={"reason": step.reason, "escalation": "unsure"})
    route = f"{ACTION_PREFIX}{step.action}"
    return proposed.model_copy(
        update={
            "tier": "lppm",
            "route": route,
            "arguments": canonical(step.arguments),
            "confidence": step.confidence,
            "candidates": (Candidate(route=route, score=step.confidence), *proposed.candidates),
            "reason": step.reason,
            "escalation": None,
        }
    )


def judged(decision: Decision, done: Done) -> Outcome:
    """Return what the record says of a decision, given what was done there."""
    right = agrees(decision, done)
    return Outcome(
        event_id=derived_event_id(decision.event_id, RECORD, 0),
        conversation_id=decision.conversation_id,
        correlation_id=decision.correlation_id,
        causation_id=done.act.event_id,
        sender=SENDER,
        occurred_at=decision.occurred_at,
        time_source=decision.time_source,
        idempotency_key=f"{RECORD}/{decision.event_id}",
        mad=decision.recipient,
        result="success" if right else "failure",
        judged_by=RECORD,
        about="decision",
        about_id=decision.event_id,
    )


def agrees(decision: Decision, done: Done) -> bool:
    """Tell whether a decision chose what was done, with the same arguments."""
    return done.route == decision.route and _same_arguments(decision, done)


def _same_arguments(decision: Decision, done: Done) -> bool:
    """Tell whether the arguments are those that the agent gave."""
    if decision.arguments is not None:
        given = done.act.arguments
        return given is not None and canonical(given) == decision.arguments
    # A tree gives none: a command brings its own, and any other action must take none.
    commanded = decision.route == f"{ACTION_PREFIX}{decision.features.get('verb')}"
    return commanded or not done.act.arguments
