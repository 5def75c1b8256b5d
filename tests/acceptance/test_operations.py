"""The commands of who runs a log: topics and consumer groups, on Kafka and embedded."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.acceptance.cli import Ran
from tests.acceptance.inside import inside as madlog

from madlog.wiring import opened

CONVERSATIONS = "mad.conversations"


class Admin:
    """Looks into the cluster past the log, and makes topics as another program would."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix

    def make(self, name: str, partitions: int, **settings: str) -> None:
        configs = {key.replace("_", "."): value for key, value in settings.items()}
        new = NewTopic(self.prefix + name, partitions, 1, topic_configs=configs)
        asyncio.run(self._ask(lambda admin: admin.create_topics([new])))

    def settings(self, name: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResourceType.TOPIC, self.prefix + name)
        (found,) = asyncio.run(self._ask(lambda admin: admin.describe_configs([resource])))
        return {entry[0]: entry[1] for entry in found.resources[0][4]}

    def topics(self) -> set[str]:
        names = asyncio.run(self._ask(lambda admin: admin.list_topics()))
        return {name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)}

    async def _ask(self, call: Any) -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return await call(admin)
        finally:
            await admin.close()


@pytest.fixture
def admin(kafka_bootstrap: str, kafka_prefix: str) -> Admin:
    return Admin(kafka_bootstrap, kafka_prefix + "-")


