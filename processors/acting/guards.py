"""The guards: pure functions over one proposed act and what the log says right before it.

They are asked in the order of GUARDS; the first that objects decides. `wait` keeps the act in the
queue, `refuse` ends it. Nothing that is learned reaches them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from madlog.processors.acting.budgets import NEVER, Budget
from madlog.processors.acting.facts import Facts
from madlog.processors.acting.proposal import Proposal
from madlog.processors.acting.readability import broken
from madlog.processors.acting.rules import Finding, Happened, OnceKey
from madlog.processors.control import flag, overridden, stopped
from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR
from madlog.processors.ports import Action, Agent, Registry

__all__ = (
    "ACTING_FLAG",
    "GUARDS",
    "RERUN_GUARDS",
    "STALE",
    "Situation",
    "Terms",
    "Verdict",
    "spending",
    "verdict",
)

# Off: acts wait. A flag `action:NAME` that is off refuses that action.
ACTING_FLAG = "acting"
# Refused because its time is over: nobody waits for an answer any more.
STALE = "stale"
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a proposed act, by which rule and why.

    `until` is when it is worth while to look again, where time alone can change it; `ask` says
    that nobody was asked for an approval yet, `expired` that nobody answered in time.
    """

    what: Literal["run", "wait", "refuse"]
    rule: str
    reason: str
    until: int | None = None
    ask: bool = False
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What people set for all agents, and the budgets of each, by agent and name."""

    approval_timeout_s: int = 3_600
    stale_after_s: int = 86_400
    budgets: Mapping[str, Mapping[str, Budget]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Situation:
    """One proposed act and all that guards may ask about it.

    `claimed` is its own announced call, which does not count against it; `coming` names the
    actions of earlier acts of its conversation that are still to end.
    """

    proposal: Proposal
    given: Mapping[str, Any] | None
    registry: Registry
    facts: Facts
    terms: Terms
    now: int
    claimed: str | None = None
    coming: frozenset[str] = frozenset()

    @property
    def agent(self) -> Agent:
        """The agent; the guard of the registry has seen that there is one."""
        return self.registry[self.proposal.agent]

    @property
    def contract(self) -> Action:
        """What is known of the action."""
        return self.agent.contract(self.proposal.action)


def verdict(now: Situation, guards: "tuple[Guard, ...] | None" = None) -> Verdict:
    """Return what becomes of an act."""
    for guard in GUARDS if guards is None else guards:
        if (found := guard(now)) is not None:
            return found
    return Verdict("run", "none", "no guard objects")


def _settled(now: Situation) -> Verdict | None:
    how = now.facts.settled.get(now.proposal.act_id)
    if how == "refused":
        return Verdict("refuse", "settled", "it was refused before")
    if how == "ran":
        return Verdict("wait", "settled", "it ran before: its result is on the log")
    claim = now.facts.claim(now.proposal.act_id)
    if claim is not None and claim.call_id != now.claimed:
        return Verdict("wait", "under-way", "it is under way", now.facts.time_up(claim))
    return None


def _registered(now: Situation) -> Verdict | None:
    name, action = now.proposal.agent, now.proposal.action
    if name not in now.registry:
        return Verdict("refuse", "registry", f"{name} is not a registered agent")
    if action not in now.agent.actions:
        return Verdict("refuse", "registry", f"{action} is not a registered action of {name}")
    return None


def _constitution(now: Situation) -> Verdict | None:
    if now.given is None:
        return Verdict(
            "refuse", "arguments", "its turn cannot be read, or its arguments are no JSON object"
        )
    if (found := broken(now.proposal.text, now.given)) is not None:
        return Verdict("refuse", *found)
    return None


def _stopped(now: Situation) -> Verdict | None:
    proposal, controls = now.proposal, now.facts.orders.controls
    reason = stopped(controls, proposal.agent, proposal.tier, now.now)
    if reason is None:
        return None
    # What a cheap tier decided goes up; above the language model there is nothing to go to.
    return Verdict("wait" if proposal.tier == IMPERATOR else "refuse", "stopped", reason)


def _overridden(now: Situation) -> Verdict | None:
    proposal = now.proposal
    route = overridden(now.facts.orders.controls, proposal.agent, now.now)
    own = IMPERATOR if proposal.tier == IMPERATOR else f"{ACTION_PREFIX}{proposal.action}"
    if route is None or route in (own, f"{ACTION_PREFIX}{proposal.action}"):
        return None
    return Verdict("refuse", "override", f"all that goes to {proposal.agent} is to take {route}")


def _flagged(now: Situation) -> Verdict | None:
    agent, action, controls = now.proposal.agent, now.proposal.action, now.facts.orders.controls
    if flag(controls, f"{ACTION_PREFIX}{action}", agent, now.now) is False:
        return Verdict("refuse", "flag", f"the flag {ACTION_PREFIX}{action} is off for {agent}")
    if flag(controls, ACTING_FLAG, agent, now.now) is False:
        return Verdict("wait", "flag", f"the flag {ACTING_FLAG} is off for {agent}")
    return None


def _stale(now: Situation) -> Verdict | None:
    limit = now.proposal.occurred_at + now.terms.stale_after_s * _SECOND_US
    if now.now < limit:
        return None
    return Verdict(
        "refuse", STALE, f"it was decided more than {now.terms.stale_after_s} s ago and not run"
    )


def _in_order(now: Situation) -> Verdict | None:
    other = now.facts.running_in(now.proposal.conversation_id, now.claimed)
    if other is None:
        return None
    return Verdict("wait", "order", f"{other.action} is under way in this conversation")


class _Past:
    """The past as the rules of one act may ask about it."""

    def __init__(self, now: Situation) -> None:
        self._now = now

    def succeeded(self, action: str) -> bool:
        return self._now.facts.succeeded(self._now.proposal.conversation_id, action)

    def coming(self, action: str) -> bool:
        return action in self._now.coming

    def happened(self, key: OnceKey) -> Happened:
        return self._now.facts.happened(key, self._now.now, self._now.claimed)


def _preconditions(now: Situation) -> Verdict | None:
    action, given, past = now.proposal.action, now.given or {}, _Past(now)
    later: Verdict | None = None
    for rule in now.facts.rules[now.proposal.agent, action]:
        found: Finding | None = rule.check(action, given, past)
        if found is not None and not found.later:
            return Verdict("refuse", rule.text, found.reason)
        if found is not None and later is None:
            later = Verdict("wait", rule.text, found.reason)
    return later


def _approved(now: Situation) -> Verdict | None:
    if now.contract.risk != "high":
        return None
    proposal = now.proposal
    ask = now.facts.orders.asks.get(proposal.act_id)
    if ask is None:
        expires_at = proposal.occurred_at + now.terms.approval_timeout_s * _SECOND_US
        if now.now >= expires_at:
            return Verdict("refuse", "approval", "its time was up before anybody could be asked")
        return Verdict("wait", "approval", "it waits for an approval", expires_at, ask=True)
    if (ask.proposal.agent, ask.proposal.action, ask.proposal.arguments) != (
        proposal.agent,
        proposal.action,
        proposal.arguments,
    ):
        return Verdict("refuse", "approval", "what people were asked about is another act")
    if ask.answered is not None and ask.answered.how == "approve":
        return None
    if ask.answered is not None and ask.answered.how == "refuse":
        why = f": {ask.answered.reason}" if ask.answered.reason else ""
        return Verdict("refuse", "approval", f"{ask.answered.by} refused it{why}")
    if ask.answered is not None or now.now >= ask.expires_at:
        return Verdict(
            "refuse", "approval", "nobody approved it in time", expired=ask.answered is None
        )
    return Verdict("wait", "approval", "it waits for an approval", ask.expires_at)


def _budgeted(now: Situation) -> Verdict | None:
    agent, facts, risk = now.proposal.agent, now.facts, now.contract.risk
    own = facts.calls[now.claimed].appended_at if now.claimed in facts.calls else None
    budgets = facts.orders.budgets(agent, now.terms.budgets.get(agent, {}), now.now)
    return _over(agent, [one for one in budgets if one.risk in (None, risk)], facts, now.now, own)


def _over(
    agent: str, budgets: Sequence[Budget], facts: Facts, now: int, own: int | None = None
) -> Verdict | None:
    """Return the verdict of the budget that makes an agent wait the longest, None of none."""
    if not budgets:
        return None
    times = [facts.used.free_at(agent, budget, now, own=own) for budget in budgets]
    free_at, budget = max(zip(times, budgets, strict=True), key=lambda pair: pair[0])
    if free_at <= now:
        return None
    until = None if free_at >= NEVER else free_at
    return Verdict("wait", "budget", f"{budget.name} allows {budget}", until)


def spending(agent: str, facts: Facts, terms: Terms, now: int) -> Verdict:
    """Say whether an agent may call its language model now: by kill switch, flag and money."""
    controls = facts.orders.controls
    if (reason := stopped(controls, agent, IMPERATOR, now)) is not None:
        return Verdict("wait", "stopped", reason)
    budgets = facts.orders.budgets(agent, terms.budgets.get(agent, {}), now)
    over = _over(agent, [one for one in budgets if one.cost_usd is not None], facts, now)
    return over or Verdict("run", "none", "no guard objects")


Guard = Callable[[Situation], Verdict | None]
# The order is part of what a guard may take for granted; approvals come late, so that nobody is
# asked about what would be refused, and budgets last, so that only what would run is counted.
GUARDS: tuple[Guard, ...] = (
    _settled,
    _registered,
    _constitution,
    _stopped,
    _overridden,
    _flagged,
    _stale,
    _in_order,
    _preconditions,
    _approved,
    _budgeted,
)
# What still counts when an act that had begun is run again after a crash.
RERUN_GUARDS: tuple[Guard, ...] = (_registered, _constitution, _stopped, _overridden, _flagged)
