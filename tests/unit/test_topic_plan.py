"""What a plan of topics sets right, what it refuses, and what it leaves to a person."""

from pathlib import Path
from typing import Any

import pytest

from madlog.topics import CATALOG
from madlog.topics._kafka_plan import Standing, differences, not_promised
from madlog.topics._kafka_topics import topic_settings
from madlog.topics.catalog import Topic, inbox, state
from madlog.topics.embedded import EmbeddedLog
from madlog.topics.memory import MemoryLog
from madlog.topics.plan import Change, apply_plan, plan_topics

RECORD_BYTES = 1 << 20
CONVERSATIONS = CATALOG["mad.conversations"]
WEEK_MS, DAY_MS = str(7 * 86_400_000), str(86_400_000)


def found(
    topic: Topic,
    *,
    partitions: int = 4,
    replicas: int = 3,
    brokers: int = 3,
    empty: bool = False,
    **settings: object,
) -> list[Change]:
    now = topic_settings(topic, replicas, RECORD_BYTES)
    now |= {name.replace("_", "."): str(value) for name, value in settings.items()}
    there = Standing(partitions, replicas, now, not empty)
    return differences(topic, "p-" + topic.name, there, brokers, RECORD_BYTES)


def test_a_topic_as_it_is_to_be_differs_in_nothing() -> None:
    for topic in (*CATALOG.values(), inbox("shop"), state("router")):
        assert found(topic, partitions=topic.partitions) == []


def test_what_keeps_more_is_set_right() -> None:
    for change in (
        *found(CONVERSATIONS, retention_ms=WEEK_MS),
        *found(CONVERSATIONS, retention_bytes="1000"),
        *found(CONVERSATIONS, cleanup_policy="compact"),
        *found(CONVERSATIONS, message_timestamp_type="CreateTime"),
        *found(CONVERSATIONS, max_message_bytes="1000"),
        *found(inbox("shop"), retention_ms=DAY_MS),
        *found(state("router"), cleanup_policy="compact,delete"),
    ):
        assert change.action == "set", change


@pytest.mark.parametrize(
    ("topic", "settings", "wanted"),
    [
        (inbox("shop"), {"retention_ms": "-1"}, WEEK_MS),
        (inbox("shop"), {"retention_ms": str(10**12)}, WEEK_MS),
        (inbox("shop"), {"cleanup_policy": "compact"}, "delete"),
        (state("router"), {"cleanup_policy": "delete"}, "compact"),
    ],
)
def test_what_drops_records_is_refused_unless_there_are_none(
    topic: Topic, settings: dict[str, Any], wanted: str
) -> None:
    (change,) = found(topic, **settings)
    (now,) = settings.values()
    assert change.action == "refuse"
    assert all(word in change.note for word in (topic.name, change.what, now, wanted))
    assert [one.action for one in found(topic, empty=True, **settings)] == ["set"]


def test_another_number_of_partitions_is_refused_even_where_nothing_is_held() -> None:
    (change,) = found(CONVERSATIONS, partitions=6)
    assert (change.action, change.now, change.wanted) == ("refuse", "6", "4")
    assert "order of its keys" in change.note
    (empty,) = found(CONVERSATIONS, partitions=1, empty=True)
    assert empty.action == "refuse"
    assert "p-mad.conversations" in empty.note


def test_fewer_replicas_than_brokers_allow_is_advice_and_leaves_appends_possible() -> None:
    (change,) = found(CONVERSATIONS, replicas=1)
    assert (change.action, change.what, change.wanted) == ("advise", "replication", "3")
    assert "kafka-reassign-partitions" in change.note
    # Two acknowledgements where there is one replica would take no append at all.
    (unwritable,) = found(CONVERSATIONS, replicas=1, brokers=1, min_insync_replicas="2")
    assert (unwritable.action, unwritable.wanted) == ("set", "1")


def test_what_is_safer_than_wanted_is_left_alone() -> None:
    assert found(CONVERSATIONS, max_message_bytes=str(8 << 20)) == []
    assert found(CONVERSATIONS, min_insync_replicas="3") == []
    # A broker that is away must not lower what is promised.
    assert found(CONVERSATIONS, brokers=2) == []
    assert found(CONVERSATIONS, brokers=5, replicas=5) == []


def test_fewer_brokers_promise_less() -> None:
    assert [len(not_promised(brokers)) for brokers in (1, 2, 3, 5)] == [2, 2, 1, 1]
    assert "one machine only" in not_promised(1)[0]


async def test_a_log_without_settings_gets_its_topics_and_a_refusal_changes_nothing(
    tmp_path: Path,
) -> None:
    wanted = [CONVERSATIONS, state("router")]
    for log in (MemoryLog(), await EmbeddedLog.open(tmp_path / "log")):
        plan = await plan_topics(log, wanted)
        assert [change.action for change in plan.changes] == ["make", "make"]
        assert await log.topics() == {}
        assert await apply_plan(log, plan)
        assert (await plan_topics(log, wanted)).changes == ()
        other = [state("counter"), Topic("mad.conversations", "k", (), partitions=8)]
        plan = await plan_topics(log, other)
        assert [change.action for change in plan.changes] == ["make", "refuse"]
        assert not await apply_plan(log, plan)
        assert sorted(await log.topics()) == ["mad.conversations", "mad.state.router"]
        await log.close()
