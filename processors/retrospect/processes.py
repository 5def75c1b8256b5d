"""Processes mined from the conversations that ended well, one for each agent, as events."""

import hashlib
import json
from collections.abc import Sequence

from madlog.processors.lppm.mining import mine
from madlog.processors.retrospect.conversation import Conversation
from madlog.processors.retrospect.models import SENDER, learned_from
from madlog.schemas import ModelPublished, content_id_and_time

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
        event_id, occurred_at = content_id_and_time("ModelPublished", PROCESS, agent, text)
        found.append(
            ModelPublished(
                event_id=event_id,
                conversation_id="mad.models",
                sender=SENDER,
                occurred_at=occurred_at,
                time_source="synthetic",
                idempotency_key=f"{PROCESS}/{agent}/{process.version}",
                component=PROCESS,
                mad=agent,
                version=process.version,
                parameters_sha256=hashlib.sha256(text.encode()).hexdigest(),
                parameters=text,
                metrics={"conversations": float(len(process.conversations))},
                code_version=code_version,
            )
        )
    return found
