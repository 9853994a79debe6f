"""What lattice attacks on LWE cost in the core-SVP model: BKZ with one call of a sieve, 2^(0.292 beta).

Alkim, Ducas, Poeppelmann and Schwabe 2016, "Post-quantum Key Exchange - A New Hope" (USENIX Security), Section 6: the
primal attack (unique shortest vector) and the dual attack (distinguishing), each at its best block size beta and number
of samples m, which an attacker may choose as it likes. 0.292: Becker, Ducas, Gama and Laarhoven 2016 (SODA), classical.
Secrets and errors have the same width sigma in each of n coordinates; a ring's structure is not used by any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import e, exp, inf, log, log2, pi, sqrt

SIEVE = 0.292
VECTORS = 0.2075
"""A sieve gives 2^(0.2075 beta) short vectors at once, which the dual attack uses."""

BLOCK_SIZES = range(60, 1500)


def root_hermite(beta: int) -> float:
    """delta, to which BKZ-beta reduces a basis (Chen 2013)."""
    return ((pi * beta) ** (1 / beta) * beta / (2 * pi * e)) ** (1 / (2 * (beta - 1)))


def dimensions(n: int, log_q: float, beta: int) -> Iterator[int]:
    """Around the best dimension sqrt(n log q / log delta), with one sample at least."""
    best = int(sqrt(n * log_q / log(root_hermite(beta))))
    return (max(best + more, n + 2) for more in (-1, 0, 1, 2))


def primal_works(n: int, log_q: float, sigma: float, beta: int, d: int) -> bool:
    """d = m + n + 1. The secret's projection is shorter than what BKZ finds there: sigma sqrt(beta) against
    delta^(2 beta - d - 1) q^(m/d)."""
    m = d - n - 1
    return log(sigma) + log(beta) / 2 <= (2 * beta - d - 1) * log(root_hermite(beta)) + m / d * log_q


def dual_cost(n: int, log_q: float, sigma: float, beta: int, d: int) -> float:
    """d = m + n. log2 of the work with vectors of length l = delta^(d-1) q^(n/d), each of which tells with advantage
    4 exp(-2 pi^2 (l sigma / q)^2); advantage^-2 are needed."""
    length = (d - 1) * log(root_hermite(beta)) + n / d * log_q
    ratio = length + log(sigma) - log_q
    if ratio > 5:
        return inf
    advantage = log2(4) - 2 * pi**2 * exp(2 * ratio) / log(2)
    return SIEVE * beta + max(0.0, -2 * min(advantage, 0.0) - VECTORS * beta)


def primal(n: int, bits: float, sigma: float) -> float:
    """log2 of the cheapest primal attack for q = 2^bits."""
    log_q = bits * log(2)
    works = (
        beta for beta in BLOCK_SIZES if any(primal_works(n, log_q, sigma, beta, d) for d in dimensions(n, log_q, beta))
    )
    return SIEVE * next(works, inf)


def dual(n: int, bits: float, sigma: float) -> float:
    log_q = bits * log(2)
    return min(dual_cost(n, log_q, sigma, beta, d) for beta in BLOCK_SIZES for d in dimensions(n, log_q, beta))


def cost(n: int, bits: float, sigma: float) -> float:
    """log2 of what the cheaper of the two costs."""
    return min(primal(n, bits, sigma), dual(n, bits, sigma))


def widest(n: int, sigma: float, security: int) -> int:
    """The most bits that q may have. A wider q makes both attacks cheaper."""
    low, high = 1, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(n, middle, sigma) >= security else (low, middle)
    return low
