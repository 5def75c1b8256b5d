"""The trees of a log, kept up to its end: any way they grew, and whoever was killed meanwhile."""

import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Collection
from pathlib import Path
from textwrap import dedent

import pytest
from tests.bench.fixtures import turn

from madlog.schemas import EVENT_KINDS, CheckpointSigned
from madlog.topics import EventLog
from madlog.topics.evidence import (
    HashesDamaged,
    Keeper,
    SigningKey,
    Tiles,
    check_evidence,
    covered_topics,
)
from madlog.topics.evidence.leaves import leaf_data, record_hash
from madlog.topics.evidence.merkle import Peaks, leaf_hash
from madlog.topics.evidence.notes import open_checkpoint
from madlog.topics.log import SOURCE, Record
from madlog.topics.memory import MemoryLog
from madlog.topics.positions import TopicPartition, Vector
from madlog.topics.testing.clocks import ManualClock

KEY = SigningKey.new(bytes(range(32)))
SCHEMAS = TopicPartition("mad.schemas", 0)


async def log_of(turns: int) -> EventLog:
    log = await EventLog.open(MemoryLog(clock=ManualClock()))
    await log.append([turn(number) for number in range(turns)])
    return log


async def roots_of(log: EventLog) -> dict[TopicPartition, tuple[int, bytes]]:
    """The roots by the definition: all records of each partition, in their order."""
    peaks: dict[TopicPartition, Peaks] = {}
    async for events in log.read_topics(await covered_topics(log.log)):
        for event in events:
            record = event.record
            tree = peaks.setdefault(TopicPartition(record.topic, record.partition), Peaks())
            tree.append(leaf_hash(leaf_data(record.key, record.value, record.headers)))
    return {tp: (tree.size, tree.root()) for tp, tree in peaks.items()}


def kept(tiles: Tiles) -> dict[TopicPartition, tuple[int, bytes]]:
    return {
        tp: (tree.size, tiles.root(tp, tree.size))
        for tp, tree in tiles.trees().items()
        if tree.size
    }


async def checkpoints(log: EventLog) -> list[CheckpointSigned]:
    found: list[CheckpointSigned] = []
    async for events in log.read_topics(["mad.system"]):
        found += [event.event for event in events if isinstance(event.event, CheckpointSigned)]
    return found


async def test_trees_hold_every_record_of_the_topics_kept_for_ever(tmp_path: Path) -> None:
    log = await log_of(700)
    with Tiles(tmp_path / "hashes") as tiles:
        assert await Keeper(log, tiles, None).grow() == 700 + len(EVENT_KINDS)
        assert kept(tiles) == await roots_of(log)
        await log.append([turn(number) for number in range(700, 750)])
        assert await Keeper(log, tiles, None).grow() == 50
        assert await Keeper(log, tiles, None).grow() == 0
        assert kept(tiles) == await roots_of(log)


async def test_hashes_made_anew_give_the_same_roots(tmp_path: Path) -> None:
    log = await log_of(300)
    with Tiles(tmp_path / "first") as first, Tiles(tmp_path / "second") as second:
        await Keeper(log, first, KEY).run()
        await log.append([turn(number) for number in range(300, 999)])
        await Keeper(log, first, KEY).run()
        await Keeper(log, second, None).grow()
        assert kept(first) == kept(second)


async def test_each_tree_that_grew_is_signed_once_on_the_log(tmp_path: Path) -> None:
    log = await log_of(300)
    with Tiles(tmp_path / "hashes") as tiles:
        keeper = Keeper(log, tiles, KEY)
        assert len((await keeper.run()).signed) == 5
        assert (await keeper.run()).signed == [], "what was signed is not signed again"
        await log.append([turn(1_000)])
        (again,) = (await keeper.run()).signed
        found = await checkpoints(log)
        assert found[-1] == again
        assert len(found) == 6
        for event in found:
            tp = TopicPartition(event.topic, event.partition)
            checkpoint = open_checkpoint(event.note, KEY.verifier)
            assert checkpoint is not None
            assert checkpoint.origin == event.origin == f"{KEY.name}/{tp}"
            assert checkpoint.size == event.size
            assert checkpoint.root.hex() == event.root_sha256
            assert tiles.root(tp, event.size) == checkpoint.root
        # Another one, whose hashes are made anew, knows from the log what was signed.
    with Tiles(tmp_path / "others") as tiles:
        assert (await Keeper(log, tiles, KEY).run()).signed == []


