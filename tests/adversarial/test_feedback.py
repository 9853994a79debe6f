"""A server that lies and clients that keep what is left of their updates: without noise it singles out one of them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dp.noise import Family, NoiseSpec
from protocols.policy import Policy
from secagg.assumptions import Adversary
from secagg.errors import PolicyError
from secagg.sketches import RandomK
from tests.controls import switch_off
from tests.scenes.residuals import LENGTH, NAMES, POLICY, SOME, client, planned, summed, updates

ACTIVE = replace(POLICY, adversary=Adversary.ACTIVE)
TURNS = [replace(SOME, sketch=RandomK(4, bytes(32), turn)) for turn in range(2)]


def attack(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """What the server sees in the last round, and what the victim had left of that round's coordinates.

    In the first round everybody keeps what does not travel. From the second, for other coordinates, the victim is kept
    out, so that all others send what they had left there. The third is for these coordinates once more, from a model
    that moves nobody: a rate of zero, the same for all, as the plan's digest demands.
    """
    clients = {name: client(name, policy=policy) for name in NAMES}
    first, second, third = (planned(TURNS[turn], bytes([at]) * 16) for at, turn in enumerate((0, 1, 1)))
    summed(first, clients, updates())
    still = {name: np.zeros(LENGTH) for name in NAMES}
    summed(second, clients, still, cat="share")
    left = clients["cat"].residual(third)
    seen = summed(third, clients, still)
    assert TURNS[1].sketch is not None
    return seen, np.where(TURNS[1].sketch.at(LENGTH, b"").lift(np.ones(4), unbiased=False) > 0, left, 0)


def test_a_server_that_lies_sees_what_one_client_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fears one takes no such plan. Who fears a curious one alone does, and would lose."""
    speck = NoiseSpec(Family.SKELLAM, Fraction(1000), dropouts=1, colluders=1)
    for noise, asked in ((None, None), (speck, None), (speck, 0)):
        with pytest.raises(PolicyError, match="feedback without noise that a policy demands"):
            client("cat", policy=replace(ACTIVE, noise_multiplier=asked)).check(planned(TURNS[0], noise=noise))
    for policy in (POLICY, ACTIVE):
        if policy is ACTIVE:
            condition = "plan.encoding.feedback and not self.demands_noise and self.adversary is not Adversary.CURIOUS"
            switch_off(monkeypatch, Policy, "check", condition)
        seen, left = attack(policy)
        assert np.count_nonzero(left) == 4
        assert np.allclose(seen, left, atol=1e-4)


def test_with_noise_a_client_that_fears_it_takes_the_plan() -> None:
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**9), dropouts=1, colluders=1)
    noised = planned(TURNS[0], noise=noise)
    demands = replace(ACTIVE, corrupt=0, noise_multiplier="1e-5")
    client("cat", policy=demands).check(noised)
    with pytest.raises(PolicyError, match="less noise than"):
        client("cat", policy=replace(demands, noise_multiplier=1)).check(noised)
    with pytest.raises(PolicyError, match="keeps nothing of its updates"):
        client("cat", policy=replace(ACTIVE, feedback=False)).check(noised)
