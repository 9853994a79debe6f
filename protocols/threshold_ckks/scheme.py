"""Ring-LWE encryption of integer vectors under a key in additive parts, exactly as in ``protocols.threshold_ckks``.

Cheon et al.'s scheme with values in coefficients and no multiplications; errors stand above the values, as in BGV
(``lattice.packing`` says why that is as secure). All that is drawn comes from seeds, so everything here is a function.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocols.threshold_ckks.sizes import Sizes
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.lattice import VARIANCE, QuotientRing, packing
from secagg.crypto.lattice.polynomials import Coefficients, Evaluations, Integers
from secagg.crypto.lattice.sampling import flooding, uniform
from secagg.crypto.sampling.draws import discrete_gaussian


@dataclass(frozen=True, slots=True, eq=False)
class Scheme:
    """The ring, the layout and the public polynomial a of one round.

    >>> from protocols.threshold_ckks.sizes import choose_sizes
    >>> import numpy as np
    >>> scheme = Scheme.of(choose_sizes(width=20, clients=2, length=3), bytes(32))
    >>> seeds = [b"a" * 32, b"b" * 32]
    >>> joint = scheme.public(seeds[0]) + scheme.public(seeds[1])
    >>> c0, c1 = scheme.encrypt(joint, np.array([1, -2, 3]), b"e" * 32)
    >>> parts = [scheme.partial(c1, seed, flooded_by=b"f" + seed[1:]) for seed in seeds]
    >>> scheme.decode(c0 + parts[0] + parts[1]).tolist()
    [1, -2, 3]
    """

    sizes: Sizes
    _a: Evaluations = field(repr=False)

    @classmethod
    def of(cls, sizes: Sizes, seed: bytes) -> Scheme:
        """The seed is public."""
        return cls(sizes, uniform(sizes.layout.ring, 1, seed))

    @property
    def ring(self) -> QuotientRing:
        return self.sizes.layout.ring

    def public(self, seed: bytes) -> Coefficients:
        """b = -a s + T e."""
        error = Coefficients.lift(self.ring, [_gaussian(seed, b"key error", self.ring.degree)], [self.sizes.unit])
        return error - self._a.product(self.secret(seed))

    def secret(self, seed: bytes) -> Evaluations:
        """s."""
        return Coefficients.lift(self.ring, [_gaussian(seed, b"key", self.ring.degree)]).evaluations()

    def encrypt(self, joint: Coefficients, values: Integers, seed: bytes) -> tuple[Coefficients, Coefficients]:
        """c0 = b v + T e0 + x, c1 = a v + T e1. Of c0 only the used coefficients mean something."""
        length = self.sizes.blocks * self.ring.degree
        v = Coefficients.lift(self.ring, [_gaussian(seed, b"v", length)]).evaluations()
        e0, e1 = _gaussian(seed, b"e0", self.sizes.count), _gaussian(seed, b"e1", length)
        c0 = packing.encode(self.sizes.layout, values, e0, onto=v.product(joint.evaluations()))
        return c0, Coefficients.lift(self.ring, [e1], [self.sizes.unit], self.sizes.blocks, onto=v.product(self._a))

    def partial(self, c1: Coefficients, seed: bytes, *, flooded_by: bytes) -> Coefficients:
        """d = c1 s + T f on the used coefficients."""
        columns, weights = flooding(self.sizes.flooding, self.sizes.count, flooded_by)
        flood = Coefficients.lift(
            self.ring, columns, [self.sizes.unit * weight for weight in weights], self.sizes.blocks
        )
        return self.bare(c1, [seed]) + flood

    def bare(self, c1: Coefficients, seeds: Iterable[bytes]) -> Coefficients:
        """c1 times the sum of these parts of the key, not flooded: never to be shown with a secret part."""
        secrets = [self.secret(seed) for seed in seeds]
        return c1.evaluations().product(sum(secrets[1:], start=secrets[0]))

    def decode(self, total: Coefficients) -> Integers:
        """The sums of values, exact. ``PeerError`` if a part is missing or wrong."""
        return packing.decode(self.sizes.layout, total, self.sizes.length)

    # On the wire: keys and c1 whole, c0 and partial decryptions as far as they are used.

    def pack_key(self, key: Coefficients) -> bytes:
        return key.pack(self.ring.degree)

    def unpack_key(self, data: bytes) -> Coefficients:
        return Coefficients.unpack(self.ring, data, self.ring.degree)

    def pack_used(self, polynomials: Coefficients) -> bytes:
        return polynomials.pack(self.sizes.count)

    def unpack_used(self, data: bytes | memoryview) -> Coefficients:
        return Coefficients.unpack(self.ring, data, self.sizes.count)

    def pack_all(self, polynomials: Coefficients) -> bytes:
        return polynomials.pack(self.sizes.blocks * self.ring.degree)

    def unpack_all(self, data: bytes | memoryview) -> Coefficients:
        return Coefficients.unpack(self.ring, data, self.sizes.blocks * self.ring.degree)


def _gaussian(seed: bytes, purpose: bytes, count: int) -> Integers:
    return discrete_gaussian(VARIANCE, count, derive(seed, labels.THRESHOLD_DRAW, purpose))
