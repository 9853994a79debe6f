"""Z_q[X]/(X^N + 1) by the definition, and residues, streams and layouts in Python integers."""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np


def multiply(a: Sequence[int], b: Sequence[int], q: int) -> list[int]:
    """Schoolbook: X^i times b shifts b by i and negates what comes round. For q < 2^31.5."""
    total, shifted = np.zeros(len(b), np.int64), np.array(b, np.int64)
    for coefficient in a:
        if coefficient:
            total = (total + coefficient * shifted) % q
        shifted = np.concatenate([-shifted[-1:] % q, shifted[:-1]])
    return total.tolist()


def values_at_roots(a: Sequence[int], q: int) -> list[int]:
    """Sorted values at the roots of X^N + 1 modulo q."""
    roots = [x for x in range(1, q) if pow(x, len(a), q) == q - 1]
    return sorted(sum(c * pow(x, i, q) for i, c in enumerate(a)) % q for x in roots)


def integer(residues: Sequence[int], primes: Sequence[int]) -> int:
    """Chinese remaindering, into [0, q)."""
    modulus = prod(primes)
    return sum(r * (modulus // q) * pow(modulus // q, -1, q) for r, q in zip(residues, primes, strict=True)) % modulus


def uniform(stream: bytes, q: int) -> Iterator[int]:
    """32-bit words, as many bits of each as q has, those below q."""
    for i in range(0, len(stream), 4):
        word = int.from_bytes(stream[i : i + 4], "little") % (1 << q.bit_length())
        if word < q:
            yield word


def coefficient(values: Sequence[int], error: int, width: int, places: int) -> int:
    return sum(value << (j * width) for j, value in enumerate(values)) + (error << (places * width))
