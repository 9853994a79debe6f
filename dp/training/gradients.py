"""The gradients of B examples for one parameter, in the smallest form in which they can be clipped and added exactly.

- ``Rows``: an embedding table was looked up. One gradient row for each id: O(B L d) numbers, whatever the size V of the
  table. Ids that repeat within an example are added up, before the norm is taken and before anything is scaled.
- ``Products``: a weight was multiplied. An example's gradient is the sum of T outer products; its norm follows from two
  T x T Gram matrices without it ("ghost clipping": Goodfellow 2015; Li et al. 2022; Bu et al. 2023, whose book-keeping
  also spares the second backward pass).
- ``Dense``: everything else, written out.

What is measured is what is added: ``Dense`` and coalesced ``Rows`` hold the numbers whose norm is taken in float64,
which are then scaled, truncated towards zero and added as integers. Truncation makes nothing longer, and integers add
up exactly, in any order: one example moves the sum by its own clipped gradient, whatever the others are.

``Products`` are added by one float64 product over all examples, whose rounding is no larger than (B T + 2) 2^-53 of the
sum of |left| |right| over all of them. That is small beside an example's norm only where its terms do not cancel, so
an example is in the product only if its terms are together at most 2^10 times as long as their sum; others are written
out. Then one example moves the result by its clipped norm and at most B^2 T 2^-41 of the bound more, and the truncation
of the result by the root of its numbers, in units (``rounding`` says so before any noise is drawn).

Shapes depend on nothing but the number of examples and the model: nothing is ever sorted out, only masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Protocol

import torch
from torch import Tensor

_CANCELLED = 2.0**10
"""If an example's terms are together longer than this many times their sum, its gradient is written out."""

_AT_ONCE = 1 << 20
"""How many numbers are scaled at once, so that copies in float64 stay small."""


