"""Canary cases: conversations that no live model is trained on, for each new one to be tried on.

A hash of a conversation's name says whether it is one, so it is one for every model, on every
machine, for ever. They are decided for the test alone and nothing of it acts.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.deciding import decide
from madlog.processors.router import Router
from madlog.processors.tiers import Published
from madlog.schemas import Decision, Outcome

__all__ = ("CASES_MAX", "DROP", "Canary", "is_canary", "tried", "worse")

# The newest of them count: what was asked long ago says little of what is asked now.
CASES_MAX = 200
# A drop by more than this share of the decisions is too much.
DROP = 0.05
_SHARE_PCT = 5
# Fewer decisions tell nothing: one that is wrong would be such a drop.
_DECISIONS_MIN = 40


class Canary(NamedTuple):
    """How a model did: `settled` of its decisions, of these `right` and `wrong` by the record."""

    cases: int
    decisions: int
    settled: int
    right: int
    wrong: int

    @property
    def metrics(self) -> dict[str, float]:
        """The figures as metrics of the model's event."""
        return {f"canary_{name}": float(value) for name, value in self._asdict().items()}


def is_canary(conversation_id: str) -> bool:
    """Tell whether a conversation is kept apart, for ever: one of 20 is."""
    digest = hashlib.blake2b(conversation_id.encode(), digest_size=8, person=b"canary").digest()
    return int.from_bytes(digest, "big") % 100 < _SHARE_PCT


def tried(model: Published, cases: Sequence[Conversation], router: Router, error: float) -> Canary:
    """Let a model decide cases that ended well, and count what the record says of it."""
    decisions = settled = right = wrong = 0
    for case in cases:
        for output in decide(case, router, model, error):
            if isinstance(output, Decision):
                decisions += 1
                settled += output.tier != "imperator"
            elif isinstance(output, Outcome):
                right += output.result == "success"
                wrong += output.result != "success"
    return Canary(len(cases), decisions, settled, right, wrong)


def worse(model: Canary, served: Canary) -> str | None:
    """Return why a model is not to be rolled out, None where it may.

    What counts is the share of all decisions that it gets wrong, as a model that leaves more to
    the language model is no worse for it.
    """
    if min(model.decisions, served.decisions) < _DECISIONS_MIN:
        return None
    if model.wrong / model.decisions <= served.wrong / served.decisions + DROP:
        return None
    return (
        f"on {model.cases} canary cases it is wrong in {model.wrong} of {model.decisions} "
        f"decisions, and what is served in {served.wrong} of {served.decisions}"
    )