@pytest.fixture(params=["kafka", "embedded"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address where there is no log yet, of each kind."""
    if request.param == "embedded":
        return str(tmp_path / "log")
    return on_kafka(request.getfixturevalue("admin"))


def on_kafka(admin: Admin) -> str:
    return f"kafka://{admin.bootstrap}?prefix={admin.prefix}"


def done(cwd: Path, url: str, *arguments: str) -> Ran:
    ran = madlog(*arguments, "--json", "--log", url, cwd=cwd)
    assert ran.code == 0, ran.err
    return ran


def append(cwd: Path, url: str, count: int, conversations: int = 8) -> None:
    lines = "\n".join(
        json.dumps(
            {
                "conversation_id": f"c{number % conversations}",
                "sender": "ada",
                "text": f"say {number}",
                "recipients": ["shop"],
            }
        )
        for number in range(count)
    )
    ran = madlog("append", "-", "--log", url, cwd=cwd, stdin=lines.encode())
    assert ran.code == 0, ran.err


def test_apply_makes_the_topics_once_and_a_dry_run_makes_none(url: str, tmp_path: Path) -> None:
    dry = done(tmp_path, url, "topics", "apply", "--dry-run").json
    assert {change["action"] for change in dry["changes"]} == {"make"}
    names = [change["topic"] for change in dry["changes"]]
    assert {CONVERSATIONS, "mad.schemas", "mad.state.router"} <= set(names)
    assert not (tmp_path / "log").exists()
    assert done(tmp_path, url, "topics", "apply", "--dry-run").json["changes"] == dry["changes"]
    made = done(tmp_path, url, "topics", "apply").json
    assert (made["applied"], made["changes"]) == (True, dry["changes"])
    assert done(tmp_path, url, "topics", "apply").json["changes"] == []
    rows = done(tmp_path, url, "topics", "list").rows
    assert sorted(names) == [row["topic"] for row in rows if row["in_log"]]


def test_apply_says_what_one_broker_does_not_promise(admin: Admin, tmp_path: Path) -> None:
    ran = madlog("topics", "apply", "--dry-run", "--log", on_kafka(admin), cwd=tmp_path)
    assert ran.code == 0
    assert "one machine only" in ran.err
    assert admin.topics() == set()


def test_apply_sets_right_what_drifted_and_leaves_what_others_set(
    admin: Admin, tmp_path: Path
) -> None:
    admin.make(CONVERSATIONS, 4, retention_ms="1000000", segment_ms="123456")
    url = on_kafka(admin)
    dry = done(tmp_path, url, "topics", "apply", "--dry-run").json["changes"]
    drifted = {change["what"]: change for change in dry if change["topic"] == CONVERSATIONS}
    now, wanted = drifted["retention.ms"]["now"], drifted["retention.ms"]["wanted"]
    assert (now, wanted) == ("1000000", "-1")
    assert admin.settings(CONVERSATIONS)["retention.ms"] == "1000000"
    done(tmp_path, url, "topics", "apply")
    after = admin.settings(CONVERSATIONS)
    assert (after["retention.ms"], after["segment.ms"]) == ("-1", "123456")
    assert after["message.timestamp.type"] == "LogAppendTime"
    assert done(tmp_path, url, "topics", "apply").json["changes"] == []


def test_apply_refuses_what_loses_records_or_breaks_an_order_and_changes_nothing(
    admin: Admin, tmp_path: Path
) -> None:
    url = on_kafka(admin)
    append(tmp_path, url, 1)
    admin.make("mad.inbox.shop", 4, retention_ms="-1")
    admin.make("mad.outcomes", 6)
    asyncio.run(delivered(url))
    before = admin.topics()
    ran = madlog("topics", "apply", "--json", "--log", url, cwd=tmp_path)
    assert ran.code == 1
    answer = ran.json
    assert not answer["applied"]
    refused = {one["topic"]: one for one in answer["changes"] if one["action"] == "refuse"}
    assert refused.keys() == {"mad.inbox.shop", "mad.outcomes"}
    assert refused["mad.inbox.shop"]["what"] == "retention.ms"
    assert refused["mad.outcomes"]["what"] == "partitions"
    assert "retention.ms=-1" in ran.err
    assert {"make", "set"} <= {one["action"] for one in answer["changes"]}
    assert admin.topics() == before
    assert admin.settings("mad.inbox.shop")["retention.ms"] == "-1"
    table = madlog("topics", "apply", "--log", url, cwd=tmp_path)
    assert "nothing was changed" in table.refused(1)


async def delivered(url: str) -> None:
    """Put a record into an inbox."""
    from madlog.topics import NewRecord
    from madlog.topics.kafka import KafkaLog

    log = await KafkaLog.open(url)
    try:
        await log.append([NewRecord("mad.inbox.shop", b"c", b"a delivery")])
    finally:
        await log.close()


def test_a_topic_is_shown_with_its_records_sizes_and_times(url: str, tmp_path: Path) -> None:
    append(tmp_path, url, 30)
    shown = done(tmp_path, url, "topics", "show", CONVERSATIONS).json
    # The turns, and what began their conversations: marks of transactions are no records.
    assert shown["records"] == len(done(tmp_path, url, "tail", CONVERSATIONS).rows) >= 30
    assert shown["bytes"] > 0
    assert shown["disk_bytes"] > 0
    assert shown["oldest"] <= shown["newest"]
    assert (shown["growth"], shown["damaged"], shown["drifted"]) == (None, 0, [])
    table = madlog("topics", "show", CONVERSATIONS, "--log", url, cwd=tmp_path)
    assert "not enough history" in table.out
    assert "size" in madlog("topics", "--help", cwd=tmp_path).out


def test_what_drifted_is_shown_with_the_topic(admin: Admin, tmp_path: Path) -> None:
    admin.make(CONVERSATIONS, 4, retention_ms="86400000")
    shown = done(tmp_path, on_kafka(admin), "topics", "show", CONVERSATIONS).json
    drifted = {change["what"]: change["now"] for change in shown["drifted"]}
    assert drifted["retention.ms"] == "86400000"
    assert (shown["records"], shown["retention_s"]) == (0, 86_400)
    table = madlog("topics", "show", CONVERSATIONS, "--log", on_kafka(admin), cwd=tmp_path)
    assert "86400000, to be -1" in table.out


def worked(cwd: Path, url: str) -> tuple[int, int]:
    """Run the worker to the end of its work; returns events processed and outputs made."""
    report = done(cwd, url, "worker", "--until-idle").json
    return report["events"], report["outputs"]


def lag_of(cwd: Path, url: str) -> int:
    rows = done(cwd, url, "groups").rows
    assert {(row["group"], row["exact"]) for row in rows} == {("router", True)}
    return sum(row["lag"] for row in rows)


def test_a_group_that_has_read_all_has_no_lag_and_each_turn_more_is_one(
    url: str, tmp_path: Path
) -> None:
    append(tmp_path, url, 20)
    worked(tmp_path, url)
    rows = done(tmp_path, url, "groups").rows
    assert [row["partition"] for row in rows] == [0, 1, 2, 3]
    assert {(row["topic"], row["state"]) for row in rows} == {(CONVERSATIONS, "empty")}
    assert {(row["lag"], row["exact"], row["member"]) for row in rows} == {(0, True, None)}
    append(tmp_path, url, 5)
    assert lag_of(tmp_path, url) == 5
    before = madlog("groups", "--log", url, cwd=tmp_path)
    assert (before.code, before.out.count(CONVERSATIONS)) == (0, 4)


def test_a_reset_back_is_shown_first_and_makes_nothing_happen_twice(
    url: str, tmp_path: Path
) -> None:
    append(tmp_path, url, 20)
    events, outputs = worked(tmp_path, url)
    assert events > 0 < outputs
    reset = ("groups", "reset", "router", "--to", "start")
    dry = done(tmp_path, url, *reset, "--dry-run").json
    assert {move["effect"] for move in dry["moves"] if move["records"]} == {"read again"}
    assert sum(move["records"] for move in dry["moves"]) == events
    assert lag_of(tmp_path, url) == 0
    made = done(tmp_path, url, *reset).json
    assert made["moves"] == dry["moves"]
    assert "passes over" in made["consequences"][0]
    assert lag_of(tmp_path, url) == events
    assert worked(tmp_path, url) == (0, 0)
    assert lag_of(tmp_path, url) == 0
    # What it was at before can be given back as it was printed.
    done(tmp_path, url, "groups", "reset", "router", "--to", made["before"])


def test_what_a_reset_skips_is_not_made_up_for_by_going_back(admin: Admin, tmp_path: Path) -> None:
    url = on_kafka(admin)
    append(tmp_path, url, 4, conversations=1)
    worked(tmp_path, url)
    append(tmp_path, url, 3, conversations=1)
    made = done(tmp_path, url, "groups", "reset", "router", "--to", "end").json
    assert sum(move["records"] for move in made["moves"] if move["effect"] == "skipped") == 3
    assert "going back does not" in made["consequences"][0]
    assert lag_of(tmp_path, url) == 0
    append(tmp_path, url, 1, conversations=1)
    assert worked(tmp_path, url)[0] == 1
    done(tmp_path, url, "groups", "reset", "router", "--to", made["before"])
    assert lag_of(tmp_path, url) == 4
    assert worked(tmp_path, url) == (0, 0)


def test_a_reset_that_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    url = str(tmp_path / "log")
    append(tmp_path, url, 4)
    worked(tmp_path, url)

    def refused(*arguments: str, group: str = "router") -> str:
        ran = madlog("groups", "reset", group, *arguments, "--log", url, cwd=tmp_path)
        return ran.refused(2)

    assert "madlog groups" in refused("--to", "start", group="nobody")
    assert "ends at" in refused("--to", "100000")
    assert "past the end" in refused("--to", f"{CONVERSATIONS}/0@100000")
    assert "reads nothing of mad.llm" in refused("--to", "end", "--topic", "mad.llm")
    assert "is none of start, end" in refused("--to", "yesterday")
    assert lag_of(tmp_path, url) == 0


async def test_a_reset_waits_for_members_to_stop(url: str, tmp_path: Path) -> None:
    await asyncio.to_thread(append, tmp_path, url, 4)
    await asyncio.to_thread(worked, tmp_path, url)
    async with opened(url) as log:
        member = await log.log.join("router", [CONVERSATIONS])
        await member.poll()
        rows = (await asyncio.to_thread(done, tmp_path, url, "groups")).rows
        assert {(row["state"], row["member"]) for row in rows} == {("stable", member.member)}
        arguments = ("groups", "reset", "router", "--to", "end", "--log", url)
        ran = await asyncio.to_thread(madlog, *arguments, cwd=tmp_path)
        assert "has live members" in ran.refused(2)
        await member.leave()
    await asyncio.to_thread(done, tmp_path, url, "groups", "reset", "router", "--to", "end")


def test_a_worker_says_how_far_its_recovery_is_and_gives_up_at_its_deadline(
    url: str, tmp_path: Path
) -> None:
    append(tmp_path, url, 20)
    worked(tmp_path, url)
    append(tmp_path, url, 1)
    command = ("worker", "--until-idle", "--json", "--log", url)
    # No reading of a log is done in a µs.
    short = {"MADLOG_WORKER_RECOVERY_TIMEOUT_S": "0.000001"}
    said = madlog(*command, cwd=tmp_path, env=short).refused(3)
    assert said.startswith(f"madlog: the state of router for {CONVERSATIONS}/")
    assert "MADLOG_WORKER_RECOVERY_TIMEOUT_S" in said
    ran = madlog(*command, cwd=tmp_path)
    assert (ran.code, ran.json["events"]) == (0, 1), ran.err
    assert f"rebuilding the state of router for {CONVERSATIONS}/" in ran.err
    assert "changes" in ran.err
