"""Processes mined from the conversations that ended well, one for each agent, as events."""

import json
from collections.abc import Iterator, Sequence

from madlog.processors.lppm.mining import mine
from madlog.processors.lppm.process import Process
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.models import learned_from, model_event
from madlog.schemas import ModelPublished

__all__ = ("PROCESS", "conductible", "mined")

PROCESS = "process"


def mined(seen: Sequence[Conversation], code_version: str) -> list[ModelPublished]:
    """Return the process of each agent that runs actions; the same bytes for the same history."""
    found = []
    for agent, process in _mined(seen):
        text = json.dumps(
            process.to_document(), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        support = {"conversations": float(len(process.conversations))}
        found.append(
            model_event(
                PROCESS,
                process.version,
                text,
                code_version,
                mad=agent,
                parameters=text,
                metrics=support,
            )
        )
    return found


def _mined(seen: Sequence[Conversation]) -> Iterator[tuple[str, Process]]:
    cases = [conversation.case.mended for conversation in learned_from(seen)]
    agents = {act.actor for case in cases for act in case.acts if act.action and not act.human}
    for agent in sorted(agents):
        process = mine(
            [case for case in cases if any(act.actor == agent for act in case.acts)], agent
        )
        if process.steps:
            yield agent, process


def conductible(seen: Sequence[Conversation]) -> dict[str, Process]:
    """Return the processes that enough conversations show to conduct live turns by, by agent."""
    return {agent: process for agent, process in _mined(seen) if process.ready}
