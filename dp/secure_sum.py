"""The facts of one secure sum that its privacy follows from, and the release that they amount to.

``protocols`` fills these in, from the plan before the round (``SecureSum.worst``) and from what happened after the
survivors have signed. The ledger keeps them, so that an auditor can compute the release, and epsilon, again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from dp.events import MAX_PARTIES, Guarantee, Holder, Release
from dp.noise import NoiseSpec
from secagg.errors import UsageError

LONGEST_TEXT = 1000
ROUNDINGS = ("stochastic", "nearest", "exact")
_LEAST_BITS, _MOST_BITS = 2, 64
"""Those of a ``secagg.encoding.Rounding`` and a ``secagg.crypto.ring.Ring``, which are not imported here, since they
load numpy."""


def check_text(text: str) -> str:
    """The text, if it may stand in a ledger; ``UsageError`` if it is empty, too long or no text for that."""
    if not 0 < len(text) <= LONGEST_TEXT:
        raise UsageError(f"a text has 1 to {LONGEST_TEXT} characters")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("half of a surrogate pair is no character")
    return text


@dataclass(frozen=True, slots=True)
class Signed:
    """One survivor's signature on the set of survivors."""

    name: str
    key: bytes
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_text(self.name)


@dataclass(frozen=True, slots=True)
class SecureSum:
    """The facts of one secure sum with noise.

    Each client contributes ``dimension`` integers. One unit moves their sum by a squared L2 norm of at most
    ``l2_squared`` and an L1 norm of at most ``l1``: the client itself, or where clients are silos one of its users.
    """

    plan: bytes = field(repr=False)
    """The plan's canonical bytes, which contain session, round and roster."""
    plan_digest: bytes
    session: bytes
    round: int
    roster: bytes
    """The digest of the names and keys of those who may take part."""
    planned: int
    """The clients in the plan; those that do not survive count as missing."""
    noise: NoiseSpec
    dimension: int
    clip_l2: Fraction
    scale: Fraction
    rotated: bool
    beta: Fraction
    """The probability, at most, with which a rounding exceeds ``l2_squared`` and is repeated."""
    l2_squared: int
    l1: int
    weight_bound: int
    users: int
    """The most users of one client, each with a bounded vector of its own; 0: the client is the unit."""
    overlap: int
    """In how many clients one user's data may lie, which both norms allow for."""
    rounding: str
    sampled: Fraction
    """The probability with which each user of a client is in the sum, by a coin that only that client knows."""
    ring_bits: int
    signers: int
    """How many survivors must sign before clients reveal anything."""
    survivors: int
    cohort: bytes = b""
    """The Merkle root of the clients that advertised; empty before it is known."""
    bitmap: bytes = b""
    """Which clients of the cohort survived; the first one is the lowest bit."""
    signatures: tuple[Signed, ...] = ()
    members: tuple[str, ...] = ()
    """The names of the roster, in order, for a ledger that charges each client for its own sums (``dp.arrivals``)."""

    def __post_init__(self) -> None:
        if not 0 < self.survivors <= self.planned <= MAX_PARTIES:
            raise UsageError(f"{self.survivors} of {self.planned} clients cannot have survived")
        lengths = len(self.plan_digest), len(self.roster), len(self.session)
        if lengths != (32, 32, 16) or not 0 <= self.round < 1 << 32:
            raise UsageError("a digest has 32 bytes, a session 16, and a round is a number below 2^32")
        if min(self.dimension, self.l2_squared, self.l1) < 1 or not 1 <= self.weight_bound < 1 << 31:
            raise UsageError("a sum is of vectors with at least one coordinate, that are not all zero and count")
        if self.clip_l2 <= 0 or self.scale <= 0 or not 0 <= self.beta < 1:
            raise UsageError("clip_l2 and scale are above zero, beta is a probability below 1")
        if not 0 <= self.users < 1 << 31 or not 1 <= self.overlap <= (self.planned if self.users else 1):
            raise UsageError("a silo has fewer than 2^31 users, and a user is in no more silos than there are")
        if self.users and self.weight_bound > 1:
            raise UsageError("users inside silos have no weights")
        if not 0 < self.sampled <= 1 or (self.sampled < 1 and (not self.users or self.overlap > 1)):
            raise UsageError("users are sampled with a probability above 0, and those of one silo only")
        if self.rounding not in ROUNDINGS:
            raise UsageError(f"rounding is {' or '.join(ROUNDINGS)}, not {self.rounding!r}")
        if not 1 <= self.signers <= self.planned:
            raise UsageError(f"{self.signers} of {self.planned} clients cannot have signed")
        if not _LEAST_BITS <= self.ring_bits <= _MOST_BITS:
            raise UsageError(f"a ring has {_LEAST_BITS} to {_MOST_BITS} bits, not {self.ring_bits}")

    @property
    def holder(self) -> Holder:
        """Who has a unit's data before the sum: the client that is the unit, or the silo that the user is in."""
        return Holder.SILO if self.users else Holder.DEVICE

    def worst(self) -> SecureSum:
        """The sum as it is reserved before the round: with as many clients missing as the noise allows for."""
        least = self.planned - self.noise.dropouts
        return replace(self, survivors=least, cohort=b"", bitmap=b"", signatures=())

    def check_holder(self, guarantee: Guarantee) -> None:
        """Refuse a guarantee that protects others than the sum does: users inside silos, or whole clients."""
        if self.holder is not guarantee.holder:
            raise UsageError(f"a {self.holder} holds each unit of the sum, a {guarantee.holder} those of the guarantee")

    def release(self, guarantee: Guarantee) -> Release:
        """The sum as an event, to an adversary who sees the cohort and whose colluders know their own noise."""
        self.check_holder(guarantee)
        return self.noise.release(
            self.planned, self.survivors, self.dimension, self.l2_squared, self.l1, guarantee, self.sampled
        )
