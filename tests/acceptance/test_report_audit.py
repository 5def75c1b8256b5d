"""The audit report: one page that needs nothing else and says what the log says, unknowns too."""

import asyncio
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.acceptance.inside import inside
from tests.acceptance.test_report import Checked
from tests.unit.test_transcript import about, call, eid, result, said

from madlog.analytics.audit_charts import activity, graph
from madlog.analytics.audit_report import _periods, audit_report
from madlog.schemas import (
    AuditEntry,
    CheckpointSigned,
    Control,
    Event,
    LlmCall,
    Outcome,
    ToolResult,
)
from madlog.topics import EventLog
from madlog.topics.memory import MemoryLog
from madlog.wiring import opened

MADE_UP_US = 1_577_836_800_000_000  # 2020-01-01, where importers put what has no time
HOSTILE = '<script>alert("x")</script> & more'
EVENTS: list[Event] = [
    said(1, HOSTILE, recipients=("bot",)),
    said(2, "It cannot be done", sender="bot", recipients=("ada",), intent="ERROR"),
    call(3, "refund", {"order_id": "17", "amount_eur": 5}),
    result(4, 3, {"status": "paid"}),
    call(5, "refund", {"order_id": "17", "amount_eur": 5}),
    result(6, 5, {"status": "paid"}),
    call(7, "look", {}),
    ToolResult(**about(8), call_id=eid(7), ok=False, error="no connection"),
    LlmCall(**about(9), model="m1", tokens_in=100, tokens_out=10, cost_usd=0.25),
    LlmCall(**about(10), model="m1"),
    LlmCall(**about(11), model="m2", tokens_in=1_000_000, tokens_out=0),
    Outcome(
        **about(12),
        mad="bot",
        result="failure",
        judged_by="guard-once-per",
        about="decision",
        about_id=eid(3),
        extra={"reason": "order 17 was refunded before", "action": "refund"},
    ),
    Control(**about(13, "ada"), target="bot", command="stop", reason="it errs"),
    Control(**about(14, "ada"), target="bot", command="refuse", reason="too much"),
    AuditEntry(**about(15), action="sql", verdict="refused", reason="only the views can be read"),
    AuditEntry(**about(16), action="sql", verdict="answered"),
    *(
        CheckpointSigned(
            **about(20 + size),
            topic="mad.conversations",
            partition=1,
            offset=size,
            size=size,
            root_sha256=f"{size:064x}",
            origin="shop.example/log",
            note="shop.example/log\n",
            verifier_key="k",
        )
        for size in (3, 5)
    ),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")

    async def fill() -> None:
        async with opened(str(folder / ".madlog")) as log:
            await log.append(EVENTS)

    asyncio.run(fill())
    return folder


@pytest.fixture(scope="module")
def page(log: Path) -> str:
    return made(log, "--no-check")


def section(page: str, title: str) -> list[str]:
    """The cells of each row of the table under a heading."""
    part = page.split(f"<h2>{title}</h2>")[1].split("<h2>")[0]
    rows = re.findall(r"<tr>(<td.*?)</tr>", part)
    return [" | ".join(re.findall(r"<td[^>]*>(.*?)</td>", row)) for row in rows]


def made(log: Path, *arguments: str, code: int = 0) -> str:
    ran = inside("report", "audit", "--out", "a.html", "--json", *arguments, cwd=log)
    assert ran.code == code, ran.err
    assert ran.json["file"] == "a.html"
    return (log / "a.html").read_text(encoding="utf-8")


def test_the_page_is_whole_needs_nothing_else_and_shows_words_as_words(page: str) -> None:
    checked = Checked()
    checked.feed(page)
    assert checked.open == []
    assert not {"script", "link", "img", "iframe"} & checked.names
    assert not re.search(r"(?:src|href)=|url\((?!#)|https?://", page)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) >= 4
    for chart in charts:
        ElementTree.fromstring(chart)
    assert "Not checked" in page


def test_what_it_says_is_what_the_log_says(page: str) -> None:
    assert section(page, "What the language models cost") == [
        "m1 | 2 | 100 | 10 | $0.2500 | 1",
        "m2 | 1 | 1,000,000 | 0 | – | 1",
    ]
    assert "<b>$0.25</b><span>3 language model calls, 2 of unknown cost</span>" in page
    (twice,) = section(page, "Effects that happened more than once")
    assert twice.startswith("refund | order_id=17 | 2 | 5 | 2026-01-05 08:00")
    assert section(page, "What went wrong") == [
        "tool look | bot | 1 | no connection | c1",
        "turn that reports an error | bot | 1 | It cannot be done | c1",
    ]
    assert section(page, "What was refused") == [
        "ada | refuse bot | 1 | too much | c1",
        "guard-once-per | refund | 1 | order 17 was refunded before | c1",
        "sandbox: refused | sql | 1 | only the views can be read | –",
    ]
    orders = [row.split(" | ")[2] for row in section(page, "Orders that people gave")]
    assert orders == ["refuse", "stop"]
    (checkpoint,) = section(page, "Signed checkpoints")
    assert checkpoint.split(" | ")[:4] == ["mad.conversations/1", "5", f"{5:064x}", "2"]
    assert section(page, "Who talks to whom") == ["ada | bot | 1 | 1", "bot | ada | 1 | 1"]


