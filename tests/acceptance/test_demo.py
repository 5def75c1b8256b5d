"""The demo, as somebody sees it who has just installed this."""

from pathlib import Path

import pytest
from tests.acceptance.cli import madlog

from madlog.analytics.digest import digest
from madlog.mads.demo.writer import write
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog
from madlog.wiring import opened

WRITTEN = ("mad.conversations", "mad.llm")


def test_the_demo_shows_its_screens_and_loses_nothing(tmp_path: Path) -> None:
    ran = madlog("demo", "--turns", "1500", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "lost 0   twice 0" in ran.out
    assert "4711" in ran.out
    assert "3 blocked: 3 duplicate, 0 failed, 0 unsure, 0 legitimate" in ran.out
    assert "amount_eur of what is blocked: 1,310" in ran.out
    assert "language model calls made: 0; events appended: 0" in ran.out
    assert "1 damaged places found" in ran.out
    assert max(len(line) for line in ran.out.splitlines()) <= 80


@pytest.mark.soak
async def test_the_demo_s_log_is_that_of_a_writer_that_nobody_killed(tmp_path: Path) -> None:
    ran = madlog("demo", "--turns", "300", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert (ran.json["durable"]["lost"], ran.json["what_if"]["appended"]) == (0, 0)
    async with opened(str(tmp_path / ran.json["log"])) as log:
        killed = await digest(log)
    whole = await EventLog.open(MemoryLog())
    await write(whole, 1, 300)
    never = await digest(whole)
    assert [killed[name] for name in WRITTEN] == [never[name] for name in WRITTEN]
