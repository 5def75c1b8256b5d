"""Logs that earlier releases wrote are read, replayed and asked as on the day they were written."""

import gzip
import importlib.util
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from madlog.analytics.digest import digest
from madlog.analytics.output import json_rows
from madlog.analytics.questions import ask
from madlog.analytics.replay import rebuild
from madlog.analytics.sql import query
from madlog.analytics.verify import verify
from madlog.analytics.what_if import Asked, Variant, load_guard, what_if
from madlog.processors import Agent, Registry
from madlog.schemas import EVENT_KINDS
from madlog.topics import Damage, EventLog
from madlog.topics.errors import BlobMissing
from madlog.wiring import opened

LOGS = Path(__file__).parents[1] / "fixtures" / "logs"
PINNED: dict[str, Any] = json.loads((LOGS / "pinned.json").read_text())
RELEASES = sorted(path.name.removesuffix(".sqlite.gz") for path in LOGS.glob("*.sqlite.gz"))
REGISTRY = Registry([Agent("orders", actions=frozenset({"get_order"}))])


def no_blob(sha256: str) -> bytes:
    raise BlobMissing(f"there is no blob {sha256}")


@asynccontextmanager
async def unpacked(release: str, folder: Path) -> AsyncIterator[EventLog]:
    packed = (LOGS / f"{release}.sqlite.gz").read_bytes()
    (folder / "log.sqlite").write_bytes(gzip.decompress(packed))
    async with opened(str(folder), create=False) as log:
        yield log


async def said(log: EventLog) -> dict[str, Any]:
    """Return how many events of each kind a log holds, and its digests."""
    damaged: list[Damage] = []
    kinds: Counter[str] = Counter()
    names = [name for name in await log.log.topics() if not name.startswith("mad.state.")]
    async for events in log.read_topics(names, on_damage=damaged.append):
        for event in events:
            assert event.event.kind == event.kind
            kinds[event.kind] += 1
    assert damaged == []
    digests = {name: found.digest for name, found in (await digest(log)).items() if found.events}
    return {"kinds": dict(sorted(kinds.items())), "digests": digests}


def test_every_release_has_its_log_pinned() -> None:
    assert sorted(PINNED) == RELEASES
    assert len(RELEASES) >= 4


@pytest.mark.parametrize("release", RELEASES)
async def test_a_log_of_a_release_says_what_it_said(release: str, tmp_path: Path) -> None:
    async with unpacked(release, tmp_path) as log:
        assert await said(log) == {name: PINNED[release][name] for name in ("kinds", "digests")}


@pytest.mark.parametrize("release", RELEASES)
async def test_a_log_of_a_release_is_replayed_and_asked(release: str, tmp_path: Path) -> None:
    async with unpacked(release, tmp_path) as log:
        report = await rebuild(log, tmp_path / "projections")
        assert (report.exit_code, report.damaged) == (0, [])
        again = await verify(log, no_blob, registry=REGISTRY)
        told = {"decisions": again.decisions, "differ": len(again.differences)}
        assert told == PINNED[release]["verify"]
        result = await query(log, "select kind, count(*)::INT n from events group by 1 order by 1")
        rows = list(json_rows(result))
        assert {row["kind"]: row["n"] for row in rows} == PINNED[release]["kinds"]
        for name in ("tiers", "transcript", "growth", "cost"):
            assert (await ask(log, name)).table.num_rows > 0, name
        doubled = list(json_rows(await ask(log, "duplicate-effects")))
        assert {row["same"] for row in doubled} == {
            "order_id=4711",
            "order_id=5208",
            "order_id=6033",
        }
        guard = load_guard(
            "call.action = 'refund' and exists (from past where past.action = 'refund' and "
            "past.ok and past.arguments->>'order_id' = call.arguments->>'order_id')"
        )
        asked = Asked(Variant(without=frozenset({"dtr"})), guard)
        found = await what_if(log, asked, no_blob, registry=REGISTRY)
        assert found.guard is not None
        assert found.guard.count("duplicate") == len(found.guard.blocked) == 3


async def test_this_release_can_write_its_log_with_every_kind_of_event(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("madlog_fixture_log", LOGS / "write.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    await writer.write(tmp_path)
    async with opened(str(tmp_path), create=False) as log:
        assert (await said(log))["kinds"].keys() == EVENT_KINDS.keys()
