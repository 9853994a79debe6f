"""The network that is made up: it loses as many as it says, when it says.

Statistical tests: fixed seeds; 4000 clients. By Hoeffding, a count is further than 240 from its mean with probability
below 2e-12; by Bernstein, one of mean 200 further than 120 with probability below 2e-13. Ten counts are looked at.
"""

from __future__ import annotations

from collections import Counter
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.aggregator import Request
from recsys.deployment import Deployment
from recsys.network import Network
from recsys.secure_aggregator import SecureAggregator
from secagg.encoding import Encoding
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.aggregation import NAMES as EIGHT
from tests.scenes.aggregation import SECRET, update

PHASES = ["advertise", "share", "upload", "reveal"]
NAMES = [str(number) for number in range(4000)]
FAR = 240


def silent(network: Network, seed: int = 1) -> dict[str, str]:
    return dict(network.faults(NAMES, PHASES, seed).dropouts)


def test_without_dropout_and_deadline_nobody_is_lost() -> None:
    assert silent(Network(latency=1e9, spread=3.0)) == {}


def test_clients_vanish_at_the_rate_and_in_any_phase() -> None:
    lost = silent(Network(dropout=0.2))
    assert abs(len(lost) - 800) < FAR
    phases = Counter(lost.values())
    assert all(abs(phases[phase] - 200) < FAR / 2 for phase in PHASES)


def test_control_another_rate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Network, "faults", "rng.random(len(names)) < self.dropout", "rng.random(len(names)) < 0.3")
    assert abs(len(silent(Network(dropout=0.2))) - 800) > FAR


def first_late(chance: float) -> list[float]:
    """How many of 4000 fall silent in each phase, on average, if an answer is late with this chance."""
    return [4000 * (1 - chance) ** number * chance for number in range(len(PHASES))]


def test_a_client_falls_silent_in_the_first_phase_in_which_it_is_late() -> None:
    network = Network(latency=2.0, spread=0.5, deadline=3.0)
    chance = 1 - NormalDist(0, 0.5).cdf(0.4054651)  # ln(3 / 2)
    phases = Counter(silent(network).values())
    assert chance == pytest.approx(0.2087, abs=1e-4)
    for phase, expected in zip(PHASES, first_late(chance), strict=True):
        assert abs(phases[phase] - expected) < FAR


def test_control_a_deadline_for_all_phases_together_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    late = "takes > self.deadline"
    switch_off(monkeypatch, Network, "faults", late, "takes.cumsum(axis=1) > self.deadline")
    phases = Counter(silent(Network(latency=2.0, spread=0.5, deadline=3.0)).values())
    assert any(abs(phases[phase] - mean) > FAR for phase, mean in zip(PHASES, first_late(0.2087), strict=True))


@given(seed=st.integers(0, 2**62), deadline=st.floats(0.1, 5), more=st.floats(0, 5), dropout=st.floats(0, 0.9))
def test_whoever_is_patient_loses_nobody_earlier(seed: int, deadline: float, more: float, dropout: float) -> None:
    names = NAMES[:30]
    short, long = (
        Network(dropout=dropout, deadline=each).faults(names, PHASES, seed).dropouts
        for each in (deadline, deadline + more)
    )
    assert short.keys() >= long.keys()
    assert all(PHASES.index(short[name]) <= PHASES.index(phase) for name, phase in long.items())


def test_everybody_too_slow_and_everybody_in_time() -> None:
    assert set(silent(Network(latency=2.0, spread=0.0, deadline=1.0)).values()) == {"advertise"}
    assert silent(Network(latency=1.0, spread=0.0, deadline=2.0)) == {}


def test_the_seed_decides() -> None:
    network = Network(dropout=0.3, deadline=2.0)
    assert silent(network, 1) == silent(network, 1) != silent(network, 2)


def test_in_a_sum_the_late_are_missing_from_the_phase_on_in_which_they_are_late() -> None:
    """With their vectors in, they are in the sum, though later they are silent. Phases are those that took place."""
    network, seed = Network(latency=1.0, spread=0.4, deadline=2.0), 0
    aggregator = SecureAggregator(Deployment(dropout="0.4"), SECRET, network=network, seed=seed)
    result = aggregator.aggregate(Request(0, "test", EIGHT, Encoding.integers(5)), update)
    phases = list(result.seconds)[1:]
    lost = network.faults(EIGHT, phases, seed << 32).dropouts
    early = {name for name, phase in lost.items() if phases.index(phase) <= phases.index("upload")}
    assert len(set(lost) - early) > 0 < len(early)
    assert set(result.survivors) == set(EIGHT) - early
    assert result.silent == Counter(lost.values())


@pytest.mark.parametrize(
    "wrong",
    [{"dropout": 1.0}, {"dropout": -0.1}, {"latency": 0.0}, {"spread": -1.0}, {"deadline": -1.0}],
)
def test_impossible_networks_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Network(**wrong)
