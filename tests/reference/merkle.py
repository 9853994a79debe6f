"""The Merkle tree by recursion, as RFC 6962 defines its shape: the left part is the largest power of two below.

A node is its lowest key, its highest key (32 bits each) and its hash; the parent's hash covers all of both children.
"""

from collections.abc import Sequence
from hashlib import sha256

from secagg.crypto import labels


def root(leaves: Sequence[tuple[int, bytes]]) -> bytes:
    """``leaves`` are (key, data) in the order of their keys."""
    return sha256(labels.ROOT + len(leaves).to_bytes(8, "big") + _top(leaves)).digest()


def _top(leaves: Sequence[tuple[int, bytes]]) -> bytes:
    if len(leaves) == 1:
        hashed = sha256(labels.LEAF + leaves[0][1]).digest()
    else:
        left = 1
        while 2 * left < len(leaves):
            left *= 2
        hashed = sha256(labels.NODE + _top(leaves[:left]) + _top(leaves[left:])).digest()
    return leaves[0][0].to_bytes(4, "big") + leaves[-1][0].to_bytes(4, "big") + hashed
