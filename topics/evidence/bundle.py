"""A bundle of evidence: records with their proofs, checkpoints, keys, and what verifies them all.

Its files:
- records.jsonl: a record a line: origin of its tree, index in it, key, value and headers (base64),
  and its inclusion proof, the hashes one after another
- events.jsonl: the event that each of these records is, as its bytes say it
- checkpoints.txt: a signed checkpoint of each tree; keys.txt: the keys that they are signed with
- verify.py: verifies all of it, with nothing of madlog
- manifest.txt: the SHA-256 of each file, signed by the log's key
The records of mad.schemas are always in it: they say what the bytes of the others mean.
"""

import json
import os
import shutil
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any, NamedTuple

from madlog.topics.catalog import partition_for, topic
from madlog.topics.event_log import SCHEMAS_TOPIC, EventLog
from madlog.topics.evidence import verifier
from madlog.topics.evidence.errors import BadBundle, EvidenceBroken
from madlog.topics.evidence.keeper import covered_topics
from madlog.topics.evidence.merkle import Node, inclusion_proof
from madlog.topics.evidence.notes import Checkpoint, SigningKey, checkpoint_of
from madlog.topics.evidence.tiles import Tiles
from madlog.topics.log import Record
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("Bundled", "write_bundle")

_CONVERSATION = "conversation"
_MANIFEST = "manifest.txt"


class Bundled(NamedTuple):
    """What was written: records, those of them that are the conversation's, and trees."""

    records: int
    of_conversation: int
    trees: int


class _Signed(NamedTuple):
    checkpoint: Checkpoint
    note: str


async def write_bundle(
    log: EventLog,
    tiles: Tiles,
    key: SigningKey,
    out: Path,
    conversation: str | None,
    progress: Callable[[int], None] | None = None,
) -> Bundled:
    """Write the records of a conversation, or of all when it is None, to a new folder or .zip.

    What the trees' newest checkpoints cover is written, so let Keeper.run come before. Raises
    BadBundle where `out` is there or cannot be written, EvidenceBroken where the log is not what
    was signed; nothing half-written is left under its name.
    """
    signed: dict[TopicPartition, _Signed] = {}
    for tp, tree in sorted(tiles.trees().items()):
        checkpoint = tree.signed and checkpoint_of(tree.signed, key.verifier.of_tree(tp))
        if tree.signed and checkpoint:
            signed[tp] = _Signed(checkpoint, tree.signed)
    with _written(out) as folder:
        written = await _write_records(log, tiles, signed, conversation, folder, progress)
        if conversation is not None and not written.of_conversation:
            raise BadBundle(f"the log holds no record of a conversation {conversation[:80]!r}")
        used = sorted(written.trees)
        notes = "\n".join(signed[tp].note for tp in used)
        (folder / "checkpoints.txt").write_text(notes, encoding="utf-8")
        keys = [key.verifier, *(key.verifier.of_tree(tp) for tp in used)]
        (folder / "keys.txt").write_text("".join(f"{one}\n" for one in keys), encoding="utf-8")
        shutil.copyfile(verifier.__file__, folder / "verify.py")
        lines = [f"{_digest(one)}  {one.name}\n" for one in sorted(folder.iterdir())]
        (folder / _MANIFEST).write_text(key.sign("".join(lines)), encoding="utf-8")
        try:
            verifier.verify(folder, str(key.verifier))
        except Exception as error:
            raise EvidenceBroken(
                f"no bundle was written, since it would not hold ({error}): madlog check says what "
                "in the log is not what was signed"
            ) from error
    return Bundled(written.records, written.of_conversation, len(used))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


