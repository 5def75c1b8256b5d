"""The second tier: a learned process takes what the decision tree leaves, or says why not."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from madlog.processors.conducting.instance import Conductor, Move, command_of, may_take
from madlog.processors.control import flag, stopped
from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR, PROCESS
from madlog.processors.escalations import STOPPED, SWITCHED_OFF
from madlog.processors.lppm._trace import trace
from madlog.processors.lppm.cases import Act
from madlog.processors.lppm.process import Process
from madlog.processors.lppm.values import canonical
from madlog.processors.past import past_of
from madlog.processors.ports import Agent
from madlog.processors.serving import controls_of
from madlog.processors.step import State
from madlog.processors.tiers import TierModels
from madlog.schemas import Candidate, Decision

__all__ = ("CONDUCTING", "conducted", "directed")

# The flag by which people switch conducting off, for one agent or for all.
CONDUCTING: Final = "conducting"
# Why the tree left a turn, where no process may take it all the same.
_FINAL = frozenset(("override",))


def conducted(
    state: State,
    proposed: Decision,
    agent: Agent,
    models: TierModels,
    conductor: Conductor | None,
) -> Decision:
    """Return the decision with the process tier asked; `conductor` moves the agent's instance.

    Without one nothing moves: what decides beside the served model only says what it would do.
    """
    process = models.processes.get(agent.name)
    if proposed.tier != "imperator" or proposed.escalation in _FINAL or agent.version == "V1":
        return proposed
    if models.steps is None or process is None or not process.ready:
        return proposed
    at, controls = proposed.occurred_at, controls_of(state)
    off = stopped(controls, agent.name, "lppm", at)
    if off is not None or flag(controls, CONDUCTING, agent.name, at) is False:
        return _left(proposed, off or f"the flag {CONDUCTING} is off", SWITCHED_OFF)
    if conductor is not None and conductor.waiting is not None:
        return _left(proposed, f"the process waits for {conductor.waiting['action']}", "waiting")
    if conductor is not None and conductor.paused:
        return _left(proposed, "a person holds the process", "paused")
    past = past_of(state, proposed.conversation_id)
    if not past:
        return proposed
    step = models.steps.predict(past, proposed.max_error)
    if step.action is None or step.arguments is None or step.confidence is None:
        if conductor is not None:
            conductor.unsure(step.reason, over=_over(process, agent.name, past))
        return _left(proposed, step.reason, "unsure")
    if step.action not in agent.actions:
        return _left(
            proposed, f"{step.action} is not a registered action of {agent.name}", "registry"
        )
    refused = may_take(process, agent.name, step.action, past)
    if refused is not None:
        if conductor is not None:
            conductor.unsure(refused, over=False)
        return _left(proposed, refused, "unsure")
    arguments = canonical(step.arguments)
    if conductor is not None:
        conductor.take(process, step.action, arguments, proposed.event_id, at)
    return _settled(proposed, step.action, arguments, step.confidence, step.reason)


def directed(
    state: State,
    proposed: Decision,
    turn: Mapping[str, Any],
    agent: Agent,
    models: TierModels,
    conductor: Conductor,
    move: Move,
) -> Decision:
    """Return the live decision: what a person tells the process, what it does next, or who else."""
    command = command_of(turn) if move == "next" else None
    # Where no process is under way the word means nothing.
    if command is not None and conductor.instance is not None:
        move = conductor.told(command)
        if move in ("none", "paused"):
            return _commanded(proposed, f"{turn['sender']['name']} told the process to {command}")
    if move in ("effect", "timeout"):
        decision = _up(proposed, conductor.moves[-1].reason or move, move)
    elif move == "undo":
        number, action, arguments = conductor.undo()
        conductor.take_back(action, arguments, proposed.event_id, number)
        decision = _settled(proposed, action, arguments, 1.0, f"{action} takes step {number} back")
    else:
        decision = conducted(state, proposed, agent, models, conductor)
    if decision.tier == "imperator":
        off = stopped(controls_of(state), agent.name, "imperator", decision.occurred_at)
        if off is not None:
            return _left(decision, off, STOPPED)
    return decision


def _commanded(proposed: Decision, reason: str) -> Decision:
    return proposed.model_copy(
        update={
            "tier": "dtr",
            "route": PROCESS,
            "candidates": (Candidate(route=PROCESS, score=1.0),),
            "confidence": 1.0,
            "reason": reason,
            "escalation": None,
        }
    )


def _up(proposed: Decision, reason: str, escalation: str) -> Decision:
    return proposed.model_copy(
        update={
            "tier": "imperator",
            "route": IMPERATOR,
            "reason": reason,
            "escalation": escalation,
            "propensity": 1.0,
            "audited": False,
        }
    )


def _settled(
    proposed: Decision, action: str, arguments: str, confidence: float, reason: str
) -> Decision:
    route = f"{ACTION_PREFIX}{action}"
    return proposed.model_copy(
        update={
            "tier": "lppm",
            "route": route,
            "arguments": arguments,
            "confidence": confidence,
            "candidates": (Candidate(route=route, score=confidence), *proposed.candidates),
            "reason": reason,
            "escalation": None,
        }
    )


def _left(proposed: Decision, reason: str, escalation: str) -> Decision:
    return proposed.model_copy(update={"reason": reason, "escalation": escalation})


def _over(process: Process, agent: str, past: Sequence[Act]) -> bool:
    """Tell whether conversations ended well where this one stands, or with words from here."""
    visits = trace(past)
    if not visits:
        return False
    last = next((act.action for act in reversed(past) if act.action and not act.human), "start")
    words = {f"{agent} {what} after {last}" for what in ("say", "ask")}
    return visits[-1].key in process.ends or bool(words & process.ends.keys())
