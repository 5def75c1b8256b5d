"""Says when the time of a process's step is up, as an event in its conversation.

A step's answer and its time may come together; the router folds whichever stands first in the
conversation, so both are never taken. Ids come from the step, so a second one at work, or the same
after a crash, adds nothing twice.
"""

from dataclasses import dataclass

from madlog.schemas import Sender, TimerFired, derived_event_id
from madlog.topics import EventLog, Vector
from madlog.topics.log import log_damage

__all__ = ("Timers",)

_PROCESSES = "mad.processes"
_SENDER = Sender(name="timers", kind="system")


@dataclass(frozen=True, slots=True)
class _Waiting:
    step_id: str
    conversation_id: str
    correlation_id: str | None
    deadline: int


class Timers:
    """Watches the steps that wait until a time."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._read = Vector()
        # The step that each instance waits for: it has one at a time.
        self._waiting: dict[str, _Waiting] = {}

    async def run(self) -> int:
        """Append what is due by now; returns how many."""
        if _PROCESSES not in await self._log.log.topics():
            return 0
        end = await self._log.log.end([_PROCESSES])
        async for events in self._log.read(self._read, end, on_damage=log_damage):
            for event in events:
                fields = event.fields
                if fields["state"] == "step" and fields["deadline"] is not None:
                    self._waiting[fields["instance_id"]] = _Waiting(
                        event.event_id,
                        fields["conversation_id"],
                        fields["correlation_id"],
                        fields["deadline"],
                    )
                # What is blocked still waits: whoever was asked may never answer.
                elif fields["state"] not in ("blocked", "paused", "resumed"):
                    self._waiting.pop(fields["instance_id"], None)
        self._read = end
        now_us = self._log.log.clock.now_us()
        due = [one for one in self._waiting.items() if one[1].deadline <= now_us]
        if due:
            await self._log.append([_fired(waiting) for _, waiting in due])
            for instance_id, _ in due:
                del self._waiting[instance_id]
        return len(due)


def _fired(waiting: _Waiting) -> TimerFired:
    event_id = derived_event_id(waiting.step_id, _SENDER.name, 0)
    return TimerFired(
        event_id=event_id,
        conversation_id=waiting.conversation_id,
        correlation_id=waiting.correlation_id,
        causation_id=waiting.step_id,
        sender=_SENDER,
        occurred_at=waiting.deadline,
        idempotency_key=event_id,
        about_id=waiting.step_id,
        deadline=waiting.deadline,
    )
