"""The null products of the benchmark: equal answers, a server that is not there said, quoting."""

from pathlib import Path
from typing import Any

import pytest
from tests.bench import null_promises, null_run, null_turns
from tests.bench.null_postgres import Refused, Session, copy_rows, insert
from tests.bench.null_turns import Said


async def test_answers_are_equal_and_without_a_server_a_row_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(folder: Path, server: str | None) -> list[dict[str, Any]]:
        return []

    monkeypatch.setattr(null_promises, "found", none)
    monkeypatch.setattr(null_turns, "_WORDS", 200)
    few: dict[str, Any] = {"_LOADED": 200, "_SINGLE": 2, "_BATCHES": 1, "_TAIL": 50, "_FRESH": 1}
    few["_QUESTIONS"] = null_run._QUESTIONS[4:]  # those that the two ask in other words
    for name, value in few.items():
        monkeypatch.setattr(null_run, name, value)
    *rows, skipped = await null_run.measure(tmp_path, 1, 50, None)
    # Raises where the two give other answers.
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in rows)
    assert skipped["met"] == "skipped"
    assert "MADLOG_POSTGRES" in skipped["what"]


def test_what_people_say_reaches_postgres_as_it_is() -> None:
    said = Said("id", "c", "o'neill", 0, "turn", {"text": "a\tb\n\\. 'c'"})
    assert "'o''neill'" in insert([said])
    assert "'a\tb\n\\. ''c'''" in insert([said])
    assert "\to'neill\t" in copy_rows([said])
    assert "\ta\\tb\\n\\\\. 'c'\t" in copy_rows([said])


def test_a_server_that_does_not_answer_is_one_sentence_with_what_to_do() -> None:
    with pytest.raises(Refused, match="MADLOG_POSTGRES") as refused:
        Session("postgresql://127.0.0.1:1/none")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 3
