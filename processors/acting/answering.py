"""What people need to give orders: what holds now, and whether a question can be answered."""

from madlog.processors.acting.errors import CannotAnswer
from madlog.processors.acting.orders import TOPIC, Ask, Orders
from madlog.topics import EventLog

__all__ = ("answerable", "standing")


async def standing(log: EventLog) -> Orders:
    """Return the fold of all Control events up to the log's end."""
    orders = Orders()
    async for events in log.read_topics([TOPIC]):
        for event in events:
            orders.fold(event)
    return orders


async def answerable(log: EventLog, orders: Orders, act_id: str, now: int) -> Ask:
    """Return the question about an act where it can be answered now; raises CannotAnswer."""
    ask = orders.asks.get(act_id)
    if ask is None:
        if not await _is_decision(log, act_id):
            raise CannotAnswer(
                f"the log holds no decision {act_id[:60]!r}: `madlog control list` shows what waits"
            )
        raise CannotAnswer(
            f"decision {act_id} waits for no approval: `madlog control list` shows what does"
        )
    if ask.answered is not None:
        said = {"approve": "was approved", "refuse": "was refused", "expire": "expired"}
        raise CannotAnswer(
            f"decision {act_id} {said[ask.answered.how]} already, by {ask.answered.by}"
        )
    if now >= ask.expires_at:
        raise CannotAnswer(f"decision {act_id} can be answered no more: its time is up")
    return ask


async def _is_decision(log: EventLog, decision_id: str) -> bool:
    async for events in log.read_topics(["mad.decisions"]):
        if any(event.event_id == decision_id for event in events):
            return True
    return False
