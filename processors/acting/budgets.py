"""Budgets: how many acts, or how much money, an agent may use in any window of time.

What is over the limit waits until the window has moved on; nothing is dropped. Times are the
log's append times, because what counts is when a thing happened and not what it was about.
Money is counted in whole millionths of a dollar, so that sums do not depend on their order.
"""

import json
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from madlog.processors.acting.errors import InvalidBudget
from madlog.processors.ports import Risk

__all__ = ("DAY_S", "NEVER", "WINDOW_S_MAX", "Budget", "Used", "budget_of")

DAY_S = 86_400
WINDOW_S_MAX = 31 * DAY_S
_ACTS_MAX = 1_000_000
SECOND_US = MILLIONTHS = 1_000_000
_FIELDS = ("acts", "cost_usd", "window_s", "risk")


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `acts` acts (of one risk, or of any), or at most `cost_usd`, in `window_s`."""

    name: str
    acts: int | None = None
    cost_usd: float | None = None
    window_s: int = DAY_S
    risk: Risk | None = None

    def __str__(self) -> str:
        what = f"{self.acts} acts" if self.acts is not None else f"{self.cost_usd:g} USD"
        of = f" of {self.risk} risk" if self.risk else ""
        return f"{what}{of} in {self.window_s} s"

    def json(self) -> str:
        """Return the budget as the value of a Control event."""
        given = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps({name: value for name, value in given.items() if value is not None})


def budget_of(name: str, value: Mapping[str, Any] | str) -> Budget:
    """Return the budget that an object, or its JSON text, says; raises InvalidBudget."""
    where = f"the budget {name[:60]!r}"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidBudget(f"{where} is no JSON: write it as an object") from error
    if not isinstance(value, Mapping):
        raise InvalidBudget(f"{where} is no object: give acts or cost_usd, and window_s")
    if unknown := sorted(set(value) - set(_FIELDS)):
        raise InvalidBudget(f"{where} has no {unknown[0][:60]!r}: it has {', '.join(_FIELDS)}")
    acts, cost, window = value.get("acts"), value.get("cost_usd"), value.get("window_s", DAY_S)
    if (acts is None) == (cost is None):
        raise InvalidBudget(f"{where} limits one thing: give either acts or cost_usd")
    if acts is not None and (type(acts) is not int or not 0 <= acts <= _ACTS_MAX):
        raise InvalidBudget(f"{where}: acts is a whole number from 0 to {_ACTS_MAX:,}")
    if cost is not None and (type(cost) not in (int, float) or not 0 <= cost <= 1e9):
        raise InvalidBudget(f"{where}: cost_usd is a number of dollars from 0 to 1e9")
    if type(window) is not int or not 1 <= window <= WINDOW_S_MAX:
        raise InvalidBudget(
            f"{where}: window_s is a whole number of seconds, at most {WINDOW_S_MAX:,} (31 days)"
        )
    risk = value.get("risk")
    if risk is not None and (risk not in get_args(Risk) or cost is not None):
        raise InvalidBudget(
            f"{where}: risk is one of {', '.join(get_args(Risk))}, and goes with acts only"
        )
    return Budget(name, acts, cost, window, risk)


class Used:
    """What was used, by agent: append times of acts by risk, and what calls of models cost."""

    def __init__(self) -> None:
        self._acts: dict[tuple[str, Risk], list[int]] = defaultdict(list)
        self._costs: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def act(self, agent: str, risk: Risk, at: int) -> None:
        """Count an act."""
        times = self._acts[agent, risk]
        insort(times, at)
        _prune(times, times[-1] - WINDOW_S_MAX * SECOND_US)

    def undo(self, agent: str, risk: Risk, at: int) -> None:
        """Count an act no more: it was announced and did not run."""
        times = self._acts[agent, risk]
        number = bisect_right(times, at) - 1
        if number >= 0 and times[number] == at:
            del times[number]

    def cost(self, agent: str, at: int, cost_usd: float) -> None:
        """Count what a call of a model cost."""
        costs = self._costs[agent]
        insort(costs, (at, round(cost_usd * MILLIONTHS)))
        _prune(costs, (costs[-1][0] - WINDOW_S_MAX * SECOND_US, 0))

    def free_at(self, agent: str, budget: Budget, now: int, *, own: int | None = None) -> int:
        """Return from when on one more is within a budget: at most `now` where it is already.

        `own` is the time of the very act that is asked about, where it is counted already. What
        never is within it is free at a time that never comes, `NEVER`.
        """
        if budget.acts is not None:
            return self._acts_free_at(agent, budget, own)
        return self._money_free_at(agent, budget, now)

    def _acts_free_at(self, agent: str, budget: Budget, own: int | None) -> int:
        assert budget.acts is not None
        if budget.acts == 0:
            return NEVER
        risks = get_args(Risk) if budget.risk is None else (budget.risk,)
        newest = [at for risk in risks for at in self._acts[agent, risk][-budget.acts - 1 :]]
        newest.sort()
        if own is not None and own in newest:
            newest.remove(own)
        if len(newest) < budget.acts:
            return 0
        # The window is half open: an act leaves it just when it is window_s old.
        return newest[-budget.acts] + budget.window_s * SECOND_US

    def _money_free_at(self, agent: str, budget: Budget, now: int) -> int:
        assert budget.cost_usd is not None
        limit = round(budget.cost_usd * MILLIONTHS)
        if limit == 0:
            return NEVER
        costs = self._costs[agent]
        first = bisect_right(costs, (now - budget.window_s * SECOND_US, MILLIONTHS**3))
        left = sum(cost for _, cost in costs[first:])
        if left < limit:
            return 0
        for at, cost in costs[first:]:
            left -= cost
            if left < limit:
                return at + budget.window_s * SECOND_US
        return NEVER


# Beyond any time in µs that an event can carry.
NEVER = 1 << 63


def _prune(entries: list[Any], before: Any) -> None:
    # Seldom, because to drop the head of a list moves all the rest.
    if len(entries) % 4096 == 0:
        del entries[: bisect_right(entries, before)]
