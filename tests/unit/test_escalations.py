"""The reasons for going up are a closed list: documented, and used by all that hands up."""

import re
import subprocess
import sys
from pathlib import Path

from tests.unit.counting import run
from tests.unit.imperator_scene import Told, fields_of, turn_of

from madlog.config import Settings
from madlog.processors import Agent, Registry, Router
from madlog.processors.acting import Terms
from madlog.processors.escalations import ESCALATIONS, meaning
from madlog.processors.imperator import Answer
from madlog.processors.registry_file import RegistryFile
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog
from madlog.wiring import open_escalations

DOCS = Path(__file__).resolve().parents[2] / "docs" / "learning.md"


def test_the_docs_list_each_reason_with_its_meaning() -> None:
    page = DOCS.read_text(encoding="utf-8")
    section = page.split("## The language model and audits\n")[1].split("\n## ")[0]
    told = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    assert told == [tuple(one) for one in ESCALATIONS]


def test_each_reason_is_there_once() -> None:
    names = [one.name for one in ESCALATIONS]
    assert len(names) == len(set(names)) == 15
    assert meaning("paused") == "A person holds the process."
    assert meaning("because") is None


async def test_what_the_router_hands_up_has_a_reason_of_the_list() -> None:
    log = await EventLog.open(MemoryLog())
    agents = Registry([Agent("orders", version="V1", actions=frozenset({"get_order"}))])
    texts = ("Where is it?", "HRU?", "EXECUTE: drop_database", "#ack")
    await log.append([turn_of(n, text, f"c{n}") for n, text in enumerate(texts, 1)])
    await run(log, Router(agents))
    found = {one["escalation"] for one in await fields_of(log, "mad.decisions")}
    assert found == {"left", "version"} <= {one.name for one in ESCALATIONS}


async def test_the_wiring_asks_by_the_settings_and_the_registry_file() -> None:
    log = await EventLog.open(MemoryLog())
    agents = Registry([Agent("orders", actions=frozenset({"get_order"}))])
    await log.append([turn_of(n, "Where is it?", f"c{n}") for n in range(1, 6)])
    await run(log, Router(agents))
    imperator = Told(lambda _: Answer.says("On Monday."))
    settings = Settings(imperator_at_once=2)
    registry = RegistryFile(agents, Terms())
    job = open_escalations(log, settings, registry, {"orders": imperator})
    assert (await job.run()).escalations == 5
    assert imperator.most == 2
    assert (await open_escalations(log, settings, registry, {}).run()).escalations == 0


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    page = DOCS.read_text(encoding="utf-8")
    codes = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert any("ScriptedImperator" in code for code in codes)
    for code in codes:
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
