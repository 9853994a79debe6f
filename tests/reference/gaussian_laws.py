"""The laws of docs/gaussian_sums.md digit by digit: of sums of discrete Gaussians, and of a rounded Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

from mpmath import exp, log, mpf, pi, sqrt

FINE = 16
"""How many steps an integral takes from one integer to the next: the rule's error is far below what is compared."""

Law = dict[int, mpf]


def e(squared: mpf) -> mpf:
    """e(t) = 2 sum exp(-2 pi^2 t^2 j^2), for t^2."""
    return 2 * sum(exp(-2 * pi**2 * squared * j * j) for j in range(1, 12))


def density(squared: mpf, y: mpf) -> mpf:
    return exp(-y * y / (2 * squared)) / sqrt(2 * pi * squared)


def of_the_sum(parameters: Sequence[mpf], x: int, reach: int) -> Law:
    """The law of x + X_1 + ... + X_m, by convolution."""
    total: Law = {x: mpf(1)}
    for squared in parameters:
        weights = {k: exp(-mpf(k * k) / (2 * squared)) for k in range(-4 * reach, 4 * reach + 1)}
        norm = sum(weights.values())
        total = {
            z: sum(total[y] * weights[z - y] for y in total if abs(z - y) <= 4 * reach) / norm
            for z in range(x - 4 * reach, x + 4 * reach + 1)
        }
    return {z: total[z] for z in range(x - reach, x + reach + 1)}


def of_the_rounded(variance: mpf, s_squared: mpf, x: int, reach: int) -> Law:
    """The law of K_s(N(x, V - s^2)), by the trapezoidal rule on a fine grid."""
    norms = [sum(density(s_squared, mpf(k) - mpf(i) / FINE) for k in range(-30, 31)) for i in range(FINE)]
    grid = range(-4 * reach * FINE, 4 * reach * FINE + 1)
    of_y = {i: density(variance - s_squared, mpf(i) / FINE) / norms[i % FINE] for i in grid}
    near = {i: density(s_squared, mpf(i) / FINE) for i in range(-5 * reach * FINE, 5 * reach * FINE + 1)}
    return {x + k: sum(of_y[i] * near[k * FINE - i] for i in grid) / FINE for k in range(-reach, reach + 1)}


def eta(parameters: Sequence[mpf], s_squared: mpf) -> mpf:
    """The lemma's bound."""
    found, before = -log(1 - e(s_squared)) + sum(log(1 + e(squared)) for squared in parameters), parameters[0]
    for squared in parameters[1:]:
        found -= log(1 - e(before * squared / (before + squared)))
        before += squared
    return found
