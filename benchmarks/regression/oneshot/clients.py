"""What a client does: the steps of its vector alone, and all from the plan to its upload."""

from __future__ import annotations

import os
from collections import defaultdict
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import pairwise_masking
from benchmarks.case import Say, ratio, timed
from benchmarks.memory import extra_of
from benchmarks.regression.oneshot.cast import Cast
from benchmarks.regression.oneshot.deployment import Config
from benchmarks.rounds import update_of
from protocols.oneshot.committee import public_of
from protocols.oneshot.messages import Members
from protocols.oneshot.parameters import lattice_of, parameters_of
from protocols.plan import RoundPlan
from protocols.roster import Number
from secagg.crypto.lattice import VARIANCE, packing
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.sampling.draws import discrete_gaussian


def time_vector(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """All that a vector costs a client, and what taking it in costs a server beside decoding and adding it."""
    say(f"a vector: d = {config.d}, beside {config.k + 1} masks of {cast.plan.ring.dtype.itemsize}-byte words")
    plan, values = cast.plan, update_of(0, cast.plan)
    took: dict[str, list[float]] = defaultdict(list)
    encrypted(plan, values)  # once to have all tables made
    for _ in range(config.repeats):
        timed(took, "ours", lambda: encrypted(plan, values, steps=took))
        timed(took, "masks", lambda: pairwise_masking(values, plan.ring_bits, config.k))
    figures["vector_s"], figures["pairwise_vector_s"] = median(took["ours"]), median(took["masks"])
    for step in STEPS:
        figures[f"vector_{step}_s"] = median(took[step])
    ratios["client_vs_pairwise"] = ratio(took, "ours", "masks")


STEPS = ("public", "secret", "errors", "product", "encode", "pack")


def encrypted(plan: RoundPlan, values: NDArray[np.int64], steps: dict[str, list[float]] | None = None) -> bytes:
    """As ``OneshotClient`` does it, step by step, with a fresh secret."""
    steps, layout = {} if steps is None else steps, lattice_of(plan).layout
    public = timed(steps, "public", lambda: public_of(plan))
    secret = timed(steps, "secret", lambda: discrete_gaussian(VARIANCE, layout.ring.degree, os.urandom(32)))
    count = layout.coefficients(len(values))
    errors = timed(steps, "errors", lambda: discrete_gaussian(VARIANCE, count, os.urandom(32)))
    mask = timed(steps, "product", lambda: public.product(Coefficients.lift(layout.ring, [secret]).evaluations()))
    total = timed(steps, "encode", lambda: packing.encode(layout, values, errors, onto=mask))
    packed: bytes = timed(steps, "pack", lambda: total.pack(count))
    return packed


def time_clients(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """From the plan to the upload, what each says on the way included."""
    committee = parameters_of(cast.plan)
    say(f"clients: {committee.members} seats")
    took: dict[str, list[float]] = defaultdict(list)
    who = [Number(i) for i in range(config.n) if i not in cast.members]
    frame, frames = cast.encode(Members(tuple(cast.members.values()))), list[bytes]()
    for i in range(config.repeats):
        upload = timed(took, "ours", lambda i=i: cast.upload_of_a_client(who[i % len(who)], frame))
        frames.append(upload)
    figures["client_s"] = median(took["ours"])

    upload = cast.decode_upload(frames[0])
    width = cast.plan.ring.packed_size(cast.plan.encoding.coordinates)
    figures["upload_bytes"], figures["shares_bytes"] = len(upload.vector), len(upload.boxes)
    figures["seats"], figures["quorum"] = committee.members, committee.quorum
    layout = lattice_of(cast.plan).layout
    figures["degree"], figures["primes"] = layout.ring.degree, len(layout.ring.primes)
    ratios["upload_expansion"] = len(upload.vector) / width
    ratios["upload_expansion_with_shares"] = len(frames[0]) / width
    figures["client_extra_mib"] = extra_of(lambda: cast.upload_of_a_client(who[0], frame)) / 2**20
    figures["member_consent_s"] = median(cast.consent_seconds() for _ in range(min(3, config.repeats)))
