"""What a noised matrix of centred item pairs most likely was.

The matrix has zeros on its diagonal, and on each pair independent noise of a known variance, for two reasons: what was
added for privacy, and that users are a sample (``private_gram`` says how much). What lies below is taken to be

    alike     l_i l_j (sum over k of a_k K_k,ij): how alike two items are by public features, for a few kernels K. All
              a_k >= 0 come from weighted least squares on the pairs themselves. So kernels that say nothing get
              nothing. l is how much each item is liked.
    tastes    F F' of low rank, where rows of popular items are larger: the prior of row i is normal with deviation
              l_i^(3/4), times one factor for each column of F. The posterior is found by variational Bayes (Lim and Teh
              2007, "Variational Bayesian approach to movie rating prediction"), where columns that the noise hides
              vanish by themselves: no rank is chosen.

Their sum is the answer. Nothing of the rest is kept: where sampling is counted as noise, Wiener's rule found no signal
in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from secagg.errors import UsageError

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

STEPS = 30
POWER = 0.75
MISFIT = 0.05
"""How far kernels are from the truth: of a pair, a variance of so much times (l_i l_j)^1.5."""

_LEAST = 0.02  # of the largest liking: the prior of an item must not be a point
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    pairs: Matrix
    """m x m, with zeros on the diagonal"""
    factors: Matrix
    """m x rank: F"""
    alike: Vector
    """the coefficient of each kernel"""


def denoise(noised: Matrix, variance: Matrix, liking: Vector, rank: int, kernels: Sequence[Matrix] = ()) -> Denoised:
    """``variance`` is that of the noise on each pair; the diagonals of both are not looked at.

    >>> liked = np.array([3.0, 2.0, 1.0, 2.0])
    >>> true = np.outer([1.0, 1.0, -1.0, -1.0], [1.0, 1.0, -1.0, -1.0])
    >>> denoise(true, np.full((4, 4), 1e-3), liked, 1).pairs[0].round(1) + 0.0
    array([ 0.,  1., -1., -1.])
    >>> bool(np.abs(denoise(true, np.full((4, 4), 1e3), liked, 1).pairs).max() < 0.01)
    True
    """
    size = len(noised)
    if noised.ndim != 2 or not size or noised.shape != (size, size) or not np.allclose(noised, noised.T):
        raise UsageError("pairs are a symmetric matrix")
    if variance.shape != noised.shape or len(liking) != size or any(one.shape != noised.shape for one in kernels):
        raise UsageError("each pair has a variance, each item a liking, and each kernel is as large as the pairs")
    if not (variance > 0).all() or not liking.max() > 0 or rank < 1:
        raise UsageError("variances are above 0, somebody likes something, and the rank is at least 1")
    pairs = hollow(noised)
    scale = np.maximum(liking, _LEAST * liking.max())
    alike, explained = _alike(pairs, variance, np.outer(scale, scale), kernels)
    left = pairs - explained
    factors = _tastes(left, variance, scale**POWER, _start(left, scale**POWER, rank))
    return Denoised(hollow(explained + factors @ factors.T), factors, alike)


def hollow(matrix: Matrix) -> Matrix:
    """With zeros on the diagonal."""
    hollow = matrix.copy()
    np.fill_diagonal(hollow, 0)
    return hollow


def _alike(pairs: Matrix, variance: Matrix, likings: Matrix, kernels: Sequence[Matrix]) -> tuple[Vector, Matrix]:
    """The kernels' coefficients, and the matrix that they make."""
    explained = np.zeros_like(pairs)
    if not kernels:
        return np.empty(0), explained
    upper = np.triu_indices(len(pairs), 1)
    precision = 1 / (variance + MISFIT * likings**1.5)[upper]
    columns = np.stack([(likings * kernel)[upper] for kernel in kernels], axis=1)
    alike = least_squares(columns, pairs[upper], precision)
    for coefficient, kernel in zip(alike, kernels, strict=True):
        explained += coefficient * likings * kernel
    return alike, hollow(explained)


def least_squares(columns: Matrix, target: Vector, weights: Vector) -> Vector:
    """Coefficients from 0 on that minimise the weighted sum of squares.

    >>> least_squares(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([2.0, 1.0]), np.array([1.0, 1.0]))
    array([1.5, 0. ])
    """
    weighted = columns * weights[:, None]
    normal, right = columns.T @ weighted, weighted.T @ target
    size = np.sqrt(np.maximum(np.diag(normal), _TINY))
    normal, right = normal / np.outer(size, size), right / size
    root = np.linalg.cholesky(normal + 1e-9 * np.eye(len(size)))
    found: Vector = optimize.nnls(root.T, np.linalg.solve(root, right))[0] / size
    return found


def _start(left: Matrix, scale: Vector, rank: int) -> Matrix:
    """Eigenvectors, with popular items weighing more, in the size that fits best. Padded with zeros to the rank."""
    values, vectors = np.linalg.eigh(left * np.outer(scale, scale))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    size = np.maximum(values, 1e-3 * np.abs(values).max(initial=_TINY))
    factors = np.zeros((len(left), rank))
    factors[:, : len(values)] = vectors * np.sqrt(size) / scale[:, None]
    tastes = hollow(factors @ factors.T)
    return factors * sqrt(max(float((left * tastes).sum()), 0.0) / max(float((tastes**2).sum()), _TINY))


def _tastes(left: Matrix, variance: Matrix, scale: Vector, factors: Matrix) -> Matrix:
    """Posterior means of the rows of F. All rows move at once, hence half the way each time."""
    size, rank = factors.shape
    precision, diagonal = hollow(1 / variance), np.arange(rank)
    weighted = precision * left
    covariances = np.zeros((size, rank, rank))
    columns = _relevance(factors, covariances, scale)
    for _ in range(STEPS):
        moments = factors[:, :, None] * factors[:, None, :] + covariances
        precisions = (precision @ moments.reshape(size, -1)).reshape(size, rank, rank)
        precisions[:, diagonal, diagonal] += 1 / (scale[:, None] ** 2 * columns)
        covariances = np.asarray(np.linalg.inv(precisions), np.float64)
        means = np.einsum("ikl,il->ik", covariances, weighted @ factors)
        factors = (factors + means) / 2
        columns = _relevance(factors, covariances, scale)
    return factors


def _relevance(factors: Matrix, covariances: NDArray[np.float64], scale: Vector) -> Vector:
    """How large each column's entries are, relative to their rows' scale: the most likely prior."""
    squares = factors**2 + np.diagonal(covariances, axis1=1, axis2=2)
    relevance: Vector = (squares / scale[:, None] ** 2).mean(axis=0) + _TINY
    return relevance
