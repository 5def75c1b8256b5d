"""Merkle trees over lists of records, as RFC 6962 section 2.1 and RFC 9162 section 2.1 say.

A proof is a list of hashes of 32 bytes. What makes one takes `node(height, index)`, which returns
the root of the complete subtree over the leaves from index·2^height on, 2^height of them; who
keeps the hashes answers it.
"""

import hashlib
from collections.abc import Callable, Sequence

__all__ = (
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Node",
    "Peaks",
    "complete_root",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_of",
    "verify_consistency",
    "verify_inclusion",
)

Node = Callable[[int, int], bytes]

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


def complete_root(hashes: list[bytes]) -> bytes:
    """Return the root over 2^n hashes of leaves or of equally high subtrees."""
    while len(hashes) > 1:
        hashes = [
            _sha256(b"\x01" + hashes[at] + hashes[at + 1]).digest()
            for at in range(0, len(hashes), 2)
        ]
    return hashes[0]


class Peaks:
    """A tree that only grows, held by the roots of its complete subtrees: log2(size) hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        size, peaks = self.size, self._peaks
        while size & 1:
            leaf = _sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        *left, root = self._peaks
        for peak in reversed(left):
            root = node_hash(peak, root)
        return root


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(start: int, end: int, node: Node) -> bytes:
    """Return the root over leaves [start, end); start is a multiple of a power of two >= size."""
    size = end - start
    if size & size - 1 == 0:
        height = size.bit_length() - 1
        return node(height, start >> height)
    middle = start + _split(size)
    return node_hash(_range_root(start, middle, node), _range_root(middle, end, node))


def root_of(size: int, node: Node) -> bytes:
    """Return the root of the tree over the first `size` leaves."""
    return _range_root(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of the first `size` leaves.

    Raises IndexError when it is not among them.
    """
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} is not in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(start, middle, node))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is the beginning of that of `new`.

    Raises IndexError when `old` is more than `new`.
    """
    if not 0 <= old <= new:
        raise IndexError(f"a tree of {old} is not the beginning of one of {new}")
    proof: list[bytes] = []
    if old in (0, new):
        return proof
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(start, middle, node))
            start, whole = middle, False
    if not whole:
        proof.append(_range_root(start, end, node))
    return proof[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether a proof shows the hash of leaf `index` in the tree of `size` with that root."""
    if not 0 <= index < size:
        return False
    first, last, found = index, size - 1, leaf
    for one in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = node_hash(one, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, one)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> bool:
    """Tell whether a proof shows that one tree is the beginning of another."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & old - 1 == 0:
        path.insert(0, old_root)
    if not path:
        return False
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    found_old = found_new = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            found_old, found_new = node_hash(one, found_old), node_hash(one, found_new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found_new = node_hash(found_new, one)
        first, last = first >> 1, last >> 1
    return last == 0 and found_old == old_root and found_new == new_root
