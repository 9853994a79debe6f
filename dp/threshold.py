"""The least noised count that says that more than a few units touched a row.

Counts are sums over units, each of which adds 1 to no more than ``cap`` rows of a public list, and all of them are
noised. So which rows reach a threshold follows from a release that is charged (post-processing), and needs no delta of
its own. That is where this differs from a partition selection over unknown keys (Korolova, Kenthapadi, Mishra and
Ntoulas 2009; Desfontaines, Voss, Gipson and Mandayam 2022), where a key that only one unit has is noised in one of two
neighbouring worlds and absent in the other, and the threshold's failure is paid for in delta.

What the threshold is for is another promise beside epsilon and delta: of a unit's rows, those that too few others
touched stay out, all of them together, except with probability ``failing``. With Gaussian noise of deviation sigma a
threshold of 1 + sigma Phi^-1((1 - failing)^(1 / cap)) would keep it for rows that one unit touched. The noise is a sum
of discrete Gaussians, so the bound here is one for these.

*Tail.* Let V be the sum of the parameters of the draws in one coordinate, each at least ``LEAST_DRAW``. The law of
their sum at z is at most (1 + e) phi_V(z), with phi_V the density of N(0, V) and e below 10^-20 (docs/gaussian_sums.md,
the lemma's "Convolution": the factor u, for up to 10^13 draws). phi_V is convex from sqrt(V) on, so there its value at
z is at most its mean over [z - 1/2, z + 1/2]. So for b - 1/2 >= sqrt(V) the noise is b or more with probability at most
(1 + e) Phi(-(b - 1/2) / sqrt(V)). It grows with V: what colluders leave out makes it smaller, and so does excess noise
that was taken off.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, erfc, expm1, log1p, sqrt
from statistics import NormalDist

from dp.noise import WRAP_BITS
from secagg.errors import UsageError

_LEAST, _MOST = Fraction(1, 1 << 30), Fraction(1, 10)
_MARGIN = 1e-6
"""Of a probability: more than e, the distance of all samplers from their law, and the errors of floating point."""


def threshold(most: int, variance: Fraction, places: int, failing: Fraction) -> int:
    """The least integer that none of ``places`` coordinates of a noised sum reaches, except with probability
    ``failing``, if without the noise each is ``most`` or less.

    ``variance`` is that of all noise in the sum, at the most, as ``NoiseSpec.whole_variance`` says. That the sum wraps
    around its ring, with probability 2^-40, counts as reached.

    >>> threshold(1, Fraction(50), places=100, failing=Fraction(1, 10**6))
    42
    >>> 1 + sqrt(50) * NormalDist().inv_cdf((1 - 1e-6) ** 0.01)
    40.682840...
    """
    if not _LEAST <= failing <= _MOST:
        raise UsageError(f"failing is a probability from 2^-30 to {_MOST}, not {float(failing):g}")
    if places < 1 or variance <= 0:
        raise UsageError("a threshold is for one place or more, and for noise")
    each = -expm1(log1p(-float(failing - Fraction(1, 1 << WRAP_BITS))) / places) * (1 - _MARGIN)
    deviation = sqrt(variance) * (1 + _MARGIN)
    above = ceil(0.5 + deviation * max(1.0, -NormalDist().inv_cdf(each)))
    while erfc((above - 0.5) / deviation / sqrt(2)) / 2 > each:  # what inv_cdf rounded
        above += 1
    return most + above
