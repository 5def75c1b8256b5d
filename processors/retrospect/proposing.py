"""What the decision tree proposes for each place of a past conversation where an agent decided."""

from collections.abc import Iterator, Mapping
from typing import Any

from madlog.processors.retrospect.conversation import Conversation, Trigger
from madlog.processors.router import Router
from madlog.schemas import Decision

__all__ = ("proposals",)


def proposals(
    conversation: Conversation, router: Router, shared: Mapping[str, Any]
) -> Iterator[tuple[Decision, Trigger]]:
    """Go through what the tree proposes, with what it is about and what was done then."""
    state: dict[str, Any] = dict(shared)
    for number, event in enumerate(conversation.events):
        for output in router.step(state, event):
            if isinstance(output, Decision):
                yield output, conversation.trigger(number, output.recipient)
        if event.kind != "ToolResult":
            continue
        caller = conversation.caller(event)
        if caller is None:
            continue
        trigger = conversation.trigger(number, caller)
        # An answer that the agent did not act on asked nothing of it.
        decision = None if trigger.done is None else router.answer(state, event, caller)
        if decision is not None:
            yield decision, trigger
