"""A Merkle tree over byte strings, so that a client can check its neighbours' adverts without seeing all of them.

Leaf and inner hashes carry different labels, the root also commits to the number of leaves, and an odd node is
carried up unchanged (RFC 6962 without its recursion): no tree is a prefix or a relabelling of another. One proof
covers many leaves: it holds just the hashes that cannot be computed from them, level by level, left to right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from secagg import labels
from secagg.errors import PeerError, UsageError

HASH_BYTES = 32


class MerkleTree:
    """All levels of the tree, leaves first.

    >>> tree = MerkleTree([b"a", b"b", b"c", b"d", b"e"])
    >>> check_inclusion(tree.root, 5, {1: b"b", 4: b"e"}, tree.proof([1, 4]))
    >>> check_inclusion(tree.root, 5, {1: b"b", 3: b"e"}, tree.proof([1, 4]))
    Traceback (most recent call last):
    secagg.errors.PeerError: the leaves are not under the root
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise UsageError("a tree has at least one leaf")
        self._levels = [[_leaf(leaf) for leaf in leaves]]
        while len(level := self._levels[-1]) > 1:
            pairs = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            self._levels.append(pairs + level[len(level) - len(level) % 2 :])
        self.root = _root(len(leaves), self._levels[-1][0])

    def proof(self, indices: Iterable[int]) -> tuple[bytes, ...]:
        """What must be known besides the leaves at ``indices`` to compute the root."""
        known, proof = set(indices), []
        for level in self._levels[:-1]:
            proof += [level[i ^ 1] for i in sorted(known) if i ^ 1 not in known and i ^ 1 < len(level)]
            known = {i // 2 for i in known}
        return tuple(proof)


def check_inclusion(root: bytes, size: int, leaves: Mapping[int, bytes], proof: Sequence[bytes]) -> None:
    """Raise ``PeerError`` unless each leaf stands at its index among the ``size`` leaves under ``root``."""
    known = {index: _leaf(leaf) for index, leaf in leaves.items()}
    siblings, width = iter(proof), size
    good = bool(known) and all(0 <= index < size for index in known)
    while good and width > 1:
        for index in sorted(known):
            if index ^ 1 not in known and index ^ 1 < width:
                known[index ^ 1] = next(siblings, b"")
        known = {i // 2: _node(known[i], known[i + 1]) if i + 1 < width else known[i] for i in known if i % 2 == 0}
        width = (width + 1) // 2
    if not good or next(siblings, None) is not None or _root(size, known[0]) != root:
        raise PeerError("the leaves are not under the root")


def _leaf(data: bytes) -> bytes:
    return sha256(labels.LEAF + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(labels.NODE + left + right).digest()


def _root(size: int, top: bytes) -> bytes:
    return sha256(labels.ROOT + size.to_bytes(8, "big") + top).digest()
