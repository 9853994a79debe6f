"""Limits of the primitives, on both sides: the last value that is good, the first that is not, and nothing at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from secagg.codec import fixed, many, struct, u32
from secagg.crypto import merkle
from secagg.crypto.keys import hkdf
from secagg.crypto.merkle import MerkleTree, Node, check_inclusion, leaf
from secagg.crypto.packed import Sharing
from secagg.crypto.ring import Ring
from secagg.encoding import MAX_LENGTH, Encoding
from secagg.errors import PeerError, UsageError
from tests.controls import switch_off
from tests.scenes.pairwise import _join_anyhow


def test_nothing_to_lift() -> None:
    assert Ring(20).lift(np.zeros(0, np.int64)).tolist() == []


def test_the_longest_key_that_hkdf_gives() -> None:
    assert len(hkdf(bytes(32), salt=b"", info=b"", length=255 * 32)) == 255 * 32


def test_the_largest_sum_of_shares() -> None:
    """All that fits into the digits of an element is a sum of secrets; the next value is none."""
    sharing = Sharing(length=4, bound=10, packing=2, private=1)
    base = 2 * sharing.bound + 1
    middle = sharing.bound * sum(base**j for j in range(sharing.digits))
    shape = (sharing.packing, sharing.polynomials)
    top = base**sharing.digits - 1 - middle
    assert sharing._integers(np.full(shape, top, np.uint64)).max() == sharing.bound
    with pytest.raises(PeerError, match="out of range"):
        sharing._integers(np.full(shape, top + 1, np.uint64))


@dataclass(frozen=True, slots=True)
class Item:
    number: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Pair:
    first: int
    second: int


ITEMS = many(struct(Item, number=u32, key=fixed(4)), 3)


def test_an_item_of_another_size_is_not_cut_or_filled_up() -> None:
    assert ITEMS.decode(ITEMS.encode((Item(1, b"four"),))) == (Item(1, b"four"),)
    for key in (b"fou", b"fours"):
        with pytest.raises(UsageError):
            ITEMS.encode((Item(1, key),))


def test_fields_are_found_by_name_whatever_the_order_on_the_wire() -> None:
    """Also where fields of fixed size are written and read in one go."""
    backwards = struct(Pair, second=u32, first=u32)
    assert backwards.encode(Pair(1, 2)) == u32.encode(2) + u32.encode(1)
    assert backwards.decode(backwards.encode(Pair(1, 2))) == Pair(1, 2)


@pytest.mark.parametrize("clip", ["clip_l2", "clip_inf"])
def test_the_limits_of_a_clip(clip: str) -> None:
    """Beyond them products and squares of it are no numbers any more."""
    usual = {"clip_l2": 1.0, "clip_inf": 1.0}
    for good in (1e-100, 1e100):
        assert getattr(Encoding(3, clip_l2=good, clip_inf=good), clip) == good
    for bad in (np.nextafter(1e-100, 0), np.nextafter(1e100, np.inf), np.nan, np.inf, -1.0):
        with pytest.raises(UsageError, match=clip):
            Encoding(3, **usual | {clip: float(bad)})  # type: ignore[arg-type]


def test_the_longest_vector() -> None:
    assert Encoding(MAX_LENGTH, clip_l2=1.0).length == MAX_LENGTH
    with pytest.raises(UsageError, match="coordinates"):
        Encoding(MAX_LENGTH + 1, clip_l2=1.0)


def test_the_widest_ring() -> None:
    encoding = Encoding.integers(3)
    tail = (1 << 63) - 1 - 10 * encoding.largest
    assert encoding.ring_bits(10, tail) == 64
    with pytest.raises(UsageError, match="at most 64"):
        encoding.ring_bits(10, tail + 1)


# Trees of liars.


def test_no_leaf_stands_before_the_first() -> None:
    tree = MerkleTree([leaf(key, bytes([key])) for key in range(4)])
    below = {0: leaf(0, b"\0"), -1: leaf(9, b"never in it")}
    with pytest.raises(PeerError, match="no tree of this size"):
        check_inclusion(tree.root, 4, below, [leaf(9, b""), *tree.proof([0])])


def test_a_range_that_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client at two places under one root: what stands next to its first ends so low that it may come again."""
    twice, backwards = leaf(10, b"corrupt"), Node(12, 3, bytes(32))
    first, last = _join_anyhow(leaf(1, b"a"), leaf(2, b"b")), _join_anyhow(leaf(12, b"c"), leaf(13, b"d"))
    low, high = _join_anyhow(twice, backwards), _join_anyhow(twice, leaf(11, b"e"))
    left, right = _join_anyhow(first, low), _join_anyhow(high, last)
    root = merkle._root(8, _join_anyhow(left, right))

    def stands_twice() -> None:
        check_inclusion(root, 8, {2: twice}, [backwards, first, right])
        check_inclusion(root, 8, {4: twice}, [leaf(11, b"e"), last, left])

    with pytest.raises(PeerError, match="leaves out of order"):
        stands_twice()
    condition = "not left.low <= left.high < right.low <= right.high"
    switch_off(monkeypatch, merkle, "_join", condition, "not left.low <= left.high < right.low")
    stands_twice()
