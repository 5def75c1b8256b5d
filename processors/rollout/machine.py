"""The roll-out as a state machine: from what was said of a model, and a verdict, to the next step.

shadow -> 10 -> 50 -> 100, or back from each. What people say counts as what the machine says. A
model that was taken back goes on by a person's word alone; where one gives it, the machine still
takes it back. One step a model and stage, so that two machines at work, or one after a crash, say
each step once.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from madlog.processors.rollout.sequential import Side, Verdict
from madlog.schemas import Control, Sender, derived_event_id

__all__ = ("NEXT", "SENDER", "SINCE", "control", "figures", "next_stage")

SENDER: Final = Sender(name="rollout", kind="system")
NEXT: Final[Mapping[str, str]] = {"shadow": "10", "10": "50", "50": "100"}
# In the `extra` of a step back: what began before this time (µs) is not learned from any more.
SINCE: Final = "since"
_BACK = "back"


def next_stage(said: Sequence[str], verdict: Verdict) -> str | None:
    """Return the stage that the machine says next of a model, None where it says nothing.

    `said` are the stages that were said of the model so far, by anybody. Advance, of a model of
    which nothing was said, is to shadow.
    """
    if verdict == "wait" or (said and said[-1] == _BACK):
        return None
    if verdict == "back":
        return _BACK
    if not said:
        return "shadow"
    stage = NEXT.get(said[-1])
    # A stage that was there before was left by a person, who alone returns to it.
    return None if stage is None or stage in said or _BACK in said else stage


def control(
    component: str,
    model_id: str,
    stage: str,
    reason: str,
    at: int,
    *,
    said: Sequence[str] = (),
    since: int | None = None,
) -> Control:
    """Return the event that says a step; `at` is when the newest evidence came.

    `said` is what was said of the model before, as for `next_stage`.
    """
    number = said.count(stage)
    return Control(
        event_id=derived_event_id(model_id, f"{SENDER.name}/{stage}", number),
        conversation_id="mad.control",
        causation_id=model_id,
        sender=SENDER,
        occurred_at=at,
        idempotency_key=f"{SENDER.name}/{model_id}/{stage}/{number}",
        extra={} if since is None else {SINCE: str(since)},
        target=component,
        command="rollout",
        value=stage,
        about_id=model_id,
        reason=reason,
    )


def figures(candidate: Side, other: Side) -> str:
    """Return both sides' figures in words, the same form in each reason."""
    return (
        f"succeeded in {candidate.successes} of {candidate.decisions}, "
        f"what is served in {other.successes} of {other.decisions}; "
        f"{candidate.errors} of {candidate.audited} judged wrong"
    )
