"""bench routing refuses a wrong folder, and says of each figure whether it was measured."""

import csv
import gzip
from pathlib import Path

from tests.acceptance.cli import madlog


def _banking(folder: Path) -> Path:
    """Two intents that differ in a word, in the form of BANKING77."""
    folder.mkdir()
    texts = [
        (f"{asked} number {number} {what}", label)
        for number in range(12)
        for asked in ("please", "tell me", "what about")
        for what, label in (("my card is lost", "lost_card"), ("rate of euro", "exchange_rate"))
    ]
    for name in ("train", "test"):
        with gzip.open(folder / f"banking77_{name}.csv.gz", "wt", newline="") as file:
            csv.writer(file).writerows([("text", "category"), *texts])
    return folder


def test_a_folder_that_is_none_or_holds_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        said = madlog("bench", "routing", "--data", name, cwd=tmp_path).refused(2)
        assert name in said
        assert "clinc150.json.gz" in said
        assert "--data" in said


def test_options_of_routing_are_not_passed_over_elsewhere(tmp_path: Path) -> None:
    said = madlog("bench", "append", "--data", ".", cwd=tmp_path).refused(2)
    assert "madlog bench routing" in said


def test_what_has_data_is_measured_and_what_has_none_is_a_row_that_says_so(tmp_path: Path) -> None:
    data = _banking(tmp_path / "data")
    ran = madlog(
        "bench", "routing-lppm", "--data", str(data), "--seeds", "1", "--json", cwd=tmp_path
    )
    assert ran.code == 0, ran
    rows = {row["what"].partition(":")[0]: row for row in ran.rows}
    measured = rows["BANKING77"]
    assert (measured["ours"], measured["met"]) == (100, True)
    assert measured["baseline"] == "majority 50.0"
    for name, file in (("CLINC150", "clinc150.json.gz"), ("STAR", "star_train.jsonl.gz")):
        assert rows[name]["met"] == "skipped"
        assert file in rows[name]["what"]
        assert "--data" in rows[name]["what"]
    assert "routing-lppm" in ran.err
