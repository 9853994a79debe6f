"""The cost model against the real thing: bytes of real frames, proofs of real trees, plans of real trees of cohorts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.studies.scale.deployments import BEACON, MODELS, Deployment, cost
from benchmarks.studies.scale.lattice_pieces import measure_ckks
from benchmarks.studies.scale.trees import marked, tree
from protocols import registry
from protocols.costs.proofs import proof_of, random_proof
from protocols.costs.roles import Cost
from protocols.costs.units import UnitCosts
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, Simulation, local_clients, simulate
from protocols.tree import Terms, Tree, encoding_above
from secagg.crypto.merkle import MerkleTree, leaf
from secagg.crypto.prg import Prg
from secagg.errors import UsageError

NEEDS = {"oneshot": "numba", "threshold_ckks": "numba", "ckks": "tenseal"}
EACH = UnitCosts(**{field.name: 1e-6 for field in fields(UnitCosts)})
"""Everything takes a microsecond."""


def need(protocol: str) -> None:
    if protocol in NEEDS:
        pytest.importorskip(NEEDS[protocol], reason=f"NOT TESTED: {protocol} needs {NEEDS[protocol]}")


def test_every_protocol_has_a_model() -> None:
    assert set(MODELS) == set(registry.names())


# Bytes


def real_round(protocol: str, deployment: Deployment, graph: int = 0) -> tuple[RoundPlan, Simulation]:
    policy = Policy(
        min_contributors=2,
        protocols={protocol},
        adversary=rules_of(protocol).against,
        corrupt=0,
        dropout=0,
        beacon=BEACON,
    )
    roster, clients = local_clients(deployment.n, policy, Prg(bytes(32)))
    plan = replace(deployment.proposed(protocol, roster), session=bytes([graph] * 16))  # the same every time
    silent = dict.fromkeys(roster.names[:: deployment.n // max(deployment.silent, 1)][: deployment.silent], "upload")
    updates = {name: np.ones(deployment.d) for name in clients}
    return plan, simulate(serve(plan, roster), clients, updates.get, faults=Faults(dropouts=silent))


def mean_of(rounds: Sequence[Mapping[str, int]]) -> dict[str, float]:
    return {phase: sum(one[phase] for one in rounds) / len(rounds) for phase in rounds[0]}


def by_phase(of: Cost) -> tuple[dict[str, float], dict[str, float]]:
    up, down = defaultdict[str, float](float), defaultdict[str, float](float)
    for role in of.roles:
        for step in role.steps:
            up[step.phase] += role.count * step.up
            down[step.phase] += role.count * step.down
    return up, down


def check_bytes(protocol: str, deployment: Deployment, units: UnitCosts, *, rel: float, graphs: int = 1) -> None:
    """Predicted bytes against the mean of real rounds on so many graphs."""
    found = [real_round(protocol, deployment, graph) for graph in range(graphs)]
    plan, rounds = found[0][0], [real for _plan, real in found]
    real_up, real_down = mean_of([one.bytes_up for one in rounds]), mean_of([one.bytes_down for one in rounds])
    up, down = by_phase(cost(protocol, deployment, units))
    first = next(iter(up))
    assert down.pop(first) == pytest.approx(deployment.n * len(plan.encode()))
    assert dict(up) == pytest.approx(real_up, rel=rel)
    assert {phase: down[phase] for phase in real_down} == pytest.approx(real_down, rel=rel)
    assert sum(up.values()) == pytest.approx(sum(real_up.values()), rel=rel / 10)
    assert sum(down.values()) == pytest.approx(sum(real_down.values()), rel=rel / 5)


@pytest.mark.parametrize("gone", [0, Fraction(1, 6)])
@pytest.mark.parametrize("protocol", ["secagg", "oneshot", "threshold_ckks"])
def test_predicted_bytes_are_the_real_ones(protocol: str, gone: Fraction) -> None:
    need(protocol)
    deployment = Deployment(12, 40, dropout=Fraction(1, 4), gone=Fraction(gone), minimum=5)
    check_bytes(protocol, deployment, EACH, rel=1e-12)


def test_predicted_bytes_on_a_ring_are_right_on_average() -> None:
    few = Fraction(1, 50)
    deployment = Deployment(100, 40, corrupt=few, dropout=few, gone=few, minimum=60)
    assert deployment.plan("secagg+").parameters.degree < 99  # type: ignore[attr-defined]
    check_bytes("secagg+", deployment, EACH, rel=0.1, graphs=4)  # one of them is 2% beside the mean


def test_predicted_bytes_under_ckks_are_right_on_average() -> None:
    need("ckks")
    units = replace(EACH, **{name: size for name, size in measure_ckks(1).items() if name.endswith("_bytes")})
    check_bytes("ckks", Deployment(16, 3000, minimum=8), units, rel=0.1)


# Proofs


@given(st.data())
def test_proofs_have_as_many_nodes_as_real_ones(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 70))
    chosen = data.draw(st.sets(st.integers(0, width - 1), min_size=1))
    tree_of = MerkleTree([leaf(i, b"") for i in range(width)])
    assert proof_of(width, chosen).nodes == len(tree_of.proof(chosen))


@pytest.mark.parametrize("leaves", [2, 100, 3000])
def test_expected_proofs_are_the_mean_of_drawn_ones(leaves: int) -> None:
    """Fixed seed. The width is no power of two; standard errors of the means are below 0.5%."""
    width, rng = 6000, np.random.default_rng(5)
    drawn = [proof_of(width, rng.choice(width, leaves, replace=False).tolist()) for _ in range(20 + 2000 // leaves)]
    expected = random_proof(width, leaves)
    assert expected.nodes == pytest.approx(np.mean([proof.nodes for proof in drawn]), rel=0.03)
    assert expected.steps == pytest.approx(np.mean([proof.steps for proof in drawn]), rel=0.03)


# Sense


@pytest.mark.parametrize("protocol", list(MODELS))
def test_more_clients_or_coordinates_cost_more(protocol: str) -> None:
    if protocol == "ckks":
        need(protocol)
    base = Deployment(200, 10_000, minimum=50)
    small = cost(protocol, base, EACH)
    for larger in (replace(base, n=800), replace(base, d=100_000)):
        large = cost(protocol, larger, EACH)
        for what in ("up", "down", "clients_s", "server_s", "server_memory"):
            less, more = getattr(small, what), getattr(large, what)
            assert more > less or (what == "down" and large.client.down == small.client.down), what
        assert large.client.up >= small.client.up


@pytest.mark.parametrize("protocol", list(MODELS))
def test_all_clients_are_counted_once(protocol: str) -> None:
    if protocol == "ckks":
        need(protocol)
    for gone in (Fraction(0), Fraction(1, 10)):
        roles = cost(protocol, Deployment(200, 100, gone=gone), EACH).roles
        assert sum(role.count for role in roles) == pytest.approx(200)
        assert sum(role.count for role in roles if role.name == "gone") == pytest.approx(200 * gone)


def test_dropouts_cost_the_server_masks_and_nothing_else() -> None:
    for protocol, dear in (("secagg+", True), ("oneshot", False), ("threshold_ckks", False)):
        quiet, dropped = (
            cost(protocol, Deployment(500, 10**6, gone=gone), EACH).server_s for gone in (Fraction(0), Fraction(1, 10))
        )
        assert (dropped > 2 * quiet) is dear


def test_a_member_of_a_committee_is_the_heaviest_client() -> None:
    of = cost("oneshot", Deployment(1000, 100), EACH)
    assert of.client.name == "client"
    assert of.heaviest.name == "member"
    assert of.heaviest.down > 20 * of.client.down


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 1},
        {"d": 0},
        {"minimum": 1},
        {"minimum": 11},
        {"gone": Fraction(1)},
        {"gone": Fraction(-1)},
        {"gone": Fraction(9, 10)},
        {"bits": 40},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        cost("secagg+", replace(Deployment(10, 10), **wrong), EACH)


def test_what_the_protocols_do_not_do_has_no_cost() -> None:
    for protocol, n in (("secagg", 10**8), ("secagg+", 10**8), ("oneshot", 10**8), ("threshold_ckks", 1025)):
        with pytest.raises(UsageError):
            cost(protocol, Deployment(n, 10), EACH)
    if find_spec("tenseal") is not None:
        with pytest.raises(UsageError, match="4096"):
            cost("ckks", Deployment(5000, 10), EACH)
    with pytest.raises(UsageError, match="unknown protocol"):
        cost("rot13", Deployment(10, 10), EACH)
    with pytest.raises(UsageError, match="not negative"):
        replace(EACH, verify=-1)


# Trees


def test_levels_are_those_of_a_real_tree() -> None:
    of = tree("secagg+", Deployment(400, 10, minimum=20), 100, EACH)
    assert [(level.cohorts, level.deployment.n) for level in of.levels] == [(4, 100), (1, 4)]
    rng = Prg(bytes(32))
    clients = Roster.of([Identity.generate(f"client-{i}", rng) for i in range(400)])
    leaders = Roster.of([Identity.generate(f"leader-{i}", rng) for i in range(4)])
    real = Tree((clients, leaders), size=100, beacon=bytes(32), terms=(Terms(20), Terms(2)))
    assert real.marked(0, "0.05") == 100 * marked(400, 4, Fraction(1, 20), 40)
    below, above = (level.deployment.plan("secagg+") for level in of.levels)
    assert encoding_above([below], 0) == above.encoding
    assert of.noise == 2


def test_three_levels_of_wide_sums_do_not_fit() -> None:
    assert len(tree("secagg+", Deployment(10**6, 10), 1000, EACH).levels) == 2
    with pytest.raises(UsageError, match="1 to 32 bits"):
        tree("secagg+", Deployment(10**8, 10), 1000, EACH)
    assert len(tree("secagg+", Deployment(10**8, 10, bits=8), 1000, EACH).levels) == 3
