"""What a dealer gives and what a holder checks, in Python integers, from the coefficients of all polynomials.

``coefficients[i]`` are those of x^i: of the limbs' polynomials first, of the four blinding polynomials last.
"""

from collections.abc import Sequence

from tests.reference.shamir import P, evaluate

BLINDS = 4


def points(coefficients: Sequence[Sequence[int]], holder: int) -> list[int]:
    return [evaluate(column, holder) for column in zip(*coefficients, strict=True)]


def combined(values: Sequence[int], weights: Sequence[Sequence[int]]) -> list[int]:
    """r_j + sum_l rho_lj f_l, for values of all polynomials at one place or their coefficients of one power."""
    limbs, blinds = values[:-BLINDS], values[-BLINDS:]
    return [(blinds[j] + sum(w[j] * f for w, f in zip(weights, limbs, strict=True))) % P for j in range(BLINDS)]
