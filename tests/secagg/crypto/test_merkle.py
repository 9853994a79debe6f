"""Merkle proofs: every true one verifies, nothing else does, and no key stands at two places."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto import merkle
from secagg.crypto.merkle import MerkleTree, Node, check_inclusion, leaf
from secagg.errors import PeerError, UsageError
from tests.reference import merkle as reference

Proved = tuple[list[Node], dict[int, Node], tuple[Node, ...], bytes]


def data_of(size: int) -> list[tuple[int, bytes]]:
    return [(3 * i + 1, b"leaf %d" % i) for i in range(size)]


def leaves_of(size: int) -> list[Node]:
    return [leaf(key, data) for key, data in data_of(size)]


@st.composite
def proofs(draw: st.DrawFn) -> Proved:
    """All leaves, those proved, the proof and the root."""
    keys = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40, unique=True).map(sorted))
    leaves = [leaf(key, b"leaf %d" % key) for key in keys]
    chosen = draw(st.sets(st.integers(0, len(leaves) - 1), min_size=1))
    tree = MerkleTree(leaves)
    return leaves, {i: leaves[i] for i in chosen}, tree.proof(chosen), tree.root


def refused(root: bytes, size: int, leaves: dict[int, Node], proof: tuple[Node, ...]) -> None:
    with pytest.raises(PeerError):
        check_inclusion(root, size, leaves, proof)


@pytest.mark.parametrize("size", range(1, 70))
def test_the_root_is_the_recursive_reference(size: int) -> None:
    assert MerkleTree(leaves_of(size)).root == reference.root(data_of(size))


@pytest.mark.parametrize("size", range(1, 8))
def test_every_subset_of_a_small_tree_has_a_proof(size: int) -> None:
    """In whichever order it is asked for."""
    leaves, tree = leaves_of(size), MerkleTree(leaves_of(size))
    for subset in range(1, 1 << size):
        chosen = [i for i in range(size) if subset >> i & 1]
        for indices in (chosen, chosen[::-1]):
            check_inclusion(tree.root, size, {i: leaves[i] for i in chosen}, tree.proof(indices))


@given(proved=proofs())
def test_a_true_proof_verifies(proved: Proved) -> None:
    leaves, chosen, proof, root = proved
    check_inclusion(root, len(leaves), chosen, proof)
    assert len(proof) <= len(leaves) - len(chosen)


@given(proved=proofs(), data=st.data())
def test_an_altered_leaf_key_or_index_is_refused(proved: Proved, data: st.DataObject) -> None:
    leaves, chosen, proof, root = proved
    victim = data.draw(st.sampled_from(sorted(chosen)))
    old = chosen[victim]
    refused(root, len(leaves), chosen | {victim: leaf(old.low, b"another leaf")}, proof)
    other = data.draw(st.integers(0, 2**32 - 1).filter(lambda key: key != old.low))
    for low, high in ((other, other), (old.low, other), (other, old.high)):
        refused(root, len(leaves), chosen | {victim: Node(low, high, old.hash)}, proof)
    moved = data.draw(st.integers(-1, len(leaves) + 1).filter(lambda index: index not in chosen))
    rest = {i: node for i, node in chosen.items() if i != victim}
    refused(root, len(leaves), rest | {moved: old}, proof)
    refused(root, len(leaves), rest | {moved: old}, MerkleTree(leaves).proof(rest.keys() | {moved}))


@given(proved=proofs(), data=st.data())
def test_an_altered_missing_or_extra_proof_element_is_refused(proved: Proved, data: st.DataObject) -> None:
    leaves, chosen, proof, root = proved
    for extra in (leaves[0], leaf(2**32 - 1, b"extra")):
        refused(root, len(leaves), chosen, (*proof, extra))
    if not proof:
        return
    at = data.draw(st.integers(0, len(proof) - 1))
    old, bit, other = proof[at], data.draw(st.integers(0, 255)), data.draw(st.integers(0, 2**32 - 1))
    flipped = (int.from_bytes(old.hash, "big") ^ 1 << bit).to_bytes(32, "big")
    for node in (replace(old, hash=flipped), replace(old, low=other), replace(old, high=other)):
        if node != old:
            refused(root, len(leaves), chosen, (*proof[:at], node, *proof[at + 1 :]))
    refused(root, len(leaves), chosen, (*proof[:at], *proof[at + 1 :]))
    if len(proof) > 1:
        swapped = data.draw(st.permutations(proof).filter(lambda order: tuple(order) != proof))
        refused(root, len(leaves), chosen, tuple(swapped))


@given(proved=proofs(), size=st.one_of(st.integers(1, 80), st.just(2**32 - 1)))
def test_another_size_is_refused(proved: Proved, size: int) -> None:
    leaves, chosen, proof, root = proved
    if size != len(leaves):
        refused(root, size, chosen, proof)


def test_another_root_no_leaves_and_no_size_are_refused() -> None:
    tree, leaves = MerkleTree(leaves_of(5)), leaves_of(5)
    refused(bytes(32), 5, {0: leaves[0]}, tree.proof([0]))
    for size in (0, 1, 5):
        refused(tree.root, size, {}, ())
        refused(tree.root, size, {}, tuple(leaves))
    refused(tree.root, 0, {0: leaves[0]}, tree.proof([0]))


def test_an_inner_node_is_not_a_leaf() -> None:
    """Second preimage: the two-leaf tree over two inner nodes is not the four-leaf tree."""
    four = MerkleTree(leaves_of(4))
    inner = four._levels[1]
    assert MerkleTree(inner).root != four.root
    refused(four.root, 2, {0: inner[0], 1: inner[1]}, ())


@pytest.mark.parametrize("keys", [[1, 1], [2, 1], [1, 2, 2], [1, 3, 2, 4], [1, 2, 3, 4, 4]])
def test_leaves_out_of_order_make_no_tree(keys: list[int]) -> None:
    with pytest.raises(PeerError, match="out of order"):
        MerkleTree([leaf(key, b"%d" % i) for i, key in enumerate(keys)])


def unchecked_join(left: Node, right: Node) -> Node:
    data = merkle.NODE.encode(left) + merkle.NODE.encode(right)
    return Node(left.low, right.high, merkle.sha256(merkle.labels.NODE + data).digest())


def boasting_join(left: Node, right: Node) -> Node:
    """A parent that claims to end where the later of its children ends."""
    return replace(unchecked_join(left, right), high=max(left.high, right.high))


def places_shown(leaves: list[Node], monkeypatch: pytest.MonkeyPatch, join: Callable[[Node, Node], Node]) -> list[int]:
    """At which places a leaf can be proved in a lying server's tree, by the honest check."""
    with monkeypatch.context() as patched:
        patched.setattr(merkle, "_join", join)
        tree = MerkleTree(leaves)
    places = []
    for i, node in enumerate(leaves):
        with suppress(PeerError):
            check_inclusion(tree.root, len(leaves), {i: node}, tree.proof([i]))
            places.append(i)
    return places


