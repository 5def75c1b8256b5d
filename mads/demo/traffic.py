"""The refund team's traffic: seeded, clockless, the same events for the same arguments.

Every conversation draws from a randomness of its own, seeded by its number, so that its events do
not depend on those before it.
"""

from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate, count
from random import Random

from madlog.mads.demo._scenes import SCENES, Case, duplicate, new_case
from madlog.mads.demo._stage import Stage
from madlog.schemas import Event

__all__ = ("DUPLICATE_REFUNDS", "START_US", "traffic")

# 2026-01-05T08:00:00Z, a Monday.
START_US = 1_767_600_000_000_000

# Order -> EUR that it is refunded with twice; in the order in which they happen.
DUPLICATE_REFUNDS = {"5208": 515, "6033": 315, "4711": 480}

_CASES = {
    "5208": Case("5208", 515, "office chair", "Ms Lindqvist", "has parts missing", 12),
    "6033": Case("6033", 315, "tent", "Ms Novak", "stopped working", 9),
    "4711": Case("4711", 480, "espresso machine", "Ms Weber", "arrived broken", 6),
}
_FIRST_ORDER = 10_000
_GAP_US = 75_000_000


def traffic(seed: int, turns: int, start_us: int = START_US) -> Iterator[list[Event]]:
    """Yield conversations, each a list of its events in order, until there are `turns` turns.

    Three of them hide a refund paid twice, at a third, two thirds and the end, whatever `turns`.
    """
    weights = list(accumulate(weight for _, weight in SCENES))
    hidden = list(DUPLICATE_REFUNDS)
    said = 0
    for number in count():
        random = Random(f"{seed}/{number}")
        began = start_us + number * _GAP_US + int(random.random() * _GAP_US / 2)
        # The last duplicate closes the run, so that it is the newest conversation.
        due = said >= turns * (4 - len(hidden)) / 3 - (8 if len(hidden) == 1 else 0)
        name = f"order-{hidden[0]}" if due else f"case-{number + 1:05d}"
        stage = Stage(name, f"scripted/{seed}/{number}", began, random)
        if due:
            duplicate(stage, _CASES[hidden.pop(0)])
        else:
            scene = SCENES[bisect(weights, random.random() * weights[-1])][0]
            scene(stage, new_case(stage, _FIRST_ORDER + number))
        said += stage.turns
        yield stage.events
        if not hidden:
            return
