"""What the pieces of rounds under lattices and CKKS cost on this machine: samplers, transforms, packing, TenSEAL."""

from __future__ import annotations

import os
from math import log2

import numpy as np

from benchmarks.studies.scale.timing import processor_seconds, seconds_of
from secagg.crypto.lattice import packing
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.encoding import Encoding


def measure_lattice(repeats: int) -> dict[str, float]:
    from protocols.threshold_ckks.sizes import choose_sizes
    from secagg.crypto.lattice import VARIANCE, choose
    from secagg.crypto.lattice.polynomials import RunningSum
    from secagg.crypto.lattice.sampling import flooding, uniform
    from secagg.crypto.packed import Sharing
    from secagg.crypto.sampling.draws import discrete_gaussian

    d = 1 << 18
    layout = choose(Encoding.integers(d, 16), 1000).layout
    ring, count, blocks = layout.ring, layout.coefficients(d), layout.blocks(d)
    used, all_ = count * len(ring.primes), blocks * ring.degree * len(ring.primes)
    logs = log2(ring.degree) / 12
    values = np.arange(d, dtype=np.int64) % 1000
    errors = discrete_gaussian(VARIANCE, count, bytes(32))
    one = packing.encode(layout, values, errors)
    public, secret = uniform(ring, blocks, bytes(32)), Coefficients.lift(ring, [errors[: ring.degree]]).evaluations()
    packed, total = one.pack(count), RunningSum(ring, blocks)
    variance, sharing = choose_sizes(23, 100, 10**6).flooding, Sharing(4096, 10_000, 10, 20)
    wide = len(flooding(variance, 1, bytes(32))[0])
    sharing.split(errors[:4096], 60, os.urandom)
    return {
        "uniform": seconds_of(lambda: uniform(ring, blocks, bytes(32)), repeats) / all_,
        "gaussian": seconds_of(lambda: discrete_gaussian(VARIANCE, count, bytes(32)), repeats) / count,
        "flood": seconds_of(lambda: flooding(variance, count, bytes(32)), repeats) / (count * wide),
        "transform": seconds_of(one.evaluations, repeats) / (all_ * logs),
        "product": seconds_of(lambda: public.product(secret), repeats) / (all_ * logs),
        "lift": seconds_of(lambda: packing.encode(layout, values, errors), repeats) / (used * (layout.values + 1)),
        "residue_pack": seconds_of(lambda: one.pack(count), repeats) / used,
        "residue_unpack": seconds_of(lambda: Coefficients.unpack(ring, packed, count), repeats) / used,
        "residue_add": seconds_of(lambda: total.add(one), repeats) / all_,
        "decode": seconds_of(lambda: packing.decode(layout, one, d), repeats) / used,
        "split": seconds_of(lambda: sharing.split(errors[:4096], 60, os.urandom), repeats)
        / (sharing.polynomials * sharing.threshold * (60 - sharing.private)),
    }


def measure_ckks(repeats: int) -> dict[str, float]:
    """Of CKKS, sizes included: those are TenSEAL's, which compresses."""
    from protocols.ckks import ciphertexts
    from protocols.ckks.layout import SLOTS, Layout

    layout = Layout.choose(26, 100, 8 * SLOTS)
    pair, values = ciphertexts.make_keys(), np.arange(8 * SLOTS, dtype=np.int64)
    sent = ciphertexts.encrypt(layout, pair.public, values)
    adder = ciphertexts.Adder(layout)
    for _ in range(4):
        adder.add(sent)
    total = adder.total()
    return {
        "ckks_keys": seconds_of(ciphertexts.make_keys, repeats, processor_seconds),
        "ckks_check": seconds_of(lambda: ciphertexts.check_public(pair.public), repeats, processor_seconds),
        "ckks_encrypt": seconds_of(lambda: ciphertexts.encrypt(layout, pair.public, values), repeats, processor_seconds)
        / 8,
        "ckks_add": seconds_of(lambda: adder.add(sent), repeats, processor_seconds) / 8,
        "ckks_decrypt": seconds_of(lambda: ciphertexts.decrypt(layout, pair.secret, total), repeats, processor_seconds)
        / 8,
        "ckks_public_bytes": len(pair.public),
        "ckks_secret_bytes": len(pair.secret),
        "ckks_ciphertext_bytes": sum(map(len, sent)) / 8,
        "ckks_sum_bytes": sum(map(len, total)) / 8,
    }
