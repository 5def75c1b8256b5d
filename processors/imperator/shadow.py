"""Judges decisions in shadow by what was done: a candidate's choice against what really happened.

The live agent's next act after the turn is what was right. Where the decision that acted is an
acknowledgement, nothing need follow. A turn after which nothing was done yet is judged when it is.
"""

from collections.abc import Callable

from madlog.processors.imperator.comparing import Did
from madlog.processors.imperator.live import CONVERSATIONS_MAX, LiveConversations
from madlog.processors.retrospect.conversation import Done
from madlog.processors.retrospect.deciding import RECORD, judged
from madlog.schemas import Decision, Outcome
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.log import OnDamage, log_damage

__all__ = ("ShadowJudge",)

_OUTCOMES, _DECISIONS, _CONVERSATIONS = "mad.outcomes", "mad.decisions", "mad.conversations"
_BATCH_EVENTS_MAX = 500
_ACK = "ack"


class ShadowJudge:
    """Writes the record's Outcome of each decision in shadow, each time from where it has read to.

    Where the log has no such decision, nothing but decisions is read.
    """

    def __init__(
        self,
        log: EventLog,
        conversations_max: int = CONVERSATIONS_MAX,
        *,
        on_damage: OnDamage = log_damage,
    ) -> None:
        self._log = log
        self._on_damage = on_damage
        self._live = LiveConversations(conversations_max)
        self._read = Vector()
        self._open: dict[str, Decision] = {}
        # What acted where nothing need follow, by shadow decision.
        self._acks: dict[str, str] = {}
        self._judged: set[str] = set()
        self._acting: dict[tuple[str, str], str] = {}

    async def run(self, progress: Callable[[int], None] = lambda _: None) -> int:
        """Judge what can be judged by now; returns how many were."""
        there = await self._log.log.topics()
        # In this order: an outcome that is read has its decision in the same pass at the latest.
        ends = {
            topic: await self._log.log.end([topic])
            for topic in (_OUTCOMES, _DECISIONS, _CONVERSATIONS)
            if topic in there
        }
        await self._fold(_DECISIONS, ends)
        for decision in self._open.values():
            ack = self._acting.get((decision.turn_id, decision.recipient))
            if ack is not None:
                self._acks[decision.event_id] = ack
        self._acting.clear()
        if not self._open:
            return 0
        await self._fold(_OUTCOMES, ends)
        for decision_id in self._judged & self._open.keys():
            self._close(decision_id)
        self._judged.clear()
        await self._fold(_CONVERSATIONS, ends)
        return await self._append(self._verdicts(), progress)

    async def _append(self, outcomes: list[Outcome], progress: Callable[[int], None]) -> int:
        for at in range(0, len(outcomes), _BATCH_EVENTS_MAX):
            batch = outcomes[at : at + _BATCH_EVENTS_MAX]
            await self._log.append(batch)
            for outcome in batch:
                self._close(outcome.about_id)
            progress(at + len(batch))
        return len(outcomes)

    def _close(self, decision_id: str) -> None:
        del self._open[decision_id]
        self._acks.pop(decision_id, None)

    async def _fold(self, topic: str, ends: dict[str, Vector]) -> None:
        if topic not in ends:
            return
        batches = self._log.read_topics(
            [topic], start=self._read, end=ends[topic], on_damage=self._on_damage
        )
        async for events in batches:
            for event in events:
                self._take(event)
            self._live.trim(decision.conversation_id for decision in self._open.values())
        self._read = Vector({**self._read, **ends[topic]})

    def _take(self, event: LogEvent) -> None:
        fields = event.fields
        if event.kind == "Outcome":
            if fields["judged_by"] == RECORD:
                self._judged.add(fields["about_id"])
        elif event.kind != "Decision":
            self._live.fold(event)
        elif fields["mode"] == "live":
            if fields["route"] == _ACK:
                self._acting[fields["turn_id"], fields["recipient"]] = event.event_id
        elif fields["mode"] == "shadow" and fields["tier"] != "imperator":
            decision = event.event
            assert isinstance(decision, Decision)
            self._open[event.event_id] = decision

    def _verdicts(self) -> list[Outcome]:
        found = ((decision, self._done(decision)) for decision in self._open.values())
        return [judged(decision, done) for decision, done in found if done is not None]

    def _done(self, decision: Decision) -> Done | None:
        ack = self._acks.get(decision.event_id)
        if ack is not None:
            return Did(_ACK, None).done(decision.recipient, ack)
        place = self._live.place(decision.conversation_id, decision.turn_id, decision.recipient)
        return None if place is None else place.trigger.done
