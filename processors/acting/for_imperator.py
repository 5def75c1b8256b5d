"""Lets the acts of language models through the same guards as all others."""

from collections.abc import Sequence
from typing import ClassVar

from madlog.processors.acting.job import Actor
from madlog.processors.acting.proposal import Proposal
from madlog.processors.errors import ProcessorError
from madlog.processors.imperator.ports import Asked
from madlog.schemas import Event, ToolCall

__all__ = ("ActWaits", "GuardedActs")


class ActWaits(ProcessorError):
    """The act cannot run now: propose it again later."""

    retriable: ClassVar[bool] = True


class GuardedActs:
    """What runs the actions that a language model decided on (`Acts` of the Imperator's job)."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    async def __call__(self, asked: Asked, call: ToolCall, along_with: Sequence[Event]) -> None:
        """Run the act, or append what refuses it or asks people about it; raises ActWaits.

        When this returns, `along_with` is on the log: with the call, the question or the refusal.
        """
        acted = await self._actor.act(
            Proposal(
                decision_id=asked.decision_id,
                conversation_id=asked.conversation_id,
                agent=asked.agent.name,
                action=call.action,
                arguments=call.arguments,
                tier="imperator",
                occurred_at=call.occurred_at,
                correlation_id=call.correlation_id,
                turn_id=asked.turn_id,
                text=asked.text,
                subject=call.subject,
                call_id=call.event_id,
                cause_id=call.causation_id,
                asker=asked.asker,
            ),
            along_with,
        )
        said = acted.verdict
        if said.what == "wait" and not acted.written:
            raise ActWaits(f"{call.action} of {asked.agent.name} waits: {said.rule}: {said.reason}")