async def test_what_is_signed_is_the_key_the_value_and_the_headers_that_readers_go_by() -> None:
    headers = (("kind", b"Turn"), ("duration-us", b"5"), (SOURCE, b"a"))
    record = Record("mad.conversations", 0, 7, b"key", b"value", headers, 99)
    same = record._replace(offset=8, appended_at=1, partition=2, topic="mad.llm")
    assert record_hash(same) == record_hash(record)
    assert record_hash(record._replace(headers=(headers[0], headers[2]))) == record_hash(record)
    for other in (
        record._replace(key=b"kez"),
        record._replace(value=b"valuf"),
        record._replace(key=b"keyv", value=b"alue"),
        record._replace(headers=headers[:2]),
        record._replace(headers=headers[::-1]),
        record._replace(headers=(("kind", b"Turm"), *headers[1:])),
    ):
        assert record_hash(other) != record_hash(record)


async def test_two_that_keep_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    log = await log_of(600)
    with Tiles(tmp_path / "hashes") as one, Tiles(tmp_path / "hashes") as two:
        before = one.tree(SCHEMAS)
        await Keeper(log, two, KEY).run()
        # It reads from where the tree stood before, and finds that the other was faster.
        after = one.extend(SCHEMAS, before, [bytes(32)] * 3, range(3), 3)
        assert after == two.tree(SCHEMAS)
        assert after.size == len(EVENT_KINDS)
        assert kept(one) == await roots_of(log)


async def test_what_only_the_log_still_says_was_signed_is_kept_beside_the_hashes_again(
    tmp_path: Path,
) -> None:
    log = await log_of(300)
    with Tiles(tmp_path / "hashes") as tiles:
        await Keeper(log, tiles, KEY).run()
        old = tiles.trees()
    await log.append([turn(number) for number in range(300, 600)])
    with Tiles(tmp_path / "hashes") as tiles:
        await Keeper(log, tiles, KEY).run()
        signed = tiles.trees()
    # Who can append can append an old checkpoint again: it is not the newest for that.
    for event in await checkpoints(log):
        if event.note == (old[TopicPartition(event.topic, event.partition)].signed):
            await log.append([event.model_copy(update={"event_id": event.event_id[:-1] + "0"})])
    with Tiles(tmp_path / "anew") as tiles:
        assert (await Keeper(log, tiles, KEY).run()).signed == []
        assert tiles.trees() == signed, "so it can be published, and bundled"


async def test_a_genuine_note_counts_for_no_other_tree(tmp_path: Path) -> None:
    log = await log_of(300)
    one, other = (TopicPartition("mad.conversations", number) for number in (0, 1))
    with Tiles(tmp_path / "hashes") as tiles:
        (*signed,) = (await Keeper(log, tiles, KEY).run()).signed
        of = {TopicPartition(event.topic, event.partition): event for event in signed}
        # The signature covers the text alone: the name beside it is anybody's to write.
        text, line = of[one].note.split("\n\n")
        named = KEY.sign("x\n", of[other].origin).split("\n\n")[1]
        taken = b64decode(named.split()[-1])[:4] + b64decode(line.split()[-1])[4:]
        moved = f"{text}\n\n\u2014 {of[other].origin} {b64encode(taken).decode()}\n"
        assert KEY.verifier.of_tree(other).verified(moved) is not None
        no_checkpoint = KEY.sign("a text\n", of[other].origin)
        for number, note in enumerate((moved, no_checkpoint)):
            changed = {"note": note, "event_id": of[other].event_id[:-1] + str(number)}
            await log.append([of[other].model_copy(update=changed)])
        larger = {"size": of[one].size + 1, "event_id": of[one].event_id[:-1] + "2"}
        await log.append([of[one].model_copy(update=larger)])
        verdict = await check_evidence(log, tiles, [KEY.verifier])
        assert [(found.kind, found.damage.topic) for found in verdict.findings] == [
            ("checkpoint", "mad.system")
        ] * 3
        tiles.mark_signed(other, moved)
        assert (await Keeper(log, tiles, KEY).run()).broken == []
        assert tiles.tree(other).signed == of[other].note


