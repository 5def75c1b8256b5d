"""Imperators without a language model: one that follows a script, one that repeats the record.

Both are deterministic, cost nothing and know no costs: what they answer has no tokens and no price
unless the script or the record says so.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from madlog.processors.imperator.errors import NoAnswer
from madlog.processors.imperator.ports import Answer, Asked
from madlog.processors.lppm.values import canonical
from madlog.processors.retrospect.conversation import Conversation, Done
from madlog.topics import LogEvent

__all__ = ("RecordedImperator", "ScriptedImperator")


class ScriptedImperator:
    """Answers by a script: a table from the turn's text to an answer, or a function."""

    def __init__(
        self,
        script: Mapping[str, Answer] | Callable[[Asked], Answer | None],
        otherwise: Answer | None = None,
    ) -> None:
        """`otherwise` is for turns that the script has nothing for."""
        self._script = script
        self._otherwise = otherwise

    async def decide(self, asked: Asked) -> Answer:
        """Return what the script says; raises NoAnswer."""
        if isinstance(self._script, Mapping):
            found = self._script.get(asked.text.strip())
        else:
            found = self._script(asked)
        answer = self._otherwise if found is None else found
        if answer is None:
            raise NoAnswer(f"the script has no answer to {asked.text.strip()[:80]!r}")
        return answer


class RecordedImperator:
    """Answers what the agent did next in the record, each turn found by its event_id.

    `calls` are the record's LlmCall events: what the answer cost then is what it costs now.
    """

    def __init__(
        self, conversations: Iterable[Conversation], calls: Iterable[LogEvent] = ()
    ) -> None:
        self._by_id = {one.conversation_id: one for one in conversations}
        self._calls: dict[str, Mapping[str, Any]] = {
            call.fields["answer_id"]: call.fields for call in calls if call.fields["answer_id"]
        }

    async def decide(self, asked: Asked) -> Answer:
        """Return what was done then; raises NoAnswer where nothing was."""
        done = self._done(asked)
        if done is None:
            raise NoAnswer(
                f"the record of {asked.conversation_id[:80]!r} has nothing that {asked.agent.name} "
                f"did after {asked.turn_id}"
            )
        known = self._known(done.act.event_id)
        if done.act.action is None:
            return Answer.says(done.act.said, **known)
        return Answer(done.act.what, canonical(dict(done.act.arguments or {})), **known)

    def _done(self, asked: Asked) -> Done | None:
        conversation = self._by_id.get(asked.conversation_id)
        if conversation is None:
            return None
        for number, event in enumerate(conversation.events):
            if event.event_id == asked.turn_id:
                return conversation.trigger(number, asked.agent.name).done
        return None

    def _known(self, answer_id: str) -> dict[str, Any]:
        call = self._calls.get(answer_id)
        if call is None:
            return {}
        names = ("provider", "model", "tokens_in", "tokens_out", "cost_usd", "latency_ms")
        return {name: call[name] for name in names}
