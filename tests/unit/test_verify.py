"""Every decision comes out of the log again; one that does not is named, with what differs."""

from collections.abc import Collection
from typing import Any

import pytest
from tests.unit.test_retrospect import log_of
from tests.unit.what_if_scene import brought_in

from madlog.analytics import verify as verify_module
from madlog.analytics.replay_range import NoSuchPlace
from madlog.analytics.verify import VerifyReport, verify
from madlog.processors import Agent, Engine, Registry, Router
from madlog.schemas import ModelPublished, Part, Sender, Turn, build, new_event_id
from madlog.topics import EventLog, Vector
from madlog.topics.errors import BlobMissing

REGISTRY = Registry([Agent("orders", actions=frozenset({"get_order"}))])
MARIA = Sender(name="maria", kind="human")


def missing(sha256: str) -> bytes:
    raise BlobMissing(f"there is no blob {sha256}")


TEXTS = ("HRU?", "EXECUTE: get_order 1", "Where is it?", "@orders #ack", "get_order 2")


def eid(number: int) -> str:
    return new_event_id(number * 1000, number.to_bytes(10, "big"))


def turn(n: int) -> Turn:
    kind: Any = "prose" if n % 5 == 2 else "deterministic"
    return Turn(
        event_id=eid(n),
        conversation_id=f"c{n % 3}",
        sender=MARIA,
        occurred_at=n * 1000,
        recipients=("orders",),
        parts=(Part(content_class=kind, text=TEXTS[n % 5]),),
    )


async def decided(log: EventLog) -> None:
    await Engine(log, [Router(REGISTRY, audit_rate=0.3)]).run(until_idle=True)


async def lived() -> EventLog:
    log = await log_of([turn(n) for n in range(20)])
    await decided(log)
    return log


async def verified(
    log: EventLog, blobs: dict[str, bytes] | None = None, **places: Any
) -> VerifyReport:
    get = missing if blobs is None else blobs.__getitem__
    return await verify(log, get, registry=REGISTRY, **places)


async def planted(log: EventLog, **changes: Any) -> str:
    """Append a copy of the log's first decision with other content, and return its id."""
    async for events in log.read_topics(["mad.decisions"]):
        fields = {**events[0].fields, "idempotency_key": None, **changes}
        await log.append([build("Decision", fields)])
        return str(fields["event_id"])
    raise AssertionError("the log holds no decision")


async def test_live_decisions_come_out_again() -> None:
    report = await verified(await lived())
    assert (report.decisions, report.differences) == (20, [])


async def test_decisions_in_retrospect_come_out_again_from_their_models() -> None:
    blobs: dict[str, bytes] = {}
    report = await verified(await brought_in(90, blobs), blobs)
    assert (report.decisions, report.differences) == (270, [])


async def test_slices_and_ranges_compare_the_same_decisions(monkeypatch: Any) -> None:
    log = await lived()
    await planted(log, turn_id=eid(7), event_id=eid(700), conversation_id="c1")
    found = (await verified(log)).differences
    monkeypatch.setattr(verify_module, "_RECORDS_MAX", 6)
    sliced = await verified(log)
    assert (sliced.decisions, sliced.differences) == (21, found)
    # What is named is in the range; a decision stands for the turn that it is about.
    for place in (eid(7), found[0].event_id):
        early, late = await verified(log, until=place), await verified(log, since=place)
        assert [one.differences for one in (early, late)] == [found, found]
        # Others stand where the log stood then: all turns were appended at once, before c1's.
        assert early.decisions + late.decisions >= 21
    assert (await verified(log, since=eid(10), conversation="c1")).differences == []
    by_name = [await verified(log, conversation=f"c{n}") for n in range(3)]
    assert [one.decisions for one in by_name] == [7, 8, 6]
    assert [one.differences for one in by_name] == [[], found, []]


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ({"conversation": "c9"}, "holds no conversation 'c9'"),
        ({"since": eid(15), "conversation": "c1", "until": eid(15)}, "in this range"),
        ({"since": "mad.decisions/0@0"}, "no place in mad.conversations"),
        ({"until": "c9"}, "no conversation of this log"),
        ({"since": eid(4000)}, "holds no event"),
    ],
)
async def test_a_place_that_is_not_there_is_refused(places: dict[str, Any], why: str) -> None:
    with pytest.raises(NoSuchPlace, match=why):
        await verified(await lived(), **places)


async def test_a_log_that_is_being_written_is_compared_up_to_its_end_at_the_start(
    monkeypatch: Any,
) -> None:
    log = await lived()
    ends = log.log.end

    async def written(topics: Collection[str]) -> Vector:
        told = await ends(topics)
        monkeypatch.setattr(log.log, "end", ends)
        await log.append([turn(n) for n in range(20, 30)])
        await decided(log)
        return told

    monkeypatch.setattr(log.log, "end", written)
    report = await verified(log)
    assert (report.decisions, report.differences) == (20, [])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"route": "action:delete_all"}, ["route"]),
        ({"confidence": 0.5, "tier": "lppm"}, ["confidence", "tier"]),
        ({"features": {"chars": 3}}, ["features"]),
    ],
)
async def test_a_planted_decision_is_named_with_what_differs(
    changes: dict[str, Any], named: list[str]
) -> None:
    log = await lived()
    event_id = await planted(log, **changes)
    (difference,) = (await verified(log)).differences
    assert difference.event_id == event_id
    assert list(difference.fields) == named
    assert difference.position.startswith("mad.decisions/")


async def test_a_decision_about_no_turn_is_named() -> None:
    log = await lived()
    stray = new_event_id(9_000, b"stray stray")
    await planted(log, event_id=stray, turn_id=stray)
    (difference,) = (await verified(log)).differences
    assert (difference.event_id, difference.why) == (stray, "nothing on the log leads to it")


async def test_a_decision_whose_model_is_not_there_or_was_changed_is_named() -> None:
    log = await lived()
    nowhere = new_event_id(9_000, b"no such one")
    event_id = await planted(log, model_id=nowhere)
    (difference,) = (await verified(log)).differences
    assert (difference.event_id, difference.why) == (
        event_id,
        f"the log holds no model {nowhere}",
    )
    changed = ModelPublished(
        event_id=nowhere,
        conversation_id="mad.models",
        sender=MARIA,
        occurred_at=1,
        component="retrospective",
        version="1",
        parameters_sha256="0" * 64,
        parameters="{}",
    )
    await log.append([changed])
    (difference,) = (await verified(log)).differences
    assert "damaged, or was changed" in difference.why


async def test_a_model_whose_blob_is_gone_is_named() -> None:
    log = await lived()
    gone = new_event_id(9_000, b"blob's gone")
    await planted(log, model_id=gone)
    model = ModelPublished(
        event_id=gone,
        conversation_id="mad.models",
        sender=MARIA,
        occurred_at=1,
        component="retrospective",
        version="1",
        parameters_sha256="0" * 64,
        parameters_uri="sha256:" + "0" * 64,
    )
    await log.append([model])
    (difference,) = (await verified(log)).differences
    assert "there is no blob" in difference.why
