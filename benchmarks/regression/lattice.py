"""Lattice arithmetic: the transform against SEAL's, and what a client and a server do with a million coordinates.

SEAL is seen through TenSEAL's ``sealapi``, which has its ``Evaluator.transform_to_ntt_inplace`` and ``from``: nothing
but the transforms of a fresh ciphertext's two polynomials modulo every data prime. Both run on one core, in turns, the
least of many times each. ``same_primes`` gives SEAL as many primes of as many bits as we use; ``same_modulus`` the
fewest that it needs for as many bits (it takes up to 60 each), and compares whole polynomials.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.case import Measured, Say
from secagg.crypto.lattice import VARIANCE, Parameters, choose, packing
from secagg.crypto.lattice.polynomials import Coefficients, RunningSum
from secagg.crypto.lattice.sampling import uniform
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.extras import needing

MILLION, DEMANDED_S, DEMANDED_VS_SEAL, SEAL_PRIME_BITS = 1e6, 0.020, 2.0, 60


@dataclass(frozen=True, slots=True)
class Config:
    clients: int = 1000
    length: int = 1_000_000
    bits: int = 16
    repeats: int = 20
    seal: int = 1  # 0: without TenSEAL

    def __post_init__(self) -> None:
        if min(self.clients, self.length, self.repeats) < 1:
            raise UsageError("all counts are at least 1")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    chosen = choose(Encoding.integers(config.length, bits=config.bits), config.clients)
    figures = _parameters(chosen)
    say("our own steps")
    figures |= _steps(chosen, config)
    ratios = {
        "ntt_vs_demanded": figures["forward_s_per_million"] / DEMANDED_S,
        "expansion": chosen.expansion,
        "add_vs_unpack": figures["add_s"] / figures["unpack_s"],
    }
    if config.seal:
        say("transforms, SEAL's and ours in turns")
        theirs, against = _seal(chosen, config.repeats)
        figures, ratios = figures | theirs, ratios | against
    return Measured(figures, ratios)


def _parameters(chosen: Parameters) -> dict[str, float]:
    layout, ring = chosen.layout, chosen.layout.ring
    return {
        "degree": ring.degree, "primes": len(ring.primes), "modulus_bits": ring.bits, "secure_bits": chosen.secure_bits,
        "values_per_coefficient": layout.values, "width": layout.width, "failure_log2": chosen.failure_log2,
        "upload_bytes": chosen.upload_bytes,
    }  # fmt: skip


def _steps(chosen: Parameters, config: Config) -> dict[str, float]:
    """Seconds for a whole vector; of the transforms and of sampling also per million coefficients (and prime)."""
    layout, ring, length = chosen.layout, chosen.layout.ring, chosen.length
    count, blocks = layout.coefficients(length), layout.blocks(length)
    bound = (1 << (config.bits - 1)) - 1
    values = np.random.default_rng(0).integers(-bound, bound + 1, length)
    errors = discrete_gaussian(VARIANCE, count, os.urandom(32))
    public, message = uniform(ring, blocks, os.urandom(32)), packing.encode(layout, values, errors)
    secret = Coefficients.lift(ring, [discrete_gaussian(VARIANCE, ring.degree, os.urandom(32))]).evaluations()
    masks = (public * secret).coefficients()
    sealed = message + masks
    data, total = sealed.pack(count), RunningSum(ring, blocks)
    work: dict[str, Callable[[], object]] = {
        "uniform": lambda: uniform(ring, blocks, os.urandom(32)),
        "gaussian": lambda: discrete_gaussian(VARIANCE, count, os.urandom(32)),
        "encode": lambda: packing.encode(layout, values, errors),
        "multiply": lambda: public * secret,
        "forward": masks.evaluations,
        "backward": public.coefficients,
        "pack": lambda: sealed.pack(count),
        "unpack": lambda: Coefficients.unpack(ring, data, count),
        "add": lambda: total.add(sealed),
        "decode": lambda: packing.decode(layout, message, length),
    }
    figures = {f"{name}_s": least(step, config.repeats) for name, step in work.items()}
    residues = sealed.words.size / MILLION
    for name in ("forward", "backward", "uniform"):
        figures[f"{name}_s_per_million"] = figures[f"{name}_s"] / residues
    figures["gaussian_s_per_million"] = figures["gaussian_s"] / count * MILLION
    figures["decoded_per_s"] = length / figures["decode_s"]
    figures["client_s"] = sum(
        figures[f"{name}_s"] for name in ("uniform", "gaussian", "multiply", "backward", "encode", "pack")
    )
    return figures


def _seal(chosen: Parameters, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    ring = chosen.layout.ring
    count, longest = len(ring.primes), max(q.bit_length() for q in ring.primes)
    fewest = -(-ring.bits // SEAL_PRIME_BITS)
    same = _SealTransform(ring.degree, [longest] * count)
    wide = _SealTransform(ring.degree, [-(-ring.bits // fewest)] * fewest)
    coefficients = uniform(ring, 2, bytes(32)).coefficients()
    evaluations = coefficients.evaluations()
    work: dict[str, Callable[[], object]] = {
        "ours_forward": coefficients.evaluations, "seal_forward": same.forward, "seal_backward": same.backward,
        "ours_backward": evaluations.coefficients, "wide_forward": wide.forward, "wide_backward": wide.backward,
    }  # fmt: skip
    seconds = dict.fromkeys(work, float("inf"))
    for _ in range(10 * repeats):
        for name, step in work.items():
            seconds[name] = min(seconds[name], least(step, 1))
    figures = {f"{name}_polynomial_s": value / 2 for name, value in seconds.items()}
    per_prime = 2 * count * ring.degree / MILLION
    figures["seal_forward_s_per_million"] = seconds["seal_forward"] / per_prime
    figures["ours_small_forward_s_per_million"] = seconds["ours_forward"] / per_prime
    ours, theirs, wider = (
        seconds[f"{name}_forward"] + seconds[f"{name}_backward"] for name in ("ours", "seal", "wide")
    )
    ratios = {"ntt_vs_seal_same_primes": ours / theirs, "ntt_vs_seal_same_modulus": ours / wider}
    return figures, ratios | {"ntt_vs_seal_allowed": ratios["ntt_vs_seal_same_primes"] / DEMANDED_VS_SEAL}


class _SealTransform:
    """A BFV ciphertext of two polynomials, and SEAL's transforms of it in place. Its last prime is SEAL's own."""

    def __init__(self, degree: int, bits: list[int]) -> None:
        with needing("ckks", "comparing with SEAL (seal=0 goes without)"):
            from tenseal import sealapi
        api: Any = sealapi
        parameters = api.EncryptionParameters(api.SCHEME_TYPE.BFV)
        parameters.set_poly_modulus_degree(degree)
        parameters.set_coeff_modulus(api.CoeffModulus.Create(degree, [*bits, bits[-1]]))
        parameters.set_plain_modulus(api.PlainModulus.Batching(degree, 20))
        context = api.SEALContext(parameters, True, api.SEC_LEVEL_TYPE.NONE)
        key, self._ciphertext = api.PublicKey(), api.Ciphertext()
        api.KeyGenerator(context).create_public_key(key)
        api.Encryptor(context, key).encrypt(api.Plaintext("1"), self._ciphertext)
        if (self._ciphertext.size(), self._ciphertext.coeff_modulus_size()) != (2, len(bits)):
            raise UsageError("SEAL chose other primes than it was asked for")
        self._evaluator = api.Evaluator(context)

    def forward(self) -> None:
        self._evaluator.transform_to_ntt_inplace(self._ciphertext)

    def backward(self) -> None:
        self._evaluator.transform_from_ntt_inplace(self._ciphertext)


def least(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return min(times)
