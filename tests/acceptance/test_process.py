"""A learned process is drawn for people, and what cannot be drawn is said."""

import json
from pathlib import Path

import pytest
from tests.acceptance.cli import madlog
from tests.unit.history import history

from madlog.wiring import opened


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    async with opened(str(tmp_path / ".madlog")) as log:
        for events in history(60):
            await log.append(events)
    assert madlog("worker", "--until-idle", cwd=tmp_path).code == 0
    return tmp_path


async def test_a_process_is_drawn(folder: Path) -> None:
    told = madlog("process", "agent", cwd=folder).out
    assert told.startswith("flowchart TD")
    assert "get_order" in told
    assert madlog("process", "agent", "--out", "a.svg", cwd=folder).code == 0
    assert (folder / "a.svg").read_text(encoding="utf-8").startswith("<svg")
    assert json.loads(madlog("process", "agent", "--json", cwd=folder).out)["name"] == "agent"


async def test_what_cannot_be_drawn_is_said(folder: Path) -> None:
    assert "no process of 'bob'" in madlog("process", "bob", cwd=folder).refused(2)
    image = madlog("process", "agent", "--out", "a.png", cwd=folder)
    assert "neither with .svg" in image.refused(2)
    assert "cannot be written" in (
        madlog("process", "agent", "--out", "no/such/a.svg", cwd=folder).refused(2)
    )


async def test_a_planted_decision_is_found_by_the_command(folder: Path) -> None:
    clean = madlog("replay", "verify", "--json", cwd=folder)
    assert (clean.code, clean.json["equal"]) == (0, True)
    from madlog.schemas import build

    async with opened(str(folder / ".madlog")) as log:
        async for events in log.read_topics(["mad.decisions"]):
            fields = {**events[0].fields, "route": "action:delete_all", "idempotency_key": None}
            break
        await log.append([build("Decision", fields)])
    ran = madlog("replay", "verify", "--json", cwd=folder)
    assert ran.code == 1
    (difference,) = ran.json["differences"]
    assert difference["event_id"] == fields["event_id"]
    assert difference["fields"]["route"][0] == "action:delete_all"
