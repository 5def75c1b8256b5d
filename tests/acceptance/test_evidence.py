"""Evidence at the command line: keys, checkpoints, what check finds, bundles and their verifier."""

import ast
import asyncio
import json
import random
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from tests.acceptance.cli import Ran
from tests.acceptance.inside import inside
from tests.bench.fixtures import turn
from tests.faults.forger import Stored, forge

from madlog.cli import working
from madlog.cli._context import State
from madlog.cli.working import EngineName, Retrospect
from madlog.topics import EventLog
from madlog.topics.catalog import partition_for
from madlog.topics.evidence import verifier as shipped
from madlog.topics.evidence.keys import read_key
from madlog.topics.positions import TopicPartition
from madlog.wiring import opened

MUTATIONS = 100
LINES_MAX = 150


def appended(folder: Path, conversation: str, text: str) -> None:
    arguments = ("append", "-c", conversation, "-s", "ada", "-t", "shop", text)
    assert inside(*arguments, cwd=folder).code == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of three conversations, evidence, and bundles of one and of all."""
    folder = tmp_path_factory.mktemp("evidence")
    lines = [
        {"conversation_id": f"c{number % 3}", "sender": "ada", "text": f"Order {number}, please."}
        for number in range(60)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert inside("append", "-", cwd=folder, stdin=text.encode()).code == 0
    assert inside("evidence", "key", "--name", "example.com/shop", cwd=folder).code == 0
    assert inside("worker", "--until-idle", cwd=folder).code == 0
    assert inside("evidence", "publish", "published.txt", cwd=folder).code == 0
    assert inside("evidence", "bundle", "c1", "--out", "one", cwd=folder).code == 0
    assert inside("evidence", "bundle", "--all", "--out", "all.zip", cwd=folder).code == 0
    with zipfile.ZipFile(folder / "all.zip") as archive:
        archive.extractall(folder / "all")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def by_path(file: Path) -> ModuleType:
    """The verifier as whoever gets a bundle has it: a file, imported from where it is."""
    spec = util.spec_from_file_location("verify_bundle", file)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = dont_write
    return module


def verified(folder: Path, *arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-B", str(folder / "verify.py"), str(folder), *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=folder.parent,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_verifier_stands_alone_and_is_short() -> None:
    text = Path(shipped.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    assert "json" in imported
    assert imported - {"cryptography"} <= sys.stdlib_module_names


def test_a_bundle_of_a_conversation_is_verified_offline(made: Path) -> None:
    key = read_key(made / ".madlog" / "evidence.key")
    assert key is not None
    ran = verified(made / "one", str(key.verifier))
    assert ran.code == 0, ran.out
    assert "as example.com/shop sealed them" in ran.out
    assert "owner published" not in ran.out, "the key was named"
    assert "compare it with the one that its owner published" in verified(made / "one").out
    text = (made / "one" / "events.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in text.splitlines()]
    turns = [event for event in events if event["kind"] == "Turn"]
    assert [turn["parts"][0]["text"] for turn in turns] == [
        f"Order {number}, please." for number in range(60) if number % 3 == 1
    ]
    others = {event["conversation_id"] for event in events if event["kind"] != "SchemaRegistered"}
    assert others == {"c1"}
    ran = inside("evidence", "verify", "one", "--json", cwd=made)
    assert (ran.code, ran.json["ok"], len(ran.json["verified"])) == (0, True, 5)


def test_a_bundle_of_all_leaves_nothing_out(made: Path) -> None:
    ran = verified(made / "all")
    assert ran.code == 0, ran.out
    trees = len((made / "all" / "keys.txt").read_text().splitlines()) - 1
    assert f"{trees} of these trees are here whole" in ran.out


def test_another_key_is_refused(made: Path) -> None:
    ran = verified(made / "one", "example.com/shop+00000000+AZ")
    assert ran.code == 1
    assert ran.out.startswith("REFUSED: it was not made with the key")


def test_each_of_a_hundred_random_mutations_is_refused(made: Path, tmp_path: Path) -> None:
    verify = by_path(made / "one" / "verify.py").verify
    rnd = random.Random(7)
    whole = {file.name: file.read_bytes() for file in sorted((made / "one").iterdir())}
    weights = [len(content) for content in whole.values()]
    refused = 0
    for number in range(MUTATIONS):
        bundle = tmp_path / str(number)
        bundle.mkdir()
        # Half of them by size, so that most are in the records; half by file.
        by_size = number % 2 == 0
        (name,) = rnd.choices(list(whole), weights if by_size else None)
        data, at = whole[name], rnd.randrange(len(whole[name]))
        how = rnd.choice(("flip", "cut", "put in", "end"))
        changed = {
            "flip": data[:at] + bytes([data[at] ^ 1 << rnd.randrange(8)]) + data[at + 1 :],
            "cut": data[:at] + data[at + 1 :],
            "put in": data[:at] + rnd.randbytes(1) + data[at:],
            "end": data[:at],
        }[how]
        assert changed != data
        for other, content in whole.items():
            (bundle / other).write_bytes(changed if other == name else content)
        try:
            verify(bundle)
        except Exception:
            refused += 1
            continue
        pytest.fail(f"mutation {number} of {name} at {at} ({how}) was not noticed")
    assert refused == MUTATIONS


def resealed(bundle: Path, name: str, change: tuple[str, str]) -> None:
    """Change a file of a bundle and seal it again with the log's own key."""
    key = read_key(bundle.parent / ".madlog" / "evidence.key")
    assert key is not None
    text = (bundle / name).read_text(encoding="utf-8")
    assert text.count(change[0]) >= 1
    (bundle / name).write_text(text.replace(*change, 1), encoding="utf-8")
    lines = [
        f"{sha256(one.read_bytes()).hexdigest()}  {one.name}\n"
        for one in sorted(bundle.iterdir())
        if one.name != "manifest.txt"
    ]
    (bundle / "manifest.txt").write_text(key.sign("".join(lines)), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("events.jsonl", ("Order 1,", "Order 7,"), "says else"),
        ("events.jsonl", ('"recipients": []', '"recipients": ["shop"]'), "says else"),
        ("records.jsonl", ('"index": 3', '"index": 2'), "not"),
        ("records.jsonl", ('"proof": "', '"proof": "AAAA'), "not"),
        ("records.jsonl", ('"index": 3', '"index": 300'), "not"),
        ("checkpoints.txt", ("\n", "\n1"), "signature"),
    ],
)
def test_the_owner_cannot_seal_what_was_not_signed(
    folder: Path, name: str, change: tuple[str, str], words: str
) -> None:
    resealed(folder / "one", name, change)
    ran = verified(folder / "one")
    assert ran.code == 1, ran.out
    assert words in ran.out