class _Written:
    """Writes records and their events, and counts them."""

    def __init__(self, records: IO[str], events: IO[str]) -> None:
        self.records = 0
        self.of_conversation = 0
        self.trees: set[TopicPartition] = set()
        self._records = records
        self._events = events
        self._schemas: dict[str, Any] = {}

    def learn(self, fields: dict[str, Any]) -> None:
        """Take up a schema that the log holds."""
        self._schemas[fields["fingerprint"]] = json.loads(fields["schema_text"])

    def write(self, record: Record, index: int, origin: str, proof: list[bytes]) -> None:
        """Write a record that stands at this index of its tree, and what it says."""
        row = {
            "origin": origin,
            "index": index,
            "key": _base64(record.key),
            "value": _base64(record.value),
            "headers": [[name, _base64(value)] for name, value in record.headers],
            "proof": _base64(b"".join(proof)),
        }
        self._records.write(json.dumps(row) + "\n")
        event = verifier.decoded(record.value, self._schemas)
        self._events.write(json.dumps(event) + "\n")
        self.records += 1
        self.trees.add(TopicPartition(record.topic, record.partition))


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


async def _write_records(
    log: EventLog,
    tiles: Tiles,
    signed: dict[TopicPartition, _Signed],
    conversation: str | None,
    folder: Path,
    progress: Callable[[int], None] | None,
) -> _Written:
    with (
        (folder / "records.jsonl").open("w", encoding="utf-8") as records,
        (folder / "events.jsonl").open("w", encoding="utf-8") as events,
    ):
        written = _Written(records, events)
        async for batch in log.read_topics([SCHEMAS_TOPIC]):
            for event in batch:
                if event.kind == "SchemaRegistered":
                    written.learn(event.fields)
        for tp, one in await _wanted(log, signed, conversation):
            index, node = 0, _nodes(tiles, tp)
            async for batch_of in log.log.read(Vector(), await _end(log, tp)):
                for record in batch_of[: one.checkpoint.size - index]:
                    own = (_CONVERSATION, (conversation or "").encode()) in record.headers
                    if conversation is None or own or tp.topic == SCHEMAS_TOPIC:
                        proof = inclusion_proof(index, one.checkpoint.size, node)
                        written.write(record, index, one.checkpoint.origin, proof)
                        written.of_conversation += own
                    index += 1
                if progress is not None:
                    progress(written.records)
    return written


def _nodes(tiles: Tiles, tp: TopicPartition) -> Node:
    """Return a tree's nodes; the proofs of neighbours share nearly all of theirs."""

    @lru_cache(maxsize=4096)
    def node(height: int, index: int) -> bytes:
        return tiles.node(tp, height, index)

    return node


async def _end(log: EventLog, tp: TopicPartition) -> Vector:
    end = await log.log.end([tp.topic])
    return Vector({tp: end[tp]})


async def _wanted(
    log: EventLog, signed: dict[TopicPartition, _Signed], conversation: str | None
) -> list[tuple[TopicPartition, _Signed]]:
    """Return the trees that may hold records of the conversation, that of schemas first."""
    counts = await log.log.topics()
    covered = await covered_topics(log.log)
    found = []
    for tp, one in signed.items():
        place = tp.partition
        if conversation is not None and topic(tp.topic).key == "conversation_id":
            place = partition_for(conversation.encode(), counts[tp.topic])
        if tp.topic in covered and tp.partition == place:
            found.append((tp, one))
    return sorted(found, key=lambda pair: (pair[0].topic != SCHEMAS_TOPIC, pair[0]))


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    """Give a folder to write into; it gets its name, or becomes a .zip, when all is written."""
    out = out.absolute()  # the current folder has no name of its own
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadBundle(f"{out} is there already: name a new folder, or a new file ending in .zip")
    folder = out.with_name(f".{out.name}.{os.getpid()}.partial")
    packed = folder.with_suffix(".zip")
    try:
        folder.mkdir(parents=True)
        yield folder
        if out.suffix == ".zip":
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for one in sorted(folder.iterdir()):
                    archive.write(one, one.name)
            packed.replace(out)
        else:
            folder.replace(out)
    except OSError as error:
        raise BadBundle(
            f"{out} cannot be written ({error.strerror}): name another place, or make room there"
        ) from error
    finally:
        with suppress(OSError):
            packed.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
