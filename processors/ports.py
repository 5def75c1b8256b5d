"""What processors are given from outside: who the live agents are and what they may do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ("Action", "Agent", "AgentVersion", "Registry", "Risk")

# V1: language model only, V2: with learned processes, V3 and above: with a decision tree. An agent
# without any engine that decides (V0) is never asked, so it has no row.
AgentVersion = Literal["V1", "V2", "V3", "V4", "V5"]


# low: runs. medium: runs if its preconditions hold. high: waits for an approval as well.
Risk = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Action:
    """What is known of an action beside its name, from people and not from learning.

    `preconditions` name rules that are checked right before it runs; `compensation` is the action
    that undoes it; done twice it does no more than once where it is `idempotent`.
    """

    name: str
    risk: Risk = "low"
    preconditions: tuple[str, ...] = ()
    compensation: str | None = None
    timeout_s: float | None = None
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """One live agent: `actions` is the closed set of commands that it may run.

    `contracts` holds what is known of some of them.
    """

    name: str
    kind: Literal["mad", "emad"] = "mad"
    version: AgentVersion = "V3"
    actions: frozenset[str] = frozenset()
    contracts: Mapping[str, Action] = field(default_factory=dict, compare=False, hash=False)

    def contract(self, action: str) -> Action:
        """Return what is known of an action; where nothing is, that it is of low risk."""
        return self.contracts.get(action, Action(action))


class Registry(Mapping[str, Agent]):
    """The live agents by name."""

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents = {agent.name: agent for agent in agents}

    def __getitem__(self, name: str) -> Agent:
        return self._agents[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)
