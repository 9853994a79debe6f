"""The tree over a ledger's entries: RFC 9162 against its definition, known vectors, and whoever alters a proof."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.ledger import proofs
from dp.ledger.proofs import (
    Tree,
    check_consistency,
    check_inclusion,
    consistency,
    inclusion,
    leaf_hash,
    root_of,
)
from dp.verify_ledger import root_over, with_leaf
from secagg.errors import PeerError, UsageError
from tests.controls import switch_off

MOST = 70
ENTRIES = [b"entry %d" % number for number in range(MOST)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]

VECTOR = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
)]  # fmt: skip
"""The leaves of the vectors of Certificate Transparency's first implementation (Apache-2.0), and the roots over the
first of them, the first two, and so on; paths to leaves, from sizes to sizes."""
ROOTS = """\
    6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
    fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125
    aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77
    d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7
    4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4
    76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef
    ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c
    5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"""
PATHS = {
    (0, 8): """96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7
        5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4""",
    (5, 8): """bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b
        ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0
        d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7""",
    (2, 3): "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    (1, 5): """6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
        5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b""",
}
GROWN = {
    (1, 1): "",
    (1, 8): """96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7
        5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4""",
    (6, 8): """0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a
        ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0
        d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7""",
    (2, 5): """5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b""",
}


def defined(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, from the entries on, word for word."""
    n = len(leaves)
    if n == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = max(1 << i for i in range(n.bit_length()) if 1 << i < n)
    return sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


def holds(check: object, *arguments: object) -> bool:
    try:
        check(*arguments)  # type: ignore[operator]
    except PeerError:
        return False
    return True


def test_vectors_of_others() -> None:
    leaves = [leaf_hash(entry) for entry in VECTOR]
    assert [root_of(leaves[:n]).hex() for n in range(1, 9)] == ROOTS.split()
    for (index, size), path in PATHS.items():
        assert [node.hex() for node in inclusion(leaves[:size], index)] == path.split()
    for (first, second), path in GROWN.items():
        assert [node.hex() for node in consistency(leaves[:second], first)] == path.split()


def test_all_sizes() -> None:
    """The tree that grows, the root of all leaves, the definition, and the auditor's own: one root."""
    tree, subtrees = Tree(), list[tuple[int, bytes]]()
    for size, entry in enumerate(ENTRIES, 1):
        tree, subtrees = tree.with_leaf(entry), with_leaf(subtrees, entry)
        assert tree.root == root_of(LEAVES[:size]) == defined(ENTRIES[:size]) == root_over(subtrees)


def test_all_pairs() -> None:
    """Every proof of every tree holds, for what it is a proof of and for nothing else."""
    roots = {size: root_of(LEAVES[:size]) for size in range(1, MOST + 1)}
    for size in range(1, MOST + 1):
        for at in range(size):
            path = inclusion(LEAVES[:size], at)
            check_inclusion(ENTRIES[at], at, size, roots[size], path)
            assert not holds(check_inclusion, ENTRIES[at - 1] if at else b"other", at, size, roots[size], path)
            assert not holds(check_inclusion, ENTRIES[at], at, size, roots[size], [*path, roots[1]])
            assert not path or not holds(check_inclusion, ENTRIES[at], at, size, roots[size], path[:-1])
            first, grown = at + 1, consistency(LEAVES[:size], at + 1)
            check_consistency(first, roots[first], size, roots[size], grown)
            assert not holds(check_consistency, first, roots[first], size, roots[size], [*grown, roots[1]])
            if first < size:
                assert not holds(check_consistency, first, b"o" * 32, size, roots[size], grown)
                assert not holds(check_consistency, first, roots[first], size, b"o" * 32, grown)
                assert not holds(check_consistency, first, roots[first], size, roots[size], grown[:-1])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_altered_proofs(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MOST))
    first, at = data.draw(st.integers(1, size - 1)), data.draw(st.integers(0, size - 1))
    root = root_of(LEAVES[:size])

    def altered(proof: list[bytes]) -> list[bytes]:
        where, what = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.sampled_from(["bit", "swap", "drop"]))
        if what == "bit":
            return [*proof[:where], bytes([proof[where][0] ^ 1]) + proof[where][1:], *proof[where + 1 :]]
        return proof[:where] + proof[where + 1 :] if what == "drop" or len(proof) == 1 else proof[1:] + proof[:1]

    assert not holds(check_inclusion, ENTRIES[at], at, size, root, altered(inclusion(LEAVES[:size], at)))
    grown = altered(consistency(LEAVES[:size], first))
    assert not holds(check_consistency, first, root_of(LEAVES[:first]), size, root, grown)


def test_a_fork_has_no_proof() -> None:
    """Whatever proof of either branch is tried."""
    for at in range(1, 20):
        fork = [*LEAVES[:at], leaf_hash(b"other"), *LEAVES[at + 1 : 20]]
        for first in range(at + 1, 20):
            for leaves in (LEAVES[:20], fork):
                path = consistency(leaves, first)
                assert not holds(check_consistency, first, root_of(fork[:first]), 20, root_of(LEAVES[:20]), path)


def test_sizes_that_are_none() -> None:
    root = root_of(LEAVES[:3])
    for first, second in ((0, 3), (4, 3), (-1, 3)):
        assert not holds(check_consistency, first, root, second, root, [])
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        assert not holds(check_inclusion, ENTRIES[0], index, size, root, [])
    for index in (1, 2, -1):  # the one entry is its own root, and number 0
        assert not holds(check_inclusion, ENTRIES[0], index, 1, LEAVES[0], [])
    assert not holds(check_inclusion, ENTRIES[0], 0, 6, LEAVES[0], [])  # a path that ends below the root
    for index in (3, -1):
        with pytest.raises(UsageError):
            inclusion(LEAVES[:3], index)
    with pytest.raises(UsageError):
        consistency(LEAVES[:3], 0)
    huge = proofs.LARGEST  # a proof that is longer than any tree is deep does not take long
    assert not holds(check_consistency, huge - 1, root, huge, root, LEAVES)
    assert not holds(check_inclusion, b"", huge - 1, huge, root, LEAVES)


def test_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one comparison each, what must not hold holds."""
    root, other, path = root_of(LEAVES[:6]), b"o" * 32, consistency(LEAVES[:6], 3)
    with monkeypatch.context() as patch:
        switch_off(patch, proofs, "check_inclusion", "found != root")
        proofs.check_inclusion(b"other", 2, 6, root, inclusion(LEAVES[:6], 2))
    with monkeypatch.context() as patch:
        switch_off(patch, proofs, "check_inclusion", "not good or last or found != root", "not good or found != root")
        proofs.check_inclusion(ENTRIES[0], 0, 6, LEAVES[0], [])
    with monkeypatch.context() as patch:
        ends = "(old, new, last) == (first_root, second_root, 0)"
        switch_off(patch, proofs, "_leads", ends, "(new, last) == (second_root, 0)")
        proofs.check_consistency(3, other, 6, root, path)
    with monkeypatch.context() as patch:
        switch_off(patch, proofs, "_leads", ends, "(old, last) == (first_root, 0)")
        proofs.check_consistency(3, root_of(LEAVES[:3]), 6, other, path)
    with monkeypatch.context() as patch:
        switch_off(patch, proofs, "_leads", ends, "(old, new) == (first_root, second_root)")
        proofs.check_consistency(4, root, 6, root, [])
    with monkeypatch.context() as patch:
        switch_off(patch, proofs, "check_consistency", "not proof and first_root == second_root", "not proof")
        proofs.check_consistency(6, other, 6, root, [])
