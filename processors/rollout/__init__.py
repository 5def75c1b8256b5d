"""Live models as events: learned from what is lived, rolled out step by step, taken back."""

from madlog.processors.rollout.job import Rolled, Rollout, RolloutSettings
from madlog.processors.rollout.sequential import Side, difference, judge

__all__ = ("Rolled", "Rollout", "RolloutSettings", "Side", "difference", "judge")
