"""How many signed values stand in one coefficient, how wide they are, and what room errors have above them.

``packing`` writes them into coefficients and reads them, and says why that is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.crypto.lattice.ring import QuotientRing
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Layout:
    """``values`` sums of ``width`` bits in a coefficient, and errors up to ``tail`` above them.

    >>> layout = Layout(QuotientRing(2048, (12289, 40961)), width=8, values=2, tail=1000)
    >>> layout.coefficients(3), layout.blocks(3), layout.blocks(10_000)
    (2, 1, 3)
    """

    ring: QuotientRing
    width: int
    values: int
    tail: int

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 64 or self.values < 1 or self.tail < 0:
            raise UsageError(
                "a layout has values of 2 to 64 bits, at least one in a coefficient, and a tail not negative"
            )
        if self.limit > self.ring.modulus:
            raise UsageError(
                f"{self.values} values of {self.width} bits and errors up to {self.tail} would wrap modulo q "
                f"({self.ring.bits} bits)"
            )

    @property
    def limit(self) -> int:
        """The number of integers that a coefficient may be, to be decoded."""
        return (2 * self.tail + 1) << (self.values * self.width)

    def coefficients(self, length: int) -> int:
        """The number of coefficients that ``length`` values take."""
        return -(-length // self.values)

    def blocks(self, length: int) -> int:
        """The number of polynomials that ``length`` values take."""
        return -(-self.coefficients(length) // self.ring.degree)
