"""The Merkle tree of RFC 9162 (Certificate Transparency 2.0), section 2.1, whose leaves are the entries of a ledger.

The root over all of them is the head of the ledger. A proof of inclusion shows that an entry is among those that a head
covers, a proof of consistency that a head goes on where an earlier one ended; both are a few hashes long, whatever the
ledger's length. ``secagg.crypto.merkle`` is another tree: of leaves with keys, none of which may
stand in it twice, that is made once and never grows.

The hashes are those of the RFC, so that other programs can check them. What is hashed begins with a byte 0 and the
brace of a JSON object, or with a byte 1: no ``transcript`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from secagg.errors import PeerError, UsageError

HASH_BYTES = 32
LARGEST = (1 << 63) - 1
"""The most leaves of a tree."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash that stands for an entry."""
    return sha256(b"\0" + entry).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree that grows: how many leaves it has, and the hashes of the full subtrees they are in, from left to right.

    >>> tree = Tree().with_leaf(b"a").with_leaf(b"b").with_leaf(b"c")
    >>> tree.size, len(tree.subtrees), tree.root == root_of([leaf_hash(entry) for entry in (b"a", b"b", b"c")])
    (3, 2, True)
    """

    size: int = 0
    subtrees: tuple[bytes, ...] = ()

    def with_leaf(self, entry: bytes) -> Tree:
        """The tree with one more entry."""
        subtrees, last, left = list(self.subtrees), leaf_hash(entry), self.size
        while left & 1:
            last, left = _node_hash(subtrees.pop(), last), left >> 1
        return Tree(self.size + 1, (*subtrees, last))

    @property
    def root(self) -> bytes:
        """The hash of the whole tree, which has a leaf."""
        *others, root = self.subtrees
        for subtree in reversed(others):
            root = _node_hash(subtree, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over these hashes of entries."""
    if len(leaves) == 1:
        return leaves[0]
    k = _left_of(len(leaves))
    return _node_hash(root_of(leaves[:k]), root_of(leaves[k:]))


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The proof that the leaf at ``index`` is in the tree (RFC 9162, section 2.1.3.1)."""
    if not 0 <= index < len(leaves):
        raise UsageError(f"there are entries 0 to {len(leaves) - 1}, and not {index}")
    if len(leaves) == 1:
        return []
    k = _left_of(len(leaves))
    if index < k:
        return [*inclusion(leaves[:k], index), root_of(leaves[k:])]
    return [*inclusion(leaves[k:], index - k), root_of(leaves[:k])]


def check_inclusion(entry: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ``PeerError`` unless the entry is at ``index`` of the tree (RFC 9162, section 2.1.3.2)."""
    at, last, found = index, size - 1, leaf_hash(entry)
    good = 0 <= index < size
    for node in proof if good else ():
        if last == 0:
            good = False
            break
        if at & 1 or at == last:
            found = _node_hash(node, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = _node_hash(found, node)
        at, last = at >> 1, last >> 1
    if not good or last or found != root:
        raise PeerError(f"this is no proof that the entry is number {index} of {size}")


def consistency(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """The proof that the tree goes on from that over the ``first`` leaves (RFC 9162, section 2.1.4.1)."""
    if not 0 < first <= len(leaves):
        raise UsageError(f"the ledger has {len(leaves)} entries, which {first} are no beginning of")
    return _subproof(leaves, first, whole=True)


def _subproof(leaves: Sequence[bytes], first: int, whole: bool) -> list[bytes]:
    if first == len(leaves):
        return [] if whole else [root_of(leaves)]
    k = _left_of(len(leaves))
    if first <= k:
        return [*_subproof(leaves[:k], first, whole), root_of(leaves[k:])]
    return [*_subproof(leaves[k:], first - k, False), root_of(leaves[:k])]


def check_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ``PeerError`` unless the tree over ``second`` leaves goes on from that over the ``first`` (RFC 9162,
    section 2.1.4.2)."""
    if not 0 < first <= second:
        raise PeerError(f"a ledger of {second} entries does not go on from one of {first}")
    nodes = list(proof) if first & (first - 1) else [first_root, *proof]
    if first == second:
        good = not proof and first_root == second_root
    else:
        good = _leads(first - 1, second - 1, nodes, first_root, second_root)
    if not good:
        raise PeerError(f"this is no proof that the ledger of {second} entries goes on from that of {first}")


def _leads(at: int, last: int, nodes: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    while at & 1:
        at, last = at >> 1, last >> 1
    if not nodes:
        return False
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = _node_hash(node, old), _node_hash(node, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = _node_hash(new, node)
        at, last = at >> 1, last >> 1
    return (old, new, last) == (first_root, second_root, 0)


def _left_of(size: int) -> int:
    """How many leaves are in the left subtree: the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1
