"""What a witness finds out about heads, and that nobody can make evidence of what agrees."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.ledger import witness
from dp.ledger.heads import SignedHead, cosigned_text, note_text
from dp.ledger.proofs import LARGEST, consistency, leaf_hash, root_of
from dp.ledger.witness import Compared, Consistency, Evidence, Inclusion, Log, compare_heads
from secagg.crypto.keys import SigningKey
from secagg.errors import DecodeError, PeerError, UsageError
from tests.controls import switch_off

OWNER, STRANGER = SigningKey(b"o" * 32), SigningKey(b"s" * 32)


def leaves_of(size: int, fork: int | None = None) -> list[bytes]:
    """Of a ledger; from entry ``fork`` on, of another branch."""
    return [leaf_hash(b"%s %d" % (b"entry" if fork is None or i < fork else b"other", i)) for i in range(size)]


def head_of(leaves: Sequence[bytes], key: SigningKey = OWNER) -> SignedHead:
    return signed(leaves[0], len(leaves), root_of(leaves), key)


@cache
def signed(ledger: bytes, size: int, root: bytes, key: SigningKey = OWNER) -> SignedHead:
    return SignedHead(key.public, ledger, size, root, key.sign_raw(note_text(ledger, size, root)))


def log_of(leaves: Sequence[bytes]) -> Log:
    return Log(head_of(leaves), leaves, [root_of(leaves[:size]) for size in range(1, len(leaves) + 1)])


def proofs_of(leaves: Sequence[bytes], *sizes: int) -> list[Consistency]:
    return [Consistency.of(leaves, first, second) for first, second in pairwise(sizes)]


@given(st.sets(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_honest_heads_agree(sizes: set[int], with_log: bool) -> None:
    """With the ledger, and with one proof from each to the next: in whatever order they come."""
    leaves, ordered = leaves_of(40), sorted(sizes)
    heads = [head_of(leaves[:size]) for size in sizes]
    if with_log:
        assert compare_heads(heads, log=log_of(leaves)) == Compared(latest=head_of(leaves))
    else:
        found = compare_heads(heads, reversed(proofs_of(leaves, *ordered)))
        assert found == Compared(latest=head_of(leaves[: ordered[-1]]))


@given(st.integers(1, 30), st.sets(st.integers(1, 40), max_size=4), st.sets(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_a_fork_is_found_with_either_branch(fork: int, ours: set[int], theirs: set[int]) -> None:
    """If, and only if, there is a head of the other branch; and what is found is evidence."""
    left, right = leaves_of(40), leaves_of(40, fork)
    heads = [head_of(left[:size]) for size in ours] + [head_of(right[:size]) for size in theirs]
    for log in (left, right):
        others = theirs if log is left else ours
        found = compare_heads(heads, log=log_of(log))
        assert (found.evidence is not None) == any(size > fork for size in others)
        if found.evidence is None:
            assert found.latest == head_of(log)
        else:
            found.evidence.check()
            assert str(found.evidence.first.size) in str(found.evidence)


def test_two_heads_of_one_size_need_no_proof() -> None:
    left, right = head_of(leaves_of(7)), head_of(leaves_of(7, 3))
    found = compare_heads([left, right])
    assert found.evidence == Evidence(left, right)
    assert "two heads of 7 entries" in str(found.evidence)


def test_two_ledgers_under_one_key() -> None:
    other = [leaf_hash(b"another budget"), *leaves_of(9)]
    for size in (5, 6):
        found = compare_heads([head_of(leaves_of(5)), head_of(other[:size])])
        assert found.evidence is not None
        found.evidence.check()
        assert "two ledgers" in str(found.evidence)


def test_what_was_not_shown() -> None:
    """Up to where all agree, and which are the sizes that a proof is missing for."""
    leaves = leaves_of(40)
    heads = [head_of(leaves[:size]) for size in (3, 5, 9, 12)]
    assert compare_heads(heads) == Compared(latest=heads[0], unproven=((3, 5), (3, 9), (3, 12)))
    assert compare_heads(heads, proofs_of(leaves, 3, 5, 9)) == Compared(latest=heads[2], unproven=((9, 12),))
    older = log_of(leaves[:6])
    assert compare_heads(heads, log=older) == Compared(latest=older.head, unproven=((6, 9), (6, 12)))
    assert compare_heads([]) == Compared()


def test_heads_that_go_on_from_one_need_not_agree() -> None:
    """A beginning in common is none: 7 and 9 both go on from 3, on two branches."""
    left, right = leaves_of(9), leaves_of(9, 4)
    heads = [head_of(left[:3]), head_of(left[:7]), head_of(right)]
    found = compare_heads(heads, [*proofs_of(left, 3, 7), *proofs_of(right, 3, 9)])
    assert found == Compared(latest=heads[1], unproven=((7, 9),))


def test_a_proof_of_another_ledger() -> None:
    leaves, other = leaves_of(9), leaves_of(9, 2)
    for proof in (Consistency.of(other, 5, 9), Consistency(5, 9, ()), Consistency(5, 9, (bytes(32),) * 70)):
        with pytest.raises(PeerError, match="this is no proof"):
            compare_heads([head_of(leaves[:5]), head_of(leaves)], [proof])
    with pytest.raises(PeerError, match="does not go on"):
        compare_heads([head_of(leaves[:5]), head_of(leaves)], [Consistency(9, 5, ())])
    strays = [Consistency.of(other, 3, 8)]  # of sizes that nobody has a head of
    assert compare_heads([head_of(leaves)], strays).unproven == ()


def test_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the comparisons each, a fork agrees."""
    left, right = leaves_of(9), leaves_of(9, 4)
    small, large = head_of(left[:6]), head_of(right)
    with monkeypatch.context() as patch:
        switch_off(patch, witness, "compare_heads", "root != by_size[size].root")
        assert witness.compare_heads([small], log=log_of(right)).latest == large
    with monkeypatch.context() as patch:
        patch.setattr(witness, "check_consistency", lambda *arguments: None)
        assert witness.compare_heads([small, large], [Consistency(6, 9, ())]).latest == large
    with monkeypatch.context() as patch:
        switch_off(patch, witness, "compare_heads", "(other.ledger, other.root) != (head.ledger, head.root)")
        assert witness.compare_heads([head_of(left), large]).evidence is None
    with monkeypatch.context() as patch:
        switch_off(patch, witness, "compare_heads", "by_size[size].ledger != first.ledger")
        other = head_of([leaf_hash(b"another budget"), *left])
        assert witness.compare_heads([small, other]).evidence is None
    with monkeypatch.context() as patch:
        switch_off(patch, witness, "_up_to", "not shown[size] & agreed")
        assert witness.compare_heads([small, large]).unproven == ()


