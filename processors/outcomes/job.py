"""Judges what is new on a log: reads, folds, concludes, appends the outcomes.

The ids and keys of outcomes come from what they say. After a crash the same are appended again and
dropped.
"""

from collections.abc import Callable, Sequence

from madlog.processors.outcomes.judge import Judge
from madlog.schemas import Outcome
from madlog.topics import EventLog, Vector
from madlog.topics.log import OnDamage, log_damage

__all__ = ("BATCH_EVENTS_MAX", "TOPICS", "judge_log")

TOPICS = ("mad.conversations", "mad.decisions", "mad.outcomes")
BATCH_EVENTS_MAX = 500


def _ignore(_: Sequence[Outcome]) -> None:
    """Tell nobody."""


async def judge_log(
    log: EventLog,
    judge: Judge,
    since: Vector | None = None,
    *,
    on_damage: OnDamage = log_damage,
    appended: Callable[[Sequence[Outcome]], None] = _ignore,
) -> Vector:
    """Fold what is new since `since`, append the outcomes, return how far it was read.

    The outcomes that it appends are read the next time; `appended` is told of each batch.
    Raises what EventLog.append raises.
    """
    there = await log.log.topics()
    end = await log.log.end([name for name in TOPICS if name in there])
    async for events in log.read_topics(TOPICS, start=since, end=end, on_damage=on_damage):
        for event in events:
            judge.fold(event)
    outcomes = judge.conclude()
    for at in range(0, len(outcomes), BATCH_EVENTS_MAX):
        batch = outcomes[at : at + BATCH_EVENTS_MAX]
        await log.append(batch)
        appended(batch)
    return end