def test_a_bundle_that_lacks_a_file_or_has_one_more_says_which(folder: Path) -> None:
    (folder / "one" / "more.txt").write_text("more")
    assert "more.txt" in verified(folder / "one").out
    (folder / "one" / "more.txt").unlink()
    (folder / "one" / "records.jsonl").unlink()
    ran = inside("evidence", "verify", "one", cwd=folder)
    assert (ran.code, ran.out) == (1, "REFUSED: records.jsonl is missing\n")
    assert "unpacked" in inside("evidence", "verify", "all.zip", cwd=folder).refused(2)


def test_check_names_what_was_altered_and_what_was_put_back(folder: Path) -> None:
    ran = inside("check", "--against", "published.txt", "--json", cwd=folder)
    assert (ran.code, ran.json["ok"], ran.json["evidence"]["findings"]) == (0, True, [])
    older = shutil.copytree(folder / ".madlog", folder / "older")
    tree = TopicPartition("mad.conversations", partition_for(b"c1", 4))

    def altered(records: list[Stored]) -> list[Stored]:
        value = records[4].value.replace(b"please", b"never!")
        assert value != records[4].value
        return [*records[:4], records[4]._replace(value=value), *records[5:]]

    forge(folder / ".madlog", tree, altered)
    ran = inside("check", cwd=folder)
    assert ran.code == 1
    assert ran.out.startswith(f"altered: {tree}@4: ")
    ran = inside("check", "--json", cwd=folder)
    assert ran.json["damage"] == []
    assert [one["position"] for one in ran.json["evidence"]["findings"]] == [f"{tree}@4"]
    # Nothing is signed or exported of it, and what is there says so.
    ran = inside("evidence", "bundle", "--all", "--out", "bad", cwd=folder)
    assert ran.code == 1
    assert not (folder / "bad").exists()
    shutil.rmtree(folder / ".madlog")
    shutil.copytree(older, folder / ".madlog")
    appended(folder, "c1", "one more")
    assert inside("evidence", "publish", "published.txt", cwd=folder).code == 0
    shutil.rmtree(folder / ".madlog")
    shutil.copytree(older, folder / ".madlog")
    assert inside("check", cwd=folder).code == 0
    ran = inside("check", "--against", "published.txt", cwd=folder)
    assert ran.code == 1
    assert ran.out.startswith("rolled-back: mad.conversations/")


def test_bad_input_is_refused_in_a_sentence(folder: Path) -> None:
    def refused(*arguments: str) -> str:
        return inside(*arguments, cwd=folder).refused(2)

    (folder / "text").write_text("no checkpoint")
    assert "holds no signed checkpoint" in refused("check", "--against", "text")
    assert "No such file" in refused("check", "--against", "none")
    published = (folder / "published.txt").read_text(encoding="utf-8")
    (folder / "other").write_text(published.replace("example.com", "example.org"))
    assert "another log" in refused("check", "--against", "other")
    assert "verifier key" in refused("check", "--key", "nonsense")
    assert "there already" in refused("evidence", "bundle", "c1", "--out", "one")
    assert "no record of a conversation" in refused("evidence", "bundle", "c9", "--out", "new")
    assert not (folder / "new").exists()
    assert "--all" in refused("evidence", "bundle", "--out", "new")
    assert "example.com/shop already" in refused("evidence", "key", "--name", "example.org/x")
    (folder / ".madlog" / "evidence.key").chmod(0o644)
    assert "chmod 600" in refused("evidence", "checkpoint")
    (folder / ".madlog" / "evidence.key").unlink()
    assert "--key" in refused("check", "--against", "published.txt")


async def test_a_worker_signs_at_intervals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(folder / ".madlog")
    monkeypatch.setenv("MADLOG_EVIDENCE_INTERVAL_S", "1")

    async def checkpoints(log: EventLog) -> int:
        return sum([len(events) async for events in log.read_topics(["mad.system"])])

    async with opened(url, create=False) as log:
        before = await checkpoints(log)
        work = asyncio.ensure_future(
            working._worker(State(url), None, False, Retrospect.NONE, EngineName.TRANSACTIONAL)
        )
        try:
            await log.append([turn(1)])
            while await checkpoints(log) == before:
                assert not work.done()
                await asyncio.sleep(0.05)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def test_a_worker_says_what_it_does_not_sign_any_more(folder: Path) -> None:
    forge(folder / ".madlog", TopicPartition("mad.schemas", 0), lambda records: records[:-1])
    assert inside("worker", "--until-idle", cwd=folder).err.count("mad.schemas/0 ends at @") == 1
