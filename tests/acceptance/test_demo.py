"""The demo, as somebody sees it who has just installed this."""

from pathlib import Path

from tests.acceptance.cli import madlog


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


def test_the_demo_is_the_same_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        ran = madlog("demo", "--turns", "300", "--json", cwd=tmp_path)
        assert ran.code == 0, ran.err
        assert ran.json["durable"]["lost"] == 0
    runs = [madlog("digest", "--log", f".madlog-demo/run-00{n}", cwd=tmp_path).out for n in (1, 2)]
    assert runs[0] == runs[1]
