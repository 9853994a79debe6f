"""Packed Shamir shares of vectors of small integers; shares of several vectors add up to a share of their sum.

Franklin and Yung 1992 ("Communication Complexity of Secure Computation", STOC): a polynomial of degree l + f - 1 over
GF(2^31 - 1) carries l secrets, at the points -1 ... -l. Holder i has its value at i. Any f values say nothing about the
secrets: the first f holders' values are chosen at random, and so any f values are uniform. Any l + f give all secrets.

Integers whose sums stay within +-bound are digits to the base B = 2 bound + 1, several in one field element, as long as
B^digits is at most half the field: then a random polynomial is out of range with probability 1 - 2^-elements. Whoever
chooses a wrong share with care can stay in range, so what the secrets open must show errors, too. More than l + f
shares show which of them are wrong (``shamir.wrong_shares``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.field import PRIME, Field, P, invert, matmul, multiply, reduce, uniform
from secagg.crypto.prg import Rng
from secagg.crypto.shamir import wrong_shares
from secagg.errors import DecodeError, PeerError, UsageError


@dataclass(frozen=True, slots=True)
class Sharing:
    """How vectors of ``length`` integers are shared, whose sums stay within +-``bound``.

    >>> sharing = Sharing(length=5, bound=100, packing=2, private=1)
    >>> vectors = np.array([[1, 2, 3, 4, 5], [9, 9, 9, 9, -99]])
    >>> one, two = (sharing.split(vector, 4, __import__("os").urandom) for vector in vectors)
    >>> sums = np.stack([sharing.total([one[i], two[i]]) for i in (3, 0, 2)])
    >>> sharing.threshold, sharing.rebuild([4, 1, 3], sums).tolist()
    (3, [10, 11, 12, 13, -94])
    """

    length: int
    bound: int
    packing: int
    private: int

    def __post_init__(self) -> None:
        if self.length < 1 or self.packing < 1 or self.private < 1:
            raise UsageError("there is something to share, and no holder is to know it")
        if not 1 <= self.bound < PRIME >> 2:
            raise UsageError(f"sums up to {self.bound} do not fit into a field of 31 bits")

    @property
    def threshold(self) -> int:
        """The number of shares that give the secrets."""
        return self.packing + self.private

    @property
    def digits(self) -> int:
        """The number of integers in one field element."""
        base, digits = 2 * self.bound + 1, 1
        while base ** (digits + 1) <= PRIME >> 1:
            digits += 1
        return digits

    @property
    def polynomials(self) -> int:
        """The number of polynomials, which is the number of field elements in a share."""
        return -(-self.length // (self.digits * self.packing))

    @property
    def share_bytes(self) -> int:
        return 4 * self.polynomials

    def split(self, values: NDArray[np.int64], holders: int, rng: Rng) -> NDArray[np.uint32]:
        """Shares for the holders 1, 2, ..., one row for each."""
        if values.shape != (self.length,) or max(int(values.max()), -int(values.min())) > self.bound:
            raise UsageError(f"{self.length} integers up to {self.bound} expected")
        if holders < self.threshold:
            raise UsageError(f"{holders} holders cannot rebuild what takes {self.threshold}")
        known = np.concatenate([self._elements(values), uniform((self.private, self.polynomials), rng)])
        points = (*self._secret_points(), *range(1, self.private + 1))
        rest = _evaluate(points, tuple(range(self.private + 1, holders + 1)), known)
        return np.concatenate([known[self.packing :], rest]).astype("<u4")

    def rebuild(self, holders: Sequence[int], shares: NDArray[np.integer]) -> NDArray[np.int64]:
        """The vector, from one row of shares for each holder. ``PeerError`` if the rows do not fit together."""
        if len(holders) < self.threshold or shares.shape != (len(holders), self.polynomials):
            raise UsageError(f"{len(holders)} shares, {self.threshold} are needed, or they have another size")
        if len(set(holders)) < len(holders) or min(holders) < 1:
            raise UsageError("a holder appears twice, or is none")
        first, t = tuple(holders[: self.threshold]), self.threshold
        given = shares.astype(np.uint64)
        points = (*self._secret_points(), *holders[t:])
        values = _evaluate(first, points, given[:t])
        if (values[self.packing :] != given[t:]).any():
            raise PeerError("shares that do not lie on one polynomial")
        return self._integers(values[: self.packing])

    def wrong(self, holders: Sequence[int], shares: NDArray[np.uint32], rng: Rng) -> list[int]:
        """The rows that are off the polynomials that the other rows agree on (see ``shamir.wrong_shares``)."""
        return wrong_shares(np.array(holders), shares, self.threshold, rng)

    def unpack(self, data: bytes) -> NDArray[np.uint32]:
        """A share from its bytes, which are 32-bit little-endian words."""
        if len(data) != self.share_bytes:
            raise DecodeError(f"{len(data)} bytes are not a share of {self.share_bytes}")
        share = np.frombuffer(data, "<u4")
        if int(share.max()) >= PRIME:
            raise DecodeError("a share is not reduced")
        return share.astype(np.uint32)

    def total(self, shares: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
        """One holder's shares of several vectors as its share of their sum."""
        total = np.zeros(self.polynomials, np.uint64)
        for share in shares:  # each is below 2^31, so 2^32 of them fit
            total += share
        return reduce(total).astype(np.uint32)

    def _secret_points(self) -> tuple[int, ...]:
        return tuple(range(PRIME - 1, PRIME - 1 - self.packing, -1))

    def _elements(self, values: NDArray[np.int64]) -> Field:
        """Values as field elements: a row for each secret point, a column for each polynomial."""
        digits = np.zeros((self.digits, self.packing * self.polynomials), np.int64)
        digits.reshape(-1)[: self.length] = values
        elements = np.zeros(digits.shape[1], np.int64)
        for row in digits[::-1]:
            elements = elements * (2 * self.bound + 1) + row
        return (elements % PRIME).astype(np.uint64).reshape(self.packing, self.polynomials)

    def _integers(self, elements: Field) -> NDArray[np.int64]:
        """Inverse of ``_elements``, for sums; ``PeerError`` if one of them is out of range."""
        base, digits = 2 * self.bound + 1, np.empty((self.digits, elements.size), np.int64)
        middle = self.bound * sum(base**j for j in range(self.digits))
        rest = (elements.reshape(-1).astype(np.int64) + middle) % PRIME
        if int(rest.max()) >= base**self.digits:
            raise PeerError("a sum of shares is out of range: a wrong share, or secrets too large")
        for row in digits:
            rest, row[:] = np.divmod(rest, base)
        return digits.reshape(-1)[: self.length] - self.bound


def _evaluate(points: tuple[int, ...], at: tuple[int, ...], values: Field) -> Field:
    """The polynomials that have ``values`` (a row for each of ``points``) at other points, a row for each."""
    return matmul(_lagrange(points, at), values)


@lru_cache(maxsize=64)
def _lagrange(points: tuple[int, ...], at: tuple[int, ...]) -> Field:
    """The coefficients of Lagrange: at row k and column i, prod_{j != i} (at_k - x_j) / (x_i - x_j)."""
    x, y = np.array(points, np.uint64), np.array(at, np.uint64)
    weights = np.ones(len(x), np.uint64)
    for j, other in enumerate(x):
        difference = reduce(x + P - other)
        difference[j] = 1
        weights = multiply(weights, difference)
    differences = reduce(y[:, None] + P - x)
    product = np.ones(len(y), np.uint64)
    for column in differences.T:
        product = multiply(product, column)
    return multiply(product[:, None], invert(multiply(differences, weights)))
