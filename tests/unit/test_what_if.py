"""What if: the log decided again otherwise, from the record alone; the log stays as it was."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.unit.orders import REGISTRY as DESK
from tests.unit.test_live_routing import lived as conducted
from tests.unit.test_live_routing import on
from tests.unit.test_verify import planted
from tests.unit.what_if_scene import REGISTRY, brought_in, eid, lived, no_blob, refunds

from madlog.analytics.digest import digest
from madlog.analytics.prices import Price, PriceList
from madlog.analytics.what_if import Asked, Variant, WhatIfReport, find_model, what_if
from madlog.analytics.what_if.errors import NothingAsked, UnknownModel
from madlog.processors.errors import InvalidModel
from madlog.processors.tiers import TierModels
from madlog.schemas import Outcome, Sender
from madlog.topics import EventLog

JUDGE = Sender(name="audit", kind="system")


async def asked(log: EventLog, get_blob: Any = no_blob, **variant: Any) -> WhatIfReport:
    return await what_if(log, Asked(Variant(**variant)), get_blob, registry=REGISTRY)


def counts(report: WhatIfReport) -> dict[str, tuple[int, int]]:
    assert report.tally is not None
    rows = [row for row in report.tally.tiers() if row["record"] or row["what_if"]]
    return {row["tier"]: (row["record"], row["what_if"]) for row in rows}


async def test_lived_turns_come_out_as_recorded_where_nothing_that_matters_is_otherwise() -> None:
    report = await asked(await lived(), max_error=0.05)
    assert report.tally is not None
    assert (report.tally.decisions, report.tally.changed, report.differs) == (20, 0, 0)
    assert report.conversations == []
    assert counts(report) == {"dtr": (12, 12), "imperator": (8, 8)}


async def test_history_comes_out_as_recorded_by_the_models_that_decided_it() -> None:
    blobs: dict[str, bytes] = {}
    log = await brought_in(90, blobs)
    report = await asked(log, blobs.__getitem__, max_error=0.05)
    assert report.tally is not None
    assert (report.tally.decisions, report.tally.changed) == (270, 0)
    record, now = report.tally.promises()
    assert (now["judged"], now["wrong"]) == (record["judged"], record["wrong"])
    told = counts(await asked(log, blobs.__getitem__, without=frozenset({"lppm"})))
    assert told["lppm"][0] > 0
    assert told["lppm"][1] == 0
    # A promise that nothing can keep leaves all to the language model.
    told = counts(await asked(log, blobs.__getitem__, max_error=0.0001))
    assert told["lppm"][1] == 0


async def test_what_processes_conduct_comes_out_as_recorded_and_without_them_goes_up() -> None:
    log = await conducted()
    live = [one.fields for one in await on(log, "Decision") if one.fields["mode"] == "live"]
    recorded = Counter(fields["tier"] for fields in live)
    assert recorded["lppm"] > 0
    promised = Variant(max_error=0.1)
    report = await what_if(log, Asked(promised), no_blob, registry=DESK)
    assert report.tally is not None
    assert (report.tally.decisions, report.tally.changed) == (recorded.total(), 0)
    none = await what_if(log, Asked(Variant(without=frozenset({"lppm"}))), no_blob, registry=DESK)
    assert counts(none)["lppm"] == (recorded["lppm"], 0)
    assert counts(none)["imperator"][1] >= recorded["imperator"] + recorded["lppm"]


async def test_without_the_tree_its_turns_go_to_the_language_model_and_each_is_told() -> None:
    report = await asked(await lived(), without=frozenset({"dtr"}))
    assert counts(report) == {"dtr": (12, 0), "imperator": (8, 20)}
    assert report.differs == 12
    assert report.cost["calls_fewer"] == -12
    row = report.rows[0]
    assert row["what_if"]["tier"] == "imperator"
    assert row["what_if"]["escalation"] == "switched-off"
    assert row["record"]["tier"] == "dtr"
    assert sum(row["differs"] for row in report.conversations) == 12


async def test_another_model_decides_by_its_version_its_id_or_a_file(tmp_path: Path) -> None:
    blobs: dict[str, bytes] = {}
    log = await brought_in(90, blobs)
    model, notes = await find_model(log, "first-80", blobs.__getitem__)
    assert "learned from conversations of this log" in notes[0]
    again, _ = await find_model(log, model.event_id, blobs.__getitem__)
    assert again.models.text() == model.models.text()
    file = tmp_path / "model.json"
    file.write_text(model.models.text())
    by_file, told = await find_model(log, str(file), no_blob)
    assert "nobody knows" in told[0]
    by_version = counts(await asked(log, blobs.__getitem__, model=model))
    assert by_version == counts(await asked(log, no_blob, model=by_file))
    # The first rounds had learned less than this model.
    assert by_version["lppm"][1] > by_version["lppm"][0]


async def test_a_bare_tree_is_a_model_too(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text(TierModels.seed().tree.text)
    log = await lived()
    model, _ = await find_model(log, str(file), no_blob)
    report = await asked(log, model=model)
    assert report.tally is not None
    assert report.tally.changed == 0


@pytest.mark.parametrize("named", ["lived-9", "/nowhere/model.json", eid(5)])
async def test_an_unknown_model_is_refused_with_those_there_are(named: str) -> None:
    with pytest.raises(UnknownModel, match="seed-1"):
        await find_model(await lived(), named, no_blob)


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text('{"format": "soup"}')
    with pytest.raises(InvalidModel, match="no model that decides"):
        await find_model(await lived(), str(file), no_blob)


async def test_nothing_asked_is_refused() -> None:
    with pytest.raises(NothingAsked):
        await what_if(await lived(), Asked(), no_blob)


async def test_what_the_record_has_no_decision_of_is_decided_by_a_named_model_alone() -> None:
    log = await refunds()
    turns = await lived()
    async for events in turns.read_topics(["mad.conversations"]):
        await log.append([event.event for event in events])
    report = await asked(log, max_error=0.5)
    assert report.tally is not None
    assert (report.tally.decisions, report.tally.undecided) == (0, 0)
    seed, _ = await find_model(turns, "seed-1", no_blob)
    report = await asked(log, model=seed)
    assert report.tally is not None
    assert (report.tally.decisions, report.tally.undecided) == (0, 20)


async def test_what_audits_found_right_judges_what_would_have_been_live() -> None:
    log = await lived()
    audited = []
    async for events in log.read_topics(["mad.decisions"]):
        audited += [event for event in events if event.fields["tier"] == "dtr"]
    verdicts = [
        Outcome(
            event_id=eid(700 + number),
            conversation_id=one.fields["conversation_id"],
            sender=JUDGE,
            occurred_at=1,
            mad="orders",
            result="failure" if number == 0 else "success",
            judged_by="audit",
            about="decision",
            about_id=one.event_id,
        )
        for number, one in enumerate(audited[:5])
    ]
    await log.append(verdicts)
    report = await asked(log, max_error=0.04)
    assert report.tally is not None
    record, now = report.tally.promises()
    assert (record["promised_error"], now["promised_error"]) == (0.05, 0.04)
    for side in (record, now):
        assert (side["judged"], side["wrong"]) == (5, 1)
    nobody = await asked(log, without=frozenset({"dtr"}))
    assert nobody.tally is not None
    assert [row["judged"] for row in nobody.tally.promises()] == [5, 0]


async def test_prices_say_what_the_record_would_have_cost() -> None:
    log = await refunds()
    prices = PriceList((Price("m-1", 100.0, 1000.0), Price("m-1", 9e9, 9e9, since_us=2_000_000)))
    report = await what_if(log, Asked(prices=prices), no_blob)
    assert report.cost["record"]["usd"] == 0.5
    assert report.cost["at_these_prices"] == {"usd": 0.2, "calls_of_unknown_cost": 0}
    assert report.tally is None


async def test_calls_saved_are_told_at_the_mean_of_those_that_were_made() -> None:
    log = await lived()
    async for events in (await refunds()).read_topics(["mad.llm"]):
        await log.append([event.event for event in events])
    report = await asked(log, without=frozenset({"dtr"}))
    assert (report.cost["usd_less"], report.cost["latency_s_less"]) == (-6.0, -24.0)


async def test_the_log_is_as_it_was_to_its_last_byte(tmp_path: Path) -> None:
    log = await lived()
    names = await log.log.topics()
    before = await digest(log), await log.log.end(names)
    await asked(log, without=frozenset({"dtr"}))
    assert (await digest(log), await log.log.end(names)) == before


async def test_a_model_that_cannot_be_read_is_named_and_the_rest_decided() -> None:
    log = await lived()
    gone = eid(999)
    await planted(log, event_id=eid(998), turn_id=eid(1), recipient="orders", model_id=gone)
    await planted(log, event_id=eid(997), turn_id=eid(777), model_id=gone)
    report = await asked(log, max_error=0.05)
    assert report.tally is not None
    assert report.tally.decisions == 20


async def test_the_report_is_plain_json_with_an_excerpt_at_the_turn_of_difference() -> None:
    report = await asked(await lived(), without=frozenset({"dtr"}))
    told = json.loads(json.dumps(report.as_json()))
    assert told["changed"] == 12
    first = told["excerpts"][0]["lines"]
    marks = [line["mark"] for line in first]
    assert "≠" in marks
    unlike = next(line for line in first if line["mark"] == "≠")
    assert (unlike["record"].split()[0], unlike["what_if"]) == ("tree", "llm")
    assert all(not line["record"] for line in first if line["mark"] == "═")
