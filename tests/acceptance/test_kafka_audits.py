"""The same live traffic, language model and judges on a folder and on Kafka: the same answers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.counting import read
from tests.unit.imperator_scene import AGENTS, Told, escalations, fields_of, turn_of
from tests.unit.test_shadow_judge import beside

from madlog.analytics.output import json_rows
from madlog.analytics.questions import ask
from madlog.config import Settings
from madlog.processors import Engine, Router
from madlog.processors.imperator import Answer, Asked
from madlog.wiring import open_learning, opened

TURNS = 120
QUESTIONS = ("promises", "tiers", "regret", "learned", "escalations", "promoted", "savings")
TEXTS = ("EXECUTE: get_order 17", "EXECUTE: ping", "HRU?", "Where is my parcel?")
_OWN = {"p50_us", "p99_us"}


def script(asked: Asked) -> Answer:
    """An Imperator that would do otherwise now and then, by what it is asked alone."""
    number = int(asked.turn_id[-12:], 16)
    if number % 7 == 0:
        return Answer.acts("refund", tokens_in=number)
    if "ping" in asked.text or "get_order" in asked.text:
        return Answer.acts("get_order", tokens_in=number)
    return Answer.says("All is well.", tokens_in=number)


async def told(url: str, blobs: Path) -> dict[str, list[dict[str, Any]]]:
    async with opened(url) as log:
        await log.append([turn_of(n, TEXTS[n % 4], f"c{n % 11}") for n in range(1, TURNS + 1)])
        report = await Engine(log, [Router(AGENTS, audit_rate=0.5)]).run(until_idle=True)
        assert report.dead_letters == 0
        await beside(log, "action:get_order", "{}", audited=False)
        job = escalations(log, Told(script))
        answered = await job.run()
        assert answered.escalations > TURNS / 4
        assert answered.audits > TURNS / 8
        await open_learning(log, url, Settings(blobs=str(blobs))).run(lambda _: None)
        found = {}
        for name in QUESTIONS:
            rows = json_rows(await ask(log, name))
            found[name] = [{k: v for k, v in row.items() if k not in _OWN} for row in rows]
        return found


@pytest.mark.soak
async def test_audits_shadows_and_what_repeats_are_told_alike(
    tmp_path: Path, kafka_url: str, kafka_prefix: str
) -> None:
    folder = await told(str(tmp_path / "log"), tmp_path / "blobs")
    kafka = await told(f"{kafka_url}?prefix={kafka_prefix}", tmp_path / "blobs")
    for name, rows in folder.items():
        assert kafka[name] == rows, name
        assert rows, name
    verdicts = {(row["mode"], row["tier"]): row["judged"] for row in folder["promises"]}
    assert all(verdicts.values()), verdicts
    assert {mode for mode, _ in verdicts} == {"live", "shadow"}


async def test_of_two_workers_on_kafka_one_answers_each(kafka_url: str, kafka_prefix: str) -> None:
    url = f"{kafka_url}?prefix={kafka_prefix}"
    async with opened(url) as one, opened(url) as other:
        turns = [turn_of(n, "Where is my parcel?", f"c{n}") for n in range(1, 41)]
        await one.append(turns)
        await Engine(one, [Router(AGENTS)]).run(until_idle=True)
        answers = [Answer.says("On Monday.", model="a"), Answer.acts("refund", model="b")]
        jobs = [
            escalations(log, Told(lambda _, answer=answer: answer))  # type: ignore[misc]
            for log, answer in zip((one, other), answers, strict=True)
        ]
        await asyncio.gather(*(job.run() for job in jobs))
        # Both may have been paid; the first on the log counts.
        first: dict[str, str] = {}
        for event in await read(one, "mad.llm"):
            first.setdefault(event.fields["answer_id"], event.fields["model"])
        told = await fields_of(one, "mad.conversations")
        mine = [event for event in told if event["sender"]["name"] == "orders"]
        assert len({event["causation_id"] for event in mine}) == len(mine) == len(turns)
        acted = {event["event_id"]: "b" if "action" in event else "a" for event in mine}
        assert acted == first
