"""Several signed values in one coefficient, errors above them, and the exact way back.

    coefficient = x_0 + 2^w x_1 + ... + 2^((v-1)w) x_(v-1) + 2^(vw) e          (x: values, e: an error)

Sums of such integers are such integers with the sums of x and e. As long as |x| < 2^(w-1) and |e| <= tail, adding
K = 2^(vw) tail + sum_j 2^(jw + w - 1) gives numbers in [0, 2^(vw) (2 tail + 1)). That is below q, so nothing wraps,
and every value has its own bits. Decoding adds K modulo q, takes the integer in [0, q), checks the range and cuts out
the values. Multiplying errors instead of messages, as BGV does and BFV does not, changes nothing for security:
2^(vw) is a unit modulo q, and uniform a stays uniform times its inverse.

A sum that is opened with a wrong key has uniform coefficients: each is in range with probability ``Layout.limit`` / q.
If c coefficients are used, value i is the (i div c)-th in coefficient i mod c. The other coefficients are not sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from secagg.crypto.lattice import arithmetic
from secagg.crypto.lattice.layout import Layout
from secagg.crypto.lattice.ntt import Words
from secagg.crypto.lattice.polynomials import Coefficients, Integers
from secagg.crypto.lattice.primes import with_quotients
from secagg.errors import PeerError, UsageError

_CHUNK = 1 << 12


def encode(layout: Layout, values: Integers, errors: Integers, onto: Coefficients | None = None) -> Coefficients:
    """One party's coefficients, with an error for each, added to a mask if there is one.

    >>> from secagg.crypto.lattice import QuotientRing
    >>> layout = Layout(QuotientRing(2048, (12289, 40961)), width=8, values=2, tail=1000)
    >>> one = encode(layout, np.array([5, -6, 7]), errors=np.array([3, -1]))
    >>> two = encode(layout, np.array([10, 20, -30]), errors=np.array([-900, 2]))
    >>> decode(layout, one + two, 3).tolist()
    [15, 14, -23]
    """
    count, largest = layout.coefficients(len(values)), (1 << (layout.width - 1)) - 1
    if not len(values) or int(values.max()) > largest or int(values.min()) < -largest:
        raise UsageError(f"values are missing, or one does not fit in {layout.width} bits")
    if len(errors) != count:
        raise UsageError(f"{len(errors)} errors are not one for each of {count} coefficients")
    columns = [values[start : start + count] for start in range(0, len(values), count)]
    weights = [1 << (layout.width * j) for j in (*range(len(columns)), layout.values)]
    return Coefficients.lift(layout.ring, [*columns, errors], weights, onto=onto)


def decode(layout: Layout, polynomials: Coefficients, length: int) -> Integers:
    """The sums of values, exact. ``PeerError`` where the key was wrong or the errors are beyond the tail."""
    if polynomials.ring != layout.ring or polynomials.blocks != layout.blocks(length):
        raise UsageError(f"{polynomials!r} do not hold {length} values of this layout")
    constants, count = _constants(layout), layout.coefficients(length)
    flat, out = polynomials.words.reshape(len(layout.ring.primes), -1), np.empty(length, np.int64)
    for start in range(0, count, _CHUNK):
        limbs = np.empty((len(constants.limit), min(_CHUNK, count - start)), np.uint32)
        arithmetic.wide_integers(flat, start, constants.shift, constants.inverses, constants.primes, limbs)
        if not arithmetic.all_below(limbs, constants.limit):
            raise PeerError("a coefficient is out of range: a wrong key or key share, or errors too large")
        for j, (first, end) in enumerate(pairwise([*range(0, length, count), length])):
            part = out[first + start : min(first + start + limbs.shape[1], end)]
            arithmetic.fields(limbs, j * layout.width, layout.width, part)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Constants:
    primes: Words
    shift: Words  # K modulo each prime
    inverses: Words  # [j, i]: 1/q_j modulo q_i and Shoup's quotient, for j < i
    limit: Words  # as limbs


@lru_cache(maxsize=32)
def _constants(layout: Layout) -> _Constants:
    primes = layout.ring.primes
    middles = sum(1 << (layout.width * (j + 1) - 1) for j in range(layout.values))
    shift = (layout.tail << (layout.values * layout.width)) + middles
    inverses = np.zeros((len(primes), len(primes), 2), np.uint32)
    for i, q in enumerate(primes):
        for j in range(i):
            inverses[j, i] = with_quotients(np.array(pow(primes[j], -1, q)), q)
    limbs = -(-layout.ring.modulus.bit_length() // 32)
    return _Constants(
        np.array(primes, np.uint32),
        np.array([shift % q for q in primes], np.uint32),
        inverses,
        np.frombuffer(layout.limit.to_bytes(4 * limbs, "little"), "<u4").astype(np.uint32),
    )
