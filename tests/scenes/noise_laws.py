"""The exact laws of discrete noise, and how far a count may be off by chance."""

import math

import numpy as np
from scipy.special import ive


def skellam(rng: np.random.Generator, variance: float, shape: int | tuple[int, ...]) -> np.ndarray:
    return (rng.poisson(variance / 2, shape) - rng.poisson(variance / 2, shape)).astype(float)


def skellam_law(variance: float, reach: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(-reach, reach + 1)
    return values, ive(np.abs(values), variance)


def discrete_gaussian_law(variance: float, reach: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(-reach, reach + 1)
    weights = np.exp(-(values**2) / (2 * variance))
    return values, weights / weights.sum()


def binomial_limit(trials: int, rate: float, z: float = 6.0) -> float:
    return trials * rate + z * math.sqrt(trials * rate * (1 - rate))
