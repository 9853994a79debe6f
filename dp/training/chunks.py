"""Batches of constant shape: the same work whoever is in the sample, so that no example is seen in another's gradient.

The last bits of a gradient depend on how many examples are computed together and on the position among them, and a last
bit may decide on which side of a kink an example lies: from 0 to a whole clip. So a step always computes the same
number of chunks of the same size. Sampled examples lie in secret random positions; in all others are dummies of zeros,
which are computed and left out of the sum. With or without one example, the others are computed in the same way.

An example that makes the model raise (an id out of range) is found by computing it among dummies alone, and becomes a
dummy: the others stay where they are. What no example causes by itself is an error of the machine, and is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from secagg.coins import most_sampled
from secagg.crypto.prg import Rng, random_words

T = TypeVar("T")
Compute = Callable[[tuple[Tensor, ...]], T]
"""Computes the gradients of a chunk."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """The number of chunks in a step, and how many examples are in each.

    >>> Chunks.of(population=1000, rate=Fraction(1, 50), largest=256), Chunks.of(1000, Fraction(1, 2), largest=256)
    (Chunks(count=1, size=61), Chunks(count=3, size=256))
    """

    count: int
    size: int

    @classmethod
    def of(cls, population: int, rate: Fraction, largest: int) -> Chunks:
        """Enough for Poisson samples (``most_sampled``), with at most ``largest`` examples in a chunk."""
        positions = most_sampled(population, rate)
        return cls(-(-positions // largest), min(positions, largest))

    def filled(self, sample: NDArray[np.int64], rng: Rng) -> list[NDArray[np.int64]]:
        """The chunks, with the sample at random positions and -1 at all others.

        A sample that is too large gets more chunks. Who is sampled depends on nobody's data, so neither does that; with
        one example more in it there may be one chunk more, with a probability of 2^-40.

        >>> from secagg.crypto.prg import Prg
        >>> [chunk.tolist() for chunk in Chunks(count=2, size=3).filled(np.array([10, 20, 30]), Prg(bytes(32)))]
        [[-1, 30, -1], [-1, 20, 10]]
        """
        count = max(self.count, -(-len(sample) // self.size))
        positions = np.full(count * self.size, -1)
        positions[np.argsort(random_words(rng, len(positions)), kind="stable")[: len(sample)]] = sample
        return np.split(positions, count)


def dummies(examples: TensorDataset, size: int) -> tuple[Tensor, ...]:
    """A chunk of examples that are all zeros."""
    return tuple(tensor.new_zeros(size, *tensor.shape[1:]) for tensor in examples.tensors)


def gradients_of(compute: Compute[T], examples: TensorDataset, chunk: NDArray[np.int64]) -> tuple[T, Tensor]:
    """The gradients of a chunk, and which of its positions have an example with a gradient."""
    try:
        return compute(_fetched(examples, chunk)), torch.from_numpy(chunk >= 0)
    except Exception:  # noqa: BLE001 - whatever it is, the example that causes it counts as zero
        raising = [
            position for position in np.flatnonzero(chunk >= 0).tolist() if _raises(compute, examples, chunk, position)
        ]
        left = np.where(np.isin(np.arange(len(chunk)), raising), -1, chunk)
        return compute(_fetched(examples, left)), torch.from_numpy(left >= 0)


def _raises(compute: Compute[T], examples: TensorDataset, chunk: NDArray[np.int64], position: int) -> bool:
    """Whether the example at position ``position`` raises there, among dummies."""
    try:
        compute(_fetched(examples, np.where(np.arange(len(chunk)) == position, chunk, -1)))
    except Exception:  # noqa: BLE001 - the caller asks only whether it raises
        return True
    return False


def _fetched(examples: TensorDataset, chunk: NDArray[np.int64]) -> tuple[Tensor, ...]:
    there, index = torch.from_numpy(chunk >= 0), torch.from_numpy(np.maximum(chunk, 0))
    found = (tensor[index] for tensor in examples.tensors)
    return tuple(values.masked_fill_(~there.view(-1, *[1] * (values.dim() - 1)), 0) for values in found)
