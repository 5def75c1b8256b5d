"""Evidence of a log on Kafka: by the same code, to the same roots as of a folder that holds it."""

from pathlib import Path

from tests.acceptance.cli import Ran
from tests.acceptance.inside import inside
from tests.bench.fixtures import turn

from madlog.topics import EventLog
from madlog.topics.evidence import (
    Finding,
    Keeper,
    SigningKey,
    Tiles,
    check_evidence,
    publish,
    read_published,
    verifier,
    write_bundle,
)
from madlog.topics.positions import TopicPartition
from madlog.wiring import open_event_log, opened

KEY = SigningKey.new(bytes(range(32)), "example.com/log")
TURNS = 240


async def written(log: EventLog, turns: int = TURNS) -> None:
    """Append in batches and transactions, whose markers take offsets on Kafka."""
    for first in range(0, turns, 60):
        await log.append([turn(number) for number in range(first, first + 40)])
        await log.transact([turn(number) for number in range(first + 40, first + 60)])


def roots(tiles: Tiles) -> dict[TopicPartition, tuple[int, str]]:
    return {
        tp: (tree.size, tiles.root(tp, tree.size).hex())
        for tp, tree in tiles.trees().items()
        if tree.size
    }


async def test_roots_are_those_of_a_folder_and_what_is_missing_is_found(
    kafka_url: str, kafka_prefix: str, tmp_path: Path
) -> None:
    log = await open_event_log(str(tmp_path / "log"))
    await written(log)
    with Tiles(tmp_path / "embedded") as tiles:
        await Keeper(log, tiles, KEY).run()
        embedded = roots(tiles)
    await log.close()

    async with opened(f"{kafka_url}?prefix={kafka_prefix}") as log:
        await written(log)
        with Tiles(tmp_path / "kafka") as tiles:
            kept = await Keeper(log, tiles, KEY).run()
            assert len(kept.signed) == 5
            assert roots(tiles) == embedded
            assert max(event.offset - event.size for event in kept.signed) > 0, "there are gaps"
            verdict = await check_evidence(log, tiles, [KEY.verifier])
            assert (verdict.findings, verdict.trees, verdict.checkpoints) == ([], 5, 5)
            await write_bundle(log, tiles, KEY, tmp_path / "bundle", None)
            publish(tiles, KEY.verifier, str(tmp_path / "published.txt"))
    assert "5 of these trees are here whole" in " ".join(verifier.verify(tmp_path / "bundle"))

    # Another log, that was to hold the same and does not.
    async with opened(f"{kafka_url}?prefix={kafka_prefix}b") as log:
        await written(log, TURNS // 2)
        with Tiles(tmp_path / "kafka", read_only=True) as tiles:
            published = read_published(tmp_path / "published.txt", [KEY.verifier])
            by_hashes = await check_evidence(log, tiles, [KEY.verifier])
            by_published = await check_evidence(log, None, [KEY.verifier], published)

    def kinds(findings: list[Finding]) -> set[tuple[str, str]]:
        return {(one.kind, one.damage.topic) for one in findings}

    assert kinds(by_hashes.findings) == {("truncated", "mad.conversations")}
    assert kinds(by_published.findings) == {("rolled-back", "mad.conversations")}


def test_the_commands_are_the_same_on_kafka(
    kafka_url: str, kafka_prefix: str, tmp_path: Path
) -> None:
    log = ("--log", f"{kafka_url}?prefix={kafka_prefix}")

    def ran(*arguments: str) -> Ran:
        ran = inside(*arguments, *log, cwd=tmp_path)
        assert ran.code == 0, ran.err
        return ran

    ran("append", "-c", "c1", "-s", "ada", "-t", "shop", "Where is it?")
    ran("evidence", "publish", "published.txt")
    evidence = ran("check", "--against", "published.txt", "--json").json["evidence"]
    assert (evidence["trees"], evidence["checkpoints"], evidence["findings"]) == (2, 4, [])
    ran("evidence", "bundle", "c1", "--out", "bundle")
    assert verifier.verify(tmp_path / "bundle")
