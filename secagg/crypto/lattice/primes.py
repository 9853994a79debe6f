"""Primes q = 1 mod 2N below 2^31, and the constants that arithmetic modulo each of them needs.

Such a prime has a root psi of order 2N, so X^N + 1 splits into the X - psi^(2i+1): multiplication in Z_q[X]/(X^N + 1)
is one product per root. ``moduli`` spreads the bits of a modulus evenly over as few primes as possible, because the
cost of everything is proportional to their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

MAX_PRIME_BITS = 31
DEGREES = (1024, 2048, 4096, 8192, 16384)

_WORD = 32
_WITNESSES = (2, 3, 5, 7)  # enough below 3,215,031,751 (Pomerance, Selfridge and Wagstaff 1980)


def is_prime(number: int) -> bool:
    """The test of Miller and Rabin, which is exact below 2^31 with these witnesses.

    >>> [n for n in range(30) if is_prime(n)]
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    """
    if number < 2 or any(number % small == 0 for small in _WITNESSES):
        return number in _WITNESSES
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    return all(_passes(pow(base, (number - 1) >> twos, number), twos, number) for base in _WITNESSES)


def _passes(power: int, twos: int, number: int) -> bool:
    if power == 1:
        return True
    for _ in range(twos):
        if power == number - 1:
            return True
        power = power * power % number
    return False


@lru_cache(maxsize=1024)
def moduli(degree: int, bits: int) -> tuple[int, ...]:
    """Distinct primes, ascending, whose bit lengths add up to ``bits``: the largest of each length.

    There are none if a length has too few of them.

    >>> moduli(4096, 90), [q.bit_length() for q in moduli(8192, 197)]
    ((1073651713, 1073668097, 1073692673), [28, 28, 28, 28, 28, 28, 29])
    """
    count = -(-bits // MAX_PRIME_BITS)
    length, longer = divmod(bits, count)
    chosen = _largest(degree, length, count - longer) + _largest(degree, length + 1, longer)
    return tuple(sorted(chosen)) if len(chosen) == count else ()


def _largest(degree: int, length: int, count: int) -> list[int]:
    """The ``count`` largest primes of this bit length that are 1 mod 2N, or as many as there are."""
    highest = ((1 << length) - 2) // (2 * degree) * (2 * degree) + 1
    return list(islice(filter(is_prime, range(highest, 1 << (length - 1), -2 * degree)), count))


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """The factors of the kernels in ``ntt``; the first index is the prime.

    Next to each fixed factor w is floor(2^32 w / q) (Shoup's quotient); ``twiddles`` are in the order of their use.
    """

    primes: NDArray[np.uint32]
    twiddles: NDArray[np.uint32]  # (primes, 2, N): psi^(bit reversal of i), and Shoup's quotients
    inverses: NDArray[np.uint32]  # (primes, 2, N): their inverses modulo q
    shrink: NDArray[np.uint32]  # (primes, 2): 1 / N
    montgomery: NDArray[np.uint32]  # (primes, 2): -1/q modulo 2^32, and 2^64 modulo q


@lru_cache(maxsize=32)
def tables(degree: int, primes: tuple[int, ...]) -> Tables:
    """The tables of a ring. They take a few times 16 N bytes for each prime."""
    forward, backward = [], []
    for q in primes:
        psi = _root(degree, q)
        forward.append(with_quotients(_in_order_of_use(_powers(psi, degree, q)), q))
        backward.append(with_quotients(_in_order_of_use(_powers(pow(psi, -1, q), degree, q)), q))
    return Tables(
        np.array(primes, np.uint32),
        np.stack(forward),
        np.stack(backward),
        np.stack([with_quotients(np.array(pow(degree, -1, q)), q) for q in primes]),
        np.array([[-pow(q, -1, 1 << _WORD) % (1 << _WORD), (1 << 2 * _WORD) % q] for q in primes], np.uint32),
    )


def with_quotients(factors: NDArray[np.integer], q: int) -> NDArray[np.uint32]:
    """Factors w below q, and floor(2^32 w / q) of each."""
    wide = factors.astype(np.uint64)
    return np.stack([wide, (wide << np.uint64(_WORD)) // np.uint64(q)]).astype(np.uint32)


def rows(degree: int) -> int:
    """The rows of the matrix into which the transform arranges its N numbers; it has at least as many columns."""
    return 1 << (degree.bit_length() - 1) // 2


def _root(degree: int, q: int) -> int:
    """The power of the smallest base that has order 2N: its N-th power is -1."""
    candidates = (pow(base, (q - 1) // (2 * degree), q) for base in range(2, q))
    return next(psi for psi in candidates if pow(psi, degree, q) == q - 1)


def _powers(psi: int, degree: int, q: int) -> NDArray[np.uint64]:
    powers = np.ones(1, np.uint64)
    while len(powers) < degree:
        powers = np.concatenate([powers, powers * np.uint64(pow(psi, len(powers), q)) % np.uint64(q)])
    return powers


def _in_order_of_use(powers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Powers in bit-reversed order; where each column has its own factor, the factors of a row are adjacent."""
    degree, order = len(powers), np.zeros(1, np.int64)
    while len(order) < degree:
        order = np.concatenate([2 * order, 2 * order + 1])
    used = powers[order]
    stage = columns = degree // rows(degree)
    while stage < degree:
        used[stage : 2 * stage] = used[stage : 2 * stage].reshape(columns, -1).T.reshape(-1)
        stage *= 2
    return used
