"""Laws of evidence: what is proven verifies, and no single change of it does."""

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from madlog.topics.evidence.differences import Comparison, Leaf
from madlog.topics.evidence.merkle import (
    Node,
    Peaks,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from madlog.topics.evidence.notes import Checkpoint, SigningKey, open_checkpoint
from madlog.topics.evidence.tiles import Tiles
from madlog.topics.positions import TopicPartition

TREE = TopicPartition("mad.conversations", 0)
KEY = SigningKey.new(bytes(range(32)), "example.com/log")


def leaves(size: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(size)]


def nodes(hashes: list[bytes]) -> Node:
    @cache
    def node(height: int, index: int) -> bytes:
        if height == 0:
            return hashes[index]
        return node_hash(node(height - 1, 2 * index), node(height - 1, 2 * index + 1))

    return node


def flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8 % len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def mutations(proof: list[bytes], rnd: random.Random) -> list[list[bytes]]:
    """Every way to change one thing of a proof: a bit of each hash, one less, one more, order."""
    changed = [
        [*proof[:at], flipped(one, rnd.randrange(256)), *proof[at + 1 :]]
        for at, one in enumerate(proof)
    ]
    changed += [proof[:at] + proof[at + 1 :] for at in range(len(proof))]
    changed += [[*proof[:at], bytes(32), *proof[at:]] for at in range(len(proof) + 1)]
    changed += [
        [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]] for at in range(len(proof) - 1)
    ]
    return changed


@given(st.integers(1, 600), st.data())
def test_each_leaf_is_proven_and_no_mutation_of_its_proof_is(
    size: int, data: st.DataObject
) -> None:
    hashes = leaves(size)
    node, index = nodes(hashes), data.draw(st.integers(0, size - 1))
    rnd = random.Random(size)
    root, proof = root_of(size, node), inclusion_proof(index, size, node)
    assert verify_inclusion(hashes[index], index, size, proof, root)
    for mutation in mutations(proof, rnd):
        assert not verify_inclusion(hashes[index], index, size, mutation, root)
    assert not verify_inclusion(flipped(hashes[index], 3), index, size, proof, root)
    assert not verify_inclusion(hashes[index], index, size, proof, flipped(root, 3))
    for other in {(index + 1) % size, index ^ 1, rnd.randrange(size)} - {index}:
        assert not verify_inclusion(hashes[index], other, size, proof, root)


@given(st.integers(1, 600), st.data())
def test_growth_is_proven_and_no_mutation_of_its_proof_is(new: int, data: st.DataObject) -> None:
    node, old = nodes(leaves(new)), data.draw(st.integers(1, new))
    roots = root_of(old, node), root_of(new, node)
    proof = consistency_proof(old, new, node)
    assert verify_consistency(old, new, proof, *roots)
    for mutation in mutations(proof, random.Random(new)):
        assert not verify_consistency(old, new, mutation, *roots)
    assert not verify_consistency(old, new, proof, flipped(roots[0], 9), roots[1])
    assert not verify_consistency(old, new, proof, roots[0], flipped(roots[1], 9))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from((1, 2, 100, 255, 256, 257, 513)), min_size=1, max_size=8))
def test_tiles_give_the_roots_of_the_definition_however_they_grew(batches: list[int]) -> None:
    hashes = leaves(sum(batches))
    peaks, at = Peaks(), 0
    with TemporaryDirectory() as folder, Tiles(Path(folder) / "hashes") as tiles:
        for count in batches:
            more = hashes[at : at + count]
            offsets = range(2 * at, 2 * (at + count), 2)  # gaps, as on Kafka
            tree = tiles.extend(TREE, tiles.tree(TREE), more, offsets, 2 * (at + count))
            at += count
            for leaf in more:
                peaks.append(leaf)
            assert tree.size == at
            assert tiles.root(TREE, at) == peaks.root()
        size = random.Random(at).randint(0, at)
        assert tiles.root(TREE, size) == root_of(size, nodes(hashes))
        stored = list(tiles.leaves(TREE))
    assert stored == [(leaf, 2 * number) for number, leaf in enumerate(hashes)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**12), st.binary(min_size=32, max_size=32), st.data())
def test_a_checkpoint_opens_and_no_changed_character_of_it_does(
    size: int, root: bytes, data: st.DataObject
) -> None:
    checkpoint = Checkpoint("example.com/log/mad.conversations/0", size, root)
    note = checkpoint.signed(KEY)
    assert open_checkpoint(note, KEY.verifier) == checkpoint
    at = data.draw(st.integers(0, len(note) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != note[at]))
    try:
        opened = open_checkpoint(note[:at] + other + note[at + 1 :], KEY.verifier)
    except ValueError:
        return
    assert opened is None


def test_what_is_missing_at_the_end_is_counted_and_not_held() -> None:
    before = [Leaf(leaf, at) for at, leaf in enumerate(leaves(50))]
    comparison = Comparison(iter(before), window=8)
    for leaf in before[:10]:
        comparison.feed(leaf)
    comparison.finish()
    (found,) = comparison.differences
    assert (found.expected, found.found, found.more) == (before[10:18], [], 32)


EDITS = st.lists(
    st.tuples(st.sampled_from(("alter", "delete", "insert")), st.integers(0, 199)), max_size=6
)


@given(st.integers(1, 200), EDITS)
def test_where_two_lists_differ_rebuilds_one_from_the_other(
    size: int, edits: list[tuple[str, int]]
) -> None:
    before = [Leaf(leaf, at) for at, leaf in enumerate(leaves(size))]
    after = [leaf.hash for leaf in before]
    for number, (what, where) in enumerate(edits):
        at = where % (len(after) + 1)
        strange = leaf_hash(b"strange" + number.to_bytes(2, "big"))
        if what == "insert":
            after.insert(at, strange)
        elif at < len(after):
            after[at : at + 1] = [strange] if what == "alter" else []
    comparison = Comparison(iter(before))
    for offset, one in enumerate(after):
        comparison.feed(Leaf(one, offset))
    comparison.finish()
    gone = {leaf.hash for one in comparison.differences for leaf in one.expected}
    here = {leaf.hash for one in comparison.differences for leaf in one.found}
    # Each hash is there once, so what is in one list only is exactly what differs.
    assert gone - here == {leaf.hash for leaf in before} - set(after)
    tail = after[len(after) - comparison.beyond :]
    assert here - gone == set(after) - {leaf.hash for leaf in before} - set(tail)
