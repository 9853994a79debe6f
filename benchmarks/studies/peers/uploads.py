"""What an upload costs a client: with NVFlare's CKKS parameters, and with each of our protocols, in turn."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import nvflare_encryption, pairwise_masking
from benchmarks.case import Say, timed
from benchmarks.rounds import people, update_of
from benchmarks.studies.peers.side_by_side import DEGREE
from protocols.plan import RoundPlan
from secagg.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client does with a vector of 16-bit integers, from there to the bytes that it sends."""

    name: str
    seconds: float
    bytes_per_coordinate: float
    versus_nvflare: float
    """Seconds over those of NVFlare's encryption, timed in turns."""


NVFLARE = "nvflare_ckks"


def measure(n: int, d: int, repeats: int, say: Say) -> list[Upload]:
    say(f"uploads: d = {d}, for {n} clients")
    values = update_of(0, _plan_of_integers("secagg", n, d))
    works, took, sizes = _works(values, n), dict[str, list[float]](), dict[str, int]()
    for _ in range(repeats):
        for name, work in works.items():
            sizes[name] = len(timed(took, name, work))
    return [
        Upload(
            name,
            median(took[name]),
            sizes[name] / d,
            median(ours / theirs for ours, theirs in zip(took[name], took[NVFLARE], strict=True)),
        )
        for name in works
    ]


def _works(values: NDArray[np.int64], n: int) -> dict[str, Callable[[], bytes]]:
    from benchmarks.regression.oneshot.clients import encrypted
    from protocols.ckks import ciphertexts
    from protocols.ckks.parameters import layout_of
    from protocols.threshold_ckks.scheme import Scheme
    from protocols.threshold_ckks.sizes import choose_sizes

    nvflare = nvflare_encryption(values)
    oneshot, ckks = _plan_of_integers("oneshot", n, len(values)), _plan_of_integers("ckks", n, len(values))
    layout, keys = layout_of(ckks), ciphertexts.make_keys()
    scheme = Scheme.of(choose_sizes(ckks.ring_bits, n, len(values)), os.urandom(32))
    joint = scheme.public(os.urandom(32)) + scheme.public(os.urandom(32))

    def threshold_ckks() -> bytes:
        c0, c1 = scheme.encrypt(joint, values, os.urandom(32))
        return scheme.pack_used(c0) + scheme.pack_all(c1)

    return {
        NVFLARE: nvflare,
        "secagg": partial(pairwise_masking, values, ckks.ring_bits, n - 1),
        "secagg+": partial(pairwise_masking, values, ckks.ring_bits, min(DEGREE, n - 1)),
        "oneshot": partial(encrypted, oneshot, values),
        "ckks": lambda: b"".join(ciphertexts.encrypt(layout, keys.public, values)),
        "threshold_ckks": threshold_ckks,
    }


def _plan_of_integers(protocol: str, n: int, d: int) -> RoundPlan:
    _, roster = people(n)
    return RoundPlan.propose(
        protocol, roster, Encoding.integers(d), min_contributors=2, corrupt="0.01", dropout="0.01", beacon=b"public"
    )
