"""Noise that is correlated over the steps of a training, so that it cancels in their sums.

With gradients G (a row a step) and a workload A, the iterates are A G. Independent noise gives A (G + s Z). With an
invertible lower triangular C the steps see G + s C^-1 Z, which is C^-1 (C G + s Z): as private as C G under
independent noise, and the iterates err by s A C^-1 Z (Denisov et al. 2022, "Improved differential privacy for SGD via
optimal private linear operators on adaptive streams"). C pays where A C^-1 has a smaller norm than C's sensitivity
costs. Here C has a few bands below its diagonal (Choquette-Choo et al. 2023, "(Amplified) banded matrix
factorization: a unified approach to private training"): the noise of a step then needs that of so many steps before.

Who takes part in every ``gap``-th step moves the rows j, j + gap, ... of G by vectors of norm at most 1 each, whose
directions are free. So C G moves by at most sqrt(sum of |(C_j^T C_j)_ab|), with C_j the columns of these steps.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_SEARCH = 300
"""Iterations."""


def workload(steps: int, momentum: float) -> NDArray[np.float64]:
    """How far each step's gradient has moved each iterate, for SGD with this momentum at rate 1.

    >>> workload(3, 0.5).tolist()
    [[1.0, 0.0, 0.0], [1.5, 1.0, 0.0], [1.75, 1.5, 1.0]]
    """
    moved = np.cumsum(momentum ** np.arange(steps))
    lags = np.subtract.outer(np.arange(steps), np.arange(steps))
    return np.where(lags >= 0, moved[np.maximum(lags, 0)], 0.0)


def sensitivity(matrix: NDArray[np.float64], gap: int) -> float:
    """The farthest that one user moves ``matrix`` times the gradients, who takes part in every ``gap``-th step.

    >>> sensitivity(np.eye(8), 2), sensitivity(np.eye(9), 1)  # four turns, and all nine
    (2.0, 3.0)
    """
    return float(_sensitivity(torch.from_numpy(matrix), gap))


def _sensitivity(matrix: torch.Tensor, gap: int) -> torch.Tensor:
    places = [matrix[:, first::gap] for first in range(min(gap, len(matrix)))]
    return torch.stack([(columns.T @ columns).abs().sum() for columns in places]).max().sqrt()


def root_mean_square(target: NDArray[np.float64], matrix: NDArray[np.float64], gap: int) -> float:
    """The error of an iterate, over all of them, in units of clip / mu for total privacy mu."""
    error = np.linalg.solve(matrix.T, target.T).T
    return float(np.sqrt(np.square(error).sum() / len(target)) * sensitivity(matrix, gap))


def last_error(target: NDArray[np.float64], matrix: NDArray[np.float64], gap: int) -> float:
    """The same of the last iterate alone."""
    error = np.linalg.solve(matrix.T, target[-1])
    return float(np.linalg.norm(error) * sensitivity(matrix, gap))


def optimised(target: NDArray[np.float64], bands: int, gap: int) -> NDArray[np.float64]:
    """A lower triangular matrix with so many bands, the diagonal among them, of small ``root_mean_square``.

    The search is by gradients and starts from independent noise, than which the result is never worse.

    >>> prefix = workload(8, 0.0)
    >>> found = optimised(prefix, bands=4, gap=4)
    >>> root_mean_square(prefix, found, 4) < 0.9 * root_mean_square(prefix, np.eye(8), 4)
    True
    """
    steps = len(target)
    lags = np.subtract.outer(np.arange(steps), np.arange(steps))
    kept = torch.from_numpy((lags > 0) & (lags < bands))
    wanted = torch.from_numpy(target)
    below = torch.zeros(steps, steps, dtype=torch.float64, requires_grad=True)
    diagonal = torch.zeros(steps, dtype=torch.float64, requires_grad=True)

    def made() -> torch.Tensor:
        return torch.diag(diagonal.exp()) + torch.where(kept, below, 0.0)

    search = torch.optim.LBFGS([below, diagonal], max_iter=_SEARCH, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        matrix = made()
        error = torch.linalg.solve_triangular(matrix, wanted, upper=False, left=False)
        found = error.square().sum().log() / 2 + _sensitivity(matrix, gap).log()
        found.backward()
        return found

    search.step(loss)
    result: NDArray[np.float64] = made().detach().numpy()
    independent = np.eye(steps)
    better = root_mean_square(target, result, gap) < root_mean_square(target, independent, gap)
    return result if better else independent
