"""What a person says of a model from the command line, and sees of its steps."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.acceptance.inside import inside as madlog
from tests.unit.rollout_scene import published

from madlog.processors.tiers import TierModels
from madlog.schemas import ModelPublished
from madlog.wiring import opened

AGENTS = """
[[agents]]
name = "orders"

[[agents.actions]]
name = "get_order"
"""


async def _append(folder: Path, *models: ModelPublished) -> None:
    async with opened(str(folder / ".madlog")) as log:
        await log.append(models)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a log that was routed once, and a file of agents."""
    (tmp_path / "agents.toml").write_text(AGENTS, encoding="utf-8")
    said = ("append", "-c", "hello", "-s", "ann", "-t", "orders", "hi")
    assert madlog(*said, cwd=tmp_path).code == 0
    assert madlog("worker", "--until-idle", cwd=tmp_path, env=environment(tmp_path)).code == 0
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {"MADLOG_AGENTS": str(folder / "agents.toml")}


def test_a_person_rolls_a_model_out_and_takes_it_back_and_sees_each_step(desk: Path) -> None:
    asyncio.run(_append(desk, published("mine")))
    ran = madlog("rollout", "step", "mine", "50", "--json", cwd=desk, env=environment(desk))
    assert ran.code == 0, ran.err
    assert (ran.json["model"], ran.json["stage"]) == ("mine", "50")
    by_id = ran.json["model_id"]
    back = ("rollout", "back", by_id, "--reason", "it is mine", "--json")
    assert madlog(*back, cwd=desk, env=environment(desk)).code == 0
    rows = madlog("rollout", "list", "--json", cwd=desk).rows
    assert [(one["model"], one["stage"], one["reason"]) for one in rows] == [
        ("mine", "50", None),
        ("mine", "back", "it is mine"),
    ]
    assert madlog("ask", "rollouts", "--json", cwd=desk).rows == rows


def test_the_worker_begins_with_a_model_alone_where_it_may(desk: Path) -> None:
    asyncio.run(_append(desk, published("mine")))
    learn = ("worker", "--until-idle", "--only", "learn", "--json")
    ran = madlog(*learn, cwd=desk, env=environment(desk))
    assert ran.json["rollout_steps"] == 0
    roll = ("worker", "--until-idle", "--only", "rollout", "--json")
    ran = madlog(*roll, cwd=desk, env=environment(desk))
    assert ran.json["rollout_steps"] == 1
    (row,) = madlog("rollout", "list", "--json", cwd=desk).rows
    assert (row["stage"], row["said_by"]) == ("shadow", "rollout")


def test_what_cannot_be_said_is_refused_with_what_to_do(desk: Path) -> None:
    unregistered = {"format": "tree-1", "root": {"route": "action:drop", "confidence": 1.0}}
    text = json.dumps({"format": "tiers-1", "dtr": unregistered, "lppm": None})
    asyncio.run(
        _append(
            desk,
            published("twice"),
            published("twice", trained_on={"a/0": "x"}, code_version="other").model_copy(
                update={
                    "event_id": "0193a000-0000-7000-8000-000000000009",
                    "idempotency_key": "another",
                }
            ),
            published("strange", TierModels.parse(text)),
        )
    )

    def refused(*arguments: str) -> str:
        return madlog("rollout", *arguments, cwd=desk, env=environment(desk)).refused(2)

    assert "no model 'none'" in refused("step", "none", "10")
    assert "no stage" in refused("step", "twice", "70")
    assert "name one by its id" in refused("step", "twice", "10")
    assert "registered action of no agent" in refused("step", "strange", "10")
    assert "none else goes live" in refused("step", "seed-1", "10")
    # Taken back is also what could never have been served.
    assert madlog("rollout", "back", "strange", cwd=desk, env=environment(desk)).code == 0