class Gradients(Protocol):
    @property
    def numbers(self) -> int:
        """Of one example: so many are added up for a squared norm."""

    def squared_norms(self) -> Tensor:
        """(B,) float64. Not finite where an example's gradient is not."""

    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        """Add factor times gradient of each example, as integers, to ``total``; those whose factor is 0 add nothing."""

    def add_to(self, total: Tensor) -> None:
        """Add each example's gradient to that example's part of ``total``, (B, *shape of the parameter), float64."""

    def rounding(self, batch: int, limit: float) -> float:
        """By how much more than its clipped norm, ``limit`` at most, one example of ``batch`` moves the total."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    values: Tensor
    """(B, *shape of the parameter)"""

    @property
    def numbers(self) -> int:
        return prod(self.values.shape[1:])

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.values.reshape(len(self.values), -1), dim=1, dtype=torch.float64).square()

    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        size = max(1, _AT_ONCE // max(1, self.numbers))
        for values, some in zip(self.values.split(size), factors.split(size), strict=True):
            total += _scaled(values, some).sum(0)

    def add_to(self, total: Tensor) -> None:
        total += self.values

    def rounding(self, batch: int, limit: float) -> float:
        return 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """
    >>> twice = Rows.of(torch.tensor([[2, 2, 0]]), torch.tensor([[[3.0], [4.0], [1.0]]]))
    >>> round(float(twice.squared_norms()), 9)  # 7^2 + 1^2
    50.0
    """

    ids: Tensor
    """(B, n) rows of the table, each once; after them, places that hold zeros"""
    sums: Tensor
    """(B, n, d) float64"""

    @classmethod
    def of(cls, ids: Tensor, values: Tensor) -> Rows:
        """``values`` (B, n, d) belong to the rows ``ids`` (B, n), which may repeat."""
        ordered, order = ids.sort(dim=1, stable=True)
        place = torch.zeros_like(ids)
        place[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(1)
        back = order.argsort(1)
        sums = torch.zeros_like(values, dtype=torch.float64)
        sums.scatter_add_(1, place.gather(1, back).unsqueeze(2).expand_as(values), values.double())
        return cls(torch.zeros_like(ids).scatter_(1, place, ordered), sums)

    @property
    def numbers(self) -> int:
        return prod(self.sums.shape[1:])

    def squared_norms(self) -> Tensor:
        return Dense(self.sums).squared_norms()

    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        total.index_add_(0, self.ids.flatten(), _scaled(self.sums, factors).flatten(0, 1))

    def add_to(self, total: Tensor) -> None:
        total.scatter_add_(1, self.ids.unsqueeze(2).expand_as(self.sums), self.sums)

    def rounding(self, batch: int, limit: float) -> float:
        return 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """
    >>> sample = Products.of(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]))
    >>> round(float(sample.squared_norms()), 9)  # |(1, 2)|^2 |(3, 4)|^2
    125.0
    """

    left: Tensor
    """(B, T, out): gradients of the outputs"""
    right: Tensor
    """(B, T, in): inputs"""
    squares: Tensor
    """(B,) float64: bounds from above on the squared norms"""
    apart: Mapping[int, Tensor]
    """the gradients of examples whose terms cancel, by number, float64"""

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> Products:
        wide_left, wide_right = left.double(), right.double()
        terms = (_norms(wide_left) * _norms(wide_right)).sum(1)
        gram = ((wide_left @ wide_left.mT) * (wide_right @ wide_right.mT)).sum((1, 2)).clamp(min=0)
        operations = left.shape[2] + right.shape[2] + left.shape[1] ** 2 + 16
        squares = gram + operations * 2.0**-52 * terms.square() + _underflow(wide_left, wide_right)
        apart = dict[int, Tensor]()
        for example in (terms > _CANCELLED * squares.sqrt()).nonzero().flatten().tolist():
            apart[example] = wide_left[example].T @ wide_right[example]
            squares[example] = Dense(apart[example].unsqueeze(0)).squared_norms()[0]
        return cls(left, right, squares, apart)

    @property
    def numbers(self) -> int:
        return prod((self.left.shape[2], self.right.shape[2]))

    def squared_norms(self) -> Tensor:
        return self.squares

    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        together = factors.clone()
        for example, gradient in self.apart.items():
            total += _scaled(gradient.unsqueeze(0), factors[example : example + 1])[0]
            together[example] = 0
        left = _masked(self.left, together) * _beside(together, self.left)
        right = _masked(self.right, together)
        total += (left.flatten(0, 1).T @ right.flatten(0, 1)).trunc_().to(torch.int64)

    def add_to(self, total: Tensor) -> None:
        total.baddbmm_(self.left.double().mT, self.right.double())

    def rounding(self, batch: int, limit: float) -> float:
        terms = self.left.shape[1]
        return float(batch * batch * terms * 2.0**-41 * limit + sqrt(self.numbers))


def merged(
    dense: Sequence[Tensor],
    looked_up: Sequence[tuple[Tensor, Tensor]],
    products: Sequence[tuple[Tensor, Tensor]],
    shape: Sequence[int],
) -> Gradients:
    """All uses of a parameter, in ``shape`` (B, *shape of the parameter).

    Those of one kind are joined, different ones are written out and added up.
    Products of more terms than the root of a gradient's numbers are written out as well: that is less work.
    """
    kinds: list[Gradients] = [Dense(values) for values in dense]
    if looked_up:
        ids, values = zip(*looked_up, strict=True)
        kinds.append(Rows.of(torch.cat(ids, 1), torch.cat(values, 1)))
    if products:
        left, right = (torch.cat(sides, 1) for sides in zip(*products, strict=True))
        if left.shape[1] ** 2 > left.shape[2] * right.shape[2]:
            kinds.append(Dense(left.double().mT @ right.double()))
        else:
            kinds.append(Products.of(left, right))
    return kinds[0] if len(kinds) == 1 else Dense(written_out(kinds, shape))


def written_out(kinds: Sequence[Gradients], shape: Sequence[int]) -> Tensor:
    """The sum of the gradients in float64, of ``shape`` (B, *shape of the parameter)."""
    total = torch.zeros(*shape, dtype=torch.float64)
    for kind in kinds:
        kind.add_to(total)
    return total


def _norms(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=2)


def _underflow(left: Tensor, right: Tensor) -> Tensor:
    """A bound on what underflow takes away: products of numbers so small that they become zero."""
    (_, terms, out), inputs = left.shape, right.shape[2]
    larger = inputs * left.square().sum(2) + out * right.square().sum(2) + out * inputs
    return terms**2 * 2.0**-1022 * larger.sum(1)


def _scaled(values: Tensor, factors: Tensor) -> Tensor:
    """Each example's numbers times its factor, as integers truncated towards zero."""
    return (_masked(values, factors) * _beside(factors, values)).trunc_().to(torch.int64)


def _masked(values: Tensor, factors: Tensor) -> Tensor:
    """Values in float64, with zeros for examples of factor 0, which may hold NaN."""
    return torch.where(_beside(factors, values) > 0, values.double(), 0.0)


def _beside(factors: Tensor, values: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (values.dim() - 1))
