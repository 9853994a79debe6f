"""The gradients of B examples for one parameter, in the smallest form that gives exact norms and clipped sums.

- ``Rows``: an embedding table was looked up. One gradient row for each id: O(B L d) numbers, whatever the size V of the
  table. Ids that repeat within an example are added up before the norm is taken, exactly as its gradient would be.
- ``Products``: a weight was multiplied. An example's gradient is the sum of T outer products; its norm follows from two
  T x T Gram matrices without it ("ghost clipping": Goodfellow 2015; Li et al. 2022; Bu et al. 2023, whose book-keeping
  also spares the second backward pass).
- ``Dense``: everything else, written out.

Norms are taken in float64: Gram matrices cancel, and a norm that is found too small would break the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor


class Gradients(Protocol):
    def squared_norms(self) -> Tensor:
        """(B,) float64."""

    def add_weighted(self, weights: Tensor, total: Tensor) -> None:
        """Add the sum of weight times gradient over the examples to ``total``, in place."""

    def only(self, examples: Tensor) -> Self:
        """Those of some examples."""

    def written_out(self) -> Tensor:
        """(B, *shape of the parameter)."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    values: Tensor
    """(B, *shape of the parameter)"""

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.values.flatten(1), dim=1, dtype=torch.float64).square()

    def add_weighted(self, weights: Tensor, total: Tensor) -> None:
        total += torch.tensordot(weights.to(total.dtype), self.values, 1)

    def only(self, examples: Tensor) -> Dense:
        return Dense(self.values[examples])

    def written_out(self) -> Tensor:
        return self.values


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """
    >>> twice = Rows(torch.tensor([[2, 2, 0]]), torch.tensor([[[3.0], [4.0], [1.0]]]), table=5)
    >>> twice.squared_norms().tolist()  # 7^2 + 1^2
    [50.0]
    """

    ids: Tensor
    """(B, n) rows of the table"""
    values: Tensor
    """(B, n, d)"""
    table: int
    """how many rows the table has"""

    def squared_norms(self) -> Tensor:
        batch = len(self.ids)
        keys = self.ids + self.table * torch.arange(batch).unsqueeze(1)  # an id of one example
        distinct, place = torch.unique(keys, return_inverse=True)
        sums = torch.zeros(len(distinct), self.values.shape[2], dtype=torch.float64)
        sums.index_add_(0, place.flatten(), self.values.flatten(0, 1).double())
        return torch.zeros(batch, dtype=torch.float64).index_add_(0, distinct // self.table, sums.square().sum(1))

    def add_weighted(self, weights: Tensor, total: Tensor) -> None:
        weighted = self.values * weights.to(total.dtype)[:, None, None]
        total.index_add_(0, self.ids.flatten(), weighted.flatten(0, 1))

    def only(self, examples: Tensor) -> Rows:
        return Rows(self.ids[examples], self.values[examples], self.table)

    def written_out(self) -> Tensor:
        batch, _, width = self.values.shape
        dense = self.values.new_zeros(batch, self.table, width)
        return dense.scatter_add_(1, self.ids.unsqueeze(2).expand_as(self.values), self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """
    >>> sample = Products(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]))
    >>> sample.squared_norms().tolist()  # |(1, 2)|^2 |(3, 4)|^2
    [125.0]
    """

    left: Tensor
    """(B, T, out): gradients of the outputs"""
    right: Tensor
    """(B, T, in): inputs"""

    def squared_norms(self) -> Tensor:
        if self.left.shape[1] ** 2 > self.left.shape[2] * self.right.shape[2]:
            return Dense(self.written_out()).squared_norms()
        left, right = self.left.double(), self.right.double()
        return ((left @ left.mT) * (right @ right.mT)).sum((1, 2)).clamp(min=0)

    def add_weighted(self, weights: Tensor, total: Tensor) -> None:
        weighted = self.left * weights.to(total.dtype)[:, None, None]
        total += weighted.flatten(0, 1).T @ self.right.flatten(0, 1)

    def only(self, examples: Tensor) -> Products:
        return Products(self.left[examples], self.right[examples])

    def written_out(self) -> Tensor:
        return self.left.mT @ self.right


def merged(parts: Sequence[Rows | Products | Dense]) -> Gradients:
    """All uses of one parameter. Norms are of their sum: uses of one kind are joined, different ones written out."""
    rows = [part for part in parts if isinstance(part, Rows)]
    products = [part for part in parts if isinstance(part, Products)]
    kinds: list[Gradients] = [part for part in parts if isinstance(part, Dense)]
    if rows:
        kinds.append(Rows(torch.cat([r.ids for r in rows], 1), torch.cat([r.values for r in rows], 1), rows[0].table))
    if products:
        kinds.append(Products(torch.cat([p.left for p in products], 1), torch.cat([p.right for p in products], 1)))
    if len(kinds) == 1:
        return kinds[0]
    return Dense(torch.stack([kind.written_out() for kind in kinds]).sum(0))
