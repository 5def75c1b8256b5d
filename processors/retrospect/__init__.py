"""What the tiers would have settled of history, each decided by models that had not seen it."""

from madlog.processors.retrospect.conversation import Conversation, conversations_of
from madlog.processors.retrospect.deciding import decide
from madlog.processors.retrospect.job import Elsewhere, Retrospection, Retrospector, Settled
from madlog.processors.retrospect.models import COMPONENT, train
from madlog.processors.retrospect.rounds import rounds
from madlog.processors.tiers import TierModels

__all__ = (
    "COMPONENT",
    "Conversation",
    "Elsewhere",
    "Retrospection",
    "Retrospector",
    "Settled",
    "TierModels",
    "conversations_of",
    "decide",
    "rounds",
    "train",
)