FORK = leaves_of(9, 4)
GOOD = Evidence(head_of(leaves_of(6)), head_of(FORK), root_of(FORK[:6]), tuple(consistency(FORK, 6)))
ONE = "first.ledger == second.ledger and first.size == second.size and first.root == second.root"
NONE = {
    "one head": (replace(GOOD, first=GOOD.second), "are one", ONE),
    "a beginning": (
        Evidence(head_of(FORK[:6]), GOOD.second, GOOD.root, GOOD.path),
        "goes on from the first",
        "self.root == first.root",
    ),
    "of two owners": (
        replace(GOOD, first=head_of(leaves_of(6), STRANGER)),
        "by two owners",
        "first.owner != second.owner",
    ),
    "no proof": (replace(GOOD, path=()), "this is no proof", ""),
    "another root": (replace(GOOD, root=b"r" * 32), "this is no proof", ""),
    "the larger one first": (replace(GOOD, first=GOOD.second, second=GOOD.first), "does not go on", ""),
    "unsigned first": (replace(GOOD, first=replace(GOOD.first, signature=bytes(64))), "bad signature.*first head", ""),
    "unsigned second": (replace(GOOD, second=replace(GOOD.second, root=b"r" * 32)), "bad signature.*second head", ""),
}
"""What is wrong with it, why it is refused, and the condition without which it is not; or what verifies."""


def test_evidence_holds() -> None:
    """Also where heads have a root in common: of two ledgers, or of two sizes."""
    GOOD.check()
    root = root_of(FORK)
    Evidence(signed(b"l" * 32, 9, root), signed(b"m" * 32, 9, root)).check()
    replace(GOOD, first=signed(FORK[0], 6, root)).check()
    assert "which goes on from another" in str(GOOD)


