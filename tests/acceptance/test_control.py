"""What people order from the command line: it is one event each, and holds for the next act."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.acceptance.inside import inside as madlog
from tests.unit.acting_scene import FakeEngine, Scene

from madlog.config import Settings
from madlog.processors.acting import Done
from madlog.topics.clock import SystemClock
from madlog.wiring import open_acting, open_registry, opened

T = TypeVar("T")
AGENTS = """
approval_timeout_s = 600

[[agents]]
name = "shop"

[[agents.actions]]
name = "lookup_order"

[[agents.actions]]
name = "refund"
risk = "high"
preconditions = ["requires:order_id"]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a log and a file of agents."""
    (tmp_path / "agents.toml").write_text(AGENTS, encoding="utf-8")
    ran = madlog("append", "-c", "hello", "-s", "ann", "-t", "shop", "hi", cwd=tmp_path)
    assert ran.code == 0, ran.err
    return tmp_path


def ordered(shop: Path, *arguments: str) -> dict[str, Any]:
    ran = madlog("control", *arguments, "--json", cwd=shop, env=environment(shop))
    assert ran.code == 0, ran.err
    return dict(ran.json)


def environment(shop: Path) -> dict[str, str]:
    return {"MADLOG_AGENTS": str(shop / "agents.toml")}


def done(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def decide(shop: Path, action: str, conversation: str = "c", order: int = 1) -> str:
    async with opened(str(shop / ".madlog")) as log:
        scene = Scene(log=log)
        scene.clock.us = SystemClock().now_us()
        return await scene.decide(action, {"order_id": order}, conversation=conversation)


async def act(shop: Path) -> tuple[Done, list[str]]:
    settings = Settings(agents=str(shop / "agents.toml"))
    async with opened(str(shop / ".madlog"), settings) as log:
        engine = FakeEngine()
        actor = open_acting(log, settings, open_registry(settings), engine)
        return await actor.run(), engine.actions


def listed(shop: Path) -> list[dict[str, Any]]:
    ran = madlog("control", "list", "--json", cwd=shop)
    assert ran.code == 0, ran.err
    return ran.rows


def test_an_act_waits_is_listed_is_approved_and_runs_once(shop: Path) -> None:
    decision = done(decide(shop, "refund"))
    waiting, did = done(act(shop))
    assert (waiting.asked, did) == (1, [])
    (row,) = listed(shop)
    assert (row["what"], row["target"], row["decision"]) == ("waits for approval", "shop", decision)
    assert row["says"] == 'refund {"order_id":1}'
    said = ordered(shop, "approve", decision, "--reason", "she is right")
    assert (said["command"], said["about_id"], said["target"]) == ("approve", decision, "shop")
    assert listed(shop) == []
    assert done(act(shop))[1] == ["refund"]
    assert done(act(shop))[1] == []
    again = madlog("control", "refuse", decision, cwd=shop)
    assert "was approved already, by" in again.refused(2)


def test_a_person_s_refusal_goes_up(shop: Path) -> None:
    decision = done(decide(shop, "refund"))
    done(act(shop))
    ordered(shop, "refuse", decision)
    report, did = done(act(shop))
    assert (report.refused, did) == (1, [])
    ran = madlog(
        "sql",
        "SELECT tier, escalation FROM decisions ORDER BY tier",
        "--format",
        "json",
        cwd=shop,
    )
    assert json.loads(ran.out.splitlines()[0]) == {"tier": "imperator", "escalation": "guard"}


def test_stop_holds_for_the_next_act_until_start(shop: Path) -> None:
    stop = ordered(shop, "stop", "shop", "--tier", "lppm", "--for", "10m", "--reason", "it errs")
    assert (stop["tier"], stop["reason"]) == ("lppm", "it errs")
    assert stop["until"].endswith("+00:00")
    (row,) = listed(shop)
    assert (row["what"], row["target"], row["says"]) == ("stopped", "shop/lppm", "it errs")
    done(decide(shop, "lookup_order"))
    assert done(act(shop))[0].refused == 1
    ordered(shop, "start", "shop", "--tier", "lppm")
    assert listed(shop) == []
    done(decide(shop, "lookup_order", "d"))
    assert done(act(shop))[1] == ["lookup_order"]


def test_flags_budgets_and_overrides_hold_until_they_are_taken_back(shop: Path) -> None:
    ordered(shop, "flag", "acting", "off", "--agent", "shop")
    ordered(shop, "budget", "all", "few", "--acts", "1", "--window", "1h")
    ordered(shop, "override", "shop", "imperator")
    rows = [(row["what"], row["target"], row["says"]) for row in listed(shop)]
    assert rows == [
        ("override", "shop", "imperator"),
        ("flag", "shop/acting", "off"),
        ("budget", "all", "few: 1 acts in 3600 s"),
    ]
    ordered(shop, "override", "shop", "--clear")
    ordered(shop, "flag", "acting", "on", "--agent", "shop")
    for number in range(2):
        done(decide(shop, "lookup_order", f"c{number}"))
    report, did = done(act(shop))
    assert (did, len(report.waiting)) == (["lookup_order"], 1)
    ordered(shop, "budget", "all", "few", "--clear")
    assert done(act(shop))[1] == ["lookup_order"]


def test_the_person_is_the_sender(shop: Path) -> None:
    ordered(shop, "stop", "all")
    ran = madlog("tail", "mad.control", "--json", cwd=shop)
    (event,) = ran.rows
    sender = event.get("sender") or event["fields"]["sender"]
    assert sender["kind"] == "human"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stop", "shop", "--tier", "fast"), "there is no tier 'fast': dtr, lppm, imperator"),
        (("stop", "The Shop"), "'The Shop' is no name of an agent"),
        (("stop", "shop", "--for", "soon"), "--for 'soon' is no time: write 30s"),
        (("stop", "shop", "--for", "0s"), "--for '0s' is no time"),
        (("stop", "shop", "--reason", "a\0b"), "reason"),
        (("override", "shop"), "names a route, or is ended by --clear"),
        (("override", "shop", "imperator", "--clear"), "names a route, or is ended by --clear"),
        (("override", "shop", "somewhere"), "'somewhere' is no route"),
        (("override", "shop", "action:{verb}"), "is no route"),
        (("flag", "acting", "maybe"), "a flag is on or off, not 'maybe'"),
        (("flag", "Acting!", "on"), "'Acting!' is no flag"),
        (("budget", "shop", "few"), "give either acts or cost_usd"),
        (("budget", "shop", "few", "--acts", "1", "--window", "1y"), "--window '1y' is no time"),
        (("budget", "shop", "few", "--acts", "1", "--window", "60d"), "31 days"),
        (("budget", "shop", "few", "--acts", "1", "--risk", "huge"), "risk is one of"),
        (("budget", "shop", "few", "--acts", "1", "--clear"), "--clear ends the budget"),
        (("budget", "shop", "Few!", "--acts", "1"), "'Few!' is no name"),
        (("approve", "0189"), "the log holds no decision '0189'"),
        (("refuse", "0189"), "the log holds no decision '0189'"),
    ],
)
def test_bad_input_is_one_sentence_and_orders_nothing(
    shop: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in madlog("control", *arguments, cwd=shop).refused(2)
    assert listed(shop) == []


def test_a_decision_that_waits_for_nothing_cannot_be_approved(shop: Path) -> None:
    decision = done(decide(shop, "lookup_order"))
    ran = madlog("control", "approve", decision, cwd=shop)
    assert "waits for no approval" in ran.refused(2)


def test_an_agent_that_nobody_registered_is_pointed_out(shop: Path) -> None:
    ran = madlog("control", "stop", "shpo", cwd=shop, env=environment(shop))
    assert ran.code == 0
    assert "shpo is none of the registered agents: shop" in ran.err


def test_a_bad_file_of_agents_is_one_sentence_of_any_command_that_needs_it(shop: Path) -> None:
    (shop / "agents.toml").write_text('[[agents]]\nname = "Shop"\n', encoding="utf-8")
    for command in (("worker", "--until-idle"), ("control", "stop", "all")):
        ran = madlog(*command, cwd=shop, env=environment(shop))
        assert "agents.Shop.name" in ran.refused(2)
    ran = madlog("worker", "--until-idle", cwd=shop, env={"MADLOG_AGENTS": "none.toml"})
    assert "none.toml: No such file" in ran.refused(2)


def test_control_needs_a_log(tmp_path: Path) -> None:
    madlog("control", "stop", "all", cwd=tmp_path).refused(3)
    madlog("control", "list", cwd=tmp_path).refused(3)


def test_the_worker_routes_to_the_registered_actions(shop: Path) -> None:
    text = "EXECUTE: lookup_order order_id=5"
    madlog("append", "-c", "hello", "-s", "ann", "-t", "shop", text, cwd=shop)
    ran = madlog("worker", "--until-idle", cwd=shop, env=environment(shop))
    assert ran.code == 0, ran.err
    ran = madlog("sql", "SELECT route FROM decisions ORDER BY route", "--format", "json", cwd=shop)
    assert [json.loads(line)["route"] for line in ran.out.splitlines()] == [
        "action:lookup_order",
        "imperator",
    ]
    assert done(act(shop))[1] == ["lookup_order"]