def test_a_price_list_says_what_recorded_costs_do_not(log: Path) -> None:
    head = "model,usd_per_million_in,usd_per_million_out\n"
    (log / "prices.csv").write_text(f"{head}m2,2,8\n", encoding="utf-8")
    page = made(log, "--no-check", "--prices", "prices.csv")
    assert section(page, "What the language models cost") == [
        "m1 | 2 | 100 | 10 | $0.2500 | 1 | –",
        "m2 | 1 | 1,000,000 | 0 | – | 1 | $2.0000",
    ]


def test_as_of_a_moment_it_says_what_was_known_then(log: Path) -> None:
    page = made(log, "--no-check", "--as-of", "1999-01-01")
    assert "<b>0</b><span>conversations</span>" in page
    assert section(page, "What was refused") == []
    assert "past the end" in inside(
        "report", "audit", "--out", "b.html", "--as-of", "mad.llm/0@999", cwd=log
    ).refused(2)


def test_a_damaged_log_is_said_to_be_so_and_where(tmp_path: Path) -> None:
    inside("append", "-c", "c1", "-s", "ada", "hello there", cwd=tmp_path)
    page = made(tmp_path)
    assert "No damage found" in page
    assert "Nothing is signed" in page
    file = tmp_path / ".madlog" / "log.sqlite"
    for path in (file, file.with_name("log.sqlite-wal")):
        if path.exists():
            path.write_bytes(path.read_bytes().replace(b"hello there", b"jello there"))
    page = made(tmp_path, code=1)
    assert "The log is not whole" in page
    assert "damaged: mad.conversations/" in page


def test_an_empty_log_makes_a_page_and_a_folder_that_is_not_there_is_refused(
    tmp_path: Path,
) -> None:
    async def nothing() -> None:
        async with opened(str(tmp_path / ".madlog")):
            pass

    asyncio.run(nothing())
    page = made(tmp_path)
    assert "No call of a language model is on the log" in page
    assert "No turn names a recipient" in page
    refused = inside("report", "audit", "--out", "no/a.html", "--no-check", cwd=tmp_path)
    assert "cannot be written" in refused.refused(2)


def minutes(*counts: tuple[str, int, int]) -> list[dict[str, Any]]:
    return [
        {"period": datetime.fromisoformat(at), "turns": turns, "tool_calls": calls}
        for at, turns, calls in counts
    ]


@pytest.mark.parametrize(
    ("last", "unit", "bars"),
    [
        ("2026-01-05 08:09", "minute", 10),
        ("2026-01-07 08:09", "hour", 49),
        ("2026-03-01 08:09", "day", 56),
        ("2028-01-05 00:00", "10 days", 74),
    ],
)
def test_periods_are_as_small_as_can_be_shown_and_leave_none_out(
    last: str, unit: str, bars: int
) -> None:
    found, named = _periods(minutes(("2026-01-05 08:00", 3, 1), (last, 2, 0)))
    assert named == unit
    assert len(found) == bars
    assert (found[0]["turns"], found[-1]["turns"]) == (3, 2)
    assert sum(row["turns"] for row in found) == 5
    assert activity(found).count("<g>") == bars


@pytest.mark.parametrize(("at_us", "told"), [(0, True), (10**14, False)])
async def test_times_that_an_import_made_up_are_not_told_as_when_it_was(
    at_us: int, told: bool
) -> None:
    log = await EventLog.open(MemoryLog())
    made_up = said(1, "hello").model_copy(update={"occurred_at": MADE_UP_US + at_us})
    await log.append([made_up])
    page = (await audit_report(log, "shop")).html
    assert ("Its source told no times." in page) == told
    assert ("to 2023-" in page) != told


def test_the_graph_puts_those_who_say_little_together() -> None:
    pairs = [
        {"sender": f"a{one}", "sender_kind": "mad", "recipient": "hub", "turns": 100 - one}
        for one in range(30)
    ]
    drawn = ElementTree.fromstring(graph(pairs))
    drawn_names = [text.text for text in drawn.iter("text")]
    assert len(drawn_names) == 14
    assert "18 others" in drawn_names
    assert "hub" in drawn_names


def test_pages_and_trees_of_a_log_on_kafka_are_those_of_a_folder(
    log: Path, kafka_url: str, kafka_prefix: str
) -> None:
    on_kafka = f"{kafka_url}?prefix={kafka_prefix}"

    async def fill() -> None:
        async with opened(on_kafka) as kafka:
            await kafka.append(EVENTS)

    asyncio.run(fill())
    trees, bodies = [], []
    for url in (str(log / ".madlog"), on_kafka):
        tree = inside("tree", eid(3), "--whole", "--json", "--log", url, cwd=log).json
        trees.append([{**event, "position": ""} for event in tree["events"]])
        page = made(log, "--no-check", "--log", url)
        bodies.append(page.split('<div class="cards">')[1].split("<h2>Up to where")[0])
    assert trees[0] == trees[1]
    assert bodies[0] == bodies[1]
    # The checkpoints of this scene are by nobody, and checked on either.
    assert "The log is not whole" in made(log, "--log", on_kafka, code=1)
