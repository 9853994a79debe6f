"""A Merkle tree over keyed leaves in the order of their keys, in which no key can stand at two places.

A client checks its neighbours' adverts without seeing all adverts, and the server that builds the tree may lie. So
every node carries the lowest and the highest key below it, hashes both children's, and is valid only if the left
child ends before the right one begins. Two leaves with one key would need a common ancestor whose left child ends at
or after that key and whose right child begins at or before it: at most one of them has a valid proof.

Leaf and inner hashes carry different labels, the root also commits to the number of leaves, and an odd node is
carried up unchanged (RFC 6962 without its recursion). One proof covers many leaves: it holds just the nodes that
cannot be computed from them, level by level, left to right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from struct import Struct
from typing import Any

from secagg.codec import Codec, Once, fixed, struct, u32
from secagg.crypto import labels
from secagg.errors import PeerError, UsageError

HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Node:
    """A subtree: its lowest and highest key, and its hash."""

    low: int
    high: int
    hash: bytes


NODE: Codec[Node] = struct(Node, low=u32, high=u32, hash=fixed(HASH_BYTES))
_CHILDREN = Struct(">II32sII32s")
"""The encodings of two nodes, packed at once: proofs of thousands of leaves spend their time here."""


def leaf(key: int, data: bytes) -> Node:
    """The leaf that commits to ``data`` under ``key``."""
    return Node(key, key, sha256(labels.LEAF + data).digest())


class MerkleTree:
    """All levels of the tree, leaves first.

    >>> leaves = [leaf(key, data) for key, data in enumerate([b"a", b"b", b"c", b"d", b"e"])]
    >>> tree = MerkleTree(leaves)
    >>> check_inclusion(tree.root, 5, {1: leaves[1], 4: leaves[4]}, tree.proof([1, 4]))
    >>> check_inclusion(tree.root, 5, {1: leaves[1], 4: leaf(4, b"f")}, tree.proof([1, 4]))
    Traceback (most recent call last):
    secagg.errors.PeerError: the leaves are not under the root
    >>> MerkleTree([leaf(3, b"a"), leaf(3, b"b")])
    Traceback (most recent call last):
    secagg.errors.PeerError: leaves out of order, or one of them twice
    """

    def __init__(self, leaves: Sequence[Node]) -> None:
        if not leaves:
            raise UsageError("a tree has at least one leaf")
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            pairs = [_join(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            self._levels.append(pairs + level[len(level) - len(level) % 2 :])
        self.root = _root(len(leaves), self._levels[-1][0])

    def proof(self, indices: Iterable[int]) -> tuple[Node, ...]:
        """The nodes that are needed, besides the leaves at ``indices``, to compute the root."""
        known, first, proof = dict.fromkeys(sorted(indices)), 0, list[int]()
        for level in self._levels[:-1]:
            proof += [first + (i ^ 1) for i in known if i ^ 1 not in known and i ^ 1 < len(level)]
            known, first = dict.fromkeys([i // 2 for i in known]), first + len(level)
        return self._nodes.some(proof)

    @cached_property
    def _nodes(self) -> Once[Node]:
        """Of all levels, one after the other: a server sends most of them to many."""
        return Once(NODE, [node for level in self._levels for node in level])


def check_inclusion(root: bytes, size: int, leaves: Mapping[Any, Node], proof: Sequence[Node]) -> None:
    """Raise ``PeerError`` unless each leaf stands at its index among the ``size`` leaves under ``root``."""
    known, width, siblings = dict(leaves), size, iter(proof)
    if not known or not all(0 <= index < size for index in known):
        raise PeerError("leaves that no tree of this size has")
    while width > 1:
        for index in sorted(known):
            if index ^ 1 not in known and index ^ 1 < width:
                sibling = next(siblings, None)
                if sibling is None:
                    raise PeerError("a proof that ends too early")
                known[index ^ 1] = sibling
        known = {i // 2: _join(known[i], known[i + 1]) if i + 1 < width else known[i] for i in known if i % 2 == 0}
        width = (width + 1) // 2
    if next(siblings, None) is not None or _root(size, known[0]) != root:
        raise PeerError("the leaves are not under the root")


def _join(left: Node, right: Node) -> Node:
    if not left.low <= left.high < right.low <= right.high:
        raise PeerError("leaves out of order, or one of them twice")
    children = _CHILDREN.pack(left.low, left.high, left.hash, right.low, right.high, right.hash)
    return Node(left.low, right.high, sha256(labels.NODE + children).digest())


def _root(size: int, top: Node) -> bytes:
    return sha256(labels.ROOT + size.to_bytes(8, "big") + NODE.encode(top)).digest()
