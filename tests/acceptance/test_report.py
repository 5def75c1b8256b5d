"""The routing report is one page that needs nothing else and shows what the log says."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.acceptance.cli import madlog
from tests.unit.history import history
from tests.unit.test_questions import about, decision

from madlog.schemas import Event, LlmCall, Part, Turn
from madlog.wiring import opened

VOID = {"meta", "rect", "line", "circle"}


class Checked(HTMLParser):
    """Sees that every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def hostile(event: Event) -> Event:
    if not isinstance(event, Turn):
        return event
    text = event.text + ' <script>alert("x")</script>'
    return event.model_copy(update={"parts": (Part(content_class="prose", text=text),)})


@pytest.fixture
async def page(tmp_path: Path) -> str:
    async with opened(str(tmp_path / ".madlog")) as log:
        for events in history(190, fails_every=9):
            await log.append([hostile(event) for event in events])
    assert madlog("worker", "--until-idle", cwd=tmp_path).code == 0
    ran = madlog("report", "routing", "--out", "r.html", "--json", cwd=tmp_path)
    assert (ran.code, ran.json) == (0, {"file": "r.html", "decisions": 570})
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    checked = Checked()
    checked.feed(page)
    assert checked.open == []
    assert not {"script", "link", "img", "iframe"} & checked.names
    assert not re.search(r"(?:src|href)=|url\(|https?://", page)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) > 3
    for chart in charts:
        ElementTree.fromstring(chart)


def test_the_page_says_what_traffic_it_is_of_and_what_was_wrong(page: str) -> None:
    assert "570 decisions" in page
    assert "turns scripted" in page
    assert "In retrospect: what would have been settled" in page
    assert "first-160" in page
    assert "action:get_order" in page
    assert "learned process" in page
    assert "How sure, and how often right" in page


async def test_a_price_list_is_given_by_an_option_or_a_setting_and_a_bad_one_is_refused(
    tmp_path: Path,
) -> None:
    tokens: dict[str, Any] = {"model": "scripted-1", "tokens_in": 1_000, "tokens_out": 100}
    async with opened(str(tmp_path / "demo")) as log:
        await log.append([decision(1, "dtr"), LlmCall(**about(2, "bot"), cost_usd=0.01, **tokens)])
    head = "model,usd_per_million_in,usd_per_million_out\n"
    (tmp_path / "prices.csv").write_text(f"{head}scripted-1,1000,1000\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text(f"{head}scripted-1,-1,1\n", encoding="utf-8")
    asked = ("ask", "savings", "--log", "demo", "--json")
    known = madlog(*asked, cwd=tmp_path).rows[0]["usd_avoided"]
    (by_option,) = madlog(*asked, "--prices", "prices.csv", cwd=tmp_path).rows
    (by_setting,) = madlog(*asked, cwd=tmp_path, env={"MADLOG_PRICES": "prices.csv"}).rows
    assert by_option == by_setting
    assert (known, by_option["usd_avoided"]) == (0.01, 1.1)
    told = madlog(*asked, "--prices", "bad.csv", cwd=tmp_path).refused(2)
    assert "bad.csv:2 usd_per_million_in is '-1'" in told
    page = ("report", "routing", "--out", "r.html", "--log", "demo")
    assert madlog(*page, "--prices", "prices.csv", cwd=tmp_path).code == 0
    assert "What was saved" in (tmp_path / "r.html").read_text(encoding="utf-8")


async def test_a_log_without_decisions_makes_a_page_too(tmp_path: Path) -> None:
    madlog("append", "-c", "c", "-s", "ada", "hello", cwd=tmp_path)
    assert madlog("report", "routing", "--out", "r.html", cwd=tmp_path).code == 0
    assert "1 turns live" in (tmp_path / "r.html").read_text(encoding="utf-8")
    refused = madlog("report", "routing", "--out", "no/r.html", cwd=tmp_path).refused(2)
    assert "cannot be written" in refused
