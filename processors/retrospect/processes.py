"""Processes mined from the conversations that ended well, one for each agent, as events."""

import json
from collections.abc import Sequence

from madlog.processors.lppm.mining import mine
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.models import learned_from, model_event
from madlog.schemas import ModelPublished

__all__ = ("PROCESS", "mined")

PROCESS = "process"


def mined(seen: Sequence[Conversation], code_version: str) -> list[ModelPublished]:
    """Return the process of each agent that runs actions; the same bytes for the same history."""
    cases = [conversation.case for conversation in learned_from(seen)]
    agents = {act.actor for case in cases for act in case.acts if act.action and not act.human}
    found = []
    for agent in sorted(agents):
        mine_of = [case for case in cases if any(act.actor == agent for act in case.acts)]
        process = mine(mine_of, agent)
        if not process.steps:
            continue
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
