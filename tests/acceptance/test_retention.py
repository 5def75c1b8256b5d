"""Moving what is cold, by the command line: shown first, then done, and nothing else differs."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.inside import inside
from tests.unit.lake_scene import turn

from madlog.analytics.lake.growth import cold_limits
from madlog.topics import _embedded_moving
from madlog.topics._embedded_packs import PackFolder
from madlog.wiring import opened

COLD = ("--older-than", "0s")
TURNS = 150
# The conversation's beginning and who joined it are records too, and the newest one stays.
MOVED = TURNS + 1


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with one conversation of 600 KB, archived."""
    folder = tmp_path_factory.mktemp("retention")
    words = random.Random(7)
    lines = []
    for n in range(TURNS):
        text = " ".join(str(words.randrange(10_000)) for _ in range(800))
        lines.append(json.dumps({"conversation_id": "c1", "sender": "ada", "text": f"{n} {text}"}))
    run(folder, "append", "-", stdin="\n".join(lines).encode())
    run(folder, "lake", "archive")
    return folder


@pytest.fixture
def folder(archived: Path, tmp_path: Path) -> Path:
    shutil.copytree(archived / "log", tmp_path / "log")
    return tmp_path


def run(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    ran = inside(*arguments, "--log", "log", cwd=folder, stdin=stdin)
    assert ran.code == 0, ran.err
    return ran.out


def said(folder: Path, *arguments: str) -> Any:
    return json.loads(run(folder, "retention", *arguments, *COLD, "--json"))


def answers(folder: Path) -> list[str]:
    sql = 'select event_id, appended_at, text from turns order by "offset"'
    return [
        run(folder, "sql", sql, "--json"),
        run(folder, "digest", "--json"),
        run(folder, "show", "c1", "--json"),
    ]


def test_what_is_shown_first_is_what_is_moved_and_every_answer_stays(folder: Path) -> None:
    before = answers(folder)
    run(folder, "evidence", "key")
    run(folder, "evidence", "checkpoint")
    size = (folder / "log" / "log.sqlite").stat().st_size
    shown = said(folder, "--dry-run")
    assert (shown["dry_run"], shown["given_back"]) == (True, None)
    assert [one["records"] for one in shown["packs"]] == [MOVED]
    assert not list((folder / "log").rglob("*.pack"))
    moved = said(folder, "--apply")
    assert moved["packs"] == [
        {**one, "place": moved["packs"][0]["place"]} for one in shown["packs"]
    ]
    # Not in the lake, of which all but packs can be made again.
    [pack] = (folder / "log" / "cold").rglob("*.pack")
    assert str(folder / "log" / moved["packs"][0]["place"]) == str(pack)
    assert pack.stat().st_size == shown["pack_bytes"]
    assert size - (folder / "log" / "log.sqlite").stat().st_size > size / 2
    assert moved["given_back"] > size / 2
    assert answers(folder) == before
    [turns] = [
        row
        for row in map(json.loads, run(folder, "retention", "--json").splitlines())
        if row["topic"] == "mad.conversations"
    ]
    assert (turns["moved"], turns["pack_bytes"]) == (MOVED, shown["pack_bytes"])
    assert said(folder, "--apply")["packs"] == []
    checked = json.loads(run(folder, "check", "--json").splitlines()[-1])
    assert checked["ok"]
    assert checked["evidence"], "what was signed before is there after"
    run(folder, "backup", "copy")
    shutil.rmtree(folder / "log")
    ran = inside("restore", "copy", "--log", "log", cwd=folder)
    assert ran.code == 0, ran.err
    run(folder, "lake", "repair")  # a backup is of the log: the files are made again, from packs
    assert answers(folder) == before


def test_a_pack_that_is_gone_is_found_by_check(folder: Path) -> None:
    said(folder, "--apply")
    [pack] = (folder / "log" / "cold").rglob("*.pack")
    pack.unlink()
    ran = inside("check", "--log", "log", "--json", cwd=folder)
    assert ran.code == 1
    assert pack.name in ran.out


def test_moving_can_be_interrupted_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_embedded_moving, "_PACK_RECORDS", 80)
    write = PackFolder.write

    def interrupted(to: PackFolder, name: str, content: bytes) -> None:
        if list(folder.rglob("*.pack")):
            raise KeyboardInterrupt
        write(to, name, content)

    monkeypatch.setattr(PackFolder, "write", interrupted)
    ran = inside("retention", "--apply", *COLD, "--log", "log", cwd=folder)
    assert ran.code == 130, ran.err
    monkeypatch.setattr(PackFolder, "write", write)
    assert [one["records"] for one in said(folder, "--apply")["packs"]] == [MOVED - 80]
    run(folder, "check")


async def test_what_is_cold_is_old_archived_and_read_by_every_group(folder: Path) -> None:
    async with opened(str(folder / "log"), create=False) as log:
        ends = await log.log.end(["mad.conversations"])
        place, end = max(ends.items(), key=lambda one: one[1])

        async def limit(before_us: int) -> tuple[int, str]:
            limits = await cold_limits(log, before_us)
            return next((one.offset, one.because) for one in limits if one.tp == place)

        now = log.log.clock.now_us()
        assert await limit(0) == (0, "not that old")
        assert (await limit(now))[0] == end
        turns = [turn(n).model_copy(update={"conversation_id": "c1"}) for n in (1, 2)]
        await log.append(turns)
        later = now + 3_600_000_000
        assert await limit(later) == (end, "not archived")
        member = await log.log.join("late", [place.topic])
        assert await limit(later) == (0, "not read by group late")
        await member.leave()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--older-than", "soon"), 2, "'soon' is not an age"),
        (("--apply", "--log", "nowhere"), 3, "there is no log"),
        (("--apply", "--log", "kafka://127.0.0.1:1"), 2, "on Kafka the brokers keep them"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: tuple[str, ...], code: int, says: str, archived: Path
) -> None:
    assert says in inside("retention", *arguments, cwd=archived).refused(code)


def test_a_log_without_a_lake_has_nothing_to_move(tmp_path: Path) -> None:
    run(tmp_path, "append", "-c", "c", "-s", "ada", "hello")
    ran = inside("retention", "--apply", *COLD, "--log", "log", cwd=tmp_path)
    assert (ran.code, ran.out) == (0, "")
    assert "nothing to move" in ran.err
    assert "not archived" in ran.err
