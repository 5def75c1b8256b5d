"""Merkle trees against the vectors of RFC 6962's reference, and against its definition."""

import hashlib
from functools import cache

import pytest

from madlog.topics.evidence.merkle import (
    EMPTY_ROOT,
    Peaks,
    complete_root,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# (index from 0, size): the proof of RFC 6962's reference implementation.
INCLUSION = {
    (0, 1): (),
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
CONSISTENCY = {
    (1, 1): (),
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}


@cache
def node(height: int, index: int) -> bytes:
    if height == 0:
        return leaf_hash(LEAVES[index])
    return node_hash(node(height - 1, 2 * index), node(height - 1, 2 * index + 1))


def in_hex(proof: list[bytes]) -> tuple[str, ...]:
    return tuple(one.hex() for one in proof)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert root_of(0, node) == Peaks().root() == EMPTY_ROOT == hashlib.sha256().digest()


def test_roots_are_those_of_the_reference() -> None:
    peaks = Peaks()
    for size, (leaf, root) in enumerate(zip(LEAVES, ROOTS, strict=True), 1):
        peaks.append(leaf_hash(leaf))
        assert peaks.root().hex() == root_of(size, node).hex() == root
    assert complete_root([leaf_hash(leaf) for leaf in LEAVES]).hex() == ROOTS[-1]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference(index: int, size: int) -> None:
    proof = inclusion_proof(index, size, node)
    assert in_hex(proof) == INCLUSION[index, size]
    root = bytes.fromhex(ROOTS[size - 1])
    assert verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, root)


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference(old: int, new: int) -> None:
    proof = consistency_proof(old, new, node)
    assert in_hex(proof) == CONSISTENCY[old, new]
    roots = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1])
    assert verify_consistency(old, new, proof, *roots)


def test_a_leaf_cannot_stand_for_an_inner_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_there_is_no_proof_of_what_is_not_there() -> None:
    for index, size in ((8, 8), (-1, 3), (0, 0)):
        with pytest.raises(IndexError, match="not in a tree"):
            inclusion_proof(index, size, node)
    with pytest.raises(IndexError, match="not the beginning"):
        consistency_proof(4, 3, node)
    assert not verify_inclusion(node(0, 0), 1, 1, [], node(0, 0))
    assert not verify_consistency(4, 3, [], node(0, 0), node(0, 0))
    assert not verify_consistency(2, 4, [], node(1, 0), node(2, 0))
    assert not verify_consistency(0, 4, [], node(0, 0), node(2, 0))
    assert verify_consistency(0, 4, [], EMPTY_ROOT, node(2, 0))
