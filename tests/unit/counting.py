"""A processor that counts, and turns to count: what the tests of engines share."""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from madlog.processors import Agent, Engine, Options, Registry, Report, Router
from madlog.schemas import Event, Outcome, Sender, Turn, derived_event_id
from madlog.schemas.text import parse
from madlog.topics import EventLog, LogEvent
from madlog.topics.memory import MemoryLog

__all__ = (
    "CONVERSATIONS",
    "MARIA",
    "ORDERS",
    "Counter",
    "counted",
    "event_id",
    "opened",
    "read",
    "run",
    "turn",
    "turns",
)

MARIA = Sender(name="maria", kind="human")
ORDERS = Registry([Agent("orders", actions=frozenset({"get_order"}))])
CONVERSATIONS = "mad.conversations"


def event_id(number: int) -> str:
    return f"01890000-0000-7000-8000-{number:012x}"


def turn(number: int, conversation: str = "c", text: str = "hello", **fields: Any) -> Turn:
    return Turn(
        event_id=event_id(number),
        conversation_id=conversation,
        sender=MARIA,
        occurred_at=number,
        recipients=("orders",),
        parts=parse(text).parts,
        **fields,
    )


def turns(count: int, conversations: int = 8) -> list[Turn]:
    return [turn(number, f"c{number % conversations}") for number in range(1, count + 1)]


async def opened(log: MemoryLog | None = None) -> EventLog:
    return await EventLog.open(log or MemoryLog())


async def read(log: EventLog, topic: str) -> list[LogEvent]:
    return [event async for events in log.read_topics([topic]) for event in events]


async def run(log: EventLog, *processors: Any, **options: Any) -> Report:
    engine = Engine(log, processors or [Router(ORDERS)], options=Options(**options))
    return await engine.run(until_idle=True)


class Counter:
    """Gives each turn its number within its conversation; fails as it is told to."""

    name = "counter"
    inputs: tuple[str, ...] = (CONVERSATIONS,)
    shared: tuple[str, ...] = ()

    def __init__(self, fault: Callable[[str, int], None] | None = None, size: int = 0) -> None:
        self.fault = fault
        self.size = size
        self.steps: list[str] = []

    def share(self, shared: MutableMapping[str, Any], event: LogEvent) -> None:
        raise AssertionError("it shares nothing")

    def prelude(self, shared: MutableMapping[str, Any]) -> Sequence[Event]:
        return ()

    def step(self, state: MutableMapping[str, Any], event: LogEvent) -> Sequence[Event]:
        self.steps.append(event.event_id)
        conversation = event.fields["conversation_id"]
        count = state.get(conversation, 0) + 1
        state[conversation] = count
        if self.fault is not None:
            self.fault(event.event_id, self.steps.count(event.event_id))
        return [
            Outcome(
                event_id=derived_event_id(event.event_id, self.name, 0),
                conversation_id=conversation,
                sender=Sender(name="counter", kind="system"),
                occurred_at=event.fields["occurred_at"],
                mad="counter",
                result="success",
                judged_by="x" * self.size,
                about="conversation",
                about_id=f"{conversation} {count}",
            )
        ]


async def counted(log: EventLog) -> list[str]:
    return sorted(event.fields["about_id"] for event in await read(log, "mad.outcomes"))
