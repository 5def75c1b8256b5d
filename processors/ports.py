"""What processors are given from outside: who the live agents are and what they may do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ("Agent", "AgentVersion", "Registry")

# V1: language model only, V2: with learned processes, V3 and above: with a decision tree. An agent
# without any engine that decides (V0) is never asked, so it has no row.
AgentVersion = Literal["V1", "V2", "V3", "V4", "V5"]


@dataclass(frozen=True, slots=True)
class Agent:
    """One live agent: `actions` is the closed set of commands that it may run."""

    name: str
    kind: Literal["mad", "emad"] = "mad"
    version: AgentVersion = "V3"
    actions: frozenset[str] = frozenset()


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
