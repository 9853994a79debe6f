"""Uniform polynomials and wide errors from a seed. (Other errors, and secrets, come from ``secagg.crypto.sampling``.)

For uniform polynomials each prime has a stream of its own: little-endian 32-bit words, cut to as many bits as the prime
has; words that are not below the prime are skipped. So the same seed gives the same polynomials on every machine, and
with more blocks the first ones stay the same. They are drawn as evaluations: the transform is a bijection, so it keeps
the uniform law, and need not be computed.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from secagg.compiled import njit
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.lattice.flooding import parts, weight
from secagg.crypto.lattice.ntt import READ, Words
from secagg.crypto.lattice.polynomials import Evaluations, Integers, zero_words
from secagg.crypto.lattice.ring import QuotientRing
from secagg.crypto.prg import SEED_BYTES, Prg
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.errors import UsageError

_CHUNK = 1 << 15
_RUN = 1 << 8


def uniform(ring: QuotientRing, blocks: int, seed: bytes) -> Evaluations:
    """Uniform elements of R_q; a secret ``seed`` makes them pseudorandom, a public one public.

    >>> uniform(QuotientRing(2048, (12289, 40961)), 1, bytes(32)).words[:, 0, :4].tolist()
    [[7820, 806, 735, 8512], [13942, 20967, 33455, 10472]]
    """
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    words = zero_words(ring, blocks)
    for q, residues in zip(ring.primes, words.reshape(len(ring.primes), -1), strict=True):
        key = derive(seed, labels.LATTICE_UNIFORM, ring.degree.to_bytes(4, "big"), q.to_bytes(4, "big"))
        stream, filled = Prg(key), 0
        while filled < residues.size:
            filled = _accept(np.frombuffer(stream(4 * _CHUNK), "<u4"), q, (1 << q.bit_length()) - 1, residues, filled)
    return Evaluations(ring, words)


@njit(f"i8({READ(1)}, u4, u4, u4[::1], i8)", cache=True, nogil=True)
def _accept(drawn: Words, q: int, mask: int, out: Words, filled: int) -> int:
    """Append words below q to the first ``filled`` ones of ``out``, as far as they fit; return the new count.

    Few are not below q: most runs are copied as they are, without a look at each word.
    """
    for start in range(0, drawn.size, _RUN):
        run, room = drawn[start : start + _RUN], out[filled : filled + _RUN]
        if room.size >= run.size:
            largest = np.uint32(0)
            for i in range(run.size):
                room[i] = run[i] & mask
                largest = max(largest, room[i])
            if largest < q:
                filled += run.size
                continue
        for i in range(run.size):
            if filled == out.size:
                return filled
            word = run[i] & mask
            out[filled] = word
            filled += word < q
    return filled


def flooding(variance: Fraction, count: int, seed: bytes) -> tuple[list[Integers], list[int]]:
    """``count`` samples, as wide as ``variance`` says: columns x_j and weights that ``Coefficients.lift`` takes.

    >>> columns, weights = flooding(Fraction(1 << 100), 2, bytes(32))
    >>> len(columns), weights[1] == 1 << 19
    (3, True)
    >>> [sum(int(c[i]) * w for c, w in zip(columns, weights)) for i in range(2)]
    [-193222679451885, 1226723403218612]
    """
    columns = [
        discrete_gaussian(part, count, derive(seed, labels.LATTICE_FLOODING, j.to_bytes(4, "big")))
        for j, part in enumerate(parts(variance))
    ]
    return columns, [weight(j) for j in range(len(columns))]
