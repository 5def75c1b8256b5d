"""Holds a log against its evidence: the hashes that were kept, and the checkpoints signed of them.

The hashes kept beside the log say which record differs, as long as they are those that were signed;
without them a checkpoint tells only between which two checkpoints something differs. Who can write
the log, the hashes and the checkpoints on it, and holds the key, is found out by a checkpoint that
was published elsewhere, and by nothing else.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from madlog.topics.event_log import EventLog
from madlog.topics.evidence.differences import Comparison, Difference, Leaf
from madlog.topics.evidence.errors import BadKey, HashesDamaged
from madlog.topics.evidence.keeper import CHECKPOINTS_TOPIC, covered_topics
from madlog.topics.evidence.leaves import record_hash
from madlog.topics.evidence.merkle import Peaks
from madlog.topics.evidence.notes import Checkpoint, VerifierKey, checkpoint_of
from madlog.topics.evidence.tiles import Tiles, Tree
from madlog.topics.log import Damage
from madlog.topics.positions import TopicPartition, Vector

__all__ = ("Finding", "Published", "Verdict", "check_evidence")


class Published(NamedTuple):
    """A checkpoint that was kept elsewhere, and where."""

    tree: TopicPartition
    checkpoint: Checkpoint
    where: str


class Finding(NamedTuple):
    """What differs from the evidence, and where.

    `kind`: altered, inserted, deleted, reordered, truncated, rolled-back, checkpoint (a signature
    is wrong), hashes (those kept beside the log are not those that were signed).
    """

    kind: str
    damage: Damage

    def __str__(self) -> str:
        return f"{self.kind}: {self.damage}"


@dataclass(slots=True)
class Verdict:
    """What a log was held against, and what was found."""

    trees: int = 0
    records: int = 0
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Signed(NamedTuple):
    size: int
    root: bytes
    # "" for one that stands on the log itself.
    where: str = ""


@dataclass(slots=True)
class _Tree:
    """One partition as it is read."""

    tp: TopicPartition
    signed: list[_Signed]
    kept: Tree
    comparison: Comparison | None
    peaks: Peaks = field(default_factory=Peaks)
    # Signed sizes whose root is right, and the first whose root is wrong, with the offsets before.
    good: tuple[int, int] = (0, 0)
    bad: tuple[_Signed, int] | None = None
    count: int = 0
    next_offset: int = 0
    whole: bool = True
    _at: int = 0

    def add(self, leaf: Leaf) -> None:
        """Take the next record, or what stands where one cannot be read."""
        self.count += 1
        self.next_offset = leaf.offset + 1
        if self.comparison is not None:
            self.comparison.feed(leaf)
        if leaf.hash is None:
            self.whole = False  # roots cannot be computed past it
        if self.whole and leaf.hash is not None:
            self.peaks.append(leaf.hash)
            self.compare_root()

    def compare_root(self) -> None:
        """Compare the root so far with each that was signed of as many records."""
        while self._at < len(self.signed) and self.signed[self._at].size <= self.peaks.size:
            one = self.signed[self._at]
            self._at += 1
            if one.size < self.peaks.size or self.bad is not None:
                continue
            if self.peaks.root() == one.root:
                self.good = (one.size, self.next_offset)
            else:
                self.bad = (one, self.next_offset)


async def check_evidence(
    log: EventLog,
    tiles: Tiles | None,
    keys: Collection[VerifierKey],
    published: Collection[Published] = (),
    progress: Callable[[int], None] | None = None,
) -> Verdict:
    """Hold every record of the topics kept for ever against all evidence that there is.

    Without keys, checkpoints on the log are held against the keys that they name themselves.
    """
    verdict = Verdict()
    signed = await _on_log(log, keys, verdict)
    for tree, checkpoint, where in published:
        signed.setdefault(tree, []).append(_Signed(checkpoint.size, checkpoint.root, where))
    verdict.checkpoints = sum(map(len, signed.values()))
    # The log is read to an end that is not before what was hashed: a worker may be hashing more.
    kept = {} if tiles is None else tiles.trees()
    covered = await covered_topics(log.log)
    start, end = await log.log.start(covered), await log.log.end(covered)
    trees: dict[TopicPartition, _Tree] = {}
    for tp in sorted({*end, *kept, *signed}):
        of_tree = sorted(set(signed.get(tp, ())))
        found = kept.get(tp, Tree(0, 0, None))
        comparison = None
        first = start.get(tp, 0)
        if tiles is not None and _as_signed(tiles, tp, found.size, of_tree, verdict):
            comparison = Comparison(_expected(tiles, tp, found.size, first))
        trees[tp] = _Tree(tp, of_tree, found, comparison, whole=not first)
        if first:
            trees[tp].count = first  # they are named here, not as missing at the end too
            reason = "the records before the first that can be read are gone, and are kept for ever"
            verdict.findings.append(_finding("deleted", tp, 0, first, reason))
        trees[tp].compare_root()
    await _read(log, end, trees, verdict, progress)
    for one in trees.values():
        verdict.trees += bool(one.kept.size or one.signed)
        verdict.findings += _findings(one)
    return verdict


async def _on_log(
    log: EventLog, keys: Collection[VerifierKey], verdict: Verdict
) -> dict[TopicPartition, list[_Signed]]:
    """Return the checkpoints on the log whose signatures are right."""
    found: dict[TopicPartition, list[_Signed]] = {}
    strangers: dict[str, Damage] = {}
    async for events in log.read_topics([CHECKPOINTS_TOPIC], on_damage=_pass_over):
        for event in events:
            if event.kind != "CheckpointSigned":
                continue
            fields, at = event.fields, event.position
            tp = TopicPartition(fields["topic"], fields["partition"])
            here = Damage(at.topic, at.partition, at.offset, at.offset + 1, "")
            trusted = [key.of_tree(tp) for key in keys] or _named_key(fields["verifier_key"])
            named = [key for key in trusted if key.name == fields["origin"]]
            if not named:
                strangers.setdefault(fields["verifier_key"], here)
                continue
            opened = (checkpoint_of(fields["note"], key) for key in named)
            checkpoint = next(filter(None, opened), None)
            reason = _amiss(checkpoint, fields, tp)
            if reason:
                verdict.findings.append(Finding("checkpoint", here._replace(reason=reason)))
            if checkpoint is not None:
                found.setdefault(tp, []).append(_Signed(checkpoint.size, checkpoint.root))
    for stranger, here in strangers.items():
        reason = (
            f"from here on checkpoints are signed by another key, {stranger}: name it with --key "
            "too if it is yours"
        )
        verdict.findings.append(Finding("checkpoint", here._replace(reason=reason)))
    if found and not keys:
        verdict.notes.append(
            "no key was named and the log has none: signatures were checked by the keys that the "
            "checkpoints name themselves; name the one you trust with --key"
        )
    return found


def _amiss(checkpoint: Checkpoint | None, fields: dict[str, Any], tp: TopicPartition) -> str:
    """Return what is wrong with a CheckpointSigned of a tree, "" for nothing."""
    if checkpoint is None:
        return f"the signature of the checkpoint of {tp} is not by the key of this log"
    if (fields["size"], fields["root_sha256"]) != (checkpoint.size, checkpoint.root.hex()):
        return f"the checkpoint of {tp} says another size or root than the note that was signed"
    return ""


def _named_key(text: str) -> list[VerifierKey]:
    try:
        return [VerifierKey.parse(text)]
    except BadKey:
        return []


def _pass_over(damage: Damage) -> None:
    """Whoever checks the log itself has named this damage."""


def _expected(tiles: Tiles, tp: TopicPartition, size: int, first: int) -> Iterator[Leaf]:
    """Yield the leaves that are to be found from the first offset that can be read."""
    for leaf, offset in tiles.leaves(tp, 0, size):
        if offset >= first:
            yield Leaf(leaf, offset)


def _as_signed(
    tiles: Tiles, tp: TopicPartition, size: int, signed: list[_Signed], verdict: Verdict
) -> bool:
    """Tell whether the hashes kept of a tree are those that were signed; says so if not."""
    peaks = Peaks()
    later = iter(signed)
    one = next(later, None)
    try:
        for leaf, _ in tiles.leaves(tp, 0, size):
            peaks.append(leaf)
            while one is not None and one.size <= peaks.size:
                if one.size == peaks.size and one.root != peaks.root():
                    reason = (
                        f"the hashes kept in {tiles.path} are not those that were signed at "
                        f"{one.size} records, so what differs is told by checkpoints only"
                    )
                    damage = Damage(tp.topic, tp.partition, 0, 0, reason)
                    verdict.findings.append(Finding("hashes", damage))
                    return False
                one = next(later, None)
    except HashesDamaged as error:
        verdict.notes.append(str(error))
        return False
    return True


async def _read(
    log: EventLog,
    end: Vector,
    trees: dict[TopicPartition, _Tree],
    verdict: Verdict,
    progress: Callable[[int], None] | None,
) -> None:
    holes: dict[TopicPartition, list[Damage]] = {}

    def keep(damage: Damage) -> None:
        holes.setdefault(TopicPartition(damage.topic, damage.partition), []).append(damage)

    async for records in log.log.read(Vector(), end, on_damage=keep):
        one = trees[TopicPartition(records[0].topic, records[0].partition)]
        leaves = [Leaf(record_hash(record), record.offset) for record in records]
        if one.tp in holes:
            leaves += _leaves_of(holes.pop(one.tp))
            leaves.sort(key=lambda leaf: leaf.offset)
        for leaf in leaves:
            one.add(leaf)
        verdict.records += len(records)
        if progress is not None:
            progress(verdict.records)
    for tp, rest in holes.items():
        for leaf in _leaves_of(rest):
            trees[tp].add(leaf)


def _leaves_of(damages: list[Damage]) -> list[Leaf]:
    return [Leaf(None, at) for one in damages for at in range(one.offset, one.offset_end)]


def _findings(one: _Tree) -> Iterator[Finding]:
    located: list[Finding] = []
    if one.comparison is not None:
        one.comparison.finish()
        located = _joined(_located(one.tp, one.comparison.differences, one.next_offset))
        yield from located
    if one.bad is not None and not located:
        signed, offset = one.bad
        since, first = one.good
        reason = (
            f"of records {since + 1} to {signed.size} of this partition at least one is not what "
            f"was signed{_at_place(signed)}"
        )
        yield _finding("altered", one.tp, first, max(offset, first + 1), reason)
    longest = max(one.signed, default=None)
    if longest is None or longest.size <= one.count:
        return
    if located and longest.size <= one.kept.size:
        return  # the hashes reach as far as what was signed, and have said what is missing
    older = "this is an older copy of the log" if longest.where else "it was cut off"
    reason = (
        f"the partition ends here with {one.count} records, and {longest.size} were "
        f"signed{_at_place(longest)}: {older}"
    )
    kind = "rolled-back" if longest.where else "truncated"
    yield _finding(kind, one.tp, one.next_offset, one.next_offset, reason)


def _at_place(signed: _Signed) -> str:
    return f" (the checkpoint in {signed.where})" if signed.where else ""


def _finding(kind: str, tp: TopicPartition, start: int, end: int, reason: str) -> Finding:
    return Finding(kind, Damage(tp.topic, tp.partition, start, end, reason))


def _joined(findings: Iterator[Finding]) -> list[Finding]:
    """Make one finding of those that say the same of offsets that follow each other."""
    joined: list[Finding] = []
    for one in findings:
        kind, damage = joined[-1] if joined else (None, one.damage)
        if kind == one.kind and damage == one.damage._replace(
            offset=damage.offset, offset_end=one.damage.offset
        ):
            joined[-1] = Finding(one.kind, damage._replace(offset_end=one.damage.offset_end))
        else:
            joined.append(one)
    return joined


def _located(tp: TopicPartition, differences: list[Difference], end: int) -> Iterator[Finding]:
    """Say of each difference what was done, and where."""
    wanted = {leaf.hash: leaf.offset for one in differences for leaf in one.expected}
    found = {leaf.hash for one in differences for leaf in one.found}
    for one in differences:
        if not one.located:
            first = one.found[0].offset
            reason = (
                "from here on the records are others than those that were hashed when they were "
                "appended"
            )
            yield _finding("altered", tp, first, max(end, first + 1), reason)
            continue
        for leaf in one.found:
            if leaf.hash in wanted:
                reason = f"the record that was appended at @{wanted[leaf.hash]} stands here"
                yield _finding("reordered", tp, leaf.offset, leaf.offset + 1, reason)
        gone = [leaf for leaf in one.expected if leaf.hash not in found]
        here = [leaf for leaf in one.found if leaf.hash not in wanted]
        yield from _replaced(tp, gone, here, end, one.more)


def _replaced(
    tp: TopicPartition, gone: list[Leaf], here: list[Leaf], end: int, more: int
) -> Iterator[Finding]:
    """Say what became of the leaves that are `gone`, where those are that are `here` instead.

    `more` are gone after them, to the end.
    """
    count = len(gone) + more
    if not gone:
        for leaf in here:
            reason = "put in later: not here when the records around it were hashed"
            yield _finding("inserted", tp, leaf.offset, leaf.offset + 1, reason)
    elif not here:
        first, last = gone[0].offset, gone[-1].offset
        if first >= end:
            reason = f"the partition ends here, and {count} records that were hashed are gone"
            yield _finding("truncated", tp, end, end, reason)
        else:
            reason = f"{_many(count)} that stood here when it was hashed is gone"
            yield _finding("deleted", tp, first, last + 1, reason)
    elif count == len(here):
        for leaf in here:
            if leaf.hash is not None:  # what cannot be read was named as damage
                reason = "not what was appended: the hash that was taken then is another"
                yield _finding("altered", tp, leaf.offset, leaf.offset + 1, reason)
    elif any(leaf.hash is not None for leaf in here):
        reason = f"{_many(count)} that stood here was replaced by {_many(len(here))}"
        yield _finding("altered", tp, here[0].offset, here[-1].offset + 1, reason)


def _many(count: int) -> str:
    return "the record" if count == 1 else f"a row of {count} records"