ONE = leaf(1, b"first"), leaf(1, b"second")
LIES = {
    "twice": [ONE[0], ONE[1]],
    "twice, a backward node between": [ONE[0], Node(2, 0, bytes(32)), ONE[1]],
    "twice, two backward nodes between": [ONE[0], Node(2, 0, bytes(32)), Node(1, 0, bytes(32)), ONE[1]],
    "twice, a wide node between": [ONE[0], Node(0, 9, bytes(32)), ONE[1]],
    "backward": [leaf(2, b"second"), leaf(1, b"first")],
}


@pytest.mark.parametrize("leaves", LIES.values(), ids=LIES)
@pytest.mark.parametrize("join", [unchecked_join, boasting_join])
def test_no_key_can_be_proved_at_two_places_even_if_the_server_lies(
    leaves: list[Node], join: Callable[[Node, Node], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(places_shown(leaves, monkeypatch, join)) <= 1


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_however_the_leaves_are_arranged_no_key_is_at_two_places(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for keys in product(range(3), repeat=size):
        leaves = [leaf(key, b"place %d" % i) for i, key in enumerate(keys)]
        shown = [keys[i] for i in places_shown(leaves, monkeypatch, boasting_join)]
        assert len(shown) == len(set(shown))


@pytest.mark.parametrize("leaves", LIES.values(), ids=LIES)
def test_without_the_order_a_key_could_be_proved_at_two_places(
    leaves: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: with the check of the order patched out, the lies above work."""
    monkeypatch.setattr(merkle, "_join", unchecked_join)
    assert places_shown(leaves, monkeypatch, unchecked_join) == list(range(len(leaves)))


def test_the_patched_joins_are_the_real_one_for_honest_nodes() -> None:
    for left, right in combinations(leaves_of(4), 2):
        assert merkle._join(left, right) == unchecked_join(left, right) == boasting_join(left, right)


def test_an_empty_tree_is_refused() -> None:
    with pytest.raises(UsageError):
        MerkleTree([])
