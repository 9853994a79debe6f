"""Uniform polynomials from a seed. (Secrets and errors come from ``secagg.crypto.sampling.discrete_gaussian``.)

Each prime has a stream of its own: little-endian 32-bit words, cut to as many bits as the prime has; words that are not
below the prime are skipped. So the same seed gives the same polynomials on every machine, and with more blocks the
first ones stay the same. They are drawn as evaluations: the transform is a bijection, so it keeps the uniform law, and
need not be computed.
"""

from __future__ import annotations

import numpy as np

from secagg.compiled import njit
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.lattice.ntt import READ, Words
from secagg.crypto.lattice.ring import Evaluations, QuotientRing
from secagg.crypto.prg import SEED_BYTES, Prg
from secagg.errors import UsageError

_CHUNK = 1 << 15


def uniform(ring: QuotientRing, blocks: int, seed: bytes) -> Evaluations:
    """Uniform elements of R_q; a secret ``seed`` makes them pseudorandom, a public one public.

    >>> uniform(QuotientRing(2048, (12289, 40961)), 1, bytes(32)).words[:, 0, :4].tolist()
    [[7820, 806, 735, 8512], [13942, 20967, 33455, 10472]]
    """
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    words = ring.zero_words(blocks)
    for q, residues in zip(ring.primes, words.reshape(len(ring.primes), -1), strict=True):
        key = derive(seed, labels.LATTICE_UNIFORM, ring.degree.to_bytes(4, "big"), q.to_bytes(4, "big"))
        stream, filled = Prg(key), 0
        while filled < residues.size:
            filled = _accept(np.frombuffer(stream(4 * _CHUNK), "<u4"), q, (1 << q.bit_length()) - 1, residues, filled)
    return Evaluations(ring, words)


@njit(f"i8({READ(1)}, u4, u4, u4[::1], i8)", cache=True, nogil=True)
def _accept(drawn: Words, q: int, mask: int, out: Words, filled: int) -> int:
    """Append words below q to the first ``filled`` ones of ``out``, as far as they fit; return the new count."""
    for i in range(drawn.size):
        if filled == out.size:
            break
        word = drawn[i] & mask
        out[filled] = word
        filled += word < q
    return filled
