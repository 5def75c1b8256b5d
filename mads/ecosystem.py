"""The stable Python API: open a log, say, read, subscribe (docs/api.md shows it whole)."""

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType

from madlog.mads.conversation import Conversation, Conversations, Random
from madlog.schemas import Sender, SenderKind
from madlog.topics import CATALOG, EventLog, LogEvent, Vector, system_random

__all__ = ("Ecosystem",)

SUBSCRIBED = ("mad.conversations",)


class Ecosystem:
    """A log and the conversations in it; closes the log at the end of its `async with` block."""

    def __init__(self, event_log: EventLog, random: Random = system_random) -> None:
        self.event_log = event_log
        self._random = random
        self._conversations: Conversations | None = None

    async def __aenter__(self) -> "Ecosystem":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def conversations(self, sender: str, kind: SenderKind = "human") -> Conversations:
        """Return the log's conversations for a sender; all senders share one fold of the log."""
        who = Sender(name=sender, kind=kind)
        if self._conversations is None:
            self._conversations = Conversations(
                self.event_log, sender=who, clock=self.event_log.log.clock, random=self._random
            )
        return self._conversations.as_sender(who)

    async def conversation(
        self, conversation_id: str, *, sender: str, kind: SenderKind = "human"
    ) -> Conversation:
        """Return a conversation with `sender` in it, created and joined where that is needed."""
        conversations = self.conversations(sender, kind)
        if not await conversations.exists(conversation_id):
            return await conversations.create(conversation_id=conversation_id)
        conversation = await conversations.open(conversation_id)
        await conversation.join()
        return conversation

    async def read(
        self, start: Vector | None = None, end: Vector | None = None
    ) -> AsyncIterator[LogEvent]:
        """Yield every event of the catalogue's topics, from `start` up to `end` or the end."""
        async for events in self.event_log.read_topics(list(CATALOG), start=start, end=end):
            for event in events:
                yield event

    async def subscribe(self, start: Vector | datetime | None = None) -> AsyncIterator[LogEvent]:
        """Yield the events of all conversations from the first, a position or a time, then live.

        A vector chooses the partitions too; a time means appended at or after it.
        """
        if not isinstance(start, Vector):
            log = self.event_log.log
            await self.event_log.ensure_topics(SUBSCRIBED)
            if start is None:
                start = await log.start(SUBSCRIBED)
            else:
                start = await log.at_time(SUBSCRIBED, round(start.timestamp() * 1_000_000))
        async for events in self.event_log.subscribe(start):
            for event in events:
                yield event

    async def close(self) -> None:
        """Close the log."""
        await self.event_log.close()
