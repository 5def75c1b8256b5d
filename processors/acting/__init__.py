"""Acting: what was decided is run, through guards that nothing learned can reach."""

from madlog.processors.acting.budgets import Budget, budget_of
from madlog.processors.acting.errors import InvalidBudget, InvalidRegistry, InvalidRule
from madlog.processors.acting.guards import Terms, Verdict
from madlog.processors.acting.job import Acted, Actor, Done
from madlog.processors.acting.ports import ActionEngine, Answer
from madlog.processors.acting.proposal import Proposal
from madlog.processors.acting.readability import CONSTITUTION

__all__ = (
    "CONSTITUTION",
    "Acted",
    "ActionEngine",
    "Actor",
    "Answer",
    "Budget",
    "Done",
    "InvalidBudget",
    "InvalidRegistry",
    "InvalidRule",
    "Proposal",
    "Terms",
    "Verdict",
    "budget_of",
)
