"""What it takes to make a log's topics as the catalogue has them: found first, then done.

A plan in which anything is refused is not applied at all, so that nothing is half done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from madlog.topics.catalog import Topic
from madlog.topics.log import Log

__all__ = ("Change", "Planned", "TopicPlan", "apply_plan", "plan_topics")

# make a topic; set a setting right; refuse what loses data or breaks an order; advise on what
# only a person can do.
Action = Literal["make", "set", "refuse", "advise"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs: `what` is the topic itself, its partitions, or one setting."""

    topic: str
    what: str
    now: str | None
    wanted: str
    action: Action
    note: str = ""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """All that differs, the topics to make, and what this cluster does not promise, in words."""

    changes: tuple[Change, ...]
    make: tuple[Topic, ...]
    not_promised: tuple[str, ...] = ()
    brokers: int | None = None

    @property
    def refused(self) -> list[Change]:
        """What must not be done."""
        return [change for change in self.changes if change.action == "refuse"]

    @property
    def drifted(self) -> list[Change]:
        """What differs of topics that are there."""
        return [change for change in self.changes if change.action != "make"]


@runtime_checkable
class Planned(Protocol):
    """Ability: topics have settings, which can be compared with the catalogue's and set right."""

    async def plan(self, topics: Sequence[Topic]) -> TopicPlan:
        """Return what it takes to make these topics as the catalogue has them; changes nothing."""

    async def apply(self, plan: TopicPlan) -> None:
        """Do what a plan says that refuses nothing; raises LogUnavailable, TopicMismatch."""


async def plan_topics(log: Log, topics: Sequence[Topic]) -> TopicPlan:
    """Return what it takes to make these topics on any log; changes nothing."""
    if isinstance(log, Planned):
        return await log.plan(topics)
    there = await log.topics()
    changes = []
    for topic in topics:
        count = there.get(topic.name)
        if count is None:
            wanted = f"{topic.partitions} partitions, kept {topic.keeps}"
            changes.append(Change(topic.name, "topic", None, wanted, "make"))
        elif count != topic.partitions:
            changes.append(
                Change(
                    topic.name,
                    "partitions",
                    str(count),
                    str(topic.partitions),
                    "refuse",
                    f"{topic.name} has {count} partitions, the catalogue says {topic.partitions}: "
                    "changing it would break the order of its keys, so it is left as it is; "
                    "export into a new log instead",
                )
            )
    make = tuple(topic for topic in topics if topic.name not in there)
    return TopicPlan(tuple(changes), make)


async def apply_plan(log: Log, plan: TopicPlan) -> bool:
    """Do what a plan says, unless anything in it is refused; tells whether it was done."""
    if plan.refused:
        return False
    if isinstance(log, Planned):
        await log.apply(plan)
    else:
        for topic in plan.make:
            await log.create_topic(topic)
    return True
