"""The (k, t) rule read off the issue line by line, in exact fractions, with nothing shared or sped up.

Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS), Section 3.2.
"""

from fractions import Fraction
from math import ceil, comb, factorial, floor


def chance(population: int, marked: int, draws: int, count: int) -> Fraction:
    """Pr[exactly ``count`` of the ``draws`` are marked]: the hypergeometric law."""
    return Fraction(comb(marked, count) * comb(population - marked, draws - count), comb(population, draws))


def above(population: int, marked: int, draws: int, t: int) -> Fraction:
    return sum((chance(population, marked, draws, i) for i in range(t + 1, draws + 1)), Fraction(0))


def below(population: int, marked: int, draws: int, t: int) -> Fraction:
    return sum((chance(population, marked, draws, i) for i in range(t)), Fraction(0))


def connected(n: int, k: int, gone: int, security: int) -> bool:
    if k > gone:
        return True
    ratio = Fraction(factorial(gone) * factorial(n - k), factorial(n) * factorial(gone - k))
    return Fraction(n * (n - k - 1), 2) * ratio < Fraction(1, 2 ** (security + 1))


def least_t1(n: int, corrupt: int, k: int, security: int) -> int:
    """Smallest t1 with Pr[HG > t1] <= 2^-(security+1) / n."""
    return next(t for t in range(k + 1) if above(n, corrupt, k, t) <= Fraction(1, n * 2 ** (security + 1)))


def largest_t2(n: int, survivors: int, k: int, correctness: int) -> int:
    """Largest t2 with Pr[HG < t2] <= 2^-correctness / n."""
    return max(t for t in range(k + 1) if below(n, survivors, k, t) <= Fraction(1, n * 2**correctness))


def threshold(n: int, corrupt: int, k: int, active: bool, security: int) -> int:
    t1 = least_t1(n, corrupt, k, security)
    if active:
        t1 = ceil((t1 + k - Fraction(5, 4)) / 2)
    return max(t1 + 1, 2)


def ring_fits(n: int, g: Fraction, d: Fraction, k: int, active: bool, security: int, correctness: int) -> int | None:
    """The threshold for a k-ring, or None where the rule refuses k."""
    if not connected(n, k, floor(g * n) + floor(d * n), security):
        return None
    t = threshold(n, floor(g * n), k, active, security)
    return t if t <= largest_t2(n, ceil((1 - d) * n), k, correctness) else None


def choose(n: int, g: Fraction, d: Fraction, active: bool, security: int, correctness: int) -> tuple[int, int] | None:
    """Smallest even k below n - 1 and its threshold; None where only the complete graph is left."""
    for k in range(2, n - 1, 2):
        if (t := ring_fits(n, g, d, k, active, security, correctness)) is not None:
            return k, t
    return None


def choose_for_round(
    n: int, g: Fraction, d: Fraction, active: bool, security: int, correctness: int
) -> tuple[int, int] | None:
    """The same with grinding bits (80; 64 for the cohort of which a fraction d never came), in both cohorts at once."""
    bad, gone = floor(g * n), floor(d * n)
    least = n - gone
    for k in range(2, n - 1, 2):
        seen = min(k, least - 1)
        if not connected(n, k, bad + gone, security + 80 * active):
            continue
        if not connected(least, seen, bad, security + 64 * active):
            continue
        t = max(
            threshold(n, bad, k, active, security + 80 * active),
            threshold(least, bad, seen, active, security + 64 * active),
        )
        if t <= min(largest_t2(n, ceil((1 - d) * n), k, correctness), seen):
            return k, t
    return None


def least_quorum(n: int, corrupt: int, witnesses: int, security: int) -> int:
    """More than half of the witnesses and of as many corrupt ones as may be among them."""
    draws = min(witnesses, n)
    f = next(f for f in range(draws + 1) if above(n, corrupt, draws, f) <= Fraction(1, 2**security))
    return floor(Fraction(draws + f, 2)) + 1


def witnesses_fit(n: int, corrupt: int, silent: int, witnesses: int, quorum: int, correctness: int) -> bool:
    """Whether a quorum of witnesses stays."""
    return above(n, silent, witnesses, witnesses - quorum) <= Fraction(1, 2**correctness)