class Racing(MemoryLog):
    """A log in which, as soon as its end is told, another appends and hashes what it appended."""

    other: Keeper | None = None
    number = 5_000

    async def end(self, topics: Collection[str]) -> Vector:
        told = await super().end(topics)
        if self.other is not None and set(topics) != {"mad.system"}:
            other, self.other = self.other, None
            self.number += 50
            await EventLog(self).append([turn(self.number + more) for more in range(50)])
            await other.grow()
        return told


async def test_one_that_was_overtaken_takes_nothing_for_missing(tmp_path: Path) -> None:
    log = await EventLog.open(Racing(clock=ManualClock()))
    assert isinstance(log.log, Racing)
    await log.append([turn(number) for number in range(300)])
    with Tiles(tmp_path / "hashes") as one, Tiles(tmp_path / "hashes") as two:
        await Keeper(log, one, KEY).run()
        log.log.other = Keeper(log, two, KEY)
        assert (await Keeper(log, one, KEY).run()).broken == []
        assert log.log.other is None
        assert kept(one) == await roots_of(log)
        log.log.other = Keeper(log, two, KEY)
        verdict = await check_evidence(log, one, [KEY.verifier])
        assert verdict.findings == []
        assert log.log.other is None


def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "hashes").write_bytes(b"something else" * 400)
    with pytest.raises(HashesDamaged, match="makes it anew"):
        Tiles(tmp_path / "hashes")
    with pytest.raises(HashesDamaged, match="cannot be used"):
        Tiles(tmp_path / "none", read_only=True)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from madlog.topics.evidence import tiles as module
    from madlog.topics.evidence.merkle import leaf_hash
    from madlog.topics.positions import TopicPartition

    tp = TopicPartition("mad.schemas", 0)
    kept = module.Tiles(Path(sys.argv[1]))
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(3_000)]
    tree = kept.extend(tp, kept.tree(tp), leaves[:700], range(700), 700)
    made, root = 0, module.complete_root

    def dying(hashes):
        global made
        made += 1
        if str(made) == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return root(hashes)

    module.complete_root = dying
    if sys.argv[2] == "commit":
        kept._connection.set_commit_hook(lambda: os.kill(os.getpid(), signal.SIGKILL))
    kept.extend(tp, tree, leaves[700:], range(700, 3_000), 3_000)
"""


@pytest.mark.parametrize("when", ["1", "7", "commit"])
def test_killed_in_mid_write_the_hashes_are_those_of_the_batch_before(
    tmp_path: Path, when: str
) -> None:
    file = tmp_path / "hashes"
    done = subprocess.run(
        [sys.executable, "-c", dedent(KILLED), str(file), when], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(3_000)]
    with Tiles(file) as tiles:
        tree = tiles.tree(SCHEMAS)
        assert tree[:2] == (700, 700)
        assert list(tiles.leaves(SCHEMAS)) == list(zip(leaves[:700], range(700), strict=True))
        tiles.extend(SCHEMAS, tree, leaves[700:], range(700, 3_000), 3_000)
        peaks = Peaks()
        for leaf in leaves:
            peaks.append(leaf)
        assert tiles.root(SCHEMAS, 3_000) == peaks.root()