@pytest.mark.parametrize("what", NONE)
def test_what_is_no_evidence(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that has told everybody the same cannot be accused."""
    bad, why, condition = NONE[what]
    with pytest.raises(DecodeError, match=why):
        bad.check()
    if condition:
        switch_off(monkeypatch, Evidence, "check", condition)
    else:
        monkeypatch.setattr(witness, "check_consistency", lambda *arguments: None)
        monkeypatch.setattr(witness.SignedHead, "check", lambda self, culprit="": None)
    bad.check()


@given(st.integers(1, 20), st.data())
@settings(max_examples=40, deadline=None)
def test_no_evidence_against_an_honest_owner(size: int, data: st.DataObject) -> None:
    """Whatever root and path are tried, of this ledger or of a made-up branch."""
    leaves, first = leaves_of(20), data.draw(st.integers(1, size))
    made_up = leaves_of(20, data.draw(st.integers(1, 20)))
    at = data.draw(st.integers(1, size))
    for some in (leaves, made_up):
        path = tuple(consistency(some[:size], at))
        tried = Evidence(head_of(leaves[:first]), head_of(leaves[:size]), root_of(some[:at]), path)
        with pytest.raises(DecodeError):
            tried.check()


def test_inclusion() -> None:
    entries = [b"entry %d" % i for i in range(9)]
    leaves = [leaf_hash(entry) for entry in entries]
    for number, entry in enumerate(entries):
        proof = Inclusion.of(head_of(leaves), leaves, number, entry)
        proof.check()
        for bad in (
            replace(proof, entry="entry 9"),
            replace(proof, number=(number + 1) % 9),
            replace(proof, path=proof.path[1:]),
            replace(proof, head=replace(proof.head, signature=bytes(64))),
            replace(proof, head=head_of(leaves_of(9, 8))),
        ):
            with pytest.raises(PeerError):
                bad.check()


def test_heads_that_are_none() -> None:
    head = head_of(leaves_of(5))
    for change in ({"size": 0}, {"size": LARGEST + 1}, {"root": b"short"}, {"size": 1}, {"owner": b""}):
        with pytest.raises(UsageError):
            replace(head, **change)  # type: ignore[arg-type]


def test_what_cannot_be_proven() -> None:
    leaves = leaves_of(4)
    for first, second in ((0, 4), (5, 4), (1, 5), (1, 0), (1, -1)):
        with pytest.raises(UsageError):
            Consistency.of(leaves, first, second)
    proof = Inclusion.of(head_of(leaves), leaves, 0, b"entry 0")
    for make in (
        lambda: Consistency(1, 2, (b"short",)),
        lambda: replace(GOOD, path=(b"short",)),
        lambda: replace(proof, path=(b"short",)),
    ):
        with pytest.raises(UsageError, match="hashes of 32 bytes"):
            make()


def test_heads_as_large_as_can_be() -> None:
    """They are compared as others are, and take no longer."""
    huge = signed(b"l" * 32, LARGEST, b"r" * 32)
    huge.check()
    found = compare_heads([huge, signed(b"l" * 32, LARGEST - 1, b"q" * 32)])
    assert found.unproven == ((LARGEST - 1, LARGEST),)
    with pytest.raises(PeerError):
        compare_heads([huge, found.latest or huge], [Consistency(LARGEST - 1, LARGEST, (bytes(32),) * 63)])


def test_a_note_is_what_others_read() -> None:
    """Taken apart by the words of C2SP's signed-note and tlog-checkpoint: text, empty line, lines of signatures."""
    head = head_of(leaves_of(5))
    text, _, signatures = head.note().partition("\n\n")
    first, size, root = text.split("\n")
    assert (size, len(root)) == ("5", 44)
    dash, name, data = signatures.removesuffix("\n").split(" ")
    assert (dash, name) == ("\u2014", first)
    raw = b64decode(data)
    assert raw[:4] == hashlib.sha256(f"{name}\n".encode() + b"\x01" + OWNER.public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(OWNER.public).verify(raw[4:], f"{text}\n".encode())
    assert cosigned_text(head, 7) == f"cosignature/v1\ntime 7\n{text}\n".encode()
