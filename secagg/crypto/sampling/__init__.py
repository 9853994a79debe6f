"""Integer noise from a seed: discrete Gaussian, Skellam and discrete Laplace, exact to 2^-128, fast at every scale.

    seed -> AES-CTR (secagg.crypto.prg) -> 191 uniform bits per sample -> inversion of the exact distribution function

``draws`` has a function for each law. ``laws`` says where the boundaries between outcomes lie, in integers;
``inversion`` finds the outcome of a word, with integers deciding. So the same seed gives the same noise on every
machine, and a server can take off again what a client added. Sample i depends on the seed, the parameter and i only. A
seed is used for one call, as everywhere: with another parameter or law it gives other values of the same uniform
numbers, not independent noise.

Discrete Gaussian: Canonne, Kamath and Steinke 2020 (OpenDP has their rejection sampler; tests compare with it).
Skellam: Agarwal, Kairouz and Liu 2021. Neither needs a convolution of small samples (Micciancio and Walter 2017) at a
large sigma: 460 boundaries and an interpolation that knows its error serve both, in 80 KB.

Time depends on the outcome (cache lines, a rare bisection): do not let an adversary time single samples.

From here come only the limits, which need no numba. ``draws`` is compiled.
"""

from fractions import Fraction

STATISTICAL_DISTANCE = Fraction(1, 1 << 128)
"""A bound on the total variation between a sample's law and the ideal one (``laws``; each table is within 2^-130)."""

SMALLEST = Fraction(1, 1 << 20)
LARGEST_VARIANCE = Fraction(1 << 44)
LARGEST_SCALE = Fraction(1 << 22)
"""What the samplers draw: the least variance or scale, and the largest of each."""
