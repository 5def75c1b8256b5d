"""Processes as files, as guides, and as pictures."""

import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from tests.unit.talks import cases

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.drawing import mermaid, svg
from madlog.processors.lppm.mining import mine
from madlog.processors.lppm.process import Process

_SVG = "{http://www.w3.org/2000/svg}"


def _mined() -> Process:
    return mine(cases(range(24)), "move <a> booking")


def test_a_process_comes_back_from_its_file() -> None:
    process = _mined()
    again = Process.from_document(json.loads(json.dumps(process.to_document())))
    assert again == process
    assert again.version == process.version


def test_another_process_has_another_version() -> None:
    assert mine(cases(range(24)), "a").version != mine(cases(range(25)), "a").version


def _without_steps(document: dict[str, Any]) -> None:
    del document["steps"]


def _other_format(document: dict[str, Any]) -> None:
    document["format"] = "process-0"


def _confidence_over_one(document: dict[str, Any]) -> None:
    document["steps"][0]["confidence"] = 1.5


def _step_twice(document: dict[str, Any]) -> None:
    document["steps"].append(document["steps"][0])


def _edge_to_nowhere(document: dict[str, Any]) -> None:
    document["edges"][0]["step"] = "agent action:fly"


def _unknown_end(document: dict[str, Any]) -> None:
    document["ends"]["agent action:fly"] = 1


def _unknown_what(document: dict[str, Any]) -> None:
    document["steps"][0]["what"] = "fly"


def _slot_without_count(document: dict[str, Any]) -> None:
    next(step for step in document["steps"] if step["slots"])["slots"][0]["given"] = True


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_without_steps, "exactly"),
        (_other_format, "process-0"),
        (_confidence_over_one, r"steps\[0\].confidence"),
        (_step_twice, "same key"),
        (_edge_to_nowhere, r"edges\[0\].*fly"),
        (_unknown_end, "ends.*fly"),
        (_unknown_what, r"steps\[0\].what.*fly"),
        (_slot_without_count, r"slots\[0\].given"),
    ],
)
def test_a_spoilt_file_is_refused_and_says_where(spoil: Any, told: str) -> None:
    document = json.loads(json.dumps(_mined().to_document()))
    spoil(document)
    with pytest.raises(InvalidModel, match=told):
        Process.from_document(document)


def test_guards_choose_what_follows_a_conversation_so_far() -> None:
    process = _mined()
    free, full = cases([101])[0].acts, cases([102])[0].acts
    assert process.following(free[:5])[0].step == "agent action:move_booking"
    assert [edge.step for edge in process.following(full[:5])] == ["agent say after get_booking"]
    assert process.following(())[0].step == "agent ask after start"


def test_what_the_process_does_not_know_is_passed_over() -> None:
    process = _mined()
    assert process.following(cases([101])[0].acts)[:1] == ()


def test_a_mermaid_chart_names_each_step_and_edge() -> None:
    process = _mined()
    lines = mermaid(process).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum(" -->" in line for line in lines) == len(process.edges)
    assert any('["get_user<br/>' in line for line in lines)
    assert any('(["ask after start<br/>' in line for line in lines)


def test_a_picture_is_xml_without_anything_from_outside() -> None:
    text = svg(_mined())
    root = ElementTree.fromstring(text)
    title = root.find(f"{_SVG}title")
    assert title is not None
    assert title.text == "move <a> booking"
    assert "href" not in text
    assert "script" not in text


def test_text_fits_in_its_box_and_boxes_do_not_overlap() -> None:
    process = _mined()
    root = ElementTree.fromstring(svg(process))
    boxes = [one for one in root.iter(f"{_SVG}rect") if "box" in one.get("class", "")]
    assert len(boxes) == len(process.steps)
    sides = []
    for box in boxes:
        x, y = float(box.get("x", "")), float(box.get("y", ""))
        sides.append((x, y, x + float(box.get("width", "")), y + float(box.get("height", ""))))
    for number, (left, top, right, bottom) in enumerate(sides):
        inside = [
            text
            for text in root.iter(f"{_SVG}text")
            if left < float(text.get("x", "")) < right and top < float(text.get("y", "")) < bottom
        ]
        assert len(inside) >= 3
        assert all(7.25 * len(text.text or "") < right - left for text in inside)
        for other in sides[:number]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart


def test_no_number_in_a_picture_is_missing() -> None:
    assert not re.search(r"nan|inf|None", svg(mine([], "empty")))
