"""What a witness does: it compares the signed heads of one ledger that several parties were shown.

A ledger's owner can show each party a ledger of its own, each whole in itself. Parties that never compare notes cannot
tell; a witness can, which is told the heads that they have. Two heads agree if the larger tree goes on from the smaller
one, and for that there is a short proof (``dp.ledger.proofs``), which nobody can make for two that do not. Heads that
are shown to be beginnings of one latest head agree with each other.

Two heads that do not agree are evidence against the owner, who has signed both. Anybody can check it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dp.ledger.heads import SignedHead
from dp.ledger.proofs import HASH_BYTES, check_consistency, check_inclusion, consistency, inclusion
from secagg.errors import DecodeError, PeerError, UsageError


@dataclass(frozen=True, slots=True)
class Consistency:
    """A proof that the ledger of ``second`` entries goes on from that of ``first``."""

    first: int
    second: int
    path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_path(self.path)

    @classmethod
    def of(cls, leaves: Sequence[bytes], first: int, second: int) -> Consistency:
        """From the hashes of a ledger's entries."""
        if not 0 < second <= len(leaves):
            raise UsageError(f"the ledger has {len(leaves)} entries, and not {second}")
        return cls(first, second, tuple(consistency(leaves[:second], first)))


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A proof that an entry is in the ledger of which ``head`` was the head."""

    head: SignedHead
    number: int
    entry: str
    path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_path(self.path)

    @classmethod
    def of(cls, head: SignedHead, leaves: Sequence[bytes], number: int, entry: bytes) -> Inclusion:
        """From the hashes of a ledger's entries."""
        return cls(head, number, entry.decode(), tuple(inclusion(leaves, number)))

    def check(self) -> None:
        """Raise ``PeerError`` unless the head is signed, and the entry is under it."""
        self.head.check("the head in the proof")
        check_inclusion(self.entry.encode(), self.number, self.head.size, self.head.root, self.path)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two signed heads of one owner that no ledger has both had.

    They are of different ledgers, or of one length and not the same. Otherwise ``root`` and ``path`` show what the
    ledger of the second was when it had as many entries as that of the first: something else.
    """

    first: SignedHead
    second: SignedHead
    root: bytes = bytes(HASH_BYTES)
    path: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _check_path((self.root, *self.path))

    def check(self) -> None:
        """Raise ``DecodeError`` unless this shows that the owner has signed two heads that do not agree."""
        first, second = self.first, self.second
        try:
            first.check("the first head")
            second.check("the second head")
            if first.owner != second.owner:
                raise PeerError("the heads are signed by two owners")
            if first.ledger == second.ledger and first.size == second.size and first.root == second.root:
                raise PeerError("the two heads are one")
            if first.ledger == second.ledger and first.size != second.size:
                if self.root == first.root:
                    raise PeerError("the second head goes on from the first")
                check_consistency(first.size, self.root, second.size, second.root, self.path)
        except PeerError as error:
            raise DecodeError(f"this is no evidence of a split view: {error}") from None

    def __str__(self) -> str:
        first, second = self.first, self.second
        owner = f"the owner of key {first.owner.hex()} has signed"
        if first.ledger != second.ledger:
            return f"{owner} heads of two ledgers, {first.ledger.hex()} and {second.ledger.hex()}"
        if first.size == second.size:
            return f"{owner} two heads of {first.size} entries, {first.root.hex()} and {second.root.hex()}"
        return (
            f"{owner} a head of {first.size} entries, {first.root.hex()}, and one of {second.size}, "
            f"{second.root.hex()}, which goes on from another: {self.root.hex()}"
        )


@dataclass(frozen=True, slots=True)
class Log:
    """A ledger as its owner hands it out."""

    head: SignedHead
    leaves: Sequence[bytes]
    """The hashes of its entries."""
    roots: Sequence[bytes]
    """The roots over the first of them, over the first two, and so on."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of a comparison: evidence of a split view; or up to where all heads agree, and what was not shown."""

    evidence: Evidence | None = None
    latest: SignedHead | None = None
    """All heads that are no larger are beginnings of this one."""
    unproven: tuple[tuple[int, int], ...] = ()
    """Sizes of heads for which no proof was given: of the latest, or of a smaller one, and of a larger one."""


def compare_heads(heads: Iterable[SignedHead], proofs: Iterable[Consistency] = (), log: Log | None = None) -> Compared:
    """Compare heads of one owner, of which each is signed, with each other and with a ledger.

    ``PeerError``: a proof does not hold. That alone is no evidence, since anybody can write a wrong proof.
    """
    by_size = dict[int, SignedHead]()
    for head in (*heads, *(() if log is None else (log.head,))):
        other = by_size.setdefault(head.size, head)
        if (other.ledger, other.root) != (head.ledger, head.root):
            return Compared(Evidence(other, head))
    sizes = sorted(by_size)
    if not sizes:
        return Compared()
    first = by_size[sizes[0]]
    for size in sizes:
        if by_size[size].ledger != first.ledger:
            return Compared(Evidence(first, by_size[size]))
    shown: dict[int, set[int]] = {size: set() for size in sizes}
    for proof in proofs:
        if proof.first in by_size and proof.second in by_size:
            roots = by_size[proof.first].root, by_size[proof.second].root
            check_consistency(proof.first, roots[0], proof.second, roots[1], proof.path)
            shown[proof.first].add(proof.second)
    for size in sizes if log is not None else ():
        if log is not None and size < log.head.size:
            root = log.roots[size - 1]
            if root != by_size[size].root:
                path = tuple(consistency(log.leaves, size))
                return Compared(Evidence(by_size[size], log.head, root, path))
            shown[size].add(log.head.size)
    return _up_to(sizes, shown, by_size)


def _up_to(sizes: Sequence[int], shown: Mapping[int, set[int]], by_size: Mapping[int, SignedHead]) -> Compared:
    """Up to the largest head of which all smaller ones are beginnings. That of itself is one, so there is some."""
    for place in range(len(sizes) - 1, -1, -1):
        agreed = {sizes[place]}
        for size in reversed(sizes[:place]):
            if not shown[size] & agreed:
                break
            agreed.add(size)
        if len(agreed) == place + 1:
            break
    latest = sizes[place]
    return Compared(latest=by_size[latest], unproven=tuple((latest, size) for size in sizes[place + 1 :]))


def _check_path(path: Iterable[bytes]) -> None:
    if any(len(node) != HASH_BYTES for node in path):
        raise UsageError(f"a proof is of hashes of {HASH_BYTES} bytes")
