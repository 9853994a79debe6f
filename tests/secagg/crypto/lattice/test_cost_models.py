"""What "128 bits" means: both tables against an own account of the attacks, and rings that have them by one only."""

from __future__ import annotations

from dataclasses import replace
from math import log, log2, sqrt

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.oneshot.parameters import lattice_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.threshold_ckks.parameters import sizes_of
from secagg.assumptions import Adversary, CostModel
from secagg.crypto.lattice import Parameters, choose
from secagg.crypto.lattice.ring import SECURE_BITS, WIDEST
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PolicyError, UsageError
from tests.controls import switch_off
from tests.reference import core_svp

SIGMA = 3.2
IDENTITIES = [Identity.generate(f"c{i}") for i in range(5)]
ROSTER = Roster.of(IDENTITIES)


@pytest.mark.parametrize(("n", "q", "sigma", "primal", "dual"), [
    (1024, 12289, sqrt(8), 282, 280),  # NewHope as published, with errors of k = 16
    (512, 12289, 2.0, 112, 111), (1024, 12289, 2.0, 259, 257),  # NewHope512 and NewHope1024 as submitted to NIST, k = 8
])  # fmt: skip
def test_the_reference_knows_the_published_numbers(n: int, q: int, sigma: float, primal: float, dual: float) -> None:
    assert core_svp.primal(n, log2(q), sigma) == pytest.approx(primal, abs=1.5)
    assert core_svp.dual(n, log2(q), sigma) == pytest.approx(dual, abs=1.5)


@pytest.mark.parametrize(("n", "bits", "beta"), [(1024, 24, 440), (1024, 27, 380)])
def test_no_other_number_of_samples_helps(n: int, bits: int, beta: int) -> None:
    """The best dimension by a formula, against all of them."""
    log_q, every = bits * log(2), range(n + 2, 4 * n)
    best = list(core_svp.dimensions(n, log_q, beta))
    works = [core_svp.primal_works(n, log_q, SIGMA, beta, d) for d in every]
    assert any(works) == any(core_svp.primal_works(n, log_q, SIGMA, beta, d) for d in best)
    costs = [core_svp.dual_cost(n, log_q, SIGMA, beta, d) for d in every]
    assert min(core_svp.dual_cost(n, log_q, SIGMA, beta, d) for d in best) <= min(costs) + 0.01


@pytest.mark.parametrize("degree", WIDEST[CostModel.CORE_SVP])
def test_the_table_is_what_the_reference_computes(degree: int) -> None:
    assert core_svp.widest(degree, SIGMA, 128) == WIDEST[CostModel.CORE_SVP][degree]


def test_what_the_standards_rings_have_by_core_svp() -> None:
    """With the standard's own terms on top (16.4 and log2(8 d), d about 2 N) they have more than 128 bits again."""
    found = {degree: core_svp.cost(degree, bits, SIGMA) for degree, bits in SECURE_BITS.items()}
    assert [round(cost) for cost in found.values()] == [112, 103, 98, 96, 94]
    assert all(cost + 16.4 + log2(16 * degree) > 126 for degree, cost in found.items())


def test_a_million_values_of_a_hundred_clients() -> None:
    """The ring that the standard allows, and the one that is taken."""
    for cost_model, least in ((CostModel.STANDARD, 100), (CostModel.CORE_SVP, 128)):
        ring = choose(Encoding.integers(10**6), 100, cost_model=cost_model).layout.ring
        cost = core_svp.cost(ring.degree, ring.bits, SIGMA)
        assert cost >= least
        assert (cost < 128) == (cost_model is CostModel.STANDARD)


def test_parameters_keep_to_their_cost_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lax = choose(Encoding.integers(10**6), 100, cost_model=CostModel.STANDARD)
    with pytest.raises(UsageError, match="q has 103 bits, 90 are secure by core-svp"):
        replace(lax, cost_model=CostModel.CORE_SVP)
    switch_off(monkeypatch, Parameters, "__post_init__", "self.layout.ring.bits > self.secure_bits")
    assert replace(lax, cost_model=CostModel.CORE_SVP)


def proposed(protocol: str, **options: str) -> RoundPlan:
    terms = {"min_contributors": 4, "corrupt": "0.2", "dropout": "0.2"} | options
    try:
        return RoundPlan.propose(protocol, ROSTER, Encoding.integers(100_000), **terms)  # type: ignore[arg-type]
    except UsageError as error:
        if "extra" not in str(error):
            raise
        pytest.skip(f"NOT TESTED: {error}")


LATTICES = pytest.mark.parametrize("protocol", ["oneshot", "threshold_ckks"])


@LATTICES
def test_the_choice_is_in_the_plan(protocol: str) -> None:
    plans = [proposed(protocol, cost_model=model) for model in ("core-svp", "standard")]
    assert proposed(protocol).parameters == plans[0].parameters
    assert len({replace(plan, session=bytes(16)).digest() for plan in plans}) == 2
    for plan, cost_model in zip(plans, (CostModel.CORE_SVP, CostModel.STANDARD), strict=True):
        assert RoundPlan.decode(plan.encode()).parameters.cost_model is cost_model  # type: ignore[attr-defined]
        ring = (lattice_of(plan) if protocol == "oneshot" else sizes_of(plan)).layout.ring
        assert (core_svp.cost(ring.degree, ring.bits, SIGMA) >= 128) == (cost_model is CostModel.CORE_SVP)
    with pytest.raises(DecodeError):
        RoundPlan.decode(plans[0].encode().replace(b"core-svp", b"core-svq"))
    with pytest.raises(UsageError, match="a cost model is standard or core-svp, not 'none'"):
        proposed(protocol, cost_model="none")


@pytest.mark.parametrize("protocol", ["oneshot", "threshold_ckks", "ckks"])
def test_a_client_that_insists_refuses_the_laxer_rings(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TenSEAL's ring is one of the standard's, whatever the plan says."""

    def started(plan: RoundPlan, cost_model: str) -> bytes:
        policy = Policy(
            4,
            protocols=frozenset(registry.names()),
            adversary=Adversary.CURIOUS,
            corrupt="0.2",
            dropout="0.2",
            cost_model=cost_model,
        )  # type: ignore[arg-type]
        return Client(IDENTITIES[0], ROSTER, policy=policy).start(plan, np.zeros(100_000))

    lax = proposed(protocol, cost_model="standard")
    assert started(lax, "standard")
    with pytest.raises(PolicyError, match="the ring has 128 bits of security by the standard, and not by core-SVP"):
        started(lax, "core-svp")
    if protocol != "ckks":
        assert started(proposed(protocol), "core-svp")
    condition = "self.cost_model is CostModel.CORE_SVP and cost_model is not CostModel.CORE_SVP"
    switch_off(monkeypatch, Policy, "check_cost_model", condition)
    assert started(lax, "core-svp")
